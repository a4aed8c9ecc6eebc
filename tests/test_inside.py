"""What a model looks at: attention rollout worked out by hand, and gradients of models that are known by arithmetic."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from lib.inside import frame_rollout, gradient_map, rollout
from lib.models import build
from lib.settings import StudyError

on_torch = pytest.mark.skipif(keras.backend.backend() != "torch", reason="gradient maps need keras' torch backend")

# ---- rollout -------------------------------------------------------------------------------------------


def test_rollout_of_two_layers_is_what_arithmetic_gives():
    first = [[[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]], [[0.5, 0, 0.5], [0, 1, 0], [1, 0, 0]]]  # two heads
    second = [[[0, 1, 0], [0, 0, 1], [0, 0, 1]], [[0, 0, 1], [1, 0, 0], [0, 0, 1]]]
    # Means of the heads: [[1/2, 1/4, 1/4], [0, 1, 0], [1/2, 0, 1/2]] and [[0, 1/2, 1/2], [1/2, 0, 1/2], [0, 0, 1]].
    # Plus the identity, in rows that sum to 1: [[3/4, 1/8, 1/8], [0, 1, 0], [1/4, 0, 3/4]] and
    # [[1/2, 1/4, 1/4], [1/4, 1/2, 1/4], [0, 0, 1]]. The second times the first:
    expected = [[7 / 16, 5 / 16, 1 / 4], [1 / 4, 17 / 32, 7 / 32], [1 / 4, 0, 3 / 4]]
    np.testing.assert_allclose(rollout(np.float32([first, second])), expected, atol=1e-12)


def test_rows_of_a_rollout_sum_to_one_even_where_those_of_half_precision_do_not():
    scores = np.random.default_rng(0).random((5, 4, 7, 7)) ** 3
    scores = (scores / scores.sum(-1, keepdims=True)).astype(np.float16)
    assert np.abs(scores.mean(1).sum(-1, dtype=float) - 1).max() > 1e-5
    mixed = rollout(scores)
    assert mixed.shape == (7, 7)
    assert mixed.min() >= 0
    np.testing.assert_allclose(mixed.sum(1), 1, atol=1e-12)


def test_rollout_of_attention_to_oneself_is_the_identity():
    np.testing.assert_array_equal(rollout(np.tile(np.eye(4), (3, 2, 1, 1))), np.eye(4))


def test_what_a_token_takes_from_its_neighbour_goes_on_through_every_layer():
    """A token that attends to its left neighbour alone reaches as far as there are layers."""
    left = np.eye(5, k=-1)
    left[0, 0] = 1
    reached = [rollout(np.tile(left, (depth, 1, 1, 1)))[4] for depth in (1, 2, 3)]
    np.testing.assert_allclose(reached, np.array([[0, 0, 0, 4, 4], [0, 0, 2, 4, 2], [0, 1, 3, 3, 1]]) / 8, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 4, 4), (1, 2, 3, 4, 4), (2, 3, 4, 5)])
def test_scores_of_several_clips_or_of_one_layer_are_no_rollout(shape):
    with pytest.raises(ValueError, match=r"one clip \(layers, heads, n, n\)"):
        rollout(np.ones(shape))


def test_every_frame_gets_the_share_of_its_token_and_none_without_joints():
    keras.utils.set_random_seed(0)
    model = build("spobet", 5, layout="hands-42", normalisation="robust", width=8, depth=2, heads=2, stride=2)
    clip = np.ones((9, 42, 3), np.float32)
    clip[..., :2] = np.random.default_rng(0).random((9, 42, 2))
    clip[4:6] = 0
    inside = frame_rollout(model, clip)
    assert [array.shape for array in inside] == [(2, 2, 6, 6), (6, 6), (9,)]
    np.testing.assert_allclose(inside.attention.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(inside.tokens, rollout(inside.attention))
    assert (inside.frames > 0).tolist() == [True] * 4 + [False] * 2 + [True] * 3
    np.testing.assert_array_equal(inside.frames, inside.tokens[0, [1, 1, 2, 2, 3, 3, 4, 4, 5]])
    assert inside.frames[0] != inside.frames[2]


# ---- gradients -----------------------------------------------------------------------------------------


def linear_model(weights):
    """A model of one logit for each column of weights, (frames × height × width × 3, classes)."""
    inputs = keras.Input((2, 3, 2, 3))
    head = layers.Dense(weights.shape[1])
    model = keras.Model(inputs, head(layers.Flatten()(inputs)))
    head.set_weights([weights, np.ones(weights.shape[1], np.float32)])
    return model


def clip_of(*shape, seed=0):
    return np.random.default_rng(seed).random((*shape, 3), np.float32)


@on_torch
def test_map_of_a_linear_model_is_the_largest_of_its_weights_over_the_colours():
    weights = np.zeros((2, 3, 2, 3, 2), np.float32)
    weights[0, 1, 1, :, 1] = [0.5, -2, 1]
    weights[1, 2, 0, :, 1] = [0, 0, 0.25]
    weights[1, 0, 0, :, 0] = 9  # of another logit
    expected = np.zeros((2, 3, 2), np.float32)
    expected[0, 1, 1], expected[1, 2, 0] = 2, 0.25
    found = gradient_map(linear_model(weights.reshape(36, 2)), clip_of(2, 3, 2), 1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


class Square(layers.Layer):
    """One logit: the sum of the squares of what it reads."""

    def call(self, x):
        return ops.sum(x**2, axis=(1, 2, 3, 4))[:, None]


def square_model():
    inputs = keras.Input((2, 3, 2, 3))
    return keras.Model(inputs, Square()(inputs))


@on_torch
def test_noise_is_drawn_from_the_seed_over_the_range_of_the_clip_and_averages_out():
    """The gradient of the sum of squares at a point is twice the point, so its mean shows the mean of the noise."""
    model, clip = square_model(), 0.5 * clip_of(2, 3, 2) + 0.25
    plain = gradient_map(model, clip, 0, copies=1, noise=0)
    np.testing.assert_allclose(plain, 2 * clip.max(-1), atol=1e-6)
    one, again, other = (gradient_map(model, clip, 0, copies=1, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    wide = gradient_map(model, 4 * clip, 0, copies=1)  # the same draws, four times as wide
    np.testing.assert_allclose(wide, 4 * one, rtol=1e-4)
    many = gradient_map(model, clip, 0, copies=400)
    assert 0 < np.abs(many - plain).max() < 0.1 * np.abs(one - plain).max() + 0.02


@on_torch
def test_pixels_that_a_model_does_not_read_have_no_gradient():
    inputs = keras.Input((4, 6, 6, 3))
    head = layers.GlobalAveragePooling3D()(layers.Conv3D(3, 2, activation="silu")(inputs[:, 1:3, 2:, :5]))
    keras.utils.set_random_seed(0)
    found = gradient_map(keras.Model(inputs, layers.Dense(2)(head)), clip_of(4, 6, 6), 0)
    read = np.zeros((4, 6, 6), bool)
    read[1:3, 2:, :5] = True
    np.testing.assert_array_equal(found > 0, read)


CLIPS = {"movinet-a0": (4, 32, 32), "x3d-xs": (4, 32, 32), "x3d-s": (4, 33, 40), "s3d": (7, 32, 32), "i3d": (8, 32, 32)}


def random_model(name):
    """A model of five classes with random weights. As built, S3D's are tiny, and X3D's branches have a factor of 0."""
    keras.utils.set_random_seed(0)
    model, rng = build(name, 5, CLIPS[name]), np.random.default_rng(0)
    larger = 6 if name == "s3d" else 1
    model.set_weights(
        [
            weight + rng.random(weight.shape) / 2 if weight.ndim == 1 else larger * weight
            for weight in model.get_weights()
        ]
    )
    return model


@on_torch
@pytest.mark.parametrize("name", CLIPS)
def test_every_model_says_how_much_its_logit_changes_with_a_pixel_and_stays_as_it_is(name):
    model, clip = random_model(name), clip_of(*CLIPS[name])
    modules = [module for layer in model._flatten_layers() for module in layer.modules()]
    for module in modules:
        module.training = True  # as after a step of training
    tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    values = [tensor.detach().clone() for tensor in tensors]
    plain = gradient_map(model, clip, 3, copies=1, noise=0)
    smooth = gradient_map(model, clip, 3, copies=2)
    assert all(tensor.equal(value) for tensor, value in zip(tensors, values, strict=True))
    assert {tensor.grad for tensor in tensors} == {None}
    assert all(module.training for module in modules)
    assert plain.shape == smooth.shape == CLIPS[name]
    assert np.isfinite(smooth).all()
    assert not np.allclose(plain, smooth)
    place = np.unravel_index(plain.argmax(), plain.shape)
    steps = np.repeat(clip[None], 6, axis=0)
    for colour in range(3):
        steps[2 * colour, *place, colour] += 0.01
        steps[2 * colour + 1, *place, colour] -= 0.01
    logits = ops.convert_to_numpy(model(steps, training=False))[:, 3]
    assert np.abs(logits[::2] - logits[1::2]).max() / 0.02 == pytest.approx(plain.max(), rel=0.1)


@on_torch
def test_what_is_no_clip_or_no_class_is_refused():
    model, clip = square_model(), clip_of(2, 3, 2)
    for wrong in (1, -1):
        with pytest.raises(ValueError, match=f"label {wrong} is none of the model's 1 classes"):
            gradient_map(model, clip, wrong)
    with pytest.raises(ValueError, match="one clip"):
        gradient_map(model, clip[None], 0)
    with pytest.raises(ValueError, match="copies >= 1"):
        gradient_map(model, clip, 0, copies=0)


def test_another_backend_than_torch_is_named(monkeypatch):
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    with pytest.raises(StudyError, match="needs Keras on torch, but the backend is jax"):
        gradient_map(None, clip_of(2, 3, 2), 0)
