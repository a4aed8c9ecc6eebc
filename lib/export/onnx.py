"""ONNX: torch networks to files with an open number of clips, their precisions, and what such a file holds."""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from lib.export.onnx_graph import ACTIVATIONS, LAYERS, activations_first, first_layers, skips_in_float32
from lib.export.tflite import Inputs, first_line
from lib.settings import StudyError

if TYPE_CHECKING:
    import torch

OPSET = 20  # the newest that torch's older exporter writes; the newer one takes ten times as long (X3D-S: a minute)
PRECISIONS = ("float32", "float16", "int8")
LARGE = 64  # values; smaller constants stay float32, as they are shapes and factors
DOMAINS = {"", "ai.onnx"}  # of the operations that every runtime knows


def convert(network: torch.nn.Module, example: dict[str, torch.Tensor]) -> bytes:
    """Convert a network in float32; inputs and outputs have the names of `example` and of what it returns.

    The first axis of every input, the clips, is left open. Raises StudyError when an operation has no counterpart.
    """
    import torch

    file = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is the older exporter, and that what it traced is fixed
        try:
            torch.onnx.export(
                positional(network, list(example)),
                tuple(example.values()),
                file,
                dynamo=False,
                input_names=list(example),
                output_names=list(network(**example)),
                dynamic_axes={name: {0: "clips"} for name in example},
                opset_version=OPSET,
            )
        except Exception as error:  # its errors have no class in common
            raise StudyError(f"ONNX cannot hold this network: {first_line(error)}") from error
    return file.getvalue()


def positional(network: torch.nn.Module, names: list[str]) -> torch.nn.Module:
    """The network with inputs in the order of `names`, and outputs in theirs."""
    from torch import nn

    class Positional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.training = False

        def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(self.network(**dict(zip(names, values, strict=True))).values())

    return Positional()


def quantise(content: bytes, precision: str, calibration: Iterable[Inputs] = (), kept: float = 0) -> bytes:
    """Make a float32 file one of PRECISIONS; inputs and outputs stay float32.

    float16: the weights only, computed in float32. int8: convolutions and matrix products, their weights for each
    channel and their values in ranges measured on `calibration`, but for the share `kept` of them, the first ones; all
    else, such as what a stream adds up, is float32.
    Raises StudyError for int8 without calibration, and ValueError for an unknown precision.
    """
    if precision == "float32":
        return content
    if precision == "float16":
        return halve(content)
    if precision != "int8":
        raise ValueError(f"unknown precision {precision!r}; there are: {', '.join(PRECISIONS)}")
    calibration = list(calibration)
    if not calibration:
        raise StudyError("int8 needs clips to measure the ranges of values on: there is no calibration set")
    logging.getLogger().setLevel(logging.ERROR)  # it recommends on the root logger what is done here
    with tempfile.TemporaryDirectory() as folder:
        fused, quantised = Path(folder) / "fused.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(onnx.load_from_string(content), fused, skip_symbolic_shape=True)
        model = onnx.load(fused)
        activations_first(model)
        quantize_static(
            model,
            quantised,
            Clips(calibration),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=[*LAYERS, *ACTIVATIONS],
            nodes_to_exclude=first_layers(model, kept),
        )
        model = onnx.load(quantised)
        skips_in_float32(model)
        return model.SerializeToString()


class Clips(CalibrationDataReader):
    """Clips as onnxruntime's calibration reads them."""

    def __init__(self, clips: Iterable[Inputs]) -> None:
        self.clips: Iterator[Inputs] = iter(clips)

    def get_next(self) -> Inputs | None:
        """The next, None behind the last."""
        return next(self.clips, None)


def halve(content: bytes) -> bytes:
    """Keep the weights of a file in float16; a cast before each gives float32, once, when a file is loaded."""
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
    """Runs a file: inputs by name to outputs by name."""

    def __init__(self, content: bytes, threads: int = 1) -> None:
        """Raises StudyError when it is no ONNX model."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no class in common
            raise StudyError(f"not an ONNX model that can be run: {first_line(error)}") from None
        self.outputs = [output.name for output in self.session.get_outputs()]

    def __call__(self, inputs: Inputs) -> Inputs:
        """Inputs and outputs float32, by name."""
        return dict(zip(self.outputs, self.session.run(None, inputs), strict=True))

    def zeros(self) -> Inputs:
        """The inputs of one clip by name, all zero."""
        return {one.name: np.zeros((1, *one.shape[1:]), np.float32) for one in self.session.get_inputs()}


def custom_ops(content: bytes) -> dict[str, int]:
    """The operations that are not of the ONNX standard, with how often they occur."""
    found: dict[str, int] = {}
    for node in onnx.load_from_string(content).graph.node:
        if node.domain not in DOMAINS:
            name = f"{node.domain}.{node.op_type}"
            found[name] = found.get(name, 0) + 1
    return found
