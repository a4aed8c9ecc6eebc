"""Torch operations on clips, done to images instead: one rule for each that is not element by element or on vectors.

A rule takes the operation and its arguments, in which clips are `Frames`, and returns NotImplemented for the arguments
that it does not cover.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lib.models.frames import Convolution, Frames, flatten_convolution, max_pool, triple

aten = torch.ops.aten
CONVOLUTIONS = (aten.conv3d.default, aten.conv3d.padding)
Sizes = Sequence[int]
CHANNELS_TO_LAST, CHANNELS_TO_SECOND = [0, 2, 3, 4, 1], [0, 4, 1, 2, 3]  # permutations of a clip


def restored(value: Any) -> Any:
    """Join Frames to the clip that the graph knows; anything else stays as it is."""
    return value.clip() if isinstance(value, Frames) else value


def _frames(value: Tensor | Frames) -> Frames:
    return value if isinstance(value, Frames) else Frames.of(value)


def _convolve(_: Any, x: Any, weight: Tensor | Convolution, *more: Any, **options: Any) -> Any:
    conv = weight if isinstance(weight, Convolution) else flatten_convolution(weight, *more, **options)
    return conv.form(_frames(x), conv) if conv else NotImplemented


# ---- pooling and padding ---------------------------------------------------------------------------------


def _max_pool(
    _: Any, x: Any, window: Sizes, stride: Sizes = (), padding: Sizes = (0,), dilated: Sizes = (1,), ceil: bool = False
) -> Any:
    if ceil or triple(dilated) != (1, 1, 1):
        return NotImplemented
    return max_pool(_frames(x), triple(window), triple(stride or window), triple(padding), _pool_images)


def _pool_images(images: Tensor, window: Sizes, stride: Sizes, padding: Sizes) -> Tensor:
    """Max pooling, with repeated edges for padding where TensorFlow Lite has no padding of its own.

    It has the one that keeps the size. Repeated edges change no maximum, as each window that reaches over an edge holds
    the edge; the lowest values, with which torch pads, would ruin the ranges of an int8 file.
    """
    if all(step == 1 and 2 * side + 1 == length for step, side, length in zip(stride, padding, window, strict=True)):
        return functional.max_pool2d(images, window, stride, padding)
    return functional.max_pool2d(_repeat_edges(images, [(side, side) for side in padding]), window, stride)


def _repeat_edges(images: Tensor, padding: Sequence[tuple[int, int]]) -> Tensor:
    """Pad the height, and the width if given, with what lies at the edges."""
    clip = images.permute(0, 2, 3, 1)
    for axis, (before, after) in enumerate(padding, start=1):
        if before or after:
            first, last = clip.narrow(axis, 0, 1), clip.narrow(axis, clip.shape[axis] - 1, 1)
            clip = torch.cat([first] * before + [clip] + [last] * after, axis)
    return clip.permute(0, 3, 1, 2)


def _average_pool(_: Any, x: Any, window: Sizes, stride: Sizes = (), padding: Sizes = (0,), *more: Any) -> Any:
    window, stride = triple(window), triple(stride or window)
    if any(triple(padding)) or any(more):
        return NotImplemented
    x = _frames(x).each(lambda images: functional.avg_pool2d(images, window[1:], stride[1:]))
    return x.over_time(lambda columns: functional.avg_pool2d(columns, (window[0], 1), (stride[0], 1)))


def _mean(_: Any, x: Any, axes: Sequence[int], keep: bool = False) -> Any:
    """The mean of each frame, or over time, too: (batch, channels), or a clip of one frame of one pixel."""
    if not isinstance(x, Frames) or not x.count:
        return NotImplemented
    means, axes = x.images.permute(0, 2, 3, 1).mean((1, 2)), sorted(axis % 5 for axis in axes)
    means = means.reshape(-1, x.count, means.shape[1])
    if x.channels_last and axes == [2, 3] and not keep:
        return means
    if axes != ([1, 2, 3] if x.channels_last else [2, 3, 4]):
        return NotImplemented
    means = means.mean(1)
    return Frames(means[:, :, None, None], 1, x.channels_last) if keep else means


def _adaptive_pool(target: Any, x: Any, size: Sequence[int]) -> Any:
    return _mean(target, _frames(x), [2, 3, 4], True) if set(size) == {1} else NotImplemented


def _pad(_: Any, x: Any, sides: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """Pad with zeros or repeated edges; sides: two of each axis from the last, as torch has them."""
    known = len(sides) == 6 and mode in ("constant", "replicate") and not value
    if known and not any(sides[:2]) and isinstance(x, Frames) and not x.count:
        # By way of clips, or litert-torch would transpose images that other operations read as well.
        apart = x if torch.jit.is_tracing() else Frames.of(replace(x, count=1).clip(), channels_last=True)
        return replace(apart, images=functional.pad(apart.images, sides[2:], mode), count=0)
    if known and not any(sides[:2]) and isinstance(x, Tensor) and x.ndim == 4:  # a convolution after it can take it in
        return Frames(functional.pad(x.permute(0, 3, 1, 2), sides[2:], mode), 0, channels_last=True)
    if not isinstance(x, Frames) or x.channels_last or not known:
        return NotImplemented
    width, height, time = (tuple(sides[at : at + 2]) for at in (0, 2, 4))

    def pad_images(images: Tensor, height: Sizes, width: Sizes = (0, 0)) -> Tensor:
        if mode == "replicate":
            return _repeat_edges(images, [height, width])
        return functional.pad(images, [*width, *height])

    x = x.each(lambda images: pad_images(images, height, width))
    return x.over_time(lambda columns: pad_images(columns, time)) if any(time) else x


# ---- arithmetic ------------------------------------------------------------------------------------------


def _elementwise(target: Callable, x: Any, *more: Any, **options: Any) -> Any:
    return x.each(lambda images: target(images, *more, **options)) if isinstance(x, Frames) else NotImplemented


def _pairwise(target: Callable, a: Any, b: Any, **options: Any) -> Any:
    """An operation on two clips, on a clip and one of a single frame, or on a clip and numbers."""
    if not isinstance(a, Frames):
        return _by_colour(target, a, b, **options)
    if isinstance(b, Tensor) and not a.count and b.ndim == 4:
        b = b.permute(0, 3, 1, 2)
    elif isinstance(b, Tensor) and a.channels_last and b.shape[1:] == (a.count, 1, 1, a.images.shape[1]):
        b = b.reshape(-1, a.images.shape[1], 1, 1)  # a number for each channel of each frame
    elif isinstance(b, Tensor) and b.numel() > 1:
        axis = b.ndim - 1 if a.channels_last else b.ndim - 4
        if axis < 0 or not b.shape[axis] == b.numel() == a.images.shape[1]:
            return NotImplemented
        b = b.reshape(1, -1, 1, 1)  # four axes, so that a converter that moves the channels moves these as well
    if not isinstance(b, Frames):
        return a.each(lambda images: target(images, b, **options))
    if a.channels_last != b.channels_last:
        return NotImplemented
    if a.count == b.count:
        return a.each(lambda images: target(images, b.images, **options))
    return a.fold(target(a.unfold(), b.unfold(), **options))


def _by_colour(target: Callable, a: Any, b: Any, **options: Any) -> Any:
    """An operation on a clip (batch, frames, height, width, 3) and numbers by colour, done to whole rows of pixels."""
    if not all(isinstance(value, Tensor) for value in (a, b)) or a.ndim != 5 or b.shape != a.shape[-1:]:
        return NotImplemented
    frames, height, width, colours = map(int, a.shape[1:])
    rows = a.reshape(-1, frames, height, width * colours)
    return target(rows, b.repeat(width), **options).reshape(-1, frames, height, width, colours)


def _normalise(_: Any, x: Any, weight: Any, bias: Any, mean: Tensor, variance: Tensor, *more: Any) -> Any:
    training, _, epsilon, _ = more
    if not isinstance(x, Frames) or x.channels_last or training:
        return NotImplemented
    return x.each(lambda images: functional.batch_norm(images, mean, variance, weight, bias, False, 0.0, epsilon))


def _linear(_: Any, x: Any, weight: Tensor, bias: Tensor | None = None) -> Any:
    """A matrix product for every pixel; TensorFlow Lite has none over five axes."""
    x = restored(x)
    if x.ndim < 5:
        return NotImplemented
    return functional.linear(x.reshape(-1, x.shape[-1]), weight, bias).reshape(-1, *x.shape[1:-1], len(weight))


# ---- axes ------------------------------------------------------------------------------------------------


def _concatenate(_: Any, parts: Sequence[Any], axis: int = 0) -> Any:
    if not all(isinstance(part, Frames) for part in parts):
        return NotImplemented
    last = parts[0].channels_last
    if axis % 5 != (4 if last else 1) or any(part.channels_last != last for part in parts):
        return NotImplemented
    return parts[0].each(lambda _: torch.cat([part.images for part in parts], 1))


def _permute(_: Any, x: Any, order: Sequence[int]) -> Any:
    """Moving the channels to the other end changes no image."""
    if isinstance(x, Tensor) and list(order) == [0, 2, 3, 1]:
        return Frames(x, 0, channels_last=True)
    if isinstance(x, Frames) and not x.count:
        return x.images if list(order) == [0, 3, 1, 2] else NotImplemented
    if isinstance(x, Frames) and list(order) == (CHANNELS_TO_SECOND if x.channels_last else CHANNELS_TO_LAST):
        return Frames(x.images, x.count, not x.channels_last)
    return NotImplemented


def _size(_: Any, x: Any, axis: int) -> Any:
    """The length of an axis; the number of clips is open, so it is -1 for `_reshape` and broadcast_to to infer."""
    return -1 if axis == 0 else restored(x).shape[axis]


def _reshape(target: Callable, x: Any, shape: Sequence[int]) -> Any:
    """A reshape; where the number of clips is to be inferred, a second length to infer is computed here.

    One between clips and images, with channels last, changes no image.
    """
    shape = list(shape)
    if isinstance(x, Frames) and x.channels_last and len(shape) in (4, 5) and shape[0] == -1 != shape[1]:
        height, width = x.images.shape[2:]
        if shape[-3:] == [height, width, x.images.shape[1]]:
            return replace(x, count=shape[1] if len(shape) == 5 else 0)
    x = restored(x)
    if shape.count(-1) == 2:
        shape[shape.index(-1, 1)] = math.prod(x.shape[1:]) // math.prod(side for side in shape if side != -1)
    return target(x, shape)


ELEMENTWISE = (aten.relu, aten.relu_, aten.relu6, aten.silu, aten.silu_, aten.sigmoid, aten.hardswish)
PAIRWISE = (aten.add, aten.add_, aten.sub, aten.subtract, aten.mul, aten.mul_, aten.multiply)
RULES: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys(CONVOLUTIONS, _convolve),
    aten.max_pool3d.default: _max_pool,
    aten.avg_pool3d.default: _average_pool,
    aten.adaptive_avg_pool3d.default: _adaptive_pool,
    aten.mean.dim: _mean,
    aten.cat.default: _concatenate,
    aten.permute.default: _permute,
    aten.sym_size.int: _size,
    aten.reshape.default: _reshape,
    aten.linear.default: _linear,
    aten.batch_norm.default: _normalise,
    aten.pad.default: _pad,
    **{operation.default: _elementwise for operation in ELEMENTWISE},
    **{operation.Tensor: _pairwise for operation in PAIRWISE},
}
