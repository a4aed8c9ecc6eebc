"""A network of three-dimensional convolutions as one of two-dimensional ones, in which the frames lie in the batch.

TensorFlow Lite has neither a depthwise nor an int8 three-dimensional convolution, and no pooling over time; on a
processor the two-dimensional ones are the fast ones. The graph that torch exports is run again, operation by operation:
clips (batch, channels, frames, height, width) become `Frames`, and what is done to them is done to images. An operation
without a rule here gets the clip back as it was, so a rule makes a file faster and never another model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

aten = torch.ops.aten
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


def flattened(program: torch.export.ExportedProgram) -> nn.Module:
    """The network of an exported program, which can be exported again; inputs and outputs are the same."""
    return Flattened(program.module(check_guards=False))


class Flattened(nn.Module):
    """A graph, run by `Flattener`; what depends on no input is computed once, here."""

    def __init__(self, graph: torch.fx.GraphModule) -> None:
        super().__init__()
        self.training = False  # as it was recorded; such a graph cannot change it
        self.graph = (graph,)  # in a tuple, so that its parameters, of which some have odd names, are not this module's
        self.names: dict[torch.fx.Node, str | None] = {}  # of the constants; None: no more needed
        for number, (node, value) in enumerate(constants(graph).items()):
            self.names[node] = None if value is None else f"constant_{number}"
            if value is not None:
                self.register_buffer(f"constant_{number}", value)

    def forward(self, **inputs: Tensor) -> Any:
        """By the names of the inputs."""
        return Flattener(self).run(*inputs.values())


def constants(graph: torch.fx.GraphModule) -> dict[torch.fx.Node, Tensor | None]:
    """Compute every node that depends on weights only: the values of those that other nodes read, None for the rest."""
    interpreter = torch.fx.Interpreter(graph)
    known: dict[torch.fx.Node, Any] = interpreter.env
    for node in graph.graph.nodes:
        if node.op in ("get_attr", "call_function") and all(parent in known for parent in node.all_input_nodes):
            with torch.no_grad():
                known[node] = interpreter.run_node(node)
    read = {parent for node in graph.graph.nodes if node not in known for parent in node.all_input_nodes}
    return {node: value.detach().clone() if node in read else None for node, value in known.items()}


class Flattener(torch.fx.Interpreter):
    """Runs a graph by the RULES."""

    def __init__(self, network: Flattened) -> None:
        super().__init__(network.graph[0])
        self.network = network

    def run_node(self, node: torch.fx.Node) -> Any:
        """A constant as it was computed, all else by its kind."""
        if node not in self.network.names:
            return super().run_node(node)
        name = self.network.names[node]
        return name and getattr(self.network, name)

    def call_function(self, target: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """One operation: by its rule, or on clips as they were."""
        if target in RULES:
            result = RULES[target](target, *args, **kwargs)
            if result is not NotImplemented:
                return result
        args, kwargs = pytree.tree_map(restored, (args, kwargs))
        return super().call_function(target, args, kwargs)

    def output(self, target: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """What the graph gives."""
        return super().output(target, pytree.tree_map(restored, args), kwargs)


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


# ---- convolutions ----------------------------------------------------------------------------------------


class Convolution(NamedTuple):
    """What a convolution is made of; all but the groups have a value for time, height and width."""

    weight: Tensor
    bias: Tensor | None
    stride: Sequence[int]
    padding: Sequence[int]
    groups: int

    def images(self, images: Tensor, weight: Tensor, *, bias: bool = True) -> Tensor:
        """Convolve single images with a weight (outputs, inputs, height, width)."""
        added = self.bias if bias else None
        return functional.conv2d(images, weight, added, self.stride[1:], self.padding[1:], 1, self.groups)


def convolve(
    _: Any,
    x: Any,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1, 1),
    padding: Sequence[int] | str = (0, 0, 0),
    dilation: Sequence[int] = (1, 1, 1),
    groups: int = 1,
) -> Any:
    """Any three-dimensional convolution, but not a dilated one."""
    if any(step != 1 for step in dilation):
        return NotImplemented
    if isinstance(padding, str):
        padding = [side // 2 if padding == "same" else 0 for side in weight.shape[2:]]
    form = Convolution(weight, bias, triple(stride), triple(padding), groups)
    x = as_frames(x)
    if weight.shape[2] == 1 and form.stride[0] == 1 and form.padding[0] == 0:
        return x.of(form.images(x.images, weight[:, :, 0]))
    if tuple(weight.shape[3:]) == (1, 1) and form.stride[1:] == (1, 1) and form.padding[1:] == (0, 0):
        return over_time(x, form)
    return shifted(x, form) if groups > 1 else stacked(x, form)


def over_time(x: Frames, form: Convolution) -> Frames:
    """A convolution t × 1 × 1: one over images in which time is the height and all pixels are the width."""
    step, around = form.stride[0], form.padding[0]
    images = functional.conv2d(along_time(x), form.weight[..., 0], form.bias, (step, 1), (around, 0), 1, form.groups)
    return from_time(x, images)


def shifted(x: Frames, form: Convolution) -> Frames:
    """A grouped convolution t × k × k: t of them over single images, each shifted in time, added up."""
    total = sum(
        form.images(as_images(taken), weight, bias=False)
        for taken, weight in zip(taps(x, form), form.weight.unbind(2), strict=True)
    )
    if form.bias is not None:
        total = total + form.bias[:, None, None]
    return x.of(total, steps(x, form))


def stacked(x: Frames, form: Convolution) -> Frames:
    """A convolution t × k × k: one over single images that have the channels of t frames."""
    images = as_images(torch.cat(taps(x, form), -1))
    return x.of(form.images(images, form.weight.permute(0, 2, 1, 3, 4).flatten(1, 2)), steps(x, form))


def steps(x: Frames, form: Convolution) -> int:
    """How many frames a convolution gives."""
    return (x.count + 2 * form.padding[0] - form.weight.shape[2]) // form.stride[0] + 1


def taps(x: Frames, form: Convolution) -> list[Tensor]:
    """For each frame of the kernel the frames that it meets, (batch, steps, height, width, channels)."""
    around, step = form.padding[0], form.stride[0]
    clip = functional.pad(by_clip(x.images, x.count), (0,) * 6 + (around, around))
    reach = step * (steps(x, form) - 1) + 1
    return [clip[:, tap : tap + reach : step] for tap in range(form.weight.shape[2])]


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
        around = [(side, side) for side in padding[1:]]
        x = x.of(functional.max_pool2d(repeat_edges(x.images, around), window[1:], stride[1:]))
    if window[0] > 1 or stride[0] > 1:
        images = repeat_edges(along_time(x), [(padding[0], padding[0])])
        x = from_time(x, functional.max_pool2d(images, (window[0], 1), (stride[0], 1)))
    return x


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


def same(_: Any, x: Any, *_more: Any, **_options: Any) -> Any:
    """Nothing: how values lie in memory, and dropout, which a trained network does not do."""
    return x


def to_type(_: Any, x: Any, **options: Any) -> Any:
    """A change of type or place that is none: keras asks for one with every operation."""
    known = x.images if isinstance(x, Frames) else x
    return x if options.get("dtype", known.dtype) == known.dtype else NotImplemented


def drop(*_: Any, **_options: Any) -> None:
    """Nothing: a check of the tensor that the graph was recorded with."""


VALUES = (aten.relu, aten.relu_, aten.silu, aten.silu_, aten.sigmoid)
NOTHING = (aten.contiguous, aten.clone, aten.dropout)
PAIRS = (aten.add, aten.add_, aten.sub, aten.subtract, aten.mul, aten.mul_, aten.multiply)
RULES: dict[Any, Callable[..., Any]] = {
    aten._assert_tensor_metadata.default: drop,
    aten.to.dtype_layout: to_type,
    aten.conv3d.default: convolve,
    aten.conv3d.padding: convolve,
    aten.max_pool3d.default: max_pool,
    aten.avg_pool3d.default: average_pool,
    aten.adaptive_avg_pool3d.default: adaptive_pool,
    aten.mean.dim: mean,
    aten.cat.default: join,
    aten.permute.default: permute,
    aten.movedim.int: move_axis,
    aten.sym_size.int: open_axis,
    aten.reshape.default: reshape,
    aten.batch_norm.default: normalise,
    aten.pad.default: pad,
    **{operation.default: each for operation in VALUES},
    **{operation.default: same for operation in NOTHING},
    **{operation.Tensor: both for operation in PAIRS},
}
