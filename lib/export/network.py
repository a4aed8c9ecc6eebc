"""A trained keras model as a torch network with named inputs and outputs, computed by two-dimensional operations.

The graph that torch exports is simplified and then run again by an interpreter: clips become `Frames`, and the RULES do
to images what the graph does to clips. An operation without a rule gets the clip back, so a missing rule makes a file
slower but never different. Both formats are converted from the result.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node
from torch.nn import functional
from torch.utils import _pytree as pytree

from lib.export import CLIP, EMBEDDING, IMAGE, LOGITS, NEXT
from lib.export.rules import CONVOLUTIONS, RULES, aten, restored
from lib.models.frames import flatten_convolution

Example = dict[str, Tensor]  # inputs of two clips by name: torch takes an axis of length one for a constant
Constants = dict[Node, Any]  # values of the nodes of a graph that depend on no input


def whole(model: keras.Model, clip: np.ndarray) -> tuple[nn.Module, Example]:
    """Make the network {"clip": clips} to {"logits": of them}, and example inputs.

    A model with a method `read` (clips to logits and embeddings) has the output "embedding" as well.
    clip: one clip, float32 (1, …) of the shape that the file will read. The keras model runs on torch.
    """

    def read(model: keras.Model, inputs: Example) -> dict[str, Tensor]:
        if hasattr(model, "read"):
            return dict(zip((LOGITS, EMBEDDING), model.read(inputs[CLIP]), strict=True))
        return {LOGITS: model(inputs[CLIP], training=False)}

    clips = torch.as_tensor(clip, dtype=torch.float32).cpu()
    return prepare(_Named(model, read), {CLIP: clips.repeat(2, *[1] * (clips.ndim - 1))})


def streaming(model: keras.Model) -> tuple[nn.Module, Example]:
    """Make the network that reads one frame at a time, and example inputs.

    It maps {"image": (clips, 1, height, width, 3), buffers by name} to {"logits": of the frames so far, "next_" + name:
    buffers for the next call}. Raises ValueError for a base model.
    """
    if not model.config.stream:
        raise ValueError(f"{model.name} uses future frames and cannot run frame by frame: build it with stream=True")
    image = torch.zeros(2, 1, *model.clip[1:], 3)
    with torch.no_grad():
        _, buffers = model.run(image, {})

    def step(model: keras.Model, inputs: Example) -> dict[str, Tensor]:
        """Read one image; the buffers after it have the names of those before it, with a prefix."""
        logits, after = model.run(inputs[IMAGE], {name: value for name, value in inputs.items() if name != IMAGE})
        return {LOGITS: logits, **{NEXT + name: value for name, value in after.items()}}

    zeros = {name: torch.zeros_like(value) for name, value in buffers.items()}
    return prepare(_Named(model, step), {IMAGE: image, **zeros})


class _Named(nn.Module):
    def __init__(self, model: keras.Model, function: Callable[[Any, Example], dict[str, Tensor]]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        return self.function(self.model, inputs)


def prepare(network: nn.Module, example: Example) -> tuple[nn.Module, Example]:
    """Export a network for any number of clips, and rebuild it from two-dimensional operations.

    example: inputs of two clips, which are returned as they are.
    """
    clips = torch.export.Dim("clips", min=1, max=4096)
    shapes = {"inputs": {name: {0: clips} for name in example}}
    with torch.no_grad():
        program = torch.export.export(network.eval(), (), example, dynamic_shapes=shapes, strict=False)
        return _Flattened(program.module(check_guards=False)), example


class _Buffer(str):
    """Name of a constant tensor among the buffers of a network."""


class _Flattened(nn.Module):
    def __init__(self, graph: GraphModule) -> None:
        super().__init__()
        self.training = False  # as the graph was exported, which cannot change it
        self.graph = (graph,)  # a tuple hides the graph's parameters, some of which have names that no module may use
        known = _simplify(graph)
        read = {parent for node in graph.graph.nodes if node not in known for parent in node.all_input_nodes}
        self.known = {node: node in read and pytree.tree_map(self._store, value) for node, value in known.items()}

    def _store(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        name = _Buffer(f"constant_{len(self._buffers)}")
        # litert-torch 0.10 confuses constants of one shape unless they are contiguous.
        self.register_buffer(name, value.detach().clone(memory_format=torch.contiguous_format))
        return name

    def forward(self, **inputs: Tensor) -> Any:
        def fetch(value: Any) -> Any:
            return getattr(self, value) if isinstance(value, _Buffer) else value

        known = {node: pytree.tree_map(fetch, value) for node, value in self.known.items()}
        return _Flattener(self.graph[0]).run(*inputs.values(), initial_env=known)


class _Flattener(Interpreter):
    def call_function(self, target: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        if target in RULES:
            result = RULES[target](target, *args, **kwargs)
            if result is not NotImplemented:
                return result
        args, kwargs = pytree.tree_map(restored, (args, kwargs))
        return super().call_function(target, args, kwargs)

    def output(self, target: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        return super().output(target, pytree.tree_map(restored, args), kwargs)


# ---- simplifying a graph ---------------------------------------------------------------------------------

ADDED = {aten.add.Tensor, aten.add_.Tensor}
SUBTRACTED = {aten.sub.Tensor, aten.sub_.Tensor, aten.subtract.Tensor}
MULTIPLIED = {aten.mul.Tensor, aten.mul_.Tensor, aten.multiply.Tensor}
CHANNEL_BY_CHANNEL = {  # and zero for zeros, or multiplied by such
    *(operation.default for operation in (aten.relu, aten.relu_, aten.silu, aten.silu_, aten.sigmoid)),
    *(aten.mul.Tensor, aten.mean.dim, aten.adaptive_avg_pool3d.default),
}
VECTOR = 8  # channels
IDENTITIES = {
    aten.contiguous.default,
    aten.clone.default,
    aten.dropout.default,
    aten.to.dtype_layout,
    aten.lift_fresh_copy.default,
}


def _simplify(graph: GraphModule) -> Constants:
    """Fold into the weights of a graph, in place, what can be computed without inputs; return all constants."""
    for node in graph.graph.nodes:
        if node.target is aten._assert_tensor_metadata.default:
            graph.graph.erase_node(node)
        elif node.target in IDENTITIES and node.meta["val"].dtype == node.args[0].meta["val"].dtype:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
        elif node.target is aten.movedim.int:  # torch's ONNX exporter does not know axes counted from the end
            x, source, target = node.args
            rank = x.meta["val"].ndim
            order = [axis for axis in range(rank) if axis != source % rank]
            order.insert(target % rank, source % rank)
            node.target, node.args = aten.permute.default, (x, order)
    interpreter = Interpreter(graph)
    known: Constants = interpreter.env
    for node in graph.graph.nodes:
        if node.op in ("get_attr", "call_function") and all(parent in known for parent in node.all_input_nodes):
            known[node] = interpreter.run_node(node)
    for node in list(graph.graph.nodes):
        if node.target is aten.avg_pool2d.default and not any(node.args[3] if len(node.args) > 3 else ()):
            # A depthwise convolution takes the padding before it in, and is fast for any number of channels.
            window, channels = node.args[1], node.meta["val"].shape[1]
            weight = torch.full((channels, 1, *window), 1 / math.prod(window))
            weight = _constant(graph, known, node, weight)
            node.target = aten.conv2d.default
            node.args, node.kwargs = (node.args[0], weight, None, node.args[2] or window, [0, 0], [1, 1], channels), {}
        if node.target in {*CONVOLUTIONS, aten.conv2d.default, aten.conv2d.padding} and node.args[1] in known:
            _fold(graph, known, node)
    for node in graph.graph.nodes:
        if node.target in CONVOLUTIONS and node.args[1] in known:
            _widen(graph, known, node)
    for node in graph.graph.nodes:
        if node.target in CONVOLUTIONS and all(parent in known for parent in node.all_input_nodes[1:]):
            values = [known[value] if isinstance(value, Node) else value for value in node.args[1:]]
            if form := flatten_convolution(*values, **node.kwargs):
                known[node.args[1]] = form
                node.args, node.kwargs = node.args[:2], {}
    return known


def _fold(graph: GraphModule, known: Constants, convolution: Node) -> None:
    """Fold what follows a convolution into its weights: normalisation, and numbers added to or times each channel."""
    x, weight, bias = (*convolution.args[:2], convolution.args[2] if len(convolution.args) > 2 else None)
    weight, shift = known[weight], 0.0 if bias is None else known[bias]
    scale, node, axis = torch.ones(len(weight)), convolution, 1
    while len(node.users) == 1 and (affine := _affine(user := next(iter(node.users)), node, axis, known)):
        factor, added, axis = affine
        scale, shift = scale * factor, shift * factor + added
        if user.target in (aten.permute.default, aten.reshape.default):
            node = user
        else:
            user.replace_all_uses_with(node)
            graph.graph.erase_node(user)
    folded = weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), shift + torch.zeros(len(weight))
    nodes = [_constant(graph, known, convolution, value) for value in folded]
    convolution.args = (x, *nodes, *convolution.args[3:])


def _constant(graph: GraphModule, known: Constants, reader: Node, value: Tensor) -> Node:
    """A new node of a known value before the node that reads it."""
    name = f"folded_{len(known)}"
    graph.register_buffer(name, value)
    with graph.graph.inserting_before(reader):
        node = graph.graph.get_attr(name)
    known[node] = value
    return node


def _widen(graph: GraphModule, known: Constants, depthwise: Node) -> None:
    """Add channels of zeros around a depthwise convolution up to a multiple of VECTOR, as onnxruntime needs to be fast.

    X3D's first blocks have 54 channels, in which its file would spend a third of its time.
    """
    groups = depthwise.args[6] if len(depthwise.args) > 6 else 1
    if groups % VECTOR == 0 or groups != len(known[depthwise.args[1]]):
        return
    made, read, seen, left = set(), set(), set(), [depthwise.args[0], depthwise]  # of these values
    while left:
        if (value := left.pop()) in seen:
            continue
        seen.add(value)
        if value.target in CONVOLUTIONS:
            made.add(value)
        else:
            left += value.all_input_nodes
        read |= {user for user in value.users if user.target in CONVOLUTIONS}
        left += value.users.keys() - read
    others = (made | read) - {depthwise}
    if any(node.args[1] not in known or node.args[6:] not in ((), (1,)) for node in others):
        return
    if any(value.target not in CHANNEL_BY_CHANNEL for value in seen - made):
        return
    extra = -groups % VECTOR
    for node in made | read:
        weight, bias = (known[value] for value in node.args[1:3])
        more_in, more_out = extra * (node in read and node is not depthwise), extra * (node in made)
        known[node.args[1]] = functional.pad(weight, (0, 0) * 3 + (0, more_in, 0, more_out))
        known[node.args[2]] = functional.pad(bias, (0, more_out))
    depthwise.args = (*depthwise.args[:6], groups + extra)


def _affine(node: Node, x: Node, axis: int, known: Constants) -> tuple[Any, Any, int] | None:
    """What a node does to each channel of x, which lie on `axis`: the factor, the number added, the axis after it."""
    if node.target is aten.permute.default:
        return 1.0, 0.0, list(node.args[1]).index(axis)
    if node.target is aten.reshape.default:
        before, after = x.meta["val"].shape, node.meta["val"].shape
        return (1.0, 0.0, len(after) - 1) if axis == len(before) - 1 and before[-1] == after[-1] else None
    if node.target is aten.batch_norm.default and axis == 1:
        weight, bias, mean, variance = (known.get(value) for value in node.args[1:5])
        scale = torch.rsqrt(variance + node.args[7]) * (1.0 if weight is None else weight)
        return scale, (0.0 if bias is None else bias) - mean * scale, 1
    if node.target not in ADDED | SUBTRACTED | MULTIPLIED or node.kwargs:
        return None
    first, second = node.args
    if first is not x and node.target in SUBTRACTED:
        return None
    value = second if first is x else first
    value = _per_channel(known.get(value) if isinstance(value, Node) else value, x.meta["val"].ndim - axis)
    if value is None:
        return None
    if node.target in MULTIPLIED:
        return value, 0.0, axis
    return 1.0, -value if node.target in SUBTRACTED else value, axis


def _per_channel(value: Any, from_last: int) -> Tensor | float | None:
    """One number for all channels or one for each on the axis `from_last`; None if the value is anything else."""
    if not isinstance(value, Tensor):
        return value
    if value.numel() == 1:
        return value.reshape(())
    fits = value.ndim >= from_last and value.shape[-from_last] == value.numel()
    return value.flatten() if fits else None
