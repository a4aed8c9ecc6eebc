"""The count of operations equals a count by hand, for every kind of layer that the models are made of."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from lib.models import build
from lib.models.cost import costs, gflops

BATCH, TOKENS, WIDTH = 2, 7, 12
POSITIONS = BATCH * TOKENS
on_torch = pytest.mark.skipif(keras.backend.backend() != "torch", reason="operations are counted on torch only")


class SelfAttention(keras.Model):
    """Attention of a sequence to itself, by way of its scores or by the backend's fused kernel."""

    def __init__(self, scores, dtype):
        super().__init__(dtype=dtype)
        self.scores = scores
        self.attention = layers.MultiHeadAttention(3, 4, dtype=dtype)

    def call(self, x):
        if self.scores:
            return self.attention(x, x, return_attention_scores=True)[0]
        return self.attention(x, x)


LAYERS = {
    "dense": (lambda dtype: layers.Dense(5, dtype=dtype), POSITIONS * WIDTH * 5),
    "convolution": (lambda dtype: layers.Conv1D(8, 3, padding="same", dtype=dtype), POSITIONS * WIDTH * 3 * 8),
    "depthwise": (lambda dtype: layers.DepthwiseConv1D(3, padding="same", dtype=dtype), POSITIONS * WIDTH * 3),
}
ATTENTION = 4 * POSITIONS * WIDTH**2 + 2 * POSITIONS * TOKENS * WIDTH  # query, key, value, output; scores, mixture


def sequence():
    return np.random.default_rng(0).random((BATCH, TOKENS, WIDTH), np.float32)


@on_torch
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_multiply_add_is_two_operations_in_any_precision(name, dtype):
    make, multiply_adds = LAYERS[name]
    assert gflops(keras.Sequential([make(dtype)]), sequence()) * 1e9 == pytest.approx(2 * multiply_adds)


@on_torch
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("scores", [True, False], ids=["scores", "fused"])
def test_attention_counts_the_same_whether_it_is_fused_or_not(scores, dtype):
    assert gflops(SelfAttention(scores, dtype), sequence()) * 1e9 == pytest.approx(2 * ATTENTION)


@on_torch
def test_a_published_spobet_counts_as_by_hand():
    frames, joints, classes, width, forward, depth = 40, 42, 10, 64, 512, 6
    model = build("spobet", classes, layout="hands-42", normalisation="robust")
    tokens = frames + 1
    embedding = tokens * 2 * joints * width
    block = 4 * tokens * width**2 + 2 * tokens**2 * width + 2 * tokens * width * forward
    poses = np.ones((1, frames, joints, 3), np.float32)
    by_hand = 2 * (embedding + depth * block + width * classes)
    assert gflops(model, poses) * 1e9 == pytest.approx(by_hand)


@on_torch
def test_counting_leaves_the_weights_as_they_are():
    model = keras.Sequential([layers.Conv1D(4, 3), layers.BatchNormalization()])
    model(sequence())
    before = [weight.copy() for weight in model.get_weights()]
    gflops(model, sequence())
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_another_backend_gives_none(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert gflops(keras.Sequential([layers.Dense(5)]), sequence()) is None


COUNT = """
import numpy as np
from keras import Sequential, layers
from lib.models import build
from lib.models.cost import costs, gflops
frames = np.zeros((1, 9, 9, 4), np.float32)
print(gflops(Sequential([layers.Conv2D(6, 3, 2)]), frames) * 1e9)
print(gflops(Sequential([layers.DepthwiseConv2D(3, depth_multiplier=2)]), frames) * 1e9)
print(gflops(Sequential([layers.Conv3D(6, 3)]), np.zeros((1, 5, 9, 9, 4), np.float32)) * 1e9)
print(gflops(Sequential([layers.Dense(5)]), frames) * 1e9)
print(*costs("movinet-a0")["ratio"])
print(*costs("i3d")["ratio"])
print(*costs("movinet-a0", stream=True)["ratio"])
phone = costs("movinet-a0", mobile=True)
print(*phone["published"], *phone["ours"])
"""


def test_tensorflow_counts_as_by_hand_and_the_networks_cost_what_is_published():
    environment = os.environ | {"KERAS_BACKEND": "tensorflow"}
    done = subprocess.run([sys.executable, "-c", COUNT], env=environment, capture_output=True, text=True, check=True)
    counts = [[float(value) for value in line.split()] for line in done.stdout.splitlines()]
    by_hand = [16 * 6 * 36, 49 * 8 * 9, 3 * 49 * 6 * 108, 81 * 4 * 5]
    assert [count[0] for count in counts[:4]] == [2 * operations for operations in by_hand]
    for parameters, multiply_adds in counts[4:6]:
        assert parameters == 1
        assert multiply_adds == pytest.approx(1, abs=0.05)  # published to two digits
    assert counts[6][0] == 1
    assert np.isnan(counts[7][:2]).all()  # of the form for phones nothing is published
    assert counts[7][2] < 3_765_983  # the stream form's, less its gates


@on_torch
def test_costs_stand_beside_the_published_with_their_source():
    table = costs("x3d-xs")
    assert table.loc["parameters", "published"] == 3.79e6
    assert table["ratio"].tolist() == pytest.approx([1, 1], abs=0.01)
    assert "pytorchvideo" in table.attrs["source"]
