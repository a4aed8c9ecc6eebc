"""SPOBET: its size, what it does to poses, what it attends to, its pre-training; the same on both backends."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from pydantic import ValidationError

from lib.data.layouts import LAYOUTS
from lib.data.loaders import PoseBatches
from lib.models import build
from lib.models.spobet import (
    MaskedFrames,
    PoseFeatures,
    SpobetConfig,
    fold,
    mean_token,
    movement,
    published_normalisation,
    robust_normalisation,
)
from lib.recipes import Training
from lib.training import fit, prepare

PUBLISHED = {"layout": "openpose-54"}
PLUS = {
    "layout": "hands-42", "normalisation": "robust", "motion": True, "stride": 2, "width": 32, "depth": 2,
    "feed_forward": 64, "heads": 4, "convolutions": 1, "kernel": 5, "pre_norm": True, "positions": True, "pool": True,
}  # fmt: skip
SMALL = {"layout": "openpose-54", "depth": 2}
TINY = {"layout": "hands-42", "normalisation": "robust", "width": 8, "depth": 1, "heads": 2, "feed_forward": 16}
CONFIGS = {"published": PUBLISHED, "plus": PLUS}
OPENPOSE = LAYOUTS["openpose-54"]

every_config = pytest.mark.parametrize("name", CONFIGS)


def model_of(config):
    """A model of 10 classes whose weights are all random, so that norms, biases and positions matter, too."""
    prepare(Training(), seed=0)
    model = build("spobet", 10, **config)
    rng = np.random.default_rng(0)
    model.set_weights([weight + rng.random(weight.shape) / 10 for weight in model.get_weights()])
    return model


def poses_of(config, clips=3, frames=12, seed=0, missing=0.1):
    """Random poses in pixels; some joints are missing, their x and y are 0. Heads measure about 60."""
    rng = np.random.default_rng(seed)
    layout = LAYOUTS[config["layout"]]
    joints = len(layout.joints)
    xy = rng.uniform(50, 250, (clips, frames, joints, 2))
    if "body" in layout.parts:
        xy[:, :, layout.joints.index("nose")] = xy[:, :, layout.joints.index("neck")] - rng.uniform(35, 50, 2)
    present = rng.random((clips, frames, joints, 1)) >= missing
    return np.concatenate([xy * present, present], -1, dtype=np.float32)


@pytest.fixture(scope="module")
def models():
    """A model of each configuration, which no test changes."""
    return {name: model_of(config) for name, config in CONFIGS.items()}


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def logits(model, poses):
    return numpy(model(poses, training=False))


# ---- size ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [100, 300])
def test_published_network_has_as_many_parameters_as_its_description_says(classes):
    width, values, feed_forward, heads, key = 64, 108, 512, 4, 16
    dense = lambda inputs, outputs: inputs * outputs + outputs  # noqa: E731
    attention = 3 * dense(width, heads * key) + dense(heads * key, width)
    block = attention + dense(width, feed_forward) + dense(feed_forward, width) + 2 * 2 * width
    expected = dense(values, width) + 6 * block + dense(width, classes)
    assert build("spobet", classes).count_params() == expected
    assert expected == 505_024 + 65 * classes


def test_unknown_model_and_unknown_or_wrong_option_are_errors():
    with pytest.raises(ValueError, match=r"unknown model 'spobett'; there are: i3d, movinet-a0, .*s3d, spobet,"):
        build("spobett", 10)
    with pytest.raises(ValidationError, match="widht"):
        build("spobet", 10, widht=3)
    with pytest.raises(ValidationError, match="depth"):
        build("spobet", 10, depth="deep")


# ---- embeddings ----------------------------------------------------------------------------------------


@every_config
def test_the_embedding_is_what_the_head_reads_at_length_one(models, name):
    model, poses = models[name], poses_of(CONFIGS[name])
    summary, embedding = numpy(model.summary(poses)), numpy(model.embed(poses))
    kernel, bias = (numpy(weight) for weight in model.head.weights)
    np.testing.assert_allclose(summary @ kernel + bias, logits(model, poses), atol=1e-4)
    np.testing.assert_allclose(embedding, summary / np.linalg.norm(summary, axis=1, keepdims=True), atol=1e-6)
    assert embedding.dtype == np.float32
    assert embedding.shape == (3, 64)  # twice the width of "plus", which pools
    assert np.ptp(embedding, axis=0).max() > 1e-3  # it tells clips apart


@every_config
def test_logits_and_embeddings_together_cost_one_pass(models, name, monkeypatch):
    model, poses, passes = models[name], poses_of(CONFIGS[name]), []
    call = type(model.encoder).call
    monkeypatch.setattr(type(model.encoder), "call", lambda *args, **how: passes.append(1) or call(*args, **how))
    given, embedding = model.read(poses)
    assert len(passes) == 1
    np.testing.assert_allclose(numpy(given), logits(model, poses), atol=1e-6)
    np.testing.assert_allclose(numpy(embedding), numpy(model.embed(poses)), atol=1e-6)


def test_head_dropout_leaves_embeddings_alone():
    model = model_of(TINY | {"head_dropout": 0.9})
    poses = poses_of(TINY)
    np.testing.assert_array_equal(numpy(model.embed(poses)), numpy(model.embed(poses)))


# ---- normalisation and features ------------------------------------------------------------------------


def one_frame(layout, **joints):
    """Poses (1, 1, joints, 3) in which only the named joints are present."""
    poses = np.zeros((1, 1, len(layout.joints), 3), np.float32)
    for name, (x, y) in joints.items():
        poses[0, 0, layout.joints.index(name)] = x, y, 1
    return poses


def normalised(normalise, poses, layout):
    """The normalised x, y of each joint of the first frame, by name."""
    xy = numpy(normalise(ops.convert_to_tensor(poses[..., :2]), ops.convert_to_tensor(poses[..., 2:]), layout))
    return dict(zip(layout.joints, xy[0, 0], strict=True))


BODY = {"neck": (100, 200), "nose": (100, 140), "right_wrist": (40, 260)}  # the head measures 60
HAND = {"right_hand_wrist": (46, 266), "right_thumb_1": (40, 200), "left_thumb_1": (10, 10)}


def test_published_normalisation_measures_the_body_from_the_neck_in_three_heads_and_hands_from_their_wrist_in_heads():
    xy = normalised(published_normalisation, one_frame(OPENPOSE, **BODY, **HAND), OPENPOSE)
    np.testing.assert_allclose(xy["neck"], [0, 0], atol=1e-6)
    np.testing.assert_allclose(xy["nose"], [0, -1 / 3], atol=1e-6)
    np.testing.assert_allclose(xy["right_wrist"], [-1 / 3, 1 / 3], atol=1e-6)
    np.testing.assert_allclose(xy["right_hand_wrist"], [0.1, 0.1], atol=1e-6)
    np.testing.assert_allclose(xy["right_thumb_1"], [0, -1], atol=1e-6)
    np.testing.assert_array_equal(xy["left_thumb_1"], [0, 0])  # its wrist is missing
    np.testing.assert_array_equal(xy["left_ear"], [0, 0])  # missing itself


@pytest.mark.parametrize("normalise", [published_normalisation, robust_normalisation])
def test_lips_are_measured_from_the_nose_and_keep_their_shape_wherever_the_head_is(normalise):
    layout = LAYOUTS["body-hands"]
    lips = {"upper_lip": (100, 150), "lower_lip": (100, 155)}
    here = normalised(normalise, one_frame(layout, **BODY, **lips), layout)
    assert here["lower_lip"][1] > here["upper_lip"][1] > 0
    assert not here["left_lip_1"].any()
    body = {name: place for name, place in BODY.items() if name != "nose"}
    assert not normalised(normalise, one_frame(layout, **body, **lips), layout)["upper_lip"].any()


@pytest.mark.parametrize("lost", ["nose", "neck"])
def test_published_normalisation_without_a_head_gives_zeros_and_no_infinity(lost):
    body = {name: place for name, place in BODY.items() if name != lost}
    xy = normalised(published_normalisation, one_frame(OPENPOSE, **body, **HAND), OPENPOSE)
    assert not np.array(list(xy.values())).any()


def test_robust_normalisation_measures_wrists_from_the_centre_in_spreads_and_fingers_from_their_wrist():
    hands = LAYOUTS["hands-42"]  # centre (4, 6), root mean square distance 5
    xy = normalised(robust_normalisation, one_frame(hands, left_hand_wrist=(1, 2), left_thumb_1=(7, 10)), hands)
    np.testing.assert_allclose(xy["left_hand_wrist"], [-0.6, -0.8], atol=1e-6)
    np.testing.assert_allclose(xy["left_thumb_1"], [2 * 1.2, 2 * 1.6], atol=1e-6)
    others = [value for name, value in xy.items() if name not in ("left_hand_wrist", "left_thumb_1")]
    assert not np.array(others).any()


def test_robust_normalisation_of_fingers_without_their_wrist_is_zero():
    hands = LAYOUTS["hands-42"]
    xy = normalised(robust_normalisation, one_frame(hands, left_index_1=(1, 2), right_hand_wrist=(7, 10)), hands)
    np.testing.assert_array_equal(xy["left_index_1"], [0, 0])


@pytest.mark.parametrize(
    ("layout", "normalisation"),
    [
        *((layout, way) for layout in ("openpose-54", "body-hands") for way in ("published", "robust")),
        ("hands-42", "robust"),
    ],
)
def test_features_do_not_depend_on_where_and_how_large_the_signer_is(layout, normalisation):
    features = PoseFeatures(SpobetConfig(layout=layout, normalisation=normalisation, motion=True))
    poses = poses_of({"layout": layout})
    moved = poses.copy()
    moved[..., :2] = (poses[..., :2] * 2.5 + np.float32([300, -40])) * poses[..., 2:]
    here, there = numpy(features(poses)[0]), numpy(features(moved)[0])
    assert np.abs(here).max() > 1
    np.testing.assert_allclose(there, here, atol=2e-3, rtol=1e-3)


def test_features_hold_places_movements_and_which_hands_are_seen():
    poses = poses_of({"layout": "hands-42"}, clips=1, frames=4)
    poses[0, 1, :21] = 0  # the left hand is lost for a frame
    poses[0, 3] = 0
    values, mask = PoseFeatures(SpobetConfig(layout="hands-42", normalisation="robust", motion=True))(poses)
    assert values.shape == (1, 4, 3 * 84 + 2)
    np.testing.assert_array_equal(numpy(mask), [[1, 1, 1, 0]])
    np.testing.assert_array_equal(numpy(values)[0, :, -2:], [[1, 1], [0, 1], [1, 1], [0, 0]])
    assert not numpy(values)[0, 3].any()
    assert PoseFeatures(SpobetConfig(layout="hands-42", normalisation="robust"))(poses)[0].shape == (1, 4, 84)


def test_movement_is_the_way_since_the_last_frame_and_zero_where_a_joint_is_missing():
    places = np.float32([[0, 5], [2, 7], [3, 0], [3, 9]])[None, :, :, None] * np.float32([1, -1])
    present = np.float32([[1, 1], [1, 1], [1, 0], [1, 1]])[None, :, :, None]
    moved = numpy(movement(ops.convert_to_tensor(places), ops.convert_to_tensor(present)))
    np.testing.assert_array_equal(moved[0, ..., 0], [[0, 0], [2, 2], [1, 0], [0, 0]])
    np.testing.assert_array_equal(moved[0, ..., 1], -moved[0, ..., 0])


@pytest.mark.parametrize(("frames", "tokens"), [(1, 1), (2, 1), (5, 3), (6, 3)])
def test_frames_are_joined_to_tokens_and_the_last_token_is_filled_with_zeros(frames, tokens):
    x = np.arange(1, 2 * frames + 1, dtype=np.float32).reshape(1, frames, 2)
    folded = numpy(fold(ops.convert_to_tensor(x), 2))
    expected = np.zeros(4 * tokens, np.float32)
    expected[: 2 * frames] = x.ravel()
    np.testing.assert_array_equal(folded, expected.reshape(1, tokens, 4))


def test_mean_token_counts_seen_tokens_only_and_is_zero_without_any():
    x = ops.convert_to_tensor(np.float32([[[1, 2], [3, 4], [90, 90]], [[5, 5], [5, 5], [5, 5]]]))
    mean = numpy(mean_token(x, ops.convert_to_tensor(np.float32([[1, 1, 0], [0, 0, 0]]))))
    np.testing.assert_array_equal(mean, [[2, 3], [0, 0]])


# ---- masking and attention -----------------------------------------------------------------------------


@every_config
@pytest.mark.parametrize("frames", [11, 12])
def test_padding_does_not_change_logits(models, name, frames):
    model, poses = models[name], poses_of(CONFIGS[name], frames=frames)
    padded = np.pad(poses, ((0, 0), (0, 9), (0, 0), (0, 0)))
    assert np.ptp(logits(model, poses), axis=0).max() > 1e-3  # the clips do differ
    np.testing.assert_allclose(logits(model, padded), logits(model, poses), atol=1e-5)


@every_config
def test_clips_in_a_batch_do_not_see_each_other(models, name):
    model, poses = models[name], poses_of(CONFIGS[name])
    alone = np.concatenate([logits(model, clip[None]) for clip in poses])
    np.testing.assert_allclose(logits(model, poses), alone, atol=1e-5)


@every_config
def test_what_stands_in_x_and_y_of_a_missing_joint_does_not_matter(models, name):
    model, poses = models[name], poses_of(CONFIGS[name], missing=0.3)
    garbage = np.where(poses[..., 2:] == 0, np.float32([777, -55, 0]), poses)
    np.testing.assert_allclose(logits(model, garbage), logits(model, poses), atol=1e-5)


@every_config
def test_attention_sums_to_one_and_never_falls_on_a_token_without_joints(models, name):
    model, poses = models[name], poses_of(CONFIGS[name], frames=12)
    poses[0, 4:6] = 0  # one token of the plus model
    poses[1, 8:] = 0
    scores = numpy(model.attention(poses))
    tokens = 12 // model.config.stride
    assert scores.shape == (3, model.config.depth, 4, 1 + tokens, 1 + tokens)
    np.testing.assert_allclose(scores.sum(-1), 1, atol=1e-5)
    seen = poses[..., 2].any(-1).reshape(3, tokens, -1).any(-1)
    column = scores.max(axis=(1, 2, 3))  # the most that any layer, head and row gives to a token
    np.testing.assert_array_equal(column[:, 1:] > 0, seen)
    assert (column[:, 0] > 0).all()


@every_config
def test_a_clip_without_any_joint_gives_finite_logits(models, name):
    poses = np.zeros_like(poses_of(CONFIGS[name], clips=2))
    empty = logits(models[name], poses)
    assert np.isfinite(empty).all()
    np.testing.assert_allclose(empty[0], empty[1], atol=1e-6)


@pytest.mark.parametrize("normalisation", ["published", "robust"])
def test_gradients_are_finite_for_clips_that_lack_joints_heads_or_everything(normalisation):
    config = {**TINY, "layout": "openpose-54", "normalisation": normalisation, "motion": normalisation == "robust"}
    poses = poses_of(config, clips=4, missing=0.5)
    poses[0], poses[1, :, :2], poses[2, :, 12:] = 0, 0, 0
    poses[3, :, :, :2] = 100 * poses[3, :, :, 2:]  # every joint in the same place
    model = model_of(config)
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    model.train_on_batch(poses, np.eye(10, dtype=np.float32)[:4])
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


@pytest.mark.parametrize(("positions", "same"), [(False, True), (True, False)])
def test_order_of_frames_matters_only_with_positions(positions, same):
    model, poses = model_of({**SMALL, "positions": positions}), poses_of(SMALL)
    backwards = logits(model, poses[:, ::-1].copy())
    assert np.allclose(backwards, logits(model, poses), atol=1e-5) is same


def test_order_of_frames_matters_with_convolutions():
    model, poses = model_of({**SMALL, "convolutions": 1}), poses_of(SMALL)
    assert np.abs(logits(model, poses[:, ::-1].copy()) - logits(model, poses)).max() > 1e-4


# ---- pre-training --------------------------------------------------------------------------------------


def masked_frames(share=0.3, span=1, config=TINY):
    masked = MaskedFrames(model_of(config), share, span)
    masked(poses_of(config))
    return masked


@pytest.mark.parametrize(("share", "span"), [(0.3, 1), (0.5, 4)])
def test_about_the_asked_share_of_frames_is_hidden_and_none_that_is_masked(share, span):
    mask = np.ones((200, 40), np.float32)
    mask[:, 30:] = 0
    hidden = numpy(masked_frames(share, span).hide(ops.convert_to_tensor(mask)))
    assert set(np.unique(hidden)) == {0, 1}
    assert not hidden[:, 30:].any()
    assert hidden[:, :30].mean() == pytest.approx(share, abs=0.03)


def test_frames_are_hidden_in_runs_of_the_asked_span():
    hidden = numpy(masked_frames(0.5, 4).hide(ops.ones((50, 40))))
    runs = hidden.reshape(50, 10, 4)
    np.testing.assert_array_equal(runs.min(-1), runs.max(-1))
    assert 0 < runs.mean() < 1


def test_nine_of_ten_hidden_frames_become_zeros_and_the_rest_noise_while_the_others_stay():
    features = np.full((100, 40, 6), 5, np.float32)
    hidden = np.zeros((100, 40), np.float32)
    hidden[:, ::2] = 1
    masked = masked_frames()
    replaced = numpy(masked.replace(ops.convert_to_tensor(features), ops.convert_to_tensor(hidden)))
    np.testing.assert_array_equal(replaced[:, 1::2], 5)
    zero = (replaced[:, ::2] == 0).all(-1)
    assert zero.mean() == pytest.approx(0.9, abs=0.03)
    noise = replaced[:, ::2][~zero]
    assert 0 <= noise.min() < 0.05
    assert 0.95 < noise.max() < 1


@pytest.mark.parametrize("config", [TINY, {**PLUS, "positions": False}], ids=["tiny", "plus"])
def test_loss_is_the_mean_squared_error_of_what_was_there_in_hidden_frames(config, monkeypatch):
    masked, poses = masked_frames(config=config), poses_of(config, frames=9)
    hidden = np.zeros((3, 9), np.float32)
    hidden[0, 2] = hidden[1, 3:6] = 1
    monkeypatch.setattr(masked, "hide", lambda mask: ops.convert_to_tensor(hidden))
    restored = numpy(masked(poses))
    features = numpy(masked.features(poses)[0])
    there = (hidden[..., None] * features) != 0
    assert 0 < there.sum() < hidden.sum() * features.shape[-1]  # some joints are missing there
    expected = ((restored - features)[there] ** 2).mean()
    assert float(numpy(masked.losses[0])) == pytest.approx(expected, rel=1e-4)


def test_loss_without_a_hidden_frame_is_zero():
    masked = masked_frames()
    masked(np.zeros_like(poses_of(TINY)))
    assert float(numpy(masked.losses[0])) == 0


def test_pretraining_lowers_the_loss_and_changes_the_encoder_that_the_model_goes_on_with(tmp_path):
    clips = [np.repeat(clip[:1], 12, axis=0) for clip in poses_of(TINY, clips=8, missing=0)]  # each holds still
    recipe = Training(epochs=6, batch_size=4, learning_rate=0.03)
    prepare(recipe, 0)
    model = build("spobet", 10, **TINY)
    masked = MaskedFrames(model, share=0.3)
    train = PoseBatches(clips, None, 10, 4, max_frames=12)
    masked(train[0][0])
    encoder, head = model.encoder.embed.get_weights()[0].copy(), model.head.get_weights()[0].copy()
    history = fit(masked, recipe, train, train, tmp_path, classify=False)
    assert history["loss"].iloc[-1] < 0.7 * history["loss"].iloc[0]
    assert history["val_loss"].iloc[-1] < 0.8 * history["val_loss"].iloc[0]
    assert np.abs(model.encoder.embed.get_weights()[0] - encoder).max() > 1e-3
    np.testing.assert_array_equal(model.head.get_weights()[0], head)


# ---- both backends -------------------------------------------------------------------------------------

LEARNER = {**PLUS, "dropout": 0.0, "head_dropout": 0.0, "width": 16, "depth": 1}
RECIPE = Training(epochs=1, batch_size=2, learning_rate=0.01, average=0.5)


def outcome(folder: Path) -> None:
    """Logits and one epoch of each training from the weights and poses in `folder`, as outcome-<backend>.npz.

    Runs in this process and in one with another backend.
    """
    poses = np.load(folder / "poses.npz")
    found = {}
    for name, config in CONFIGS.items():
        model = build("spobet", 10, **config)
        model.load_weights(folder / f"{name}.weights.h5")
        found[name] = logits(model, poses[name])
    model = build("spobet", 10, **LEARNER)
    model.load_weights(folder / "learner.weights.h5")
    # TensorFlow must not take the length of the first two batches for that of all.
    clips = [clip[:frames] for clip, frames in zip(poses["clips"], [5, 6, 7, 8, 19, 20], strict=True)]
    train = PoseBatches(clips, np.arange(6), 10, 2, max_frames=20)
    work = folder / keras.backend.backend()
    history = fit(model, RECIPE, train, train, work / "train")
    found["history"] = history[["loss", "val_loss", "accuracy", "val_accuracy"]].to_numpy()
    found["learner"] = logits(model, poses["plus"])
    masked, unlabelled = MaskedFrames(model), PoseBatches(clips, None, 10, 2, max_frames=20)
    masked(unlabelled[0][0])
    found["pretraining"] = fit(masked, RECIPE, unlabelled, unlabelled, work / "pretrain", classify=False)["val_loss"]
    np.savez(folder / f"outcome-{keras.backend.backend()}.npz", **found)


@pytest.fixture(scope="module")
def outcomes(models, tmp_path_factory):
    """What comes out on torch and on TensorFlow from the same weights and poses."""
    folder = tmp_path_factory.mktemp("backends")
    poses = {name: poses_of(config) for name, config in CONFIGS.items()}
    np.savez(folder / "poses.npz", **poses, clips=poses_of(PLUS, clips=6, frames=20))
    for name, model in {**models, "learner": model_of(LEARNER)}.items():
        model.save_weights(folder / f"{name}.weights.h5")
    outcome(folder)
    command = "import sys, pathlib, test_spobet; test_spobet.outcome(pathlib.Path(sys.argv[1]))"
    process = subprocess.run(
        [sys.executable, "-c", command, str(folder)],
        cwd=Path(__file__).parent,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return np.load(folder / "outcome-torch.npz"), np.load(folder / "outcome-tensorflow.npz")


@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_weights_give_the_same_logits_on_tensorflow_and_torch(outcomes, name):
    torch, tensorflow = outcomes
    assert np.ptp(torch[name]) > 0.01
    np.testing.assert_allclose(tensorflow[name], torch[name], atol=1e-4)


def test_an_epoch_of_training_gives_the_same_on_tensorflow_and_torch(outcomes):
    torch, tensorflow = outcomes
    np.testing.assert_allclose(tensorflow["history"], torch["history"], atol=1e-3)
    np.testing.assert_allclose(tensorflow["learner"], torch["learner"], atol=1e-2)


def test_pretraining_runs_on_both_backends(outcomes):
    for backend in outcomes:
        assert backend["pretraining"].shape == (1,)
        assert 0 < backend["pretraining"][0] < 100


def test_cosine_logits_are_the_scaled_cosines_of_the_clips_and_the_glosses_vectors():
    model = model_of({**PLUS, "cosine": 20.0})
    poses = poses_of(PLUS)
    summary, kernel = numpy(model.summary(poses)), numpy(model.head.kernel)
    cosine = summary @ kernel / np.linalg.norm(summary, axis=1)[:, None] / np.linalg.norm(kernel, axis=0)
    np.testing.assert_allclose(numpy(model(poses)), 20 * cosine, atol=1e-3)
    model.head.kernel.assign(3 * model.head.kernel)
    np.testing.assert_allclose(numpy(model(poses)), 20 * cosine, atol=1e-3)


@pytest.mark.parametrize("frames", [2, 12])
def test_slow_motion_is_the_movement_over_four_frames_where_a_joint_is_at_both_ends(frames):
    poses = np.random.default_rng(3).random((1, frames, 42, 3), np.float32)
    poses[..., 2] = 1
    poses[:, 5:6] = 0
    config = {"layout": "hands-42", "normalisation": "robust", "motion": True}
    fast = numpy(PoseFeatures(SpobetConfig(**config))(poses)[0])
    both = numpy(PoseFeatures(SpobetConfig(**config, slow_motion=True))(poses)[0])
    assert both.shape[-1] == fast.shape[-1] + 84
    places, slow = both[0, :, 84:168], both[0, :, 252:336]
    expected = np.zeros_like(slow)
    for frame in range(4, frames):
        if frame not in (5, 9):
            expected[frame] = 2 * (places[frame] - places[frame - 4])
    np.testing.assert_allclose(slow, expected, atol=1e-5)
