"""Options and layers of MoViNet, in keras.layers and keras.ops only.

Frames are part of the batch, and every convolution is one or more two-dimensional ones: a depthwise convolution over
t × k × k equals t depthwise ones over k × k, shifted in time and summed. That is fast on a CPU, has a gradient there,
and exports to phones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops
from pydantic import Field, model_validator

from lib.models.layers import BatchNorm, ClipConfig, hard_silu
from lib.models.movinet_sizes import SIZES

NORM_EPSILON = 1e-3  # official norm_epsilon
SQUEEZE_RATIO = 0.25  # official se_ratio
POSITIONS_FROM = "a3"  # the published stream models from this size on encode frame positions


class MovinetConfig(ClipConfig):
    """Options: the form, which is base, stream or mobile, and what may differ from the published network."""

    size: Literal["a0", "a1", "a2", "a3", "a4", "a5"] = "a0"
    stream: bool = Field(False, description="causal, so that it can run frame by frame")
    mobile: bool = Field(False, description="the stream form for phones: no squeeze-excite, ReLU6")
    dropout: float = Field(0.0, ge=0, lt=1, description="of the features before the classifier")
    stochastic_depth: float = Field(0.0, ge=0, le=1, description="share of clips that skip the last block; linear")
    momentum: float = Field(0.99, ge=0, lt=1, description="share of the running mean and variance kept at each step")
    residual: float = Field(0.0, ge=0, description="initial scale of a bottleneck's residual branch; learned")

    @model_validator(mode="before")
    @classmethod
    def _mobile_is_a_stream(cls, given: Any) -> Any:
        return {**given, "stream": True} if isinstance(given, dict) and given.get("mobile") else given


class ConvNorm(layers.Layer):
    """A convolution without bias, normalisation and, if `active`, the activation of the form."""

    def __init__(self, convolution: layers.Layer, config: MovinetConfig, *, active: bool = True, name: str) -> None:
        super().__init__(name=name)
        self.convolution = convolution
        self.norm = BatchNorm(fixed=config.fix_norm, momentum=config.momentum, epsilon=NORM_EPSILON)
        activation = ops.relu6 if config.mobile else hard_silu if config.stream else ops.silu
        self.activation = activation if active else keras.activations.linear

    def build(self, shape: Sequence[int | None]) -> None:
        self.convolution.build(shape)
        self.norm.build(self.convolution.compute_output_shape(shape))

    def call(self, x: Any, before: Any = None, training: bool | None = None) -> Any:
        """x: a batch of frames, or clips for a convolution over time, which also takes the frames `before` them.

        Fixed statistics are folded into the kernel, which saves a pass over the data and a quarter of the time.
        """
        fixed = self.norm.fixed or not (training and self.norm.trainable)
        if fixed and self.compute_dtype == "float32" and hasattr(self.convolution, "kernel"):
            scale = self.norm.gamma * ops.rsqrt(self.norm.moving_variance + self.norm.epsilon)
            shift = self.norm.beta - self.norm.moving_mean * scale
            return self.activation(self._scaled(scale, x, before) + shift)
        y = self.convolution(x) if before is None else self.convolution(x, before)
        return self.activation(self.norm(y, training=training))

    def _scaled(self, scale: Any, x: Any, before: Any) -> Any:
        """The convolution with each output channel of its kernel multiplied by `scale`."""
        layer = self.convolution
        if isinstance(layer, TimeConv):
            return layer(x, before, scale)
        if isinstance(layer, layers.DepthwiseConv2D):
            return ops.depthwise_conv(x, layer.kernel * scale[:, None], layer.strides, layer.padding)
        return ops.conv(x, layer.kernel * scale, layer.strides, layer.padding)


class TimeConv(layers.Layer):
    """A causal depthwise convolution over `length` frames."""

    def __init__(self, length: int) -> None:
        super().__init__(name="time_conv")
        self.length = length

    def build(self, shape: Sequence[int | None]) -> None:
        self.kernel = self.add_weight((self.length, 1, shape[-1], 1), "he_normal", name="kernel")

    def compute_output_shape(self, shape: Sequence[int | None]) -> Sequence[int | None]:
        return shape

    def call(self, x: Any, before: Any = None, scale: Any = 1.0) -> Any:
        """x and the result: float (batch, frames, height, width, channels). scale: of the kernel, per channel."""

        def flat(clip: Any) -> Any:
            return ops.reshape(clip, (-1, clip.shape[1], x.shape[2] * x.shape[3], x.shape[4]))

        # Zeros in front are then the convolution's own padding; frames in front are also what a stream keeps.
        padded = pad_front(flat(x), self.length) if before is None else flat(pad_front(x, self.length, before))
        kernel = self.kernel * ops.reshape(scale, (-1, 1))
        mixed = ops.depthwise_conv(padded, ops.cast(kernel, padded.dtype))
        return ops.reshape(mixed, (-1, *x.shape[1:]))


class TimeSum(layers.Layer):
    """The second half of a depthwise convolution over time and space, centred on each frame.

    The first half, over space, returns each channel `length` times; this sums them, each shifted by one more frame.
    """

    def __init__(self, length: int) -> None:
        super().__init__(name="time_sum")
        self.length = length

    def compute_output_shape(self, shape: Sequence[int | None]) -> Sequence[int | None]:
        return *shape[:-1], shape[-1] // self.length

    def call(self, x: Any) -> Any:
        """From (batch, frames, height, width, channels × length) to (batch, frames, height, width, channels)."""
        padded = ops.pad(x, [(0, 0), (self.length // 2, (self.length - 1) // 2), (0, 0), (0, 0), (0, 0)])
        count = x.shape[1]
        taps = ops.reshape(padded, (-1, *padded.shape[1:-1], x.shape[-1] // self.length, self.length))
        return sum(taps[:, tap : tap + count, ..., tap] for tap in range(self.length))


class SqueezeExcite(layers.Layer):
    """A gate for each channel, from the mean over the clip; in a stream from that over the clip so far and the frame's.

    The larger streams also encode the frame's position.
    """

    def __init__(self, filters: int, config: MovinetConfig) -> None:
        super().__init__(name="squeeze_excite")
        self.stream, self.positions = config.stream, config.stream and config.size >= POSITIONS_FROM
        hidden = divisible(SQUEEZE_RATIO * filters * (2 if self.stream else 1))
        activation, gating = ("hard_silu", "hard_sigmoid") if self.stream else ("silu", "sigmoid")
        self.reduce = layers.Dense(hidden, activation, kernel_initializer="he_normal", name="reduce")
        self.expand = layers.Dense(filters, gating, kernel_initializer="he_normal", name="expand")

    def build(self, _shape: Any) -> None:
        self.position_scale = self.add_weight((), "zeros", name="position_scale") if self.positions else None

    def call(self, x: Any, total: Any = None, seen: Any = None) -> tuple[Any, Any]:
        """x (batch, frames, height, width, channels) times its gate, and the sum of the means of all frames so far.

        total, seen: that sum before x, and the number of its frames, (batch, 1); both only in a stream.
        """
        each = ops.mean(x, (2, 3))
        if not self.stream:
            return x * self.expand(self.reduce(ops.mean(each, 1, keepdims=True)))[:, :, None, None], None
        numbers = ops.arange(x.shape[1], dtype="float32")[None, :, None]
        numbers = numbers if seen is None else numbers + seen[:, :, None]
        sums = ops.cumsum(ops.cast(each, "float32"), 1) + (0.0 if total is None else total[:, None])
        pooled = ops.concatenate([ops.cast(sums / (numbers + 1), each.dtype), each], -1)
        if self.position_scale is not None:
            pooled = pooled + self.position_scale * ops.cast(encode_positions(numbers, pooled.shape[-1]), pooled.dtype)
        return x * self.expand(self.reduce(pooled))[:, :, None, None], sums[:, -1]


class Skip(layers.Layer):
    """The skip connection of a bottleneck that changes resolution or channels: average (if `halved`) and project."""

    def __init__(self, filters: int, config: MovinetConfig, *, halved: bool) -> None:
        super().__init__(name="skip")
        self.halved = halved
        self.project = ConvNorm(pointwise(filters), config, active=False, name="project")

    def call(self, frames: Any) -> Any:
        return self.project(halve(frames) if self.halved else frames)


class Bottleneck(layers.Layer):
    """Expand the channels, convolve over space and time, gate, project, and add to the skip connection."""

    def __init__(
        self, config: MovinetConfig, channels: tuple[int, int, int], kernel: str, stride: int, skipped: float, name: str
    ) -> None:
        """channels: in, expanded and out. kernel: as in Block. skipped: share of clips, for stochastic depth."""
        super().__init__(name=name)
        entering, expanded, leaving = channels
        length, side = map(int, kernel)
        whole = not config.stream and length > 1  # over time and space at once; else one after the other
        copies = length if whole else 1
        space = layers.DepthwiseConv2D(
            side, stride, "same", copies, use_bias=False, depthwise_initializer="he_normal", name="space"
        )
        mix = TimeSum(length) if whole else TimeConv(length)
        self.length, self.stream, self.residual = length, config.stream, config.residual
        self.expand = ConvNorm(pointwise(expanded), config, name="expand")
        self.space = space if whole else ConvNorm(space, config, name="space_norm")
        self.time = ConvNorm(mix, config, name="time") if length > 1 else None
        self.excite = None if config.mobile else SqueezeExcite(expanded, config)
        self.project = ConvNorm(pointwise(leaving), config, active=False, name="project")
        changed = stride > 1 or leaving != entering
        self.skip = Skip(leaving, config, halved=stride > 1) if changed else None
        # One draw for each clip, as in stochastic depth (Huang et al. 2016).
        self.drop = layers.Dropout(skipped, (None, 1, 1, 1, 1), name="stochastic_depth")

    def build(self, _shape: Any) -> None:
        self.scale = self.add_weight((), keras.initializers.Constant(self.residual), name="scale")

    def call(self, x: Any, buffers: dict[str, Any] | None = None, seen: Any = None) -> tuple[Any, dict]:
        """The block's output for x (batch, frames, height, width, channels), and a stream's buffers after x.

        buffers: those before x, by name: `frames`, the last frames, and `total`, the sum that the gate averages.
        seen: the number of frames before x.
        """
        buffers, after = buffers or {}, {}
        y = in_frames(lambda frames: self.space(self.expand(frames)), x)
        if self.time is not None:
            before = buffers.get("frames")
            if self.stream:
                after["frames"] = pad_front(y, self.length, before)[:, 1 - self.length :]
            y = self.time(y, before)
        if self.excite is not None:
            y, total = self.excite(y, buffers.get("total"), seen)
            after.update({} if total is None else {"total": total})
        y = self.drop(in_frames(self.project, y) * ops.cast(self.scale, y.dtype))
        return y + (in_frames(self.skip, x) if self.skip else x), after


def bottlenecks(config: MovinetConfig) -> list[Bottleneck]:
    """The bottlenecks of a network, from the input on; deeper ones are skipped more often."""
    size, made = SIZES[config.size], []
    count, entering = sum(len(block.expanded) for block in size.blocks), size.stem
    for number, block in enumerate(size.blocks):
        for layer, (expanded, kernel) in enumerate(zip(block.expanded, block.kernels.split(), strict=True)):
            channels, stride = (entering, expanded, block.filters), block.stride if layer == 0 else 1
            skipped = config.stochastic_depth * (len(made) + 1) / count
            made.append(Bottleneck(config, channels, kernel, stride, skipped, name=f"block{number}_layer{layer}"))
            entering = block.filters
    return made


def pointwise(filters: int) -> layers.Layer:
    """A 1 × 1 convolution without bias."""
    return layers.Conv2D(filters, 1, use_bias=False, kernel_initializer="he_normal", name="pointwise")


def in_frames(layer: Callable[[Any], Any], x: Any) -> Any:
    """Apply a layer for single frames to (batch, frames, height, width, channels)."""
    y = layer(ops.reshape(x, (-1, *x.shape[2:])))
    return ops.reshape(y, (-1, x.shape[1], *y.shape[1:]))


def halve(frames: Any) -> Any:
    """Average frames (batch, height, width, channels) over 3 × 3 windows with stride 2, padded as in TensorFlow.

    At the borders only pixels of the frame count. Keras 3.15 on torch also counts the padding where it differs between
    the two sides; TensorFlow and the official code do not.
    """
    padding, inside = [], []  # along height and width
    for side in frames.shape[1:3]:
        padding.append((side % 2, 1))
        starts = np.arange(-(side % 2), side - 1, 2)
        inside.append(np.minimum(starts + 3, side) - np.maximum(starts, 0))
    averaged = ops.average_pool(ops.pad(frames, [(0, 0), *padding, (0, 0)]), 3, 2, "valid")
    return averaged * ops.cast(9 / np.outer(*inside)[None, :, :, None], frames.dtype)


def pad_front(x: Any, length: int, before: Any = None) -> Any:
    """Put length − 1 frames before clips (batch, frames, …): those `before` them, or zeros."""
    if before is None:
        return ops.pad(x, [(0, 0), (length - 1, 0), *[(0, 0)] * (len(x.shape) - 2)])
    return ops.concatenate([ops.cast(before, x.dtype), x], 1)


def encode_positions(numbers: Any, channels: int) -> Any:
    """Sines, then cosines, of frame numbers (…, 1) (Vaswani et al. 2017, §3.5, in the official order of channels)."""
    angles = numbers * 10_000.0 ** -(ops.arange(0, channels, 2, dtype="float32") / channels)
    return ops.concatenate([ops.sin(angles), ops.cos(angles[..., : channels // 2])], -1)


def divisible(filters: float) -> int:
    """The nearest multiple of 8, but at least 90 % of `filters` (official make_divisible)."""
    rounded = max(8, int(filters + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * filters else rounded
