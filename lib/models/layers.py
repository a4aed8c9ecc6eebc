"""Batch normalisation in one pass over the data, by the backend's own kernel.

Keras 3.15 writes it out: mean, variance, difference, product and sum are passes of their own, each again in the
gradient. That was two fifths of a training step of MoViNet-A0 on a processor.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops


class BatchNorm(layers.BatchNormalization):
    """keras' BatchNormalization over the last axis, with the same weights and the same results, but fused.

    On a backend other than torch and TensorFlow it is keras' own. `fixed`: its statistics never change, but gamma and
    beta train.
    """

    def __init__(self, *, fixed: bool = False, **options: Any) -> None:
        """`options` are those of keras' layer."""
        super().__init__(**options)
        self.fixed = fixed

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """inputs: float (batch, height, width, channels), or with frames between batch and height."""
        fused = FUSED.get(keras.backend.backend())
        if fused is None or isinstance(inputs, keras.KerasTensor):
            return super().call(inputs, training=training)
        learn = bool(training and self.trainable and not self.fixed)
        gamma = self.gamma if self.scale else ops.ones_like(self.beta)
        flat = ops.reshape(inputs, (-1, *inputs.shape[-3:]))
        outputs, mean, variance = fused(
            flat, gamma, self.beta, self.moving_mean, self.moving_variance, learn, self.epsilon
        )
        if learn:
            for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.assign(moving * self.momentum + new * (1 - self.momentum))
        return ops.reshape(outputs, (-1, *inputs.shape[1:]))


def torch_norm(x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, learn: bool, epsilon: float) -> tuple:
    """Normalised x (n, 1, 1, channels), and the mean and (biased) variance of x when it learns."""
    import torch

    weights = [ops.convert_to_tensor(value) for value in (gamma, beta)]
    running = [None, None] if learn else [ops.convert_to_tensor(value) for value in (mean, variance)]
    y, mean, inverse = torch.native_batch_norm(x.permute(0, 3, 1, 2), *weights, *running, learn, 0.0, epsilon)
    with torch.no_grad():
        variance = inverse.reciprocal().square() - epsilon if learn else None
    return y.permute(0, 2, 3, 1), mean.detach(), variance


def tensorflow_norm(x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, learn: bool, epsilon: float) -> tuple:
    """As torch_norm."""
    import tensorflow as tf

    running = {} if learn else {"mean": ops.convert_to_tensor(mean), "variance": ops.convert_to_tensor(variance)}
    fused = tf.compat.v1.nn.fused_batch_norm
    y, mean, variance = fused(
        x, ops.convert_to_tensor(gamma), ops.convert_to_tensor(beta), epsilon=epsilon, is_training=learn, **running
    )
    n = tf.cast(tf.size(x) // tf.shape(x)[-1], variance.dtype)
    return y, mean, variance * (n - 1) / n  # it gives the unbiased variance


FUSED = {"torch": torch_norm, "tensorflow": tensorflow_norm}


DIFFERENCES = "read what changes from frame to frame, in which clothes and rooms are not seen (arXiv 1608.00859)"


def frame_differences(frames: Any, before: Any = None, seen: Any = None) -> Any:
    """Each frame less the one before, and 0 for the first of a clip.

    frames: float (batch, frames, height, width, 3), as is the result. Where a clip goes on, `before` is its last frame
    so far, (batch, 1, height, width, 3), and `seen`, (batch, 1), how many there were; with none, `before` is not used.
    The "RGB difference" of Wang et al. 2016 (Temporal Segment Networks, section 3.2), there as a stream of its own.
    """
    first = frames[:, :1]
    if before is None:
        before = first
    else:
        goes_on = ops.reshape(ops.minimum(seen, 1.0), (-1, 1, 1, 1, 1))
        before = first + goes_on * (before - first)
    if frames.shape[1] > 1:
        before = ops.concatenate([before, frames[:, :-1]], axis=1)
    return frames - before
