"""Clips whose frames lie in the batch: images, as two-dimensional operations read them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

FIRST_TO_LAST, LAST_TO_FIRST = [0, 2, 3, 4, 1], [0, 4, 1, 2, 3]  # permutations of a clip that move its channels


class Frames:
    """A clip whose frames lie in the batch."""

    def __init__(self, images: Tensor, count: int, last: bool = False) -> None:
        """images: (batch × count, channels, height, width); last: the graph has the channels last."""
        self.images, self.count, self.last = images, count, last

    def of(self, images: Tensor, count: int | None = None) -> Frames:
        """Other images in the same order of axes."""
        return Frames(images, count or self.count, self.last)

    def clip(self) -> Tensor:
        """The clip as the graph knows it."""
        clip = by_clip(self.images, self.count)
        return clip if self.last else clip.permute(LAST_TO_FIRST)


def restored(value: Any) -> Any:
    """A clip as the graph knows it; anything else as it is."""
    return value.clip() if isinstance(value, Frames) else value


def as_frames(value: Tensor | Frames) -> Frames:
    """The frames of a clip (batch, channels, frames, height, width)."""
    if isinstance(value, Frames):
        return value
    return Frames(as_images(value.permute(FIRST_TO_LAST)), value.shape[2])


def by_clip(images: Tensor, count: int) -> Tensor:
    """Images (batch × count, channels, height, width) to clips (batch, count, height, width, channels).

    With the channels last, as TensorFlow Lite keeps images, this moves no data.
    """
    return images.permute(0, 2, 3, 1).reshape(-1, count, *images.shape[2:], images.shape[1])


def as_images(clip: Tensor) -> Tensor:
    """The other way round."""
    return clip.reshape(-1, *clip.shape[2:]).permute(0, 3, 1, 2)


def along_time(x: Frames) -> Tensor:
    """Images (batch, channels, count, height × width), in which time is the height."""
    return (
        x.images.permute(0, 2, 3, 1).reshape(-1, x.count, x.images[0, 0].numel(), x.images.shape[1]).permute(0, 3, 1, 2)
    )


def from_time(x: Frames, images: Tensor) -> Frames:
    """The other way round, with the height and width of x."""
    count = images.shape[2]
    flat = images.permute(0, 2, 3, 1).reshape(-1, *x.images.shape[2:], images.shape[1])
    return x.of(flat.permute(0, 3, 1, 2), count)
