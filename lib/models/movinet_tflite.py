"""The published MoViNet-A0-Stream for phones (Kinetics-600, int8 TensorFlow Lite) into ours, dequantised."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lib.models.movinet import NORM_EPSILON, ConvNorm, Movinet
from lib.study import StudyError

NETWORK, TOP = "movinet_classifier/movinet", "movinet_classifier/classifier_head"


class Layer(NamedTuple):
    """Kernel and bias of a convolution, float32, as TensorFlow Lite lays them out."""

    kernel: np.ndarray  # (outputs, height, width, inputs); of a depthwise one (1, height, width, channels)
    bias: np.ndarray


def load_mobile_tflite(model: Movinet, path: Path | str) -> None:
    """Fill a mobile A0-Stream of 600 classes, `build("movinet-a0", 600, mobile=True)`, from the published file.

    The file has its normalisations folded into the convolutions: gamma becomes 1 and the bias beta, over a mean of 0
    and a variance of 1. Such a model is to be trained with `fix_norm`, as statistics of its own are not in the file.
    Raises StudyError, and leaves the model as it was, when the file is not a model of TensorFlow Lite or when a layer
    of the model or of the file has no counterpart of the same shape; all of these are listed.
    """
    published, scales = read_tflite(path)
    own = dict(tflite_names(model))
    problems = [f"only in the model: {name}" for name in own.keys() - published.keys()]
    problems += [f"only in the file: {name}" for name in published.keys() - own.keys()]
    kernels = {name: to_own_layout(published[name].kernel, kernel_of(own[name])) for name in own if name in published}
    problems += [f"{name} has another shape" for name, kernel in kernels.items() if kernel is None]
    blocks = {block.name: block for block in model.bottlenecks}
    problems += [f"residual scale of one only: {name}" for name in blocks.keys() ^ scales.keys()]
    if problems:
        raise StudyError(f"{path}: these are not weights for {model.name}, mobile; " + "; ".join(sorted(problems)))
    for name, layer in own.items():
        fill(layer, kernels[name], published[name].bias)
    for name, block in blocks.items():
        block.scale.assign(scales[name])


def fill(layer: Any, kernel: np.ndarray, bias: np.ndarray) -> None:
    """Give a convolution, normalised or dense, its weights."""
    kernel_of(layer).assign(kernel)
    if not isinstance(layer, ConvNorm):
        layer.bias.assign(bias)
        return
    values = {"gamma": 1.0, "beta": bias, "moving_mean": 0.0, "moving_variance": 1.0 - NORM_EPSILON}
    for name, value in values.items():
        getattr(layer.norm, name).assign(np.broadcast_to(value, bias.shape))


def read_tflite(path: Path | str) -> tuple[dict[str, Layer], dict[str, float]]:
    """Read the convolutions of a file by their names in the official code, and the residual scales by block.

    Raises StudyError when the file can't be read.
    """
    from ai_edge_litert.interpreter import Interpreter  # only here: no training needs it

    try:
        reader = Interpreter(str(path))
    except (ValueError, OSError) as error:
        raise StudyError(f"{path}: not a readable model of TensorFlow Lite: {' '.join(str(error).split())}") from None
    reader.allocate_tensors()
    tensors = reader.get_tensor_details()
    layers, scales = {}, {}
    for kernel, bias in pairwise(tensors):  # a bias follows its kernel
        name = kernel["name"].split(";")[0]
        parts = kernel["quantization_parameters"]
        if name.endswith("/rezero/mul"):
            scales[name.split("/")[2]] = float(dequantised(reader, kernel).flat[0])
        elif kernel["dtype"] is np.int8 and kernel["shape"].size == 4 and parts["scales"].size > 1:
            layers[layer_name(name)] = Layer(dequantised(reader, kernel), dequantised(reader, bias))
    return layers, scales


def layer_name(tensor: str) -> str:
    """A layer's name from that of its kernel: …/conv2d_temporal/bn_temporal/… belongs to …/conv2d_temporal."""
    parts = tensor.split("/")
    last = next(index for index, part in enumerate(parts) if part.startswith("conv2d"))
    return "/".join(parts[: last + 1])


def dequantised(reader: Any, tensor: dict[str, Any]) -> np.ndarray:
    """The values of a constant tensor: (number − zero point) × scale, a scale for each channel or one for all."""
    parts = tensor["quantization_parameters"]
    shape = np.ones(tensor["shape"].size, int)
    shape[parts["quantized_dimension"]] = -1
    offset, scale = (parts[key].reshape(shape) for key in ("zero_points", "scales"))
    return ((reader.get_tensor(tensor["index"]).astype(np.int64) - offset) * scale).astype(np.float32)


def to_own_layout(kernel: np.ndarray, variable: Any) -> np.ndarray | None:
    """Arrange a kernel as our variable; None when it does not fit. Outputs come last with us, channels stay."""
    depthwise = kernel.shape[0] == 1 and variable.shape[-1] == 1
    arranged = kernel[0][..., None] if depthwise else kernel.transpose(1, 2, 3, 0)
    if len(variable.shape) == 2:  # dense
        arranged = arranged.reshape(arranged.shape[-2:])
    return arranged if arranged.shape == tuple(variable.shape) else None


def kernel_of(layer: Any) -> Any:
    """The variable of a layer's kernel."""
    return layer.convolution.kernel if isinstance(layer, ConvNorm) else layer.kernel


def tflite_names(model: Movinet) -> Iterator[tuple[str, Any]]:
    """Every convolution of a model with its name in the file."""
    yield f"{NETWORK}/stem/stem/conv2d", model.stem
    for block in model.bottlenecks:
        parts = {
            "expansion/conv2d": block.expand,
            "feature/conv2d": block.space,
            "feature/conv2d_temporal": block.time,
            "projection/conv2d": block.project,
            "skip/skip_project/conv2d": block.skip and block.skip.project,
        }
        yield from ((f"{NETWORK}/{block.name}/bneck/{name}", layer) for name, layer in parts.items() if layer)
    yield f"{NETWORK}/head/project/conv2d", model.project
    yield f"{TOP}/head/conv2d", model.head
    yield f"{TOP}/classifier/conv2d", model.classifier
