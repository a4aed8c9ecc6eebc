"""Shared by several models: batch normalisation in one pass, frame differences, the options of every clip model."""

from functools import cache
from typing import Any

import keras
from keras import layers, ops
from pydantic import Field

from lib.settings import Settings

if keras.backend.backend() == "torch":
    # Keras 3.15 copies frames to channels-first memory before each convolution and pooling, and then back: half of
    # MoViNet-A0's step. A view does as well.
    keras.src.backend.torch.nn._transpose_spatial_inputs = lambda x: x.movedim(-1, 1)


class ClipConfig(Settings):
    """Options that every clip model has."""

    freeze: int = Field(0, ge=0, description="stages that are not trained, counted from the input")
    differences: bool = Field(
        False, description="read frame differences, which hide clothes and rooms (arXiv 1608.00859)"
    )
    fix_norm: bool = Field(False, description="normalise by the running mean and variance in training, too")


class BatchNorm(layers.BatchNormalization):
    """keras.layers.BatchNormalization over the last axis, with the same weights and results, by the backend's kernel.

    Keras 3.15 computes mean, variance, difference, product and sum in separate passes, and again in the gradient: two
    fifths of a training step of MoViNet-A0 on a CPU. On backends other than torch and TensorFlow this is Keras' own.
    fixed: never update the statistics and normalise by them in training too; gamma and beta are trained.
    """

    def __init__(self, *, fixed: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.fixed = fixed

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """inputs: float (batch, height, width, channels) or (batch, frames, height, width, channels)."""
        fused = _FUSED.get(keras.backend.backend())
        if fused is None or isinstance(inputs, keras.KerasTensor):
            return super().call(inputs, training=training)
        learn = bool(training and self.trainable and not self.fixed)
        gamma = self.gamma if self.scale else ops.ones_like(self.beta)
        parameters = (gamma, self.beta, self.moving_mean, self.moving_variance)
        flat = ops.reshape(inputs, (-1, *inputs.shape[-3:]))
        outputs, mean, variance = fused(flat, *map(ops.convert_to_tensor, parameters), learn, self.epsilon)
        if learn:
            for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.assign(moving * self.momentum + new * (1 - self.momentum))
        return ops.reshape(outputs, (-1, *inputs.shape[1:]))


class Conv3D(layers.Conv3D):
    """keras.layers.Conv3D of channels-last clips, padded "same" and without activation, with the right gradients.

    torch 2.14 and TensorFlow 2.21 compute wrong ones on a CPU where a clip has no more frames than the kernel: up to
    1e35 and NaN, from uninitialised memory, seen in bfloat16 with 2 frames and kernels of 3. They are right if the
    clip is padded before.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """inputs: float (batch, frames, height, width, channels)."""
        if not training or inputs.shape[1] > self.kernel_size[0]:
            return super().call(inputs)
        sides = zip(inputs.shape[1:4], self.kernel_size, self.strides, strict=True)
        missing = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size, kernel, stride in sides]
        padded = ops.pad(inputs, [(0, 0), *((count // 2, count - count // 2) for count in missing), (0, 0)])
        outputs = ops.conv(padded, self.kernel, self.strides, "valid", "channels_last")
        return outputs + self.bias if self.use_bias else outputs


# Both return the normalised x (n, height, width, channels) and, if they learn, the mean and the biased variance of x.


def _torch_norm(x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, learn: bool, epsilon: float) -> tuple:
    import torch

    images = x.permute(0, 3, 1, 2)
    if not learn:  # the public form, which exporters know
        y = torch.nn.functional.batch_norm(images, mean, variance, gamma, beta, eps=epsilon)
        return y.permute(0, 2, 3, 1), None, None
    y, mean, inverse = torch.native_batch_norm(images, gamma, beta, None, None, True, 0.0, epsilon)
    with torch.no_grad():
        variance = inverse.reciprocal().square() - epsilon
    return y.permute(0, 2, 3, 1), mean.detach(), variance


def _tensorflow_norm(x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, learn: bool, epsilon: float) -> tuple:
    import tensorflow as tf

    running = {} if learn else {"mean": mean, "variance": variance}
    fused = tf.compat.v1.nn.fused_batch_norm
    y, mean, variance = fused(x, gamma, beta, epsilon=epsilon, is_training=learn, **running)
    n = tf.cast(tf.size(x) // tf.shape(x)[-1], variance.dtype)
    return y, mean, variance * (n - 1) / n  # TensorFlow returns the unbiased variance


_FUSED = {"torch": _torch_norm, "tensorflow": _tensorflow_norm}


def hard_silu(x: Any) -> Any:
    """x · relu6(x + 3) / 6 in one pass over the data, as is its gradient: a fifth of a training step of MoViNet-A0."""
    if keras.backend.backend() == "tensorflow" and not isinstance(x, keras.KerasTensor):
        return _tensorflow_hard_silu()(x)
    return ops.hard_silu(x)


@cache
def _tensorflow_hard_silu() -> Any:
    """TensorFlow's own operations take a pass each; XLA joins them, and compiles a tenth of a second for each shape."""
    import tensorflow as tf

    # On a GPU, XLA would need parts of CUDA that may be missing.
    compiled = tf.function(jit_compile=not tf.config.list_physical_devices("GPU"))
    forward = compiled(lambda x: x * tf.nn.relu6(x + 3) * (1 / 6))
    backward = compiled(lambda x, dy: dy * tf.where(abs(x) < 3, x * (1 / 3) + 0.5, tf.cast(x > 0, x.dtype)))
    return tf.custom_gradient(lambda x: (forward(x), lambda dy: backward(x, dy)))


def frame_differences(frames: Any, before: Any = None, seen: Any = None) -> Any:
    """Subtract the previous frame from each; the first frame of a clip becomes 0.

    frames: float (batch, frames, height, width, 3), as is the result. To continue a clip, pass its last frame so far
    as `before`, (batch, 1, height, width, 3), and the number of its frames so far as `seen`, (batch, 1); where that is
    0, `before` is ignored.
    "RGB difference" of Temporal Segment Networks (Wang et al. 2016, section 3.2), where it is a second input stream.
    """
    first = frames[:, :1]
    if before is None:
        before = first
    else:
        continued = ops.reshape(ops.minimum(seen, 1.0), (-1, 1, 1, 1, 1))
        before = first + continued * (before - first)
    if frames.shape[1] > 1:
        before = ops.concatenate([before, frames[:, :-1]], axis=1)
    return frames - before
