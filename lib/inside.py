"""Looking inside a model: which frames a pose model attends to, and which pixels a clip model's answer hangs on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np

from lib.settings import StudyError

if TYPE_CHECKING:
    from lib.models.spobet import Spobet

COPIES = 8  # noisy copies of a clip; SmoothGrad finds little gain above 50, but each is a pass through the network
NOISE = 0.1  # standard deviation over the clip's range of values; SmoothGrad recommends 10 to 20 %


class FrameRollout(NamedTuple):
    """What a pose model attends to in a clip.

    attention: float32 (layers, heads, 1 + tokens, 1 + tokens), each row sums to 1; 0 is the classification token.
    tokens: float64 (1 + tokens, 1 + tokens), the rollout of attention.
    frames: float64 (frames,), how much of each frame reaches the classification token. All frames of a token have the
        token's share.
    """

    attention: np.ndarray
    tokens: np.ndarray
    frames: np.ndarray


def rollout(scores: np.ndarray) -> np.ndarray:
    """Attention rollout of one clip (Abnar & Zuidema 2020, arXiv 2005.00928): attention followed through all layers.

    Of each layer the heads are averaged, the identity is added for the residual connection and the rows are normalised;
    then the layers are multiplied. scores: float (layers, heads, n, n), the first layer first.
    Returns float64 (n, n): row i says how much of each input token is in output token i, and sums to 1.
    Raises ValueError for another shape.
    """
    if np.ndim(scores) != 4 or scores.shape[2] != scores.shape[3]:
        raise ValueError(f"need scores of one clip (layers, heads, n, n), not {np.shape(scores)}")
    mixed = identity = np.eye(scores.shape[-1])
    for weights in scores.mean(1, dtype=np.float64):
        kept = weights + identity
        mixed = (kept / kept.sum(1, keepdims=True)) @ mixed
    return mixed


def frame_rollout(model: Spobet, clip: np.ndarray) -> FrameRollout:
    """Attention of a pose model in one clip, its rollout and the part of it that falls on each frame.

    clip: float32 (frames, joints, 3). Convolutions between the layers, which mix neighbouring frames too, and a head
    that reads the mean of all tokens are not followed.
    """
    attention = keras.ops.convert_to_numpy(keras.ops.cast(model.attention(clip[None]), "float32"))[0]
    tokens = rollout(attention)
    return FrameRollout(attention, tokens, np.repeat(tokens[0, 1:], model.config.stride)[: len(clip)])


def gradient_map(
    model: keras.Model, clip: np.ndarray, label: int, *, copies: int = COPIES, noise: float = NOISE, seed: int = 0
) -> np.ndarray:
    """How much each pixel of each frame matters to the logit of `label`: the size of the logit's gradient there.

    Saliency of Simonyan, Vedaldi & Zisserman 2014 (arXiv 1312.6034): the largest absolute value of the gradient over
    the colours. The gradient is the mean over `copies` of the clip with Gaussian noise, in which most of its scatter
    cancels out (SmoothGrad, Smilkov et al. 2017, arXiv 1706.03825). A `noise` of 0 is the plain gradient.

    clip: float32 (frames, height, width, 3) in [0, 1]. noise: standard deviation over the clip's range of values.
    Returns float32 (frames, height, width), at least 0, the same for the same `seed`. The model computes as in
    evaluation; its weights, their gradients and its state stay as they are.
    Raises StudyError where the Keras backend is not torch, ValueError for another shape, an unknown label or no copy.
    """
    backend = keras.backend.backend()
    if backend != "torch":
        raise StudyError(f"a gradient map needs Keras on torch, but the backend is {backend}: set KERAS_BACKEND=torch")
    if np.ndim(clip) != 4 or copies < 1:
        raise ValueError(f"need one clip (frames, height, width, 3) and copies >= 1, not {np.shape(clip)} and {copies}")
    rng, deviation = np.random.default_rng(seed), noise * np.ptp(clip)
    total = np.zeros(clip.shape)
    with _same_state(model):
        for _ in range(copies):
            total += _gradient(model, clip + deviation * rng.standard_normal(clip.shape, np.float32), label)
    return np.abs(total / copies).max(-1).astype(np.float32)


def _gradient(model: keras.Model, clip: np.ndarray, label: int) -> np.ndarray:
    """Gradient of a logit with respect to a clip, on torch; float32 in the clip's shape."""
    import torch

    inputs = keras.ops.convert_to_tensor(clip[None].astype(np.float32)).requires_grad_()
    with torch.enable_grad():
        logits = model(inputs, training=False)[0]
        if not 0 <= label < len(logits):
            raise ValueError(f"label {label} is none of the model's {len(logits)} classes")
        (gradient,) = torch.autograd.grad(logits[label], inputs)  # of nothing else: weights get no gradient
    return keras.ops.convert_to_numpy(gradient[0])


@contextmanager
def _same_state(model: keras.Model) -> Iterator[None]:
    """Give torch's modules back their training flags, which a call of a wrapped network sets."""
    modules = [module for layer in model._flatten_layers() for module in layer.modules()]  # Keras has no public way
    flags = [module.training for module in modules]
    try:
        yield
    finally:
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag
