"""Convolutions and max pooling over clips as two-dimensional operations, for training on a CPU and for exported files.

With the channels last in memory a clip is, without a copy, a batch of frames, and also a batch of images whose height
is time and whose width is every pixel of a frame. Training needs these forms because torch 2.14 is slow on a CPU at
convolutions over time and at the gradient of depthwise ones (up to ten times), and computes wrong gradients of
convolutions over few frames: values of 1e30 from uninitialised memory, seen with 2 frames and kernels of 3 in bfloat16,
and with 7 and 7 in float32. Exported files need them because TensorFlow Lite has neither a depthwise nor an int8
three-dimensional convolution, and no pooling over time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

Triple = tuple[int, ...]  # of time, height and width


@dataclass
class Frames:
    """A clip as a batch of images (batch × count, channels, height, width).

    channels_last: whether `clip` restores (batch, count, height, width, channels), else torch's usual order of axes.
    A count of 0 stands for images that are no clip, (batch, height, width, channels).
    """

    images: Tensor
    count: int
    channels_last: bool = False

    @classmethod
    def of(cls, clip: Tensor, channels_last: bool = False) -> Frames:
        """Split a clip into images; `clip` joins them again."""
        clip = clip if channels_last else clip.permute(0, 2, 3, 4, 1)
        count, *sides = map(int, clip.shape[1:])  # numbers where a graph is traced, too
        return cls(clip.reshape(-1, *sides).permute(0, 3, 1, 2), count, channels_last)

    def clip(self) -> Tensor:
        """The images joined to a clip of five axes."""
        return self.unfold() if self.channels_last else self.unfold().permute(0, 4, 1, 2, 3)

    def unfold(self) -> Tensor:
        """The images as (batch, count, height, width, channels)."""
        images = self.images.permute(0, 2, 3, 1)
        return images.reshape(-1, self.count, *map(int, images.shape[1:])) if self.count else images

    def fold(self, clip: Tensor) -> Frames:
        """What was computed from `unfold`, as frames of this clip's order of axes."""
        return replace(Frames.of(clip, channels_last=True), channels_last=self.channels_last)

    def each(self, layer: Callable[[Tensor], Tensor]) -> Frames:
        """Apply a layer to every image."""
        return replace(self, images=layer(self.images))

    def over_time(self, layer: Callable[[Tensor], Tensor]) -> Frames:
        """Apply a layer to images (batch, channels, count, height × width); it must keep the width."""
        channels, height, width = map(int, self.images.shape[1:])
        columns = self.images.permute(0, 2, 3, 1).reshape(-1, self.count, height * width, channels)
        result = layer(columns.permute(0, 3, 1, 2))
        images = result.permute(0, 2, 3, 1).reshape(-1, height, width, int(result.shape[1]))
        return Frames(images.permute(0, 3, 1, 2), int(result.shape[2]), self.channels_last)


# ---- convolutions ----------------------------------------------------------------------------------------


class Convolution(NamedTuple):
    """A three-dimensional convolution prepared as one or more two-dimensional ones, by `flatten_convolution`.

    Each weight is (outputs, inputs / groups, height, width).
    """

    form: Callable[[Frames, Convolution], Frames]
    weights: list[Tensor]
    bias: Tensor | None
    size: Triple
    stride: Triple
    padding: Triple
    groups: int

    def images(self, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve single images with one of the weights."""
        return functional.conv2d(images, weight, bias, self.stride[1:], self.padding[1:], 1, self.groups)

    def steps(self, count: int) -> int:
        """Number of frames that come out when `count` go in."""
        return (count + 2 * self.padding[0] - self.size[0]) // self.stride[0] + 1


def flatten_convolution(
    weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Convolution | None:
    """Prepare a convolution given by the arguments of torch's conv3d; None if it has no two-dimensional form here."""
    size, stride = tuple(weight.shape[2:]), triple(stride)
    if isinstance(padding, str):
        if padding == "same" and not all(side % 2 for side in size):
            return None  # torch pads more on one side
        padding = [side // 2 if padding == "same" else 0 for side in size]
    padding = triple(padding)
    if triple(dilation) != (1, 1, 1):
        return None
    if size[0] == stride[0] == 1 and padding[0] == 0:
        form, weights = _frame_by_frame, [weight[:, :, 0]]
    elif size[1:] == stride[1:] == (1, 1) and padding[1:] == (0, 0):
        form, weights = _over_time, [weight[..., 0]]
    elif groups > 1 and 2 * padding[0] < size[0]:
        form, weights = _shifted, list(weight.unbind(2))
    elif groups == 1:
        form, weights = _stacked, [weight.permute(0, 2, 1, 3, 4).flatten(1, 2)]
    else:
        return None
    return Convolution(form, weights, bias, size, stride, padding, groups)


def triple(value: Sequence[int] | int) -> Triple:
    """The values for time, height and width, where torch accepts one for all three."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * 3 if len(values) == 1 else values


def _frame_by_frame(x: Frames, conv: Convolution) -> Frames:
    return x.each(lambda images: conv.images(images, conv.weights[0], conv.bias))


def _over_time(x: Frames, conv: Convolution) -> Frames:
    stride, padding = (conv.stride[0], 1), (conv.padding[0], 0)
    return x.over_time(
        lambda columns: functional.conv2d(columns, conv.weights[0], conv.bias, stride, padding, 1, conv.groups)
    )


def _shifted(x: Frames, conv: Convolution) -> Frames:
    """A grouped t × k × k convolution: t of them over single images, whose results are shifted in time and added."""
    stride, centre, steps = conv.stride[0], conv.padding[0], conv.steps(x.count)
    biases = [conv.bias if tap == centre else None for tap in range(conv.size[0])]
    taps = [
        x.each(lambda images, own=own: conv.images(images, *own)).unfold()
        for own in zip(conv.weights, biases, strict=True)
    ]
    # This tap meets a frame at every step, so it needs no padding and can have the bias.
    total = taps[centre][:, : (steps - 1) * stride + 1 : stride]
    for tap, result in enumerate(taps):
        first, last = max(0, -((tap - centre) // stride)), min(steps - 1, (x.count - 1 + centre - tap) // stride)
        if tap != centre and first <= last:
            inside = result[:, first * stride + tap - centre : last * stride + tap - centre + 1 : stride]
            total = total + functional.pad(inside, (0,) * 6 + (first, steps - 1 - last))
    return x.fold(total)


def _stacked(x: Frames, conv: Convolution) -> Frames:
    """A t × k × k convolution as one over images that hold the channels of t frames."""
    padding, stride, steps = conv.padding[0], conv.stride[0], conv.steps(x.count)
    clip = functional.pad(x.unfold(), (0,) * 6 + (padding, padding))
    reach = stride * (steps - 1) + 1
    taps = torch.cat([clip[:, tap : tap + reach : stride] for tap in range(conv.size[0])], -1)
    return x.fold(taps).each(lambda images: conv.images(images, conv.weights[0], conv.bias))


def max_pool(
    x: Frames, window: Triple, stride: Triple, padding: Triple, pool: Callable[..., Tensor] = functional.max_pool2d
) -> Frames:
    """Max pooling of each image, then over time, by a function of images, window, stride and padding."""
    if window[1:] != (1, 1) or stride[1:] != (1, 1):
        x = x.each(lambda images: pool(images, window[1:], stride[1:], padding[1:]))
    if window[0] > 1 or stride[0] > 1:
        x = x.over_time(lambda columns: pool(columns, (window[0], 1), (stride[0], 1), (padding[0], 0)))
    return x


# ---- modules of networks that train ----------------------------------------------------------------------


def flatten_convolutions(network: nn.Module) -> None:
    """Change a network in place to train on a CPU by the forms above, except for ungrouped t × k × k convolutions.

    On other devices, and for inference, the modules stay torch's own.
    """
    for module in network.modules():
        if isinstance(module, nn.MaxPool3d):
            module.__class__ = FlatMaxPool3d
        elif isinstance(module, nn.Conv3d) and (conv := _prepare(module)) and conv.form is not _stacked:
            module.__class__ = FlatConv3d


def _prepare(module: nn.Conv3d) -> Convolution | None:
    return flatten_convolution(
        module.weight, module.bias, module.stride, module.padding, module.dilation, module.groups
    )


class FlatConv3d(nn.Conv3d):
    """A convolution of clips that are channels_last_3d in memory."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or x.device.type != "cpu":
            return super().forward(x)
        conv = _prepare(self)
        if self.groups > 1 and self.stride[1] > 1:  # its gradient is slow in bfloat16
            with torch.autocast("cpu", enabled=False):
                return conv.form(Frames.of(x.float()), conv).clip().to(x.dtype)
        return conv.form(Frames.of(x), conv).clip()


class FlatMaxPool3d(nn.MaxPool3d):
    """Max pooling of clips that are channels_last_3d in memory; without dilation or ceil_mode."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or x.device.type != "cpu":
            return super().forward(x)
        return max_pool(Frames.of(x), triple(self.kernel_size), triple(self.stride), triple(self.padding)).clip()
