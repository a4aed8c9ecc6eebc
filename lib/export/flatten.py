"""A network of three-dimensional convolutions as one of two-dimensional ones, in which the frames lie in the batch.

TensorFlow Lite has neither a depthwise nor an int8 three-dimensional convolution, and no pooling over time; on a
processor the two-dimensional ones are the fast ones. The graph that torch exports is run again, operation by operation:
clips (batch, channels, frames, height, width) become `Frames`, and what is done to them is done to images. An operation
without a rule here gets the clip back as it was, so a rule makes a file faster and never another model.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lib.export.constants import Constants, simplified
from lib.export.frames import restored
from lib.export.rules import CONVOLUTIONS, RULES, convolution


def flattened(program: torch.export.ExportedProgram) -> nn.Module:
    """The network of an exported program, which can be exported again; inputs and outputs are the same."""
    return Flattened(program.module(check_guards=False))


class Stored(NamedTuple):
    """A constant tensor, by its name."""

    name: str


class Flattened(nn.Module):
    """A graph, run by `Flattener`; what depends on no input is computed once, here."""

    def __init__(self, graph: torch.fx.GraphModule) -> None:
        super().__init__()
        self.training = False  # as it was recorded; such a graph cannot change it
        self.graph = (graph,)  # in a tuple, so that its parameters, of which some have odd names, are not this module's
        known = simplified(graph)
        prepare_convolutions(graph, known)
        read = {parent for node in graph.graph.nodes if node not in known for parent in node.all_input_nodes}
        self.known = {node: node in read and pytree.tree_map(self.store, known[node]) for node in known}

    def store(self, value: Any) -> Any:
        """Keep a tensor; anything else stays where it is."""
        if not isinstance(value, Tensor):
            return value
        name = f"constant_{len(self._buffers)}"
        # litert-torch 0.10 takes constants of one shape for the same one unless they lie in order in memory.
        self.register_buffer(name, value.detach().clone(memory_format=torch.contiguous_format))
        return Stored(name)

    def forward(self, **inputs: Tensor) -> Any:
        """By the names of the inputs."""
        return Flattener(self).run(*inputs.values())


def prepare_convolutions(graph: torch.fx.GraphModule, known: Constants) -> None:
    """Put what each convolution by constants is made of in the place of its weight."""
    for node in graph.graph.nodes:
        if node.target in CONVOLUTIONS and all(parent in known for parent in node.all_input_nodes[1:]):
            values = [known[value] if isinstance(value, torch.fx.Node) else value for value in node.args[1:]]
            if form := convolution(*values, **node.kwargs):
                known[node.args[1]] = form
                node.args, node.kwargs = node.args[:2], {}


class Flattener(torch.fx.Interpreter):
    """Runs a graph by the RULES."""

    def __init__(self, network: Flattened) -> None:
        super().__init__(network.graph[0])
        self.network = network

    def run_node(self, node: torch.fx.Node) -> Any:
        """A constant as it was computed, all else by its kind."""
        if node not in self.network.known:
            return super().run_node(node)
        return pytree.tree_map(self.fetch, self.network.known[node], is_leaf=lambda value: isinstance(value, Stored))

    def fetch(self, value: Any) -> Any:
        """A stored tensor; anything else as it is."""
        return getattr(self.network, value.name) if isinstance(value, Stored) else value

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
