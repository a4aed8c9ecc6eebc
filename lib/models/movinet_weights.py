"""Published MoViNet weights into ours: TensorFlow checkpoints of the official release."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lib.settings import StudyError

if TYPE_CHECKING:
    from lib.models.movinet import Bottleneck, ConvNorm, Movinet

ROOT = "model/layer_with_weights-"  # of a checkpoint; 0 is the network, 1 the classifier


def load_official_checkpoint(model: Movinet, path: Path | str) -> None:
    """Fill a model from a published TensorFlow checkpoint, such as …/movinet_a0_base/ckpt-1 (no suffix).

    Every variable of the model, the classifier's too, must have its like in the file and the other way round.
    Raises StudyError, and leaves the model as it was, when there is no such checkpoint or when variables do not
    match; all of these are listed.
    """
    published = read_checkpoint(path)
    own = dict(official_names(model))
    problems = [f"only in the model: {name}" for name in own.keys() - published.keys()]
    problems += [f"only in the file: {name}" for name in published.keys() - own.keys()]
    arrays = {name: to_own_layout(published[name], tuple(own[name].shape)) for name in own.keys() & published.keys()}
    for name, array in arrays.items():
        if array is None:
            problems.append(f"{name} is {published[name].shape} in the file, {tuple(own[name].shape)} in the model")
    if problems:
        raise StudyError(f"{path}: these are not weights for {model.name}; " + "; ".join(sorted(problems)))
    for name, array in arrays.items():
        own[name].assign(array)


def read_checkpoint(path: Path | str) -> dict[str, np.ndarray]:
    """Read the variables of a model in a TensorFlow checkpoint, by names that do not tell how a layer is wrapped.

    Raises StudyError when there is no readable checkpoint.
    """
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
    """A variable's name without what differs between the forms of a convolution in the official code."""
    name = name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE").replace("depthwise_kernel", "kernel")
    return name.replace("_conv/_conv/", "_conv/").replace("_conv_temporal/_conv/", "_conv_temporal/")


def to_own_layout(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Arrange a published kernel as ours; None when it does not fit.

    A depthwise kernel of three dimensions (frames, height, width, 1, channels) becomes (height, width, channels,
    frames), or, over time alone, (frames, 1, channels, 1). Elsewhere only sides of 1 come or go.
    """
    if array.ndim == 5 and array.shape[3] == 1 and shape[-1] == array.shape[0]:
        array = array.transpose(1, 2, 4, 0, 3)
    sides = [[side for side in each if side != 1] for each in (array.shape, shape)]
    return array.reshape(shape) if sides[0] == sides[1] else None


def official_names(model: Movinet) -> Iterator[tuple[str, Any]]:
    """Every variable of a model with its official name, as `plain` has it."""
    yield from conv_norm(f"{ROOT}0/layer_with_weights-0/_stem", model.stem)
    for number, block in enumerate(model.bottlenecks, start=1):
        yield from bottleneck(f"{ROOT}0/layer_with_weights-{number}", block)
    last = len(model.bottlenecks) + 1
    yield from conv_norm(f"{ROOT}0/layer_with_weights-{last}/_project", model.project)
    yield from dense(f"{ROOT}1/_head", model.head)
    yield from dense(f"{ROOT}1/_classifier", model.classifier)


def bottleneck(prefix: str, block: Bottleneck) -> Iterator[tuple[str, Any]]:
    """The variables of a bottleneck. Over time and space in one, there is one kernel and one normalisation."""
    yield from conv_norm(f"{prefix}/_expansion", block.expand)
    split = hasattr(block.space, "norm")
    if split:
        yield from conv_norm(f"{prefix}/_feature", block.space)
    else:
        yield f"{prefix}/_feature/_conv/kernel", block.space.kernel
    if block.time is not None:
        if split:
            yield f"{prefix}/_feature/_conv_temporal/kernel", block.time.convolution.kernel
        yield from norm(f"{prefix}/_feature/_batch_norm{'_temporal' if split else ''}", block.time)
    if block.excite is not None:
        yield from dense(f"{prefix}/_attention/_se_reduce", block.excite.reduce)
        yield from dense(f"{prefix}/_attention/_se_expand", block.excite.expand)
        if block.excite.position_scale is not None:
            yield f"{prefix}/_attention/_pos_encoding/_rezero/scale", block.excite.position_scale
    yield from conv_norm(f"{prefix}/_projection", block.project)
    if block.skip is not None:
        yield from conv_norm(f"{prefix}/_skip/_projection", block.skip.project)
    yield f"{prefix}/_mobile_bottleneck/_rezero/scale", block.scale


def conv_norm(prefix: str, layer: ConvNorm) -> Iterator[tuple[str, Any]]:
    """A kernel and its normalisation."""
    yield f"{prefix}/_conv/kernel", layer.convolution.kernel
    yield from norm(f"{prefix}/_batch_norm", layer)


def norm(prefix: str, layer: ConvNorm) -> Iterator[tuple[str, Any]]:
    """The normalisation of a layer."""
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        yield f"{prefix}/{name}", getattr(layer.norm, name)


def dense(prefix: str, layer: Any) -> Iterator[tuple[str, Any]]:
    """A kernel and its bias."""
    yield f"{prefix}/_conv/kernel", layer.kernel
    yield f"{prefix}/_conv/bias", layer.bias


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
    kernels = {name: from_tflite(published[name].kernel, kernel_of(own[name])) for name in own if name in published}
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
    if not hasattr(layer, "convolution"):
        layer.bias.assign(bias)
        return
    from lib.models.movinet import NORM_EPSILON

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


def from_tflite(kernel: np.ndarray, variable: Any) -> np.ndarray | None:
    """Arrange a kernel as our variable; None when it does not fit. Outputs come last with us, channels stay."""
    depthwise = kernel.shape[0] == 1 and variable.shape[-1] == 1
    arranged = kernel[0][..., None] if depthwise else kernel.transpose(1, 2, 3, 0)
    if len(variable.shape) == 2:  # dense
        arranged = arranged.reshape(arranged.shape[-2:])
    return arranged if arranged.shape == tuple(variable.shape) else None


def kernel_of(layer: Any) -> Any:
    """The variable of a layer's kernel."""
    return layer.convolution.kernel if hasattr(layer, "convolution") else layer.kernel


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


PUBLISHED_CLASSES = 600  # of MoViNet's files, Kinetics-600


def load_published_weights(model: Movinet, path: Path) -> None:
    """Fill all but the classifier from a file of MoViNet: an archive with a checkpoint, or the TFLite file.

    Raises StudyError when a layer of one has no counterpart in the other.
    """
    from lib.models.movinet import build_movinet

    published = build_movinet(PUBLISHED_CLASSES, clip=(1, 32, 32), **model.config.model_dump())
    if path.suffix == ".tflite":
        load_mobile_tflite(published, path)
    else:
        load_official_checkpoint(published, unpack(path))
    kept = {id(weight) for weight in model.classifier.weights}
    for own, other in zip(model.variables, published.variables, strict=True):
        if id(own) not in kept and not is_random_state(own):
            own.assign(other)


def is_random_state(variable: Any) -> bool:
    """Whether a variable is the state of dropout, which is the model's own."""
    return variable.name == "seed_generator_state"


def unpack(archive: Path) -> Path:
    """Unpack an archive of a checkpoint beside it, unless that was done. Returns the checkpoint's name, no suffix.

    Raises StudyError when it can't be read or holds no checkpoint.
    """
    folder = archive.with_name(archive.name.removesuffix(".tar.gz"))
    if not find_checkpoint(folder):
        try:
            with tarfile.open(archive) as file:
                file.extractall(folder, filter="data")
        except (OSError, tarfile.TarError, EOFError) as error:
            raise StudyError(f"{archive}: not a readable archive ({error}): delete it and download it again") from None
    found = find_checkpoint(folder)
    if not found:
        raise StudyError(f"{archive}: holds no TensorFlow checkpoint (*.index)")
    return found


def find_checkpoint(folder: Path) -> Path | None:
    """The checkpoint in a folder by its name without suffix, None where there is none."""
    return next((path.with_suffix("") for path in sorted(folder.rglob("*.index"))), None)
