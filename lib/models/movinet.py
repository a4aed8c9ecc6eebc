"""MoViNet A0 to A5, base and stream (Kondratyuk et al. 2021, arXiv 2103.11511).

Structure, names and constants are those of the official code (PyPI tf-models-official, projects/movinet), so that its
checkpoints can be loaded.
"""

from typing import Any

import keras
from keras import layers, ops

from lib.models.layers import frame_differences
from lib.models.movinet_layers import ConvNorm, MovinetConfig, bottlenecks, in_frames, pointwise
from lib.models.movinet_sizes import SIZES
from lib.models.movinet_weights import load_official_checkpoint as load_official_checkpoint  # part of this interface

HEAD_FILTERS = 2048  # of all six sizes

# Parameters of the official code (tf-models-official 2.20) with 600 classes, base and stream; multiply-adds of the base
# model on one clip in 1e9, as published.
SOURCE = "parameters: tf-models-official 2.20; multiply-adds: arXiv 2103.11511, to two digits"
PUBLISHED = {
    f"movinet-{size}": {
        "parameters": base, "parameters_stream": stream, "classes": 600, "multiply_adds": cost,
        "clip": SIZES[size].clip, "source": SOURCE,
    }
    for size, base, stream, cost in (
        ("a0", 3_126_071, 3_765_983, 2.7),
        ("a1", 4_717_912, 6_481_560, 6.0),
        ("a2", 5_280_922, 7_366_050, 10.0),
        ("a3", 7_443_289, 11_043_146, 57.0),
        ("a4", 11_422_727, 18_228_326, 110.0),
        ("a5", 18_763_355, 31_636_734, 280.0),
    )
}  # fmt: skip


class Movinet(keras.Model):
    """Clips float32 (batch, frames, height, width, 3) in [0, 1] to logits (batch, num_classes)."""

    def __init__(self, config: MovinetConfig, num_classes: int) -> None:
        super().__init__(name=f"movinet-{config.size}")
        size = SIZES[config.size]
        self.config = config
        stem = layers.Conv2D(size.stem, 3, 2, "same", use_bias=False, kernel_initializer="he_normal", name="space")
        self.stem = ConvNorm(stem, config, name="stem")
        self.bottlenecks = bottlenecks(config)
        self.project = ConvNorm(pointwise(size.project), config, name="project")
        activation = "relu6" if config.mobile else "silu"
        self.head = layers.Dense(HEAD_FILTERS, activation, kernel_initializer="he_normal", name="head")
        self.dropout = layers.Dropout(config.dropout, name="dropout")
        start = keras.initializers.RandomNormal(stddev=0.01)
        self.classifier = layers.Dense(num_classes, kernel_initializer=start, dtype="float32", name="classifier")

    @property
    def stages(self) -> list[layers.Layer]:
        """Stem, bottlenecks and projection, from the input on."""
        return [self.stem, *self.bottlenecks, self.project]

    def call(self, clips: Any, training: bool | None = None) -> Any:
        """Keras passes `training` on to the layers, but `fit` sets it only where `call` has it as an argument."""
        return self.run(clips, {})[0]

    def run(self, frames: Any, buffers: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Classify a clip piece by piece: the logits of all frames so far, and the buffers for the next call.

        frames: the next piece, (batch, frames, height, width, 3). buffers: what the previous call returned, empty or
        all zeros at the start of a clip. Only a stream model gives the same logits as for the whole clip at once.
        """
        after = {}
        seen = buffers.get("frames_seen")
        x = frames
        if self.config.differences:
            x = frame_differences(frames, buffers.get("last_frame"), seen)
            after["last_frame"] = frames[:, -1:]
        x = in_frames(self.stem, x)
        for block in self.bottlenecks:
            names = {part: f"{block.name}_{part}" for part in ("frames", "total")}
            own = {part: buffers[name] for part, name in names.items() if name in buffers}
            x, new = block(x, own, seen)
            after.update({names[part]: value for part, value in new.items()})
        features = ops.sum(ops.mean(ops.cast(in_frames(self.project, x), "float32"), (2, 3)), 1)
        after["features"] = features if seen is None else features + buffers["features"]
        # Not full_like: torch cannot trace it, and Keras would run the network on 83 clips to find the output shapes.
        after["frames_seen"] = ops.ones_like(features[:, :1]) * frames.shape[1] + (0.0 if seen is None else seen)
        return self.classifier(self.dropout(self.head(after["features"] / after["frames_seen"]))), after


def build_movinet(num_classes: int, config: MovinetConfig, clip: tuple[int, int, int] | None = None) -> Movinet:
    """Build a MoViNet, by default for clips of the size's published shape; see lib.models.build."""
    model = Movinet(config, num_classes)
    model.clip = clip or SIZES[config.size].clip
    model(keras.Input((*model.clip, 3)))
    return model


def probe() -> keras.Model:
    """The second and third bottleneck of the A0 stream."""
    x = inputs = keras.Input((8, 24, 24, 8))
    for block in bottlenecks(MovinetConfig(stream=True))[1:3]:
        x = block(x)[0]
    return keras.Model(inputs, x)
