"""Known and unknown signs, and clips in a row: what is measured in notebook 12."""

import numpy as np
import pandas as pd
import pytest

from helpers import landmarks_of
from lib.data.layouts import LAYOUTS
from lib.data.poses import read_hands
from lib.predict import open_model, read_clip
from lib.predict.timeline import FPS
from lib.predict.trial import (
    PAUSE,
    accepted,
    class_means,
    compare_scores,
    embeddings_of,
    in_a_row,
    logits_of,
    rate,
    threshold_at,
    told_apart,
)
from lib.study import load_study

HANDS = LAYOUTS["hands-42"]


def test_the_area_is_the_chance_that_a_known_sign_scores_higher():
    # Of the six pairs, 5 is above both, 3 above one and level with the other, 1 below both: 2 + 1.5 + 0.
    roc = told_apart(np.array([5.0, 3, 1]), np.array([2.0, 3]))
    assert roc.area == pytest.approx(3.5 / 6)
    assert (roc.false[-1], roc.true[-1]) == (1, 1)
    assert told_apart(np.array([2.0, 3]), np.array([0.0, 1])).area == 1


@pytest.mark.parametrize(("recall", "threshold"), [(0.95, 2), (0.91, 2), (0.9, 3), (1, 1), (0.5, 11)])
def test_the_threshold_is_the_highest_that_enough_known_signs_reach(recall, threshold):
    known = np.arange(1.0, 21)  # 20 signs: 19 of them are 95 %
    assert threshold_at(known[::-1], recall) == threshold
    assert accepted(known, known, threshold)[0] >= recall
    assert accepted(known, known, threshold + 0.5)[0] < recall


def test_false_acceptance_is_the_share_of_unknown_signs_at_the_threshold_or_above():
    assert accepted(np.array([1.0, 2, 3, 4]), np.array([0.0, 2, 1, 5, 0]), 2) == (0.75, 0.4)
    kept, passed = accepted(np.array([1.0]), np.array([]), 2)
    assert kept == 0
    assert np.isnan(passed)


def test_embeddings_come_with_the_ids_of_the_clips_that_could_be_read(of_hands, monkeypatch, capsys):
    model = open_model(of_hands.here(monkeypatch))
    study = load_study("hands", of_hands.root)
    ids = ["00005", "00002", "none"]
    vectors, used = embeddings_of(study, model, ids)
    assert sorted(used) == ["00002", "00005"]
    for vector, video_id in zip(vectors, used, strict=True):
        expected = model.embeddings([read_clip(read_hands({"clip": landmarks_of(int(video_id))}, "clip"), model)])[0]
        np.testing.assert_allclose(vector, expected, atol=1e-5)
    assert logits_of(study, model, ids).shape == (2, 3)


def test_scores_are_compared_with_thresholds_of_validation():
    known = {"val": {"a": np.arange(1.0, 21)}, "test": {"a": np.array([0.0, 5, 5, 5])}}  # the threshold is 2
    unknown = {"val": {"a": np.array([0.0, 30])}, "test": {"a": np.array([1.0, 1, 1, 3, 0])}}
    (row,) = compare_scores(known, unknown).to_dict("records")
    assert row == {
        "score": "a", "val": 0.5, "test": pytest.approx(0.775), "kept": 0.75, "accepted_val": 0.5, "accepted_test": 0.2,
    }  # fmt: skip


def test_each_score_of_a_clip_is_what_its_name_says():
    logits = np.array([[0.0, np.log(3)], [2, 1]])
    vectors, means = np.array([[0.6, 0.8], [1, 0]]), np.array([[1.0, 0], [0, 1]])
    rated = rate(logits, vectors, means)
    expected = {
        "largest logit": [np.log(3), 2], "largest probability": [0.75, np.e / (1 + np.e)],
        "energy": [np.log(4), np.log(np.e**2 + np.e)], "similarity to class means": [0.8, 1],
    }  # fmt: skip
    assert list(rated) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(rated[name], values)


def test_class_means_are_prototypes_of_training_clips_in_label_order(of_hands, monkeypatch):
    model, study = open_model(of_hands.here(monkeypatch)), load_study("hands", of_hands.root)
    taught = pd.DataFrame({"video_id": ["00004", "00001", "00000"], "label": [1, 0, 0]})
    means = class_means(study, model, taught)
    vectors, ids = embeddings_of(study, model, ["00000", "00001", "00004"])
    by_id = dict(zip(ids, vectors, strict=True))
    both = by_id["00000"] + by_id["00001"]
    np.testing.assert_allclose(means, [both / np.linalg.norm(both), by_id["00004"]], atol=1e-5)


def test_clips_in_a_row_stand_where_the_table_says_with_pauses_in_between():
    clips = [np.full((length, 42, 3), value, np.float32) for length, value in ((20, 1), (35, 2), (10, 3))]
    poses, signs = in_a_row(clips, ["a", "b", "c"], HANDS, np.random.default_rng(1))
    frames = (signs[["start", "end"]] * FPS).round().astype(int).to_numpy()
    for (start, end), clip in zip(frames, clips, strict=True):
        np.testing.assert_array_equal(poses[start:end], clip)
    pauses = [*(frames[1:, 0] - frames[:-1, 1]), len(poses) - frames[-1, 1]]
    assert all(PAUSE[0] <= pause < PAUSE[1] for pause in pauses)
    assert signs["gloss"].tolist() == ["a", "b", "c"]


def test_in_half_of_the_pauses_the_hands_are_gone_and_in_the_others_they_are_held():
    clips = [np.full((5, 42, 3), 1, np.float32)] * 200
    poses, signs = in_a_row(clips, ["a"] * 200, HANDS, np.random.default_rng(0))
    after = poses[(signs["end"] * FPS).round().astype(int)]
    gone = (after == 0).all((1, 2))
    assert ((after == 1).all((1, 2)) | gone).all()
    assert 0.4 < gone.mean() < 0.6
    assert clips[0].all()  # as it was


@pytest.mark.parametrize("present", [True, False])
def test_other_joints_than_hands_stay_in_a_pause(present):
    layout = LAYOUTS["openpose-54"]
    poses, _ = in_a_row([np.full((3, 54, 3), present, np.float32)], ["a"], layout, np.random.default_rng(0))
    assert (poses[:, layout.parts["body"]] == present).all()
