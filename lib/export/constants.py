"""What a graph computes from weights alone, once: constants, and the normalisations behind convolutions."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

aten = torch.ops.aten
ADDED = {aten.add.Tensor, aten.add_.Tensor}
SUBTRACTED = {aten.sub.Tensor, aten.sub_.Tensor, aten.subtract.Tensor}
MULTIPLIED = {aten.mul.Tensor, aten.mul_.Tensor, aten.multiply.Tensor}
CONVOLUTIONS = {aten.conv2d.default, aten.conv2d.padding, aten.conv3d.default, aten.conv3d.padding}
SAME = {
    aten.contiguous.default,
    aten.clone.default,
    aten.dropout.default,
    aten.to.dtype_layout,
    aten.lift_fresh_copy.default,
}

Constants = dict[Node, Any]


def simplified(graph: GraphModule) -> Constants:
    """Change a graph so that it has little to compute; returns the values that depend on no input, by node."""
    remove_nothings(graph)
    known = constants(graph)
    fold_normalisations(graph, known)
    return known


def remove_nothings(graph: GraphModule) -> None:
    """Take out what changes no value: checks, the layout in memory, dropout, changes of type that are none."""
    for node in graph.graph.nodes:
        if node.target is aten._assert_tensor_metadata.default:
            graph.graph.erase_node(node)
        elif node.target in SAME and node.meta["val"].dtype == node.args[0].meta["val"].dtype:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)


def constants(graph: GraphModule) -> Constants:
    """Compute every node that depends on weights only."""
    interpreter = torch.fx.Interpreter(graph)
    known: Constants = interpreter.env
    for node in graph.graph.nodes:
        if node.op in ("get_attr", "call_function") and all(parent in known for parent in node.all_input_nodes):
            with torch.no_grad():
                known[node] = interpreter.run_node(node)
    return known


def fold_normalisations(graph: GraphModule, known: Constants) -> None:
    """Have convolutions do what follows them: numbers multiplied with, and added to, each channel."""
    for node in list(graph.graph.nodes):
        if node.target in CONVOLUTIONS and node.args[1] in known:
            fold(graph, known, node)


class Affine(NamedTuple):
    """What a node makes of each channel, x × scale + shift, and the axis of the channels after it."""

    scale: Tensor | float
    shift: Tensor | float
    axis: int


def fold(graph: GraphModule, known: Constants, convolution: Node) -> None:
    """Have one convolution, with weights that are `known`, do what follows it."""
    x, weight, bias = (*convolution.args[:2], convolution.args[2] if len(convolution.args) > 2 else None)
    weight, shift = known[weight], 0.0 if bias is None else known[bias]
    scale, node, axis = torch.ones(len(weight)), convolution, 1
    while len(node.users) == 1 and (step := affine(user := next(iter(node.users)), node, axis, known)):
        scale, shift, axis = scale * step.scale, shift * step.scale + step.shift, step.axis
        if user.target is aten.permute.default:
            node = user
        else:
            user.replace_all_uses_with(node)
            graph.graph.erase_node(user)
    with graph.graph.inserting_before(convolution):
        values = weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), shift + torch.zeros(len(weight))
        convolution.args = (x, *(constant(graph, known, value) for value in values), *convolution.args[3:])


def constant(graph: GraphModule, known: Constants, value: Tensor) -> Node:
    """A node of a new constant, where the graph inserts nodes."""
    name = f"folded_{len(known)}"
    graph.register_buffer(name, value)
    node = graph.graph.get_attr(name)
    known[node] = value
    return node


def affine(node: Node, x: Node, axis: int, known: Constants) -> Affine | None:
    """What a node makes of the channels of x, which lie on `axis`; None if it is anything else."""
    if node.target is aten.permute.default:
        return Affine(1.0, 0.0, list(node.args[1]).index(axis))
    if node.target is aten.batch_norm.default:
        return normalisation([known.get(value) for value in node.args[1:5]], node.args[7]) if axis == 1 else None
    if node.target not in ADDED | SUBTRACTED | MULTIPLIED or node.kwargs:
        return None
    first, second = node.args
    if first is x or node.target not in SUBTRACTED:
        value = per_channel(second if first is x else first, x.meta["val"].ndim - axis, known)
        if value is not None:
            if node.target in MULTIPLIED:
                return Affine(value, 0.0, axis)
            return Affine(1.0, value if node.target in ADDED else -value, axis)
    return None


def normalisation(parts: list[Tensor | None], epsilon: float) -> Affine:
    """A batch normalisation by fixed statistics: weight, bias, mean, variance."""
    weight, bias, mean, variance = parts
    scale = torch.rsqrt(variance + epsilon) * (1.0 if weight is None else weight)
    return Affine(scale, (0.0 if bias is None else bias) - mean * scale, 1)


def per_channel(value: Any, from_last: int, known: Constants) -> Tensor | float | None:
    """A number for all channels or one for each, on the axis so many from the last; None for anything else."""
    value = known.get(value) if isinstance(value, Node) else value
    if not isinstance(value, Tensor):
        return value
    if value.numel() == 1:
        return value.reshape(())
    fits = value.ndim >= from_last and value.shape[-from_last] == value.numel()
    return value.flatten() if fits else None
