"""Own video in, sign out: the same answer as evaluation, and each form in which the command gives it."""

import shutil

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from helpers import GLOSSES, SPLITS, SPREAD, landmarks_of, make_trained
from lib.data.poses import read_hands
from lib.export.files import read_metadata
from lib.predict import name_sign, open_model
from lib.predict.recordings import find_inputs, recorder
from lib.settings import StudyError

TOLERANCE = 1e-5
TESTED = [f"{number:05d}" for number in range(12) if SPLITS[number % 4] == "test"]


# ---- the same answer as evaluation ---------------------------------------------------------------------


def logits_of(trained, source, model):
    """The logits of each test clip, opened by itself as its index says."""
    inputs = {clip.place.name: clip for clip in find_inputs(str(trained.root / source))}
    rows, found = trained.index.set_index("video_id"), []
    with recorder(model, videos=0) as record:
        for video_id in trained.predictions.video_id:
            row = rows.loc[video_id]
            box = {"bbox": row["bbox"]} if source == "videos" else {}
            recording = record(inputs[video_id], start=row["frame_start"], end=row["frame_end"], **box)
            found.append(model.logits([recording.clip()]))
    return np.concatenate(found)


def check_same(trained, source, model):
    assert trained.predictions.video_id.tolist() == TESTED
    logits = logits_of(trained, source, model)
    np.testing.assert_allclose(logits, trained.predictions.logits, atol=TOLERANCE, rtol=0)
    assert np.ptp(trained.predictions.logits, axis=0).min() > SPREAD  # the model tells the clips apart
    assert model.glosses == GLOSSES


@pytest.mark.parametrize("which", ["run", "tflite", "onnx"])
def test_hands_of_an_archive_get_the_logits_of_evaluation(of_hands, monkeypatch, which):
    name = of_hands.here(monkeypatch)
    check_same(of_hands, "hands", open_model(name if which == "run" else of_hands.files[which]))


@pytest.mark.parametrize("which", ["run", "tflite", "onnx", "tflite-stream", "onnx-stream"])
def test_hands_are_drawn_for_a_model_that_reads_drawings(of_drawn, monkeypatch, which):
    name = of_drawn.here(monkeypatch)
    model = open_model(name if which == "run" else of_drawn.files[which])
    check_same(of_drawn, "hands", model)
    assert (model.layout.name, model.stream) == ("hands-42", None)  # a camera has hands to find first
    assert read_metadata(of_drawn.files["onnx"])[0]["input"]["clip"]["drawing"]["third"] == "movement"


@pytest.mark.parametrize("which", ["run", "tflite", "onnx", "tflite-stream", "onnx-stream"])
def test_videos_get_the_logits_of_evaluation(of_videos, monkeypatch, which):
    name = of_videos.here(monkeypatch)
    check_same(of_videos, "videos", open_model(name if which == "run" else of_videos.files[which]))


@pytest.mark.parametrize(("source", "layout"), [("keypoints", "openpose-54"), ("poses", "body-hands")])
def test_poses_of_the_body_get_the_logits_of_evaluation(tmp_path, monkeypatch, source, layout):
    trained = make_trained(tmp_path, source, layout=layout, export=False)
    check_same(trained, source, open_model(trained.here(monkeypatch)))


def test_clips_together_get_the_logits_that_each_gets_alone(of_hands, monkeypatch):
    model = open_model(of_hands.here(monkeypatch))
    with recorder(model, videos=0) as record:
        clips = [record(clip).clip() for clip in find_inputs(str(of_hands.root / "hands"))] * 2
    together = model.logits(iter(clips))  # more than one batch
    alone = np.concatenate([model.logits([clip]) for clip in clips])
    np.testing.assert_allclose(together, alone, atol=TOLERANCE)
    assert model.logits([]).shape == (0, 3)


# ---- name_sign -----------------------------------------------------------------------------------------


@pytest.fixture
def poses(of_hands):
    """The poses of each test clip, as an array each."""
    rows = of_hands.index.set_index("video_id").loc[TESTED]
    with np.load(of_hands.root / "hands" / "hands.npz") as archive:
        return [read_hands(archive, row.Index)[row.frame_start : row.frame_end] for row in rows.itertuples()]


@pytest.mark.parametrize("form", ["tflite", "onnx"])
def test_poses_in_an_array_are_named_as_the_run_names_them(of_hands, poses, form):
    for clip, shares in zip(poses, softmax(of_hands.predictions.logits, axis=1), strict=True):
        named = name_sign(clip, of_hands.files[form], top=2)
        best = np.argsort(-shares)[:2]
        assert list(named.index) == [GLOSSES[label] for label in best]
        np.testing.assert_allclose(named, shares[best], rtol=1e-4)


def test_an_array_that_the_model_does_not_read_or_that_shows_nobody_is_refused(of_hands, of_videos):
    path = of_hands.files["tflite"]
    with pytest.raises(StudyError, match=r"hands/tiny reads poses \(frames, 42, 3\), not an array \(9, 54, 3\)"):
        name_sign(np.ones((9, 54, 3), np.float32), path)
    with pytest.raises(StudyError, match=r"videos/tiny reads videos, not an array \(9, 42, 3\)"):
        name_sign(np.ones((9, 42, 3), np.float32), of_videos.files["tflite"])
    for nobody in (0, np.nan):
        with pytest.raises(StudyError, match="nobody's hands are seen"):
            name_sign(np.full((9, 42, 3), nobody, np.float32), path)


def test_landmarks_that_are_nowhere_count_as_not_seen(of_hands, poses):
    path, clip = of_hands.files["tflite"], poses[1].copy()
    clip[2, 3:5] = 0
    expected = name_sign(clip, path)
    assert np.isfinite(expected).all()
    for joint in ([np.nan] * 3, [np.inf, 0.5, 1], [0.5, np.nan, 1], [0.5, 0.5, np.nan], [0.5, 0.5, 0]):
        clip[2, 3:5] = joint
        pd.testing.assert_series_equal(name_sign(clip, path), expected)
    clip[2, 3:5] = [0.5, 0.5, 1]
    assert not np.allclose(name_sign(clip, path), expected)
    clip[2, 3:5] = 0
    sure = np.where(clip[..., 2:] > 0, clip * [1, 1, 0.25], 0)  # confidences in the place of 1
    pd.testing.assert_series_equal(name_sign(sure, path), expected)


@pytest.mark.parametrize("form", ["tflite", "onnx"])
def test_files_and_clips_may_be_read_only_and_paths_plain_text(of_hands, poses, tmp_path, form):
    path, clip = of_hands.files[form], poses[0].copy()
    expected = name_sign(clip, path)
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    copy.chmod(0o444)
    tmp_path.chmod(0o555)
    clip.flags.writeable = False
    pd.testing.assert_series_equal(name_sign(clip, str(copy)), expected)
    pd.testing.assert_series_equal(name_sign(clip.tolist(), str(copy)), expected)
    assert read_metadata(str(copy)) == read_metadata(path)
    tmp_path.chmod(0o755)


def test_a_path_is_named_as_its_content_and_a_folder_of_several_clips_is_refused(of_videos, of_hands, tmp_path):
    path = of_videos.root / "videos" / f"{TESTED[1]}.mp4"
    (folder := tmp_path / "folder").mkdir()
    shutil.copy(path, folder)
    named = name_sign(path, of_videos.files["tflite"])
    assert named.is_monotonic_decreasing
    assert named.sum() == pytest.approx(1)
    for same in (str(path), folder):
        pd.testing.assert_series_equal(name_sign(same, of_videos.files["tflite"]), named)
    shutil.copy(path, folder / "again.mp4")
    with pytest.raises(StudyError, match=r"folder: holds 2 clips; name one, or use `python -m lib.predict`"):
        name_sign(folder, of_videos.files["tflite"])
    with pytest.raises(StudyError, match=r"hands\.npz: holds 12 clips"):
        name_sign(of_hands.root / "hands" / "hands.npz", of_hands.files["tflite"])


def test_landmarks_need_no_mediapipe(of_hands, tmp_path, monkeypatch):
    np.savez(tmp_path / "one.npz", clip=landmarks_of(2))
    monkeypatch.setenv("UV", "/nowhere/uv")
    expected = name_sign(read_hands({"clip": landmarks_of(2)}, "clip"), of_hands.files["tflite"])
    pd.testing.assert_series_equal(name_sign(tmp_path / "one.npz", of_hands.files["tflite"]), expected)
