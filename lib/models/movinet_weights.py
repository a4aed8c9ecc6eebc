"""Published MoViNet weights: checkpoints of the official release, and the TensorFlow Lite file for phones."""

import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np

from lib.models.movinet_layers import NORM_EPSILON, Bottleneck, ConvNorm
from lib.models.weights import assign
from lib.settings import StudyError

ROOT = "model/layer_with_weights-"  # of a checkpoint; 0 is the network, 1 the classifier
NETWORK, TOP = "movinet_classifier/movinet", "movinet_classifier/classifier_head"  # in the TensorFlow Lite file


def load_published_weights(model: keras.Model, path: Path) -> None:
    """Load a published file into all but the classifier: an archive with a checkpoint, or the TensorFlow Lite file.

    Raises StudyError as load_official_checkpoint and load_mobile_tflite, and for an archive without a checkpoint.
    """
    if path.suffix == ".tflite":
        load_mobile_tflite(model, path, classifier=False)
    else:
        load_official_checkpoint(model, _unpack(path), classifier=False)


def _unpack(archive: Path) -> Path:
    """Unpack an archive beside itself, once. Returns the name of the checkpoint in it, without suffix."""
    folder = archive.with_name(archive.name.removesuffix(".tar.gz"))
    if not list(folder.rglob("*.index")):
        try:
            with tarfile.open(archive) as file:
                file.extractall(folder, filter="data")
        except (OSError, tarfile.TarError, EOFError) as error:
            raise StudyError(f"{archive}: not a readable archive ({error}): delete it and download it again") from None
    for path in sorted(folder.rglob("*.index")):
        return path.with_suffix("")
    raise StudyError(f"{archive}: holds no TensorFlow checkpoint (*.index)")


# ---- checkpoints -----------------------------------------------------------------------------------------


def load_official_checkpoint(model: keras.Model, path: Path | str, *, classifier: bool = True) -> None:
    """Load a published TensorFlow checkpoint into a Movinet, such as …/movinet_a0_base/ckpt-1 (no suffix).

    classifier: whether to load the last layer, too, which needs a model with the checkpoint's number of classes.
    Raises StudyError and leaves the model unchanged when there is no readable checkpoint or any variable, in the model
    or in the checkpoint, has no counterpart of its shape; it lists all of these.
    """
    own, published = dict(official_names(model)), _read_checkpoint(path)
    for name in own.keys() & published.keys():
        published[name] = to_own_layout(published[name], tuple(own[name].shape))
    assign(own, published, path, model.name, without=None if classifier else "/_classifier/")


def _read_checkpoint(path: Path | str) -> dict[str, np.ndarray]:
    """The variables of a model by name, in the form of `plain`."""
    import tensorflow as tf  # only here: training needs no second framework

    try:
        reader = tf.train.load_checkpoint(str(path))
        names = [name for name in reader.get_variable_to_shape_map() if name.startswith("model/")]
        return {plain(name): reader.get_tensor(name) for name in names}
    except (tf.errors.OpError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise StudyError(
            f"{path}: not a readable TensorFlow checkpoint (give its name without suffix): {reason}"
        ) from None


def plain(name: str) -> str:
    """The name of a variable without what differs between the official code's forms of a convolution."""
    name = name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE").replace("depthwise_kernel", "kernel")
    return name.replace("_conv/_conv/", "_conv/").replace("_conv_temporal/_conv/", "_conv_temporal/")


def to_own_layout(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Arrange a published array in our layout of this shape; one that does not fit is returned as it is.

    A depthwise kernel of three dimensions (frames, height, width, 1, channels) becomes (height, width, channels,
    frames), or, over time only, (frames, 1, channels, 1). Otherwise only axes of length 1 are added or removed.
    """
    turned = array
    if array.ndim == 5 and array.shape[3] == 1 and shape[-1] == array.shape[0]:
        turned = array.transpose(1, 2, 4, 0, 3)
    sides, expected = ([side for side in each if side != 1] for each in (turned.shape, shape))
    return turned.reshape(shape) if sides == expected else array


def official_names(model: keras.Model) -> Iterator[tuple[str, Any]]:
    """Every variable of a Movinet with its name in a checkpoint, in the form of `plain`."""
    yield from _layer_names(f"{ROOT}0/layer_with_weights-0/_stem", model.stem)
    for number, block in enumerate(model.bottlenecks, start=1):
        yield from _bottleneck_names(f"{ROOT}0/layer_with_weights-{number}", block)
    yield from _layer_names(f"{ROOT}0/layer_with_weights-{len(model.bottlenecks) + 1}/_project", model.project)
    yield from _layer_names(f"{ROOT}1/_head", model.head)
    yield from _layer_names(f"{ROOT}1/_classifier", model.classifier)


def _bottleneck_names(prefix: str, block: Bottleneck) -> Iterator[tuple[str, Any]]:
    yield from _layer_names(f"{prefix}/_expansion", block.expand)
    yield from _layer_names(f"{prefix}/_feature", block.space)
    if block.time is not None:
        split = isinstance(block.space, ConvNorm)  # else one kernel and one normalisation over time and space
        yield from _layer_names(f"{prefix}/_feature", block.time, "_temporal" if split else "")
    if block.excite is not None:
        yield from _layer_names(f"{prefix}/_attention/_se_reduce", block.excite.reduce)
        yield from _layer_names(f"{prefix}/_attention/_se_expand", block.excite.expand)
        if block.excite.position_scale is not None:
            yield f"{prefix}/_attention/_pos_encoding/_rezero/scale", block.excite.position_scale
    yield from _layer_names(f"{prefix}/_projection", block.project)
    if block.skip is not None:
        yield from _layer_names(f"{prefix}/_skip/_projection", block.skip.project)
    yield f"{prefix}/_mobile_bottleneck/_rezero/scale", block.scale


def _layer_names(prefix: str, layer: Any, suffix: str = "") -> Iterator[tuple[str, Any]]:
    """The variables of a ConvNorm, a convolution without bias or a dense layer."""
    convolution = layer.convolution if isinstance(layer, ConvNorm) else layer
    if hasattr(convolution, "kernel"):
        yield f"{prefix}/_conv{suffix}/kernel", convolution.kernel
    if isinstance(layer, ConvNorm):
        for name in ("gamma", "beta", "moving_mean", "moving_variance"):
            yield f"{prefix}/_batch_norm{suffix}/{name}", getattr(layer.norm, name)
    elif layer.use_bias:
        yield f"{prefix}/_conv/bias", layer.bias


# ---- the file for phones ---------------------------------------------------------------------------------


def load_mobile_tflite(model: keras.Model, path: Path | str, *, classifier: bool = True) -> None:
    """Load the published file into a mobile A0-Stream, `build("movinet-a0", 600, mobile=True)`.

    In the file the normalisations are folded into the convolutions, so gamma becomes 1 and beta the bias, with a mean
    of 0 and a variance of 1. Train such a model with `fix_norm`, because the file holds no statistics.
    classifier: whether to load the last layer, too, which needs a model with 600 classes.
    Raises StudyError and leaves the model unchanged when it is not of the mobile form, and when the file is not a
    TensorFlow Lite model or does not fit.
    """
    if not model.config.mobile:
        raise StudyError(f"{path}: these weights are for the mobile form of {model.name}: set options.mobile to true")
    layers, published = dict(_tflite_names(model)), read_tflite(path)
    own = {f"{block.name}/scale": block.scale for block in model.bottlenecks}
    for name, layer in layers.items():
        normalised = isinstance(layer, ConvNorm)
        own[f"{name}/kernel"] = layer.convolution.kernel if normalised else layer.kernel
        own[f"{name}/bias"] = layer.norm.beta if normalised else layer.bias
    for name in own.keys() & published.keys():
        if name.endswith("/kernel"):
            published[name] = from_tflite(published[name], tuple(own[name].shape))
    assign(own, published, path, f"{model.name}, mobile", without=None if classifier else f"{TOP}/classifier/")
    for layer in layers.values():
        if isinstance(layer, ConvNorm):
            neutral = {"gamma": 1.0, "moving_mean": 0.0, "moving_variance": 1.0 - NORM_EPSILON}
            for name, value in neutral.items():
                variable = getattr(layer.norm, name)
                variable.assign(np.full(variable.shape, value, np.float32))


def read_tflite(path: Path | str) -> dict[str, np.ndarray]:
    """Read kernels, biases and residual scales, dequantised to float32, by the names of _tflite_names.

    Kernels are (outputs, height, width, inputs), of depthwise convolutions (1, height, width, channels).
    Raises StudyError when the file cannot be read.
    """
    from ai_edge_litert.interpreter import Interpreter  # only here: training does not need it

    try:
        reader = Interpreter(str(path))
    except (ValueError, OSError) as error:
        raise StudyError(f"{path}: not a readable TensorFlow Lite model: {' '.join(str(error).split())}") from None
    reader.allocate_tensors()
    found = {}
    for kernel, bias in pairwise(reader.get_tensor_details()):  # a bias follows its kernel
        name = kernel["name"].split(";")[0]
        parts = name.split("/")
        if name.endswith("/rezero/mul"):
            found[f"{parts[2]}/scale"] = _dequantised(reader, kernel).flat[0]
        elif kernel["dtype"] is np.int8 and kernel["shape"].size == 4:
            if kernel["quantization_parameters"]["scales"].size == 1:
                continue  # not a kernel
            # …/conv2d_temporal/bn_temporal/… belongs to …/conv2d_temporal.
            end = next(index for index, part in enumerate(parts) if part.startswith("conv2d")) + 1
            found["/".join([*parts[:end], "kernel"])] = _dequantised(reader, kernel)
            found["/".join([*parts[:end], "bias"])] = _dequantised(reader, bias)
    return found


def _dequantised(reader: Any, tensor: dict[str, Any]) -> np.ndarray:
    """Float values of a constant tensor: (number − zero point) × scale, with one scale or one per channel."""
    parts = tensor["quantization_parameters"]
    shape = np.ones(tensor["shape"].size, int)
    shape[parts["quantized_dimension"]] = -1
    offset, scale = (parts[key].reshape(shape) for key in ("zero_points", "scales"))
    return ((reader.get_tensor(tensor["index"]).astype(np.int64) - offset) * scale).astype(np.float32)


def from_tflite(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Arrange a kernel as our variable of this shape, with the outputs last; one that does not fit as it is."""
    depthwise = kernel.shape[0] == 1 and shape[-1] == 1
    arranged = kernel[0][..., None] if depthwise else kernel.transpose(1, 2, 3, 0)
    if len(shape) == 2:  # dense
        arranged = arranged.reshape(arranged.shape[-2:])
    return arranged if arranged.shape == shape else kernel


def _tflite_names(model: keras.Model) -> Iterator[tuple[str, Any]]:
    """Every convolution of a Movinet with its name in the file."""
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
