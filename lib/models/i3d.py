"""I3D: Inception-v1 with its kernels inflated to three dimensions (Carreira & Zisserman 2017, arXiv 1705.07750), RGB.

The layers, their names, "same" padding and normalisation without scale are those of the published Keras weights
(github.com/dlpbc/keras-kinetics-i3d, converted from github.com/deepmind/kinetics-i3d), so that these can be loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from keras import layers
from pydantic import BaseModel, ConfigDict, Field

from lib.models import freeze
from lib.models.layers import DIFFERENCES, frame_differences
from lib.settings import StudyError

NORM_EPSILON = 1e-3  # keras' default, which the published Keras model keeps
CLIP = (64, 224, 224)  # frames, height, width of the published training

# Mixed blocks: filters of the 1 × 1 × 1 branch, of both layers of two 3 × 3 × 3 branches, of the pooled branch
# (Szegedy et al. 2014, table 1; as in the inflated network, the "5 × 5" branch has kernels of 3).
MIXED = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}
POOLS = {"4b": ("MaxPool2d_4a_3x3", (3, 3, 3)), "5b": ("MaxPool2d_5a_2x2", (2, 2, 2))}  # before these blocks
STAGES = ("1a", "2b", "2c", *MIXED)  # what `freeze` counts; the names of a stage's layers begin with Conv3d_<stage>_

# Multiply-adds of one clip in 1e9, parameters with `classes` outputs.
PUBLISHED = {
    "i3d": {
        "parameters": 12_704_544, "classes": 400, "multiply_adds": 108.0, "clip": CLIP,
        "source": "parameters: of the published file, and the head; multiply-adds: arXiv 1812.03982, table 2",
    }
}  # fmt: skip


class I3DConfig(BaseModel):
    """What may differ from the published network; the defaults are its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dropout: float = Field(0.5, ge=0, lt=1, description="of the features before the head")
    momentum: float = Field(0.99, ge=0, lt=1, description="share of the running mean and variance that a step keeps")
    freeze: int = Field(0, ge=0, le=len(STAGES), description="stages, from the input, that do not train")
    differences: bool = Field(False, description=DIFFERENCES)


def build_i3d(num_classes: int, clip: tuple[int, int, int] = CLIP, **options: Any) -> keras.Model:
    """Make a model of clips float32 (batch, frames, height, width, 3) in [0, 1] to logits (batch, num_classes).

    clip: frames, height and width, each at least 1; `options` are fields of I3DConfig.
    Raises pydantic's ValidationError for an unknown or wrong option.
    """
    config = I3DConfig(**options)
    clips = keras.Input((*clip, 3))
    x = layers.Rescaling(2.0, -1.0, name="normalise")(clips)  # the published weights expect [-1, 1]
    x = frame_differences(x) if config.differences else x
    x = inception(stem(x, config.momentum), config.momentum)
    x = layers.AveragePooling3D((min(2, x.shape[1]), *x.shape[2:4]), strides=1, name="features")(x)
    x = layers.Dropout(config.dropout, name="dropout")(x)
    x = layers.Conv3D(num_classes, 1, dtype="float32", name="head")(x)
    model = keras.Model(clips, layers.GlobalAveragePooling3D(dtype="float32", name="logits")(x), name="i3d")
    model.stages = [[layer for layer in model.layers if layer.name.startswith(f"Conv3d_{stage}_")] for stage in STAGES]
    freeze(model, config.freeze)
    return model


def feature_extractor(model: keras.Model) -> keras.Model:
    """Make a model of the features after the last average pooling; it shares the weights of `model`.

    Clips as build_i3d's to float32 (batch, steps, 1, 1, 1024); 8 frames give one step, each further 8 one more,
    less one for the pool's window of 2.
    """
    return keras.Model(model.input, model.get_layer("features").output, name="i3d_features")


def load_published_weights(model: keras.Model, path: Path) -> None:
    """Fill all but the head from a published `rgb_inception_i3d_…_no_top.h5` (Keras 2 HDF5).

    Raises StudyError, and leaves the model as it was, when the file is not HDF5 or when a variable of the model or of
    the file has no counterpart of the same shape; all of these are listed.
    """
    published = read_variables(path)
    own = {f"{layer.name}/{weight.name}": weight for layer in model.layers for weight in layer.weights}
    own = {name: weight for name, weight in own.items() if trained(name)}
    problems = [f"only in the model: {name}" for name in own.keys() - published.keys()]
    problems += [f"only in the file: {name}" for name in published.keys() - own.keys()]
    for name in own.keys() & published.keys():
        if tuple(own[name].shape) != published[name].shape:
            problems.append(f"{name} is {published[name].shape} in the file, {tuple(own[name].shape)} in the model")
    if problems:
        raise StudyError(f"{path}: these are not weights for i3d without its head; " + "; ".join(sorted(problems)))
    for name, weight in own.items():
        weight.assign(published[name])


def trained(name: str) -> bool:
    """Whether a variable is one of the network below the head, not dropout's random state."""
    return name.startswith("Conv3d_")


def read_variables(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a Keras 2 weights file by "layer/variable"."""
    found: dict[str, np.ndarray] = {}

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):  # named layer/layer/variable:0
            found["/".join(name.split("/")[-2:]).removesuffix(":0")] = item[()]

    try:
        with h5py.File(path) as file:
            file.visititems(collect)
    except OSError as error:
        raise StudyError(f"{path}: not a readable HDF5 file: {error}") from None
    return found


def stem(x: Any, momentum: float) -> Any:
    """The layers before the mixed blocks: an eighth of the height and width, half of the frames, 192 channels."""
    x = convolve(x, 64, 7, "1a_7x7", momentum, strides=2)
    x = max_pool(x, (1, 3, 3), (1, 2, 2), "MaxPool2d_2a_3x3")
    x = convolve(x, 64, 1, "2b_1x1", momentum)
    x = convolve(x, 192, 3, "2c_3x3", momentum)
    return max_pool(x, (1, 3, 3), (1, 2, 2), "MaxPool2d_3a_3x3")


def inception(x: Any, momentum: float) -> Any:
    """The mixed blocks: a quarter of the height, width and frames that come in, 1024 channels."""
    for block, filters in MIXED.items():
        if block in POOLS:
            name, window = POOLS[block]
            x = max_pool(x, window, 2, name)
        x = mixed(x, block, filters, momentum)
    return x


def mixed(x: Any, block: str, filters: tuple[int, ...], momentum: float) -> Any:
    """One mixed block: four branches side by side."""
    one, three_in, three, five_in, five, pooled = filters
    branch_0 = convolve(x, one, 1, f"{block}_0a_1x1", momentum)
    branch_1 = convolve(x, three_in, 1, f"{block}_1a_1x1", momentum)
    branch_1 = convolve(branch_1, three, 3, f"{block}_1b_3x3", momentum)
    branch_2 = convolve(x, five_in, 1, f"{block}_2a_1x1", momentum)
    branch_2 = convolve(branch_2, five, 3, f"{block}_2b_3x3", momentum)
    branch_3 = max_pool(x, (3, 3, 3), 1, f"MaxPool2d_{block}_3a_3x3")
    branch_3 = convolve(branch_3, pooled, 1, f"{block}_3b_1x1", momentum)
    return layers.Concatenate(name=f"Mixed_{block}")([branch_0, branch_1, branch_2, branch_3])


def convolve(x: Any, filters: int, kernel: int, name: str, momentum: float, strides: int = 1) -> Any:
    """Convolution without bias, normalisation without scale, ReLU."""
    name = f"Conv3d_{name}"
    x = layers.Conv3D(filters, kernel, strides, "same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(momentum=momentum, epsilon=NORM_EPSILON, scale=False, name=f"{name}_bn")(x)
    return layers.ReLU(name=name)(x)


def max_pool(x: Any, window: tuple[int, int, int], strides: int | tuple[int, int, int], name: str) -> Any:
    """Greatest value in each window; at the borders the window is cut, never padded with a value."""
    return layers.MaxPooling3D(window, strides, "same", name=name)(x)
