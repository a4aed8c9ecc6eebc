"""Batch normalisation and convolution return what Keras' own do: outputs, statistics and gradients."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from bench.sides import Side
from lib.models.layers import BatchNorm, Conv3D

if keras.backend.backend() != "torch":
    pytest.skip("gradients are taken by torch; test_movinet compares TensorFlow with it", allow_module_level=True)

import torch

every_shape = pytest.mark.parametrize("shape", [(3, 5, 4, 6), (2, 3, 5, 4, 6), (2, 1, 1, 1, 6)], ids=str)
every_kind = pytest.mark.parametrize("options", [{}, {"scale": False}, {"momentum": 0.6, "epsilon": 0.1}], ids=str)


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def pair(shape, **options):
    """Ours and keras' own, with the same random weights and statistics, and inputs that are not centred."""
    rng = np.random.default_rng(0)
    ours, keras_own = BatchNorm(**options), layers.BatchNormalization(**options)
    for layer in (ours, keras_own):
        layer.build(shape)
    weights = [rng.uniform(0.5, 1.5, weight.shape) for weight in ours.weights]
    ours.set_weights(weights)
    keras_own.set_weights(weights)
    return ours, keras_own, rng.normal(1, 2, shape).astype(np.float32)


def gradients(layer, x):
    """Of a random sum of the outputs in training: outputs, then gradients by x and by each trainable weight."""
    x = torch.tensor(x, requires_grad=True)
    y = layer(x, training=True)
    upstream = torch.tensor(np.random.default_rng(1).normal(size=x.shape).astype(np.float32))
    weights = [weight.value for weight in layer.trainable_weights]
    return [numpy(y), *map(numpy, torch.autograd.grad((y * upstream).sum(), [x, *weights]))]


def assert_equal(ours, expected):
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@every_shape
@every_kind
def test_training_gives_keras_outputs_gradients_and_statistics(shape, options):
    ours, keras_own, x = pair(shape, **options)
    before = ours.get_weights()
    assert_equal(gradients(ours, x), gradients(keras_own, x))
    assert_equal(ours.get_weights(), keras_own.get_weights())
    for old, moving in zip(before[-2:], ours.get_weights()[-2:], strict=True):
        assert np.abs(moving - old).max() > 1e-3


@every_shape
@every_kind
def test_inference_gives_keras_outputs_and_keeps_the_statistics(shape, options):
    ours, keras_own, x = pair(shape, **options)
    before = ours.get_weights()
    np.testing.assert_allclose(numpy(ours(x)), numpy(keras_own(x)), atol=1e-5)
    np.testing.assert_array_equal(ours.get_weights(), before)


@every_shape
def test_frozen_it_keeps_its_statistics_and_normalises_by_them_in_training_too(shape):
    ours, keras_own, x = pair(shape)
    before = ours.get_weights()
    ours.trainable = keras_own.trainable = False
    assert_equal(gradients(ours, x), gradients(keras_own, x))  # of x: what lies before it may train
    np.testing.assert_allclose(numpy(ours(x, training=True)), numpy(ours(x, training=False)), atol=1e-6)
    np.testing.assert_array_equal(ours.get_weights(), before)


def test_a_constant_channel_gives_its_shift_and_a_variance_of_0():
    ours, _, x = pair((2, 3, 3, 6), momentum=0.0)
    x[...] = np.arange(6)
    _, beta, _, _ = ours.get_weights()
    np.testing.assert_allclose(numpy(ours(x, training=True)), np.broadcast_to(beta, x.shape), atol=1e-5)
    np.testing.assert_allclose(ours.get_weights()[2:], [np.arange(6), np.zeros(6)], atol=1e-6)


def test_hard_swish_and_its_gradient_on_tensorflow_are_those_of_torch():
    with Side("bench_sides:hard_silu", backend="tensorflow") as side:
        expected = side("values")["value"]
    x = torch.linspace(-4, 4, 33, requires_grad=True)
    y = torch.nn.functional.hardswish(x)
    assert_equal([y.detach().numpy(), torch.autograd.grad(y.sum(), x)[0].numpy()], expected)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(
    ("frames", "kernel", "stride"), [(1, 3, 1), (2, 3, 1), (3, 3, 2), (4, 3, 1), (5, 7, 2), (7, 7, 2)]
)
def test_gradients_of_a_convolution_over_few_frames_are_right_whatever_is_in_memory(frames, kernel, stride, dtype):
    layer, own = (kind(32, kernel, stride, "same", use_bias=False, dtype=dtype) for kind in (Conv3D, layers.Conv3D))
    clips = np.random.default_rng(0).standard_normal((2, frames, 6, 5, 16)).astype(np.float32)
    for one in (layer, own):
        one.build(clips.shape)
    own.set_weights(layer.get_weights())
    exact = torch.tensor(layer.get_weights()[0], dtype=torch.float64, requires_grad=True)
    expected = ops.conv(torch.tensor(clips, dtype=torch.float64), exact, stride, "same", "channels_last")
    expected.square().sum().backward()
    tolerance = 0.03 if dtype == "mixed_bfloat16" else 1e-4
    for _ in range(8):
        layer.kernel.value.grad = None
        junk = [torch.full(tuple(layer.kernel.shape), 1e30) for _ in range(4)]  # what freed memory may hold
        del junk
        outputs = layer(clips, training=True)
        outputs.float().square().sum().backward()
        error = (layer.kernel.value.grad - exact.grad).abs().max() / exact.grad.abs().max()
        assert error < tolerance
    np.testing.assert_allclose(
        outputs.detach().float(), expected.detach(), atol=tolerance * float(expected.detach().std()) * 4
    )
    np.testing.assert_array_equal(numpy(layer(clips, training=False)), numpy(own(clips)))


def test_gradients_of_a_convolution_over_few_frames_are_right_on_tensorflow_too():
    with Side("bench_sides:few_frames", backend="tensorflow") as side:
        found = np.array(side("gradient")["value"])
    rng = np.random.default_rng(0)
    clips = torch.tensor(rng.standard_normal((4, 2, 4, 4, 32)))
    kernel = torch.tensor(rng.standard_normal((3, 3, 3, 32, 64)) / 30, requires_grad=True)
    ops.conv(clips, kernel, 1, "same", "channels_last").square().sum().backward()
    expected = kernel.grad.sum((3, 4)).numpy()
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())
