"""What a network does to clips, done to images: a rule for each operation of torch's that is not by single values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from lib.export.frames import (
    FIRST_TO_LAST,
    LAST_TO_FIRST,
    Frames,
    along_time,
    as_frames,
    as_images,
    by_clip,
    from_time,
    restored,
)

aten = torch.ops.aten
CONVOLUTIONS = (aten.conv3d.default, aten.conv3d.padding)

# ---- convolutions ----------------------------------------------------------------------------------------


class Convolution(NamedTuple):
    """A three-dimensional convolution as two-dimensional ones; all but the groups are of time, height and width."""

    way: Callable[[Frames, Convolution], Frames]
    weights: list[Tensor]  # each (outputs, inputs, height, width)
    bias: Tensor | None
    size: Sequence[int]
    stride: Sequence[int]
    padding: Sequence[int]
    groups: int

    def images(self, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve single images."""
        return functional.conv2d(images, weight, bias, self.stride[1:], self.padding[1:], 1, self.groups)

    def steps(self, count: int) -> int:
        """How many frames it makes of so many."""
        return (count + 2 * self.padding[0] - self.size[0]) // self.stride[0] + 1


def convolution(
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1, 1),
    padding: Sequence[int] | str = (0, 0, 0),
    dilation: Sequence[int] = (1, 1, 1),
    groups: int = 1,
) -> Convolution | None:
    """Prepare a convolution, given as torch has it; None for a dilated one."""
    if any(step != 1 for step in dilation):
        return None
    size, stride = tuple(weight.shape[2:]), triple(stride)
    if isinstance(padding, str):
        padding = [side // 2 if padding == "same" else 0 for side in size]
    padding = triple(padding)
    if size[0] == stride[0] == 1 and padding[0] == 0:
        way, weights = frame_by_frame, [weight[:, :, 0]]
    elif size[1:] == stride[1:] == (1, 1) and padding[1:] == (0, 0):
        way, weights = over_time, [weight[..., 0]]
    elif groups > 1:
        way, weights = shifted, list(weight.unbind(2))
    else:
        way, weights = stacked, [weight.permute(0, 2, 1, 3, 4).flatten(1, 2)]
    return Convolution(way, weights, bias, size, stride, padding, groups)


def convolve(_: Any, x: Any, weight: Tensor | Convolution, *more: Any, **options: Any) -> Any:
    """Any three-dimensional convolution, but not a dilated one."""
    form = weight if isinstance(weight, Convolution) else convolution(weight, *more, **options)
    return form.way(as_frames(x), form) if form else NotImplemented


def frame_by_frame(x: Frames, form: Convolution) -> Frames:
    """A convolution 1 × k × k."""
    return x.of(form.images(x.images, form.weights[0], form.bias))


def over_time(x: Frames, form: Convolution) -> Frames:
    """A convolution t × 1 × 1: one over images in which time is the height and all pixels are the width."""
    step, around = (form.stride[0], 1), (form.padding[0], 0)
    return from_time(x, functional.conv2d(along_time(x), form.weights[0], form.bias, step, around, 1, form.groups))


def shifted(x: Frames, form: Convolution) -> Frames:
    """A grouped convolution t × k × k: t of them over single images, each shifted in time, added up."""
    biases = [form.bias] + [None] * (len(form.weights) - 1)
    parts = [form.images(as_images(tap), *own) for tap, *own in zip(taps(x, form), form.weights, biases, strict=True)]
    return x.of(sum(parts[1:], parts[0]), form.steps(x.count))


def stacked(x: Frames, form: Convolution) -> Frames:
    """A convolution t × k × k: one over single images that have the channels of t frames."""
    images = as_images(torch.cat(taps(x, form), -1))
    return x.of(form.images(images, form.weights[0], form.bias), form.steps(x.count))


def taps(x: Frames, form: Convolution) -> list[Tensor]:
    """For each frame of the kernel the frames that it meets, (batch, steps, height, width, channels)."""
    around, step = form.padding[0], form.stride[0]
    clip = functional.pad(by_clip(x.images, x.count), (0,) * 6 + (around, around))
    reach = step * (form.steps(x.count) - 1) + 1
    return [clip[:, tap : tap + reach : step] for tap in range(form.size[0])]


def triple(value: Sequence[int] | int) -> tuple[int, ...]:
    """The same for time, height and width where there is one value."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * 3 if len(values) == 1 else values


# ---- pooling ---------------------------------------------------------------------------------------------


def max_pool(
    _: Any,
    x: Any,
    window: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0, 0),
    dilation: Sequence[int] = (1, 1, 1),
    ceil: bool = False,
) -> Any:
    """The greatest of each window: first of each image, then over time."""
    window, padding = triple(window), triple(padding)
    stride = triple(stride or window)
    if ceil or any(step != 1 for step in triple(dilation)):
        return NotImplemented
    x = as_frames(x)
    if window[1:] != (1, 1) or stride[1:] != (1, 1):
        x = x.of(pool_images(x.images, window[1:], stride[1:], padding[1:]))
    if window[0] > 1 or stride[0] > 1:
        x = from_time(x, pool_images(along_time(x), (window[0], 1), (stride[0], 1), (padding[0], 0)))
    return x


def pool_images(images: Tensor, window: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    """The greatest of each window of images.

    TensorFlow Lite knows the padding by which the size stays the same.
    """
    if all(step == 1 and 2 * side + 1 == length for step, side, length in zip(stride, padding, window, strict=True)):
        return functional.max_pool2d(images, window, stride, padding)
    return functional.max_pool2d(repeat_edges(images, [(side, side) for side in padding]), window, stride)


def repeat_edges(images: Tensor, around: Sequence[tuple[int, int]]) -> Tensor:
    """Pad before and behind the height (and the width) with what lies at the edge.

    That changes no maximum, as each window that reaches over an edge holds it, too; least values, with which torch
    pads, would make the range of an int8 file useless.
    """
    clip = images.permute(0, 2, 3, 1)
    for axis, (before, behind) in enumerate(around, start=1):
        first, last = clip.narrow(axis, 0, 1), clip.narrow(axis, clip.shape[axis] - 1, 1)
        if before or behind:
            clip = torch.cat([first] * before + [clip] + [last] * behind, axis)
    return clip.permute(0, 3, 1, 2)


def average_pool(
    _: Any, x: Any, window: Sequence[int], stride: Sequence[int] = (), padding: Sequence[int] = (0,), *more: Any
) -> Any:
    """The mean of each window, without padding."""
    window, stride = triple(window), triple(stride or window)
    if any(triple(padding)) or any(more):
        return NotImplemented
    x = as_frames(x)
    x = x.of(functional.avg_pool2d(x.images, window[1:], stride[1:]))
    return from_time(x, functional.avg_pool2d(along_time(x), (window[0], 1), (stride[0], 1)))


def mean(_: Any, x: Any, axes: Sequence[int], keep: bool = False) -> Any:
    """The mean over time, height and width; a clip of one frame of one pixel, or (batch, channels)."""
    if not isinstance(x, Frames) or sorted(axis % 5 for axis in axes) != ([1, 2, 3] if x.last else [2, 3, 4]):
        return NotImplemented
    means = x.images.mean((2, 3)).reshape(-1, x.count, x.images.shape[1]).mean(1)
    return x.of(means[:, :, None, None], 1) if keep else means


def adaptive_pool(target: Any, x: Any, size: Sequence[int]) -> Any:
    """As `mean`, where one value is wanted."""
    return mean(target, as_frames(x), [2, 3, 4], True) if set(size) == {1} else NotImplemented


# ---- all else --------------------------------------------------------------------------------------------


def each(target: Callable, x: Any, *more: Any, **options: Any) -> Any:
    """An operation on every value by itself."""
    return x.of(target(x.images, *more, **options)) if isinstance(x, Frames) else NotImplemented


def both(target: Callable, a: Any, b: Any, **options: Any) -> Any:
    """An operation on pairs of values: of clips, of a clip and one of a single frame, of a clip and numbers."""
    if not isinstance(a, Frames):
        return NotImplemented
    if isinstance(b, Tensor):
        b = per_channel(a, b)
    if not isinstance(b, Frames):
        return NotImplemented if b is None else a.of(target(a.images, b, **options))
    if a.last != b.last:
        return NotImplemented
    if a.count == b.count:
        return a.of(target(a.images, b.images, **options))
    clips = target(by_clip(a.images, a.count), by_clip(b.images, b.count), **options)
    return a.of(as_images(clips), clips.shape[1])


def per_channel(x: Frames, values: Tensor) -> Tensor | None:
    """A number for each channel, as images want them; one for all as it is; None for anything else."""
    if values.numel() == 1:
        return values
    axis = values.ndim - 1 if x.last else values.ndim - 4
    fits = axis >= 0 and values.shape[axis] == values.numel() == x.images.shape[1]
    return values.reshape(1, -1, 1, 1) if fits else None  # of four axes, as the images: their layout is turned together


def join(_: Any, parts: Sequence[Any], axis: int = 0) -> Any:
    """Clips beside each other, by their channels."""
    if not all(isinstance(part, Frames) for part in parts):
        return NotImplemented
    first = parts[0]
    if axis % 5 != (4 if first.last else 1) or any(part.last != first.last for part in parts):
        return NotImplemented
    return first.of(torch.cat([part.images for part in parts], 1))


def permute(_: Any, x: Any, order: Sequence[int]) -> Any:
    """Moving the channels to the other end of the axes changes no image."""
    if isinstance(x, Frames) and list(order) == (LAST_TO_FIRST if x.last else FIRST_TO_LAST):
        return Frames(x.images, x.count, not x.last)
    return NotImplemented


def move_axis(_: Any, x: Any, source: int, target: int) -> Any:
    """A permutation, by what it is; torch's ONNX exporter does not know an axis that counts from the end."""
    axes = [axis for axis in range(5) if axis != source % 5]
    axes.insert(target % 5, source % 5)
    if isinstance(x, Frames) or x.ndim != 5:
        result = permute(_, x, axes)
        return restored(x).permute(axes) if result is NotImplemented and isinstance(x, Frames) else result
    return x.permute(axes)


def open_axis(_: Any, x: Any, axis: int) -> Any:
    """The number of clips, which no file knows: what is left over, to `reshape` and `broadcast_to`."""
    return -1 if axis == 0 else restored(x).shape[axis]


def reshape(target: Callable, x: Any, shape: Sequence[int]) -> Any:
    """Where the number of clips is open, no other axis may be left over: its length is computed."""
    x, shape = restored(x), list(shape)
    if shape.count(-1) == 2:
        shape[shape.index(-1, 1)] = math.prod(x.shape[1:]) // math.prod(side for side in shape if side != -1)
    return target(x, shape)


def linear(_: Any, x: Any, weight: Tensor, bias: Tensor | None = None) -> Any:
    """A matrix product of every pixel; TensorFlow Lite has none of five axes."""
    x = restored(x)
    if x.ndim < 5:
        return NotImplemented
    return functional.linear(x.reshape(-1, x.shape[-1]), weight, bias).reshape(-1, *x.shape[1:-1], len(weight))


def normalise(
    _: Any, x: Any, weight: Any, bias: Any, average: Tensor, variance: Tensor, training: bool, *more: Any
) -> Any:
    """Batch normalisation by fixed statistics."""
    if not isinstance(x, Frames) or x.last or training:
        return NotImplemented
    epsilon = more[1]
    return x.of(functional.batch_norm(x.images, average, variance, weight, bias, False, 0.0, epsilon))


def pad(_: Any, x: Any, sides: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """Zeros, or repeated edges, around the height and width, and in time; sides: as torch has them, the last first."""
    if not isinstance(x, Frames) or x.last or len(sides) != 6 or mode not in ("constant", "replicate") or value:
        return NotImplemented
    width, height, time = (tuple(sides[at : at + 2]) for at in (0, 2, 4))
    if mode == "replicate":
        x = x.of(repeat_edges(x.images, [height, width]))
        return from_time(x, repeat_edges(along_time(x), [time])) if any(time) else x
    x = x.of(functional.pad(x.images, [*width, *height]))
    return from_time(x, functional.pad(along_time(x), [0, 0, *time])) if any(time) else x


VALUES = (aten.relu, aten.relu_, aten.silu, aten.silu_, aten.sigmoid)
PAIRS = (aten.add, aten.add_, aten.sub, aten.subtract, aten.mul, aten.mul_, aten.multiply)
RULES: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys(CONVOLUTIONS, convolve),
    aten.max_pool3d.default: max_pool,
    aten.avg_pool3d.default: average_pool,
    aten.adaptive_avg_pool3d.default: adaptive_pool,
    aten.mean.dim: mean,
    aten.cat.default: join,
    aten.permute.default: permute,
    aten.movedim.int: move_axis,
    aten.sym_size.int: open_axis,
    aten.reshape.default: reshape,
    aten.linear.default: linear,
    aten.batch_norm.default: normalise,
    aten.pad.default: pad,
    **{operation.default: each for operation in VALUES},
    **{operation.Tensor: both for operation in PAIRS},
}
