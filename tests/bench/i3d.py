"""I3D: a training step, ours against the published Keras model

Peer: the layers of the published Keras I3D (github.com/dlpbc/keras-kinetics-i3d) as plain keras layers on TensorFlow
with oneDNN: Conv3D without bias, BatchNormalization without scale, ReLU, "same" pooling; float32. Ours: the study's
I3D on either backend, in bfloat16 where the processor computes in it, as a recipe with `mixed_precision` has it, and in
float32. Both train all layers with train_on_batch and Adam, on {batch} random clips of {frames} frames × {size}²; one
thread each.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from bench.report import compare, machine, versions, write
from bench.sides import Side, alternate

CLASSES, RATE = 100, 0.01
TARGET = "≤ 0.5"
SIDES = {"TensorFlow": ("tensorflow", False), "torch": ("torch", False), "TensorFlow, mixed": ("tensorflow", True)}
SIDES |= {"torch, mixed": ("torch", True)}


def main(name: str = "i3d", rounds: int = 5, batch: int = 2, frames: int = 16, size: int = 112) -> Path:
    """Measure, and write the report."""
    where, form = machine(), {"batch": batch, "frames": frames, "size": size}
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with ExitStack() as stack:
        sides = {"peer": stack.enter_context(Side("bench.i3d:published", backend="tensorflow", **form))}
        for label, (backend, mixed) in SIDES.items():
            side = Side("bench.i3d:ours", backend=backend, mixed=mixed, **form)
            sides[label] = stack.enter_context(side)
        taken = alternate(sides, "step", rounds, warm_up=2)
        notes = {label: sides[label]("precision")["value"] for label in SIDES}
    rows = [
        compare(f"training step, {label}", taken[label], taken["peer"], TARGET, note=notes[label]) for label in SIDES
    ]
    return write(name, __doc__.format(**form), rows, versions("tensorflow", "torch", "keras"), where)


def ours(mixed: bool, batch: int, frames: int, size: int) -> dict[str, Callable[[], Any]]:
    """Our side."""
    from bench.training import compiled
    from lib.models import build
    from lib.recipes import Training

    recipe = Training(optimizer="adam", learning_rate=RATE, mixed_precision=mixed)
    return _works(compiled(lambda: build("i3d", CLASSES, (frames, size, size)), recipe), batch, frames, size)


def published(batch: int, frames: int, size: int) -> dict[str, Callable[[], Any]]:
    """The peer's side."""
    import keras

    network = _published_network((frames, size, size, 3))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(RATE), loss, jit_compile=False)
    return _works(network, batch, frames, size)


def _works(model: Any, batch: int, frames: int, size: int) -> dict[str, Callable[[], Any]]:
    clips = np.random.default_rng(0).random((batch, frames, size, size, 3), np.float32)
    labels = np.eye(CLASSES, dtype=np.float32)[:batch]
    return {
        "step": lambda: float(model.train_on_batch(clips, labels)),
        "parameters": model.count_params,
        "precision": lambda: model.get_layer("Conv3d_2c_3x3").compute_dtype,
    }


def _published_network(shape: tuple[int, ...]) -> Any:
    """The published network; its inputs are in [-1, 1] already."""
    import keras
    from keras import layers

    from lib.models.i3d import MIXED, POOLS

    def convolve(x: Any, filters: int, kernel: int, strides: int = 1, name: str | None = None) -> Any:
        x = layers.Conv3D(filters, kernel, strides, "same", use_bias=False)(x)
        return layers.ReLU(name=name)(layers.BatchNormalization(scale=False)(x))

    clips = keras.Input(shape)
    x = layers.MaxPooling3D((1, 3, 3), (1, 2, 2), "same")(convolve(clips, 64, 7, 2))
    x = convolve(convolve(x, 64, 1), 192, 3, name="Conv3d_2c_3x3")
    x = layers.MaxPooling3D((1, 3, 3), (1, 2, 2), "same")(x)
    for block, (one, three_in, three, five_in, five, pooled) in MIXED.items():
        if block in POOLS:
            x = layers.MaxPooling3D(POOLS[block][1], 2, "same")(x)
        branches = [
            convolve(x, one, 1),
            convolve(convolve(x, three_in, 1), three, 3),
            convolve(convolve(x, five_in, 1), five, 3),
            convolve(layers.MaxPooling3D(3, 1, "same")(x), pooled, 1),
        ]
        x = layers.Concatenate()(branches)
    x = layers.AveragePooling3D((min(2, x.shape[1]), *x.shape[2:4]), strides=1)(x)
    x = layers.Conv3D(CLASSES, 1)(layers.Dropout(0.5)(x))
    return keras.Model(clips, layers.GlobalAveragePooling3D()(x))
