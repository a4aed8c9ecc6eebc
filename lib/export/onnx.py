"""ONNX: convert torch networks to files for any number of clips, quantise and run them."""

import io
import json
import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from textwrap import shorten
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_static

from lib.export import DESCRIPTION, LABELS, Inputs
from lib.export.tflite import require_calibration
from lib.settings import StudyError

OPSET = 20  # the newest of torch's older exporter; the newer exporter takes ten times as long (X3D-S: a minute)
PRECISIONS = ("float32", "float16", "int8")
LARGE = 64  # values; smaller constants are shapes and factors and stay float32
DOMAINS = {"", "ai.onnx"}  # of the standard operations
LAYERS = ("Conv", "Gemm", "MatMul")
ACTIVATIONS = ("Relu", "Clip")
MOVES = ("Transpose", "Reshape")  # change the place of values only


def convert(network: Any, example: dict[str, Any]) -> bytes:
    """Convert a network to a float32 file for any number of clips."""
    import torch
    from torch import nn

    class Positional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.training = network, False

        def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(self.network(**dict(zip(example, values, strict=True))).values())

    file = io.BytesIO()
    # After a failure it would print the whole graph, so much at once that the kernel of a notebook hangs.
    silent = patch.object(torch._C, "_jit_onnx_log", lambda *parts: None)
    with torch.no_grad(), warnings.catch_warnings(), silent:
        warnings.simplefilter("ignore")  # it warns that it is the older exporter and that it traces
        try:
            torch.onnx.export(
                Positional(),
                tuple(example.values()),
                file,
                dynamo=False,
                input_names=list(example),
                output_names=list(network(**example)),
                dynamic_axes={name: {0: "clips"} for name in example},
                opset_version=OPSET,
            )
        except Exception as error:  # its errors share no class
            raise StudyError(f"ONNX cannot hold this network: {shorten(str(error), 300)}") from error
    return _simplify(file.getvalue())


def _simplify(content: bytes) -> bytes:
    """Compute constants, and move transpositions out of the way, by operations of the standard only.

    onnxruntime does it whenever it opens a file, but sees that a convolution pads and activates only where the file has
    them next to one another, and sees no padding whose value is left out as "".
    """
    model = onnx.load_from_string(content)
    for node in model.graph.node:
        while node.input and not node.input[-1]:
            del node.input[-1]
    activations_first(model, (*ACTIVATIONS, "HardSwish"))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = f"{folder}/simple.onnx"
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return Path(options.optimized_model_filepath).read_bytes()


def quantise(content: bytes, precision: str, calibration: Iterable[Inputs] = (), kept: float = 0) -> bytes:
    """Convert a float32 file to one of PRECISIONS."""
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; there are: {', '.join(PRECISIONS)}")
    if precision == "float32":
        return content
    if precision == "float16":
        return _halve(content)
    reader = SimpleNamespace(get_next=partial(next, iter(require_calibration(calibration)), None))
    logging.getLogger().setLevel(logging.ERROR)  # on the root logger it recommends what is already done here
    with tempfile.TemporaryDirectory() as folder:
        quantised = Path(folder) / "int8.onnx"
        model = onnx.load_from_string(content)
        quantize_static(
            model,
            quantised,
            reader,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=[*LAYERS, *ACTIVATIONS],
            nodes_to_exclude=_first_layers(model, kept),
        )
        model = onnx.load(quantised)
        _unround_skips(model)
        return model.SerializeToString()


def _halve(content: bytes) -> bytes:
    """Store the weights in float16; onnxruntime casts them to float32 once, when it loads the file."""
    model = onnx.load_from_string(content)
    graph, casts = model.graph, []
    for weight in graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < LARGE:
            continue
        name = f"{weight.name}_float16"
        casts.append(onnx.helper.make_node("Cast", [name], [weight.name], to=onnx.TensorProto.FLOAT))
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model.SerializeToString()


class Runner:
    """Runs a file on any number of clips."""

    def __init__(self, content: bytes, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors share no class
            raise StudyError(f"not an ONNX model that can be run: {shorten(str(error), 300)}") from None
        self.outputs = [output.name for output in self.session.get_outputs()]

    def __call__(self, inputs: Inputs) -> Inputs:
        return dict(zip(self.outputs, self.session.run(None, inputs), strict=True))

    def zeros(self) -> Inputs:
        """Zeros for every input of one clip, by name."""
        return {one.name: np.zeros((1, *one.shape[1:]), np.float32) for one in self.session.get_inputs()}


def custom_ops(content: bytes) -> dict[str, int]:
    """Count the operations outside the ONNX standard by name."""
    nodes = onnx.load_from_string(content).graph.node
    return Counter(f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in DOMAINS)


def add_metadata(content: bytes, description: dict[str, Any], labels: list[str]) -> bytes:
    """Store description and labels among the model's properties."""
    model = onnx.load_from_string(content)
    about = json.dumps(description, indent=1, ensure_ascii=False)
    onnx.helper.set_model_props(model, {LABELS: "\n".join(labels) + "\n", DESCRIPTION: about})
    return model.SerializeToString()


def read_metadata(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Read description and labels from the model's properties."""
    try:
        properties = {prop.key: prop.value for prop in onnx.load(path).metadata_props}
    except DecodeError as error:
        raise ValueError(error) from None
    return json.loads(properties[DESCRIPTION]), properties[LABELS].split("\n")[:-1]


# ---- graphs for onnxruntime's quantiser ------------------------------------------------------------------


def activations_first(model: onnx.ModelProto, kinds: tuple[str, ...] = ACTIVATIONS) -> None:
    """Move activations of some kinds directly behind the convolution that they follow after MOVES, in place.

    Otherwise int8 spends its 256 steps on values that the activation cuts off: the MoViNet trained on gestures agreed
    with float32 on 71 % of the clips, and agrees on 96 % with this.
    """
    graph = model.graph
    for activation in list(graph.node):
        path = _path_from_conv(activation, graph) if activation.op_type in kinds else []
        if not path:
            continue
        conv, first, last = path[0], path[1], path[-1]
        moved = onnx.NodeProto()
        moved.CopyFrom(activation)
        graph.node.remove(activation)
        last.output[0] = activation.output[0]
        moved.output[0] = conv.output[0]
        conv.output[0] = moved.input[0] = f"{conv.output[0]}_before"
        graph.node.insert(list(graph.node).index(first), moved)
    del model.graph.value_info[:]  # the shapes belong to other values now


def _path_from_conv(node: onnx.NodeProto, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The convolution whose output `node` reads, and the MOVES on the way; empty without any, or with other readers."""
    makers = {output: maker for maker in graph.node for output in maker.output}
    readers = Counter(name for reader in graph.node for name in reader.input)
    path, name = [], node.input[0]
    while name in makers and readers[name] == 1:
        path.insert(0, makers[name])
        if path[0].op_type not in MOVES:
            return path if path[0].op_type == "Conv" and len(path) > 1 else []
        name = path[0].input[0]
    return []


def _first_layers(model: onnx.ModelProto, share: float) -> list[str]:
    """Names of the first LAYERS, as a share of all, and of the ACTIVATIONS among and directly behind them."""
    nodes = [node for node in model.graph.node if node.op_type in LAYERS + ACTIVATIONS]
    layers = [number for number, node in enumerate(nodes) if node.op_type in LAYERS]
    kept = round(share * len(layers))
    return [node.name for node in nodes[: layers[kept] if kept < len(layers) else len(nodes)]]


def _unround_skips(model: onnx.ModelProto) -> None:
    """Let nodes other than LAYERS read values that no layer made without the rounding, in place.

    The quantiser rounds the input of a layer for all its readers, so also for the skip connection around the layer, and
    the errors add up from block to block: the X3D-S trained on gestures agreed with float32 on 47 % of the clips, and
    agrees on 84 % with this.
    """
    makers = {output: maker for maker in model.graph.node for output in maker.output}

    def made_by_layer(value: str) -> bool:
        """Whether one of LAYERS made a value, perhaps with an activation behind it."""
        maker = makers.get(value)
        if maker and maker.op_type in ACTIVATIONS:
            maker = makers.get(maker.input[0])
        return maker is not None and maker.op_type in LAYERS

    exact: dict[str, str] = {}
    for node in model.graph.node:
        rounder = makers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if rounder and not made_by_layer(rounder.input[0]):  # constants are stored rounded: they have no rounder
            exact[node.output[0]] = rounder.input[0]
    for node in model.graph.node:
        if node.op_type not in LAYERS:
            node.input[:] = [exact.get(name, name) for name in node.input]
