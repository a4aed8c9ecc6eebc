"""SPOBET: a BERT-style transformer over the frames of a pose clip; and SPOBET-plus, with convolutions in front.

Published (github.com/Kojk-AI/spobet, bert_encoder.py and spobet.py): a dense embedding with ReLU, a frame of ones in
front as the classification token, post-norm encoder blocks without position embedding, a dense head on that token.
Pre-training hides frames, and a dense layer restores them. These are the defaults of SpobetConfig; all else is
SPOBET-plus.
"""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import layers, ops
from pydantic import Field

from lib.data.layouts import LAYOUTS, SIDES, Layout
from lib.settings import Settings

NORM_EPSILON = 1e-6  # bert_encoder.py
MAX_TOKENS = 256  # rows of the position embedding; the published clips have at most 250 frames


class SpobetConfig(Settings):
    """Options; the defaults are the published ones."""

    layout: Literal[tuple(LAYOUTS)] = "openpose-54"
    normalisation: Literal["published", "robust"] = "published"
    motion: bool = Field(False, description="add each joint's place in the clip and its movement to the features")
    slow_motion: bool = Field(False, description="with motion: add the movement over four frames as well")
    stride: int = Field(1, ge=1, description="frames per token")
    width: int = Field(64, ge=1)
    depth: int = Field(6, ge=1, description="encoder blocks")
    heads: int = Field(4, ge=1)
    feed_forward: int = Field(512, ge=1)
    convolutions: int = Field(0, ge=0, description="depthwise convolution blocks before each encoder block")
    kernel: int = Field(11, ge=1, description="of the convolutions, in tokens")
    pre_norm: bool = Field(False, description="normalise before each branch instead of after it")
    positions: bool = Field(False, description="learned position embedding")
    pool: bool = Field(False, description="the head reads the mean of all tokens beside the classification token")
    dropout: float = Field(0.1, ge=0, lt=1)
    head_dropout: float = Field(0.0, ge=0, lt=1)
    cosine: float | None = Field(
        None, gt=0, description="logits are this times the cosine similarities of the clip and its glosses"
    )


def build_spobet(num_classes: int, config: SpobetConfig) -> Spobet:
    """Build SPOBET or SPOBET-plus; see lib.models.build."""
    model = Spobet(config, num_classes, name="spobet")
    model(ops.zeros((1, 8, len(LAYOUTS[config.layout].joints), 3)))
    return model


class Spobet(keras.Model):
    """Poses float32 (batch, frames, joints, 3) to logits (batch, num_classes)."""

    def __init__(self, config: SpobetConfig, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.features = PoseFeatures(config, name="features")
        self.encoder = Encoder(config, name="encoder")
        self.pooled = layers.Dense(2 * config.width, activation="silu", name="pooled") if config.pool else None
        self.dropout = layers.Dropout(config.head_dropout)
        head = {"units": num_classes, "dtype": "float32", "name": "head"}
        self.head = CosineHead(config.cosine, use_bias=False, **head) if config.cosine else layers.Dense(**head)

    def call(self, poses: Any, training: bool = False) -> Any:
        return self.head(self.dropout(self.summary(poses, training=training), training=training))

    def summary(self, poses: Any, training: bool = False) -> Any:
        """What the head reads of each clip, (batch, width), or (batch, 2 * width) with `pool`."""
        token, frames, mask, _ = self.encoder(*self.features(poses), training=training)
        if self.pooled is None:
            return token
        return self.pooled(ops.concatenate([token, mean_token(frames, mask)], -1))

    def embed(self, poses: Any) -> Any:
        """The embedding of each clip: its `summary` as a float32 vector of length 1."""
        return self.read(poses)[1]

    def read(self, poses: Any) -> tuple[Any, Any]:
        """Logits (batch, num_classes) and embeddings (see `embed`), without computing anything twice."""
        summary = self.summary(poses)
        vector = ops.cast(summary, "float32")
        return self.head(summary), vector / length(vector, -1)

    def attention(self, poses: Any) -> Any:
        """Attention scores (batch, depth, heads, 1 + tokens, 1 + tokens); row and column 0: classification token.

        A token stands for `config.stride` frames. Each row sums to 1; masked tokens get 0.
        """
        return ops.stack(self.encoder(*self.features(poses), training=False)[3], axis=1)


class CosineHead(layers.Dense):
    """Logits as cosine similarities times a scale: the length of neither vector counts.

    A gloss of WLASL2000 has four training clips on average. As prototypes of equal length, glosses with few clips
    compete on equal terms with those that have many.
    """

    def __init__(self, scale: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = scale

    def call(self, x: Any) -> Any:
        # Divided afterwards: TensorFlow Lite's quantised product would lose an input that is an output as well, and the
        # embedding is x at length 1.
        x = ops.cast(x, "float32")
        return self.scale * ops.matmul(x, self.kernel / length(self.kernel, 0)) / length(x, -1)


def length(x: Any, axis: int) -> Any:
    """Lengths of the vectors along an axis, which stays with length 1."""
    return ops.sqrt(ops.sum(x * x, axis, keepdims=True) + EPSILON**2)


class MaskedFrames(keras.Model):
    """Pre-training of a Spobet's features and encoder: hide frames, restore them, mean squared error.

    Of the hidden frames 90 % become zeros and 10 % uniform noise in [0, 1), as published (mask_ds in
    process_data.py). The loss counts only hidden frames, and in them only what was present.
    """

    def __init__(self, model: Spobet, share: float = 0.3, span: int = 1, seed: int = 0, **kwargs: Any) -> None:
        """Hide `share` of the frames in runs of `span` frames."""
        super().__init__(**kwargs)
        self.config, self.features, self.encoder = model.config, model.features, model.encoder
        self.share, self.span = share, span
        self.draw = keras.random.SeedGenerator(seed)
        self.decoder: layers.Dense | None = None

    def build(self, shape: tuple[int | None, ...]) -> None:
        values = self.features.compute_output_spec(keras.KerasTensor(shape))[0].shape[-1]
        self.decoder = layers.Dense(self.config.stride * values, dtype="float32", name="decoder")
        self.decoder.build((None, self.config.width))

    def call(self, poses: Any, training: bool = False) -> Any:
        """Add the loss and return the restored features (batch, frames, values)."""
        features, mask = self.features(poses)
        hidden = self.hide(mask)
        tokens, _ = self.encoder(self.replace(features, hidden), mask, training=training)[1:3]
        restored = ops.reshape(self.decoder(tokens), (ops.shape(features)[0], -1, features.shape[-1]))
        restored = restored[:, : ops.shape(features)[1]]
        weight = hidden[..., None] * ops.cast(features != 0, "float32")
        error = ops.sum(weight * (restored - features) ** 2) / ops.maximum(ops.sum(weight), 1.0)
        self.add_loss(error)
        return restored

    def hide(self, mask: Any) -> Any:
        """Choose the frames to hide: float32 (batch, frames) of 0 and 1, never a masked frame."""
        batch, frames = ops.shape(mask)[0], ops.shape(mask)[1]
        runs = -(-frames // self.span)
        chosen = ops.cast(keras.random.uniform((batch, runs), seed=self.draw) < self.share, "float32")
        return ops.repeat(chosen, self.span, axis=1)[:, :frames] * mask

    def replace(self, features: Any, hidden: Any) -> Any:
        """Replace hidden frames with zeros or noise."""
        noise = keras.random.uniform(ops.shape(features), seed=self.draw)
        noisy = ops.cast(keras.random.uniform(ops.shape(hidden), seed=self.draw) < 0.1, "float32")
        return features * (1 - hidden[..., None]) + noise * (noisy * hidden)[..., None]


class Encoder(layers.Layer):
    """Embedding, classification token and encoder blocks."""

    def __init__(self, config: SpobetConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stride = config.stride
        self.embed = layers.Dense(config.width, activation=None if config.pre_norm else "relu", name="embed")
        self.positions = layers.Embedding(MAX_TOKENS, config.width) if config.positions else None
        self.fronts = [[ConvBlock(config) for _ in range(config.convolutions)] for _ in range(config.depth)]
        self.blocks = [EncoderBlock(config) for _ in range(config.depth)]
        self.norm = layers.LayerNormalization(epsilon=NORM_EPSILON) if config.pre_norm else None

    def call(self, features: Any, mask: Any, training: bool = False) -> tuple[Any, Any, Any, list[Any]]:
        """Encode features (batch, frames, values) with mask (batch, frames).

        Returns the classification token (batch, width), the other tokens (batch, tokens, width), their mask
        (batch, tokens) and each block's attention scores (batch, heads, 1 + tokens, 1 + tokens).
        """
        mask = ops.max(fold(mask[..., None], self.stride), -1)
        folded = fold(features, self.stride)
        token, x = self.embed(ops.ones_like(folded[:, :1])), self.embed(folded)
        if self.positions is not None:
            x = x + self.positions(ops.arange(ops.shape(x)[1]))
        mask = ops.cast(mask, x.dtype)
        all_scores = []
        for front, block in zip(self.fronts, self.blocks, strict=True):
            for convolution in front:
                x = convolution(x, mask, training=training)
            token, x, scores = block(token, x, mask, training=training)
            all_scores.append(scores)
        if self.norm is not None:
            token, x = self.norm(token), self.norm(x)
        return token[:, 0], x, mask, all_scores


class EncoderBlock(layers.Layer):
    """Self-attention and a feed-forward network, each with a residual connection."""

    def __init__(self, config: SpobetConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pre_norm = config.pre_norm
        self.attention = layers.MultiHeadAttention(config.heads, config.width // config.heads)
        self.norms = [layers.LayerNormalization(epsilon=NORM_EPSILON) for _ in range(2)]
        self.expand = layers.Dense(config.feed_forward, activation="silu" if config.pre_norm else "relu")
        self.project = layers.Dense(config.width)
        self.drops = [layers.Dropout(config.dropout) for _ in range(2)]

    def call(self, token: Any, x: Any, mask: Any, training: bool = False) -> tuple[Any, Any, Any]:
        """Attend to the classification token and all tokens that are not masked."""
        seen = ops.concatenate([ops.ones_like(mask[:, :1]), mask], 1)[:, None] > 0
        x = ops.concatenate([token, x], 1)
        y = self.norms[0](x) if self.pre_norm else x
        y, scores = self.attention(y, y, attention_mask=seen, return_attention_scores=True, training=training)
        x = x + self.drops[0](y, training=training)
        x = x if self.pre_norm else self.norms[0](x)
        y = self.project(self.expand(self.norms[1](x) if self.pre_norm else x))
        x = x + self.drops[1](y, training=training)
        x = x if self.pre_norm else self.norms[1](x)
        return x[:, :1], x[:, 1:], scores


class ConvBlock(layers.Layer):
    """Expand, convolve each channel over time, project; masked tokens contribute nothing to their neighbours."""

    def __init__(self, config: SpobetConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norm = layers.LayerNormalization(epsilon=NORM_EPSILON)
        self.expand = layers.Dense(2 * config.width, activation="silu")
        self.convolve = TimeConvolution(config.kernel, padding="same")
        self.rescale = layers.BatchNormalization(momentum=0.95)
        self.project = layers.Dense(config.width)
        self.drop = layers.Dropout(config.dropout)

    def call(self, x: Any, mask: Any, training: bool = False) -> Any:
        y = self.expand(self.norm(x)) * mask[..., None]
        y = ops.silu(self.rescale(self.convolve(y), training=training))
        return x + self.drop(self.project(y), training=training)


class TimeConvolution(layers.DepthwiseConv1D):
    """Computed as one over two dimensions, of which one is 1: on torch in half the time."""

    def call(self, x: Any) -> Any:
        return ops.depthwise_conv(x[:, :, None], self.kernel[:, None], padding="same")[:, :, 0] + self.bias


def fold(x: Any, stride: int) -> Any:
    """Join every `stride` frames: (batch, frames, values) to (batch, ceil(frames / stride), stride * values)."""
    if stride == 1:
        return x
    batch, frames, values = ops.shape(x)[0], ops.shape(x)[1], x.shape[-1]
    x = ops.pad(x, ((0, 0), (0, -frames % stride), (0, 0)))
    return ops.reshape(x, (batch, -1, stride * values))


def mean_token(x: Any, mask: Any) -> Any:
    """Mean of the tokens that are not masked, (batch, width); zero where all are."""
    return ops.sum(x * mask[..., None], 1) / ops.maximum(ops.sum(mask, 1, keepdims=True), 1.0)


# ---- normalisation and features ------------------------------------------------------------------------
#
# They are the first layer of every pose model, so that they are exported with it. Coordinates `xy` are (batch, frames,
# joints, 2) and `present` is (batch, frames, joints, 1). A frame without any present joint (padding, or the detector
# found nobody) is masked.

EPSILON = 1e-6  # keeps the gradient of a square root finite; far below any length in pixels or image widths
SHAPE_SCALE, MOVEMENT_SCALE = 2.0, 4.0  # bring fingers and movements to about the magnitude of places
SLOW, SLOW_SCALE = 4, 2.0  # frames of the slow movement, and what brings it to the magnitude of places


class PoseFeatures(layers.Layer):
    """Poses (batch, frames, joints, 3) to features (batch, frames, values) and mask (batch, frames) of 0 and 1.

    The values are the normalised x, y of every joint; with `motion` also each joint's place in the clip, its movement
    since the previous frame, and whether each hand is present.
    """

    def __init__(self, config: SpobetConfig, **kwargs: Any) -> None:
        # Coordinates in pixels lose too much in bfloat16: features are always computed in float32.
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.layout = LAYOUTS[config.layout]
        self.normalise = NORMALISATIONS[config.normalisation]
        self.motion, self.slow_motion = config.motion, config.motion and config.slow_motion

    def call(self, poses: Any) -> tuple[Any, Any]:
        xy, present = poses[..., :2], poses[..., 2:]
        parts = [self.normalise(xy, present, self.layout)]
        if self.motion:
            places = _place(xy, present)
            parts += [places, MOVEMENT_SCALE * movement(places, present)]
        if self.slow_motion:
            parts.append(SLOW_SCALE * movement(places, present, SLOW))
        batch, frames = ops.shape(xy)[0], ops.shape(xy)[1]
        flat = [ops.reshape(part, (batch, frames, 2 * len(self.layout.joints))) for part in parts]
        if self.motion:
            flat += [ops.max(present[:, :, self.layout.parts[side], 0], -1, keepdims=True) for side in SIDES]
        return ops.concatenate(flat, -1), ops.max(present[..., 0], axis=-1)


def _place(xy: Any, present: Any) -> Any:
    """Coordinates relative to the centroid of the clip's present joints, in units of their RMS distance from it."""
    centroid = _masked_mean(xy, present)
    distance = ops.sqrt(_masked_mean(ops.sum((xy - centroid) ** 2, -1, keepdims=True), present) + EPSILON**2)
    return (xy - centroid) / distance * present


def _masked_mean(values: Any, weights: Any) -> Any:
    """Mean over frames and joints where `weights` is 1, or zero if there are none; (batch, 1, 1, values)."""
    total = ops.sum(values * weights, axis=(1, 2), keepdims=True)
    return total / ops.maximum(ops.sum(weights, axis=(1, 2), keepdims=True), 1.0)


def movement(places: Any, present: Any, frames: int = 1) -> Any:
    """How far each joint moved in so many frames; zero where it is missing at either end, and in the first frames."""
    both = present[:, frames:] * present[:, :-frames]
    moved = (places[:, frames:] - places[:, :-frames]) * both
    return ops.pad(moved, ((0, 0), (frames, 0), (0, 0), (0, 0)))[:, : ops.shape(places)[1]]


def published_normalisation(xy: Any, present: Any, layout: Layout) -> Any:
    """Normalise as SPOBET does (process_data.py of the published code): frame by frame, in units of the head.

    The size of the head is the distance from nose to neck. Body joints are relative to the neck, in units of three
    heads; hand joints are relative to the wrist of the arm, in units of one head; lips, which it does not have, to the
    nose. Joints whose nose, neck or wrist is missing become zero (the published code divides by zero there and loses
    the frame).
    """
    joint = layout.joints.index
    nose, neck = joint("nose"), joint("neck")
    neck_to_nose = xy[:, :, nose : nose + 1] - xy[:, :, neck : neck + 1]
    head = ops.sqrt(ops.sum(neck_to_nose**2, -1, keepdims=True) + EPSILON**2)
    head_seen = present[:, :, nose : nose + 1] * present[:, :, neck : neck + 1]
    out = []
    for name, part in layout.parts.items():
        origin, heads = {"body": (neck, 3.0), "lips": (nose, 1.0)}.get(name) or (joint(f"{name}_wrist"), 1.0)
        seen = present[:, :, part] * head_seen * present[:, :, origin : origin + 1]
        out.append((xy[:, :, part] - xy[:, :, origin : origin + 1]) / (heads * head) * seen)
    return ops.concatenate(out, axis=2)


def robust_normalisation(xy: Any, present: Any, layout: Layout) -> Any:
    """Normalise by the whole clip, for data that may lack the body, and either hand in most frames.

    Body joints and the wrist of each hand become their place in the clip (see `_place`). The other joints of a hand
    are relative to its wrist in the same frame, in the same unit, and the lips to the nose.
    """
    places = _place(xy, present)
    out = [places[:, :, layout.parts["body"]]] if "body" in layout.parts else []
    for side in SIDES:
        hand, seen = places[:, :, layout.parts[side]], present[:, :, layout.parts[side]]
        fingers = (hand - hand[:, :, :1]) * seen * seen[:, :, :1]
        out += [hand[:, :, :1], SHAPE_SCALE * fingers[:, :, 1:]]
    if "lips" in layout.parts:
        part, nose = layout.parts["lips"], layout.parts["body"].start
        seen = present[:, :, part] * present[:, :, nose : nose + 1]
        out.append(SHAPE_SCALE * (places[:, :, part] - places[:, :, nose : nose + 1]) * seen)
    return ops.concatenate(out, axis=2)


NORMALISATIONS = {"published": published_normalisation, "robust": robust_normalisation}
