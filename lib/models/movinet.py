"""MoViNet A0 to A5, base and stream (Kondratyuk et al. 2021, arXiv 2103.11511), in keras.layers and keras.ops only.

Structure, names and constants are those of the official code (PyPI tf-models-official, projects/movinet), so that its
checkpoints can be loaded. Frames lie in the batch, and every convolution is one or more two-dimensional ones: a
depthwise convolution over t × k × k equals t depthwise ones over k × k, shifted in time and added up. That is fast on
a processor, has a gradient there, and exports to phones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Self

import keras
import numpy as np
from keras import layers, ops
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lib.models import freeze
from lib.models.layers import DIFFERENCES, BatchNorm, frame_differences
from lib.models.movinet_sizes import SIZES
from lib.models.movinet_weights import load_official_checkpoint as load_official_checkpoint  # so that it is found here

NORM_EPSILON = 1e-3  # official norm_epsilon
HEAD_FILTERS, HEAD_ACTIVATION = 2048, "silu"  # of all six sizes, also in a stream with hard swish elsewhere
MOBILE_ACTIVATION = "relu6"  # throughout, the head too
SQUEEZE_RATIO = 0.25  # official se_ratio
POSITIONS_FROM = "a3"  # from this size on, the published stream models encode the position of a frame

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

Buffers = dict[str, Any]
PARTS = ("frames", "total")  # buffers of a bottleneck: its last frames, and the sum that its gate averages


class MovinetConfig(BaseModel):
    """Which size and form, and what may differ from the published network; None: as published for the form."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Literal["a0", "a1", "a2", "a3", "a4", "a5"] = "a0"
    stream: bool = Field(False, description="causal, so that it can go frame by frame")
    mobile: bool = Field(False, description="the published form for phones: stream, no squeeze-excite, ReLU6")
    conv_type: Literal["3d", "2plus1d", "3d_2plus1d"] | None = Field(
        None, description="one convolution over time and space, or one after the other; the last two compute the same"
    )
    squeeze_excite: Literal["3d", "2d", "2plus3d", "none"] | None = Field(
        None, description="gated by the mean over the clip (stream: so far), of each frame, of both, or not at all"
    )
    activation: Literal["silu", "hard_silu", "relu6"] | None = None
    gating: Literal["sigmoid", "hard_sigmoid"] | None = None
    positions: bool | None = Field(None, description="tell the squeeze-excite the number of the frame; stream only")
    dropout: float = Field(0.0, ge=0, lt=1, description="of the features before the classifier")
    stochastic_depth: float = Field(0.0, ge=0, le=1, description="share of clips that skip the last block; linear")
    momentum: float = Field(0.99, ge=0, lt=1, description="share of the running mean and variance that a step keeps")
    residual: float = Field(
        0.0, ge=0, description="what the residual of a bottleneck is multiplied by at first; learned"
    )
    fix_norm: bool = Field(False, description="normalise by the running mean and variance in training, too")
    freeze: int = Field(0, ge=0, description="stages, from the input, that do not train")
    differences: bool = Field(False, description=DIFFERENCES)

    @model_validator(mode="before")
    @classmethod
    def _as_published(cls, given: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(given, dict):
            return given
        stream = bool(given.get("stream") or given.get("mobile"))
        published = {
            "stream": stream,
            "conv_type": "2plus1d" if stream else "3d",
            "squeeze_excite": "none" if given.get("mobile") else "2plus3d" if stream else "3d",
            "activation": MOBILE_ACTIVATION if given.get("mobile") else "hard_silu" if stream else "silu",
            "gating": "hard_sigmoid" if stream else "sigmoid",
            "positions": stream and not given.get("mobile") and given.get("size", "a0") >= POSITIONS_FROM,
        }
        return {**published, **{key: value for key, value in given.items() if value is not None}, "stream": stream}

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.positions and (not self.stream or self.squeeze_excite == "none"):
            raise ValueError("positions are told to the squeeze-excite of a stream model; this one has none")
        return self


def build_movinet(num_classes: int, clip: tuple[int, int, int] | None = None, **options: Any) -> Movinet:
    """Make a model of clips float32 (batch, frames, height, width, 3) in [0, 1] to logits (batch, num_classes).

    clip: frames, height and width, each at least 1, by default the size's published ones; `options` are fields of
    MovinetConfig. Raises pydantic's ValidationError for an unknown or wrong option and ValueError for more frozen
    stages than there are.
    """
    config = MovinetConfig(**options)
    clip = clip or SIZES[config.size].clip
    model = Movinet(config, num_classes)
    model(keras.Input((*clip, 3)))
    model.clip = clip
    freeze(model, config.freeze)
    return model


class Movinet(keras.Model):
    """The whole network; `stages` are its stem, its bottlenecks and its projection, in order."""

    def __init__(self, config: MovinetConfig, num_classes: int) -> None:
        """Make the layers; see build_movinet."""
        super().__init__(name=f"movinet-{config.size}")
        size = SIZES[config.size]
        self.config = config
        stem = layers.Conv2D(size.stem, 3, 2, "same", use_bias=False, kernel_initializer="he_normal", name="space")
        self.stem = ConvNorm(stem, config, name="stem")
        self.bottlenecks = list(make_bottlenecks(config))
        self.project = ConvNorm(pointwise(size.project), config, name="project")
        active = MOBILE_ACTIVATION if config.mobile else HEAD_ACTIVATION
        self.head = layers.Dense(HEAD_FILTERS, active, kernel_initializer="he_normal", name="head")
        self.dropout = layers.Dropout(config.dropout, name="dropout")
        start = keras.initializers.RandomNormal(stddev=0.01)
        self.classifier = layers.Dense(num_classes, kernel_initializer=start, dtype="float32", name="classifier")

    @property
    def stages(self) -> list[layers.Layer]:
        """Stem, bottlenecks and projection, in the order of the data."""
        return [self.stem, *self.bottlenecks, self.project]

    def call(self, clips: Any, training: bool | None = None) -> Any:
        """Logits of whole clips.

        keras hands `training` on to the layers; `fit` gives it only to a model whose call names it.
        """
        return self.run(clips, {})[0]

    def run(self, frames: Any, buffers: Buffers) -> tuple[Any, Buffers]:
        """Logits after the last of `frames` (batch, frames, height, width, 3), and the buffers to go on from there.

        buffers: what an earlier call gave, or nothing at the start of a clip.
        """
        after: Buffers = {}
        seen = buffers.get("frames_seen")
        x = frames
        if self.config.differences:
            x = frame_differences(frames, buffers.get("last_frame"), seen)
            after["last_frame"] = frames[:, -1:]
        x = in_frames(self.stem, x)
        for block in self.bottlenecks:
            own = {part: buffers[f"{block.name}_{part}"] for part in PARTS if f"{block.name}_{part}" in buffers}
            x, new = block(x, own, seen)
            after.update({f"{block.name}_{part}": value for part, value in new.items()})
        features = ops.sum(ops.mean(ops.cast(in_frames(self.project, x), "float32"), (2, 3)), 1)
        after["features"] = features if seen is None else features + buffers["features"]
        # Not full_like: torch cannot trace it, and keras would run the network on 83 clips to learn what build gives.
        after["frames_seen"] = ops.ones_like(features[:, :1]) * frames.shape[1] + (0.0 if seen is None else seen)
        return self.classify(after["features"] / after["frames_seen"]), after

    def classify(self, features: Any) -> Any:
        """Logits of the mean features of a clip."""
        return self.classifier(self.dropout(self.head(features)))


def count_stages(size: str) -> int:
    """How many stages a size has: stem, bottlenecks, projection."""
    return 2 + sum(len(block.expanded) for block in SIZES[size].blocks)


def streaming(model: Movinet, frames: int = 1) -> keras.Model:
    """Make a model that goes through a clip in pieces of `frames`, sharing the weights of a stream `model`.

    Reads {"image": float32 (batch, frames, height, width, 3) in [0, 1], and each buffer of `first_buffers` by name},
    gives {"logits": of all frames so far, and each buffer by name, to be read with the next piece}.
    Raises ValueError for a base model, whose first frames look at later ones.
    """
    if not model.config.stream:
        raise ValueError(f"{model.name} looks ahead and cannot go frame by frame: build it with stream=True")
    image = keras.Input((frames, *model.clip[1:], 3), name="image")
    shapes = {name: buffer.shape[1:] for name, buffer in model.run(image, {})[1].items()}
    buffers = {name: keras.Input(shape, name=name) for name, shape in shapes.items()}
    logits, after = model.run(image, buffers)
    return keras.Model({"image": image, **buffers}, {"logits": logits, **after}, name=f"{model.name}-streaming")


def first_buffers(stream: keras.Model, batch: int = 1) -> dict[str, np.ndarray]:
    """Make the buffers of a `streaming` model before the first frame: float32 zeros by name."""
    inputs = {name: tensor for name, tensor in stream.input.items() if name != "image"}
    return {name: np.zeros((batch, *tensor.shape[1:]), np.float32) for name, tensor in inputs.items()}


# ---- layers ----------------------------------------------------------------------------------------------


def hard_silu(x: Any) -> Any:
    """x · relu6(x + 3) / 6; written so, TensorFlow takes 15 % off a whole forward pass that keras' own needs."""
    return x * ops.relu6(x + 3) * (1 / 6)


ACTIVATIONS = {"silu": ops.silu, "hard_silu": hard_silu, "relu6": ops.relu6}


class ConvNorm(layers.Layer):
    """A convolution, normalisation, activation."""

    def __init__(self, convolution: layers.Layer, config: MovinetConfig, *, active: bool = True, name: str) -> None:
        """The convolution comes without bias; with `active` the configuration's activation follows."""
        super().__init__(name=name)
        self.convolution = convolution
        self.norm = BatchNorm(fixed=config.fix_norm, momentum=config.momentum, epsilon=NORM_EPSILON)
        self.activation = ACTIVATIONS[config.activation] if active else keras.activations.linear

    def build(self, shape: Sequence[int | None]) -> None:
        """shape: of x, channels last."""
        self.convolution.build(shape)
        self.norm.build(self.convolution.compute_output_shape(shape))

    def call(self, x: Any, before: Any = None, training: bool | None = None) -> Any:
        """Frames, in a batch or by clips; a convolution over time also reads those before them.

        Where the statistics are fixed they go into the kernel: a pass over the data less, a quarter of the time.
        """
        fixed = self.norm.fixed or not (training and self.norm.trainable)
        if fixed and self.compute_dtype == "float32" and hasattr(self.convolution, "kernel"):
            scale = self.norm.gamma * ops.rsqrt(self.norm.moving_variance + self.norm.epsilon)
            shift = self.norm.beta - self.norm.moving_mean * scale
            return self.activation(convolve(self.convolution, x, before, scale) + shift)
        return self.activation(self.norm(convolve(self.convolution, x, before), training=training))


class TimeConv(layers.Layer):
    """A depthwise convolution over time; in a stream model only over the frames that have been."""

    def __init__(self, length: int, causal: bool) -> None:
        """length: of the kernel, in frames."""
        super().__init__(name="time_conv")
        self.length, self.causal = length, causal

    def build(self, shape: Sequence[int | None]) -> None:
        """shape: (batch, frames, height, width, channels)."""
        self.kernel = self.add_weight((self.length, 1, shape[-1], 1), "he_normal", name="kernel")

    def compute_output_shape(self, shape: Sequence[int | None]) -> Sequence[int | None]:
        """The same."""
        return shape

    def call(self, x: Any, before: Any = None, scale: Any = 1.0) -> Any:
        """x and the frames before it, float (batch, frames, height, width, channels), to as many frames as x.

        scale: of the kernel, one for each channel.
        """
        padded = pad_time(x, self.length, self.causal, before)
        _, frames, height, width, channels = padded.shape
        flat = ops.reshape(padded, (-1, frames, height * width, channels))
        kernel = self.kernel * ops.reshape(scale, (-1, 1))
        mixed = ops.depthwise_conv(flat, ops.cast(kernel, flat.dtype))
        return ops.reshape(mixed, (-1, *x.shape[1:]))


class TimeSum(layers.Layer):
    """The second half of a depthwise convolution over time and space; the first gives each channel `length` times.

    Adds these up, each shifted by one frame more.
    """

    def __init__(self, length: int, causal: bool) -> None:
        """length: of the kernel, in frames."""
        super().__init__(name="time_sum")
        self.length, self.causal = length, causal

    def compute_output_shape(self, shape: Sequence[int | None]) -> Sequence[int | None]:
        """Fewer channels."""
        return *shape[:-1], shape[-1] // self.length

    def call(self, x: Any, before: Any = None) -> Any:
        """x and the frames before it, float (batch, frames, height, width, channels × length), to the channels."""
        padded = pad_time(x, self.length, self.causal, before)
        count = x.shape[1]
        taps = ops.reshape(padded, (-1, *padded.shape[1:-1], x.shape[-1] // self.length, self.length))
        return sum(taps[:, tap : tap + count, ..., tap] for tap in range(self.length))


class SqueezeExcite(layers.Layer):
    """A gate for each channel, from the mean over the clip (stream: so far), over each frame, or both."""

    def __init__(self, filters: int, config: MovinetConfig) -> None:
        """filters: channels that come in and go out."""
        super().__init__(name="squeeze_excite")
        self.config = config
        double = 2 if config.squeeze_excite == "2plus3d" else 1
        hidden = divisible(SQUEEZE_RATIO * filters * double)
        self.reduce = layers.Dense(hidden, config.activation, kernel_initializer="he_normal", name="reduce")
        self.expand = layers.Dense(filters, config.gating, kernel_initializer="he_normal", name="expand")

    def build(self, _shape: Any) -> None:
        """The weight of the positions starts at 0: the network learns whether they are of use."""
        self.position_scale = self.add_weight((), "zeros", name="position_scale") if self.config.positions else None

    def call(self, x: Any, total: Any = None, seen: Any = None) -> tuple[Any, Any]:
        """x (batch, frames, height, width, channels) times its gate; and the sum of the means of all frames so far.

        total, seen: that sum before x, and of how many frames.
        """
        each = ops.mean(x, (2, 3))
        pooled, total = self.pool(each, total, seen)
        if self.position_scale is not None:
            code = encode_positions(frame_numbers(each, seen), pooled.shape[-1])
            pooled = pooled + self.position_scale * ops.cast(code, pooled.dtype)
        return x * self.expand(self.reduce(pooled))[:, :, None, None], total

    def pool(self, each: Any, total: Any, seen: Any) -> tuple[Any, Any]:
        """Means of frames (batch, frames, channels) to what the gate looks at, and the sum so far of a stream."""
        if self.config.squeeze_excite == "2d":
            return each, None
        if self.config.stream:
            sums = ops.cumsum(ops.cast(each, "float32"), 1) + (0.0 if total is None else total[:, None])
            whole, total = ops.cast(sums / (frame_numbers(each, seen) + 1), each.dtype), sums[:, -1]
        else:
            whole = ops.mean(each, 1, keepdims=True)
        if self.config.squeeze_excite == "3d":
            return whole, total
        return ops.concatenate([ops.broadcast_to(whole, ops.shape(each)), each], -1), total


class Skip(layers.Layer):
    """What is added to a bottleneck that changes resolution or channels: its input, averaged and projected."""

    def __init__(self, filters: int, config: MovinetConfig, *, halve: bool) -> None:
        """halve: height and width."""
        super().__init__(name="skip")
        self.halve = halve
        self.project = ConvNorm(pointwise(filters), config, active=False, name="project")

    def call(self, frames: Any) -> Any:
        """Frames (frames, height, width, channels) to the same with `filters` channels."""
        return self.project(halve(frames) if self.halve else frames)


class Bottleneck(layers.Layer):
    """Widen the channels, look around in space and time, gate, narrow, add to what came in."""

    def __init__(self, config: MovinetConfig, place: Place, *, name: str) -> None:
        """place: where in the network it stands."""
        super().__init__(name=name)
        whole = config.conv_type == "3d" and place.length > 1
        copies = place.length if whole else 1
        space = layers.DepthwiseConv2D(
            place.kernel, place.stride, "same", copies, use_bias=False, depthwise_initializer="he_normal", name="space"
        )
        mix = TimeSum(place.length, config.stream) if whole else TimeConv(place.length, config.stream)
        self.length, self.residual = place.length, config.residual
        self.expand = ConvNorm(pointwise(place.expanded), config, name="expand")
        self.space = space if whole else ConvNorm(space, config, name="space_norm")
        self.time = ConvNorm(mix, config, name="time") if place.length > 1 else None
        self.excite = SqueezeExcite(place.expanded, config) if config.squeeze_excite != "none" else None
        self.project = ConvNorm(pointwise(place.filters), config, active=False, name="project")
        self.skip = None
        if place.stride > 1 or place.filters != place.channels:
            self.skip = Skip(place.filters, config, halve=place.stride > 1)
        # One draw for each clip, as in stochastic depth (Huang et al. 2016).
        self.drop = layers.Dropout(place.skipped, (None, 1, 1, 1, 1), name="stochastic_depth")

    def build(self, _shape: Any) -> None:
        """As published the block starts as nothing added to what came in."""
        self.scale = self.add_weight((), keras.initializers.Constant(self.residual), name="scale")

    def call(self, x: Any, buffers: Buffers | None = None, seen: Any = None) -> tuple[Any, Buffers]:
        """x (batch, frames, height, width, channels) to the same, and this block's buffers after it.

        buffers: this block's before x, by name; seen: how many frames they are of.
        """
        buffers, after = buffers or {}, {}
        y = in_frames(lambda frames: self.space(self.expand(frames)), x)
        if self.time is not None:
            before = buffers.get("frames")
            after["frames"] = pad_time(y, self.length, True, before)[:, 1 - self.length :]
            y = self.time(y, before)
        if self.excite is not None:
            y, total = self.excite(y, buffers.get("total"), seen)
            after.update({} if total is None else {"total": total})
        y = self.drop(in_frames(self.project, y) * ops.cast(self.scale, y.dtype))
        return y + (in_frames(self.skip, x) if self.skip else x), after


def convolve(layer: layers.Layer, x: Any, before: Any, scale: Any = None) -> Any:
    """Call a convolution, with each output channel of its kernel times `scale` where that is given."""
    if isinstance(layer, TimeConv):
        return layer(x, before) if scale is None else layer(x, before, scale)
    if scale is None:
        return layer(x) if before is None else layer(x, before)
    if isinstance(layer, layers.DepthwiseConv2D):
        return ops.depthwise_conv(x, layer.kernel * scale[:, None], layer.strides, layer.padding)
    return ops.conv(x, layer.kernel * scale, layer.strides, layer.padding)


# ---- helpers ---------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where a bottleneck stands: channels in, expanded and out; kernel in frames and pixels; stochastic depth."""

    channels: int
    expanded: int
    filters: int
    length: int
    kernel: int
    stride: int
    skipped: float


def make_bottlenecks(config: MovinetConfig) -> Iterator[Bottleneck]:
    """Make the bottlenecks of a network, from its input on; those deeper in are skipped more often."""
    size = SIZES[config.size]
    count, channels, done = sum(len(block.expanded) for block in size.blocks), size.stem, 0
    for number, block in enumerate(size.blocks):
        for layer, (expanded, kernel) in enumerate(zip(block.expanded, block.kernels.split(), strict=True)):
            done += 1
            stride = block.stride if layer == 0 else 1
            skipped = config.stochastic_depth * done / count
            place = Place(channels, expanded, block.filters, int(kernel[0]), int(kernel[1]), stride, skipped)
            yield Bottleneck(config, place, name=f"block{number}_layer{layer}")
            channels = block.filters


def pointwise(filters: int) -> layers.Layer:
    """A 1 × 1 convolution without bias."""
    return layers.Conv2D(filters, 1, use_bias=False, kernel_initializer="he_normal", name="pointwise")


def in_frames(layer: Callable[[Any], Any], x: Any) -> Any:
    """Apply a layer of single frames to (batch, frames, height, width, channels)."""
    y = layer(ops.reshape(x, (-1, *x.shape[2:])))
    return ops.reshape(y, (-1, x.shape[1], *y.shape[1:]))


def halve(frames: Any) -> Any:
    """Mean over windows of 3 × 3, every second one, of frames (frames, height, width, channels).

    At the border over what there is of the window. Written out, as keras 3.15 on torch counts the padding in where it
    is not the same on both sides; TensorFlow and the official code do not.
    """
    (before_y, after_y), (before_x, after_x) = (half_padding(side) for side in frames.shape[1:3])
    padded = ops.pad(frames, [(0, 0), (before_y, after_y), (before_x, after_x), (0, 0)])
    inside = np.outer(*(window_counts(side) for side in frames.shape[1:3]))[None, :, :, None]
    return ops.average_pool(padded, 3, 2, "valid") * ops.cast(9 / inside, frames.dtype)


def half_padding(side: int) -> tuple[int, int]:
    """What TensorFlow's "same" puts before and after a side, for windows of 3 with stride 2."""
    return (0, 1) if side % 2 == 0 else (1, 1)


def window_counts(side: int) -> np.ndarray:
    """How much of each of those windows lies inside the side."""
    inside = np.pad(np.ones(side), half_padding(side))
    return np.array([inside[start : start + 3].sum() for start in range(0, len(inside) - 2, 2)])


def pad_time(x: Any, length: int, causal: bool, before: Any) -> Any:
    """Put length − 1 frames around x: all in front, those before it or black ones; or half of them at each end."""
    if not causal:
        return ops.pad(x, [(0, 0), (length // 2, (length - 1) // 2), (0, 0), (0, 0), (0, 0)])
    if before is None:
        return ops.pad(x, [(0, 0), (length - 1, 0), (0, 0), (0, 0), (0, 0)])
    return ops.concatenate([ops.cast(before, x.dtype), x], 1)


def frame_numbers(x: Any, seen: Any) -> Any:
    """Numbers of the frames of x (batch, frames, …) in their clip, from 0, float32 (1 or batch, frames, 1)."""
    numbers = ops.arange(x.shape[1], dtype="float32")[None, :, None]
    return numbers if seen is None else numbers + seen[:, :, None]


def encode_positions(numbers: Any, channels: int) -> Any:
    """Sines of half of the channels' frequencies, then cosines (Vaswani et al. 2017, §3.5, in the official order)."""
    even = ops.arange(0, channels, 2, dtype="float32") / channels
    odd = ops.arange(1, channels, 2, dtype="float32")
    odd = (odd - 1) / channels
    return ops.concatenate([ops.sin(numbers * 10_000.0**-even), ops.cos(numbers * 10_000.0**-odd)], -1)


def divisible(filters: float, divisor: int = 8) -> int:
    """The nearest multiple of 8, but not less than 90 % (official make_divisible)."""
    rounded = max(divisor, int(filters + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * filters else rounded
