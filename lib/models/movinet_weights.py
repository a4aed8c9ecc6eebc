"""Published MoViNet weights into ours: TensorFlow checkpoints of the official release."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lib.study import StudyError

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
