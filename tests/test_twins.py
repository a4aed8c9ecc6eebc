"""Twins: near-copies found by the landmarks, their table, and the rule that nothing is trained on a twin."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.data.audit import audit
from lib.data.find import locate
from lib.data.near_copies import AS_IT_LIES, FITTED, distances, near_copies
from lib.data.poses import read_landmarks
from lib.data.sources import build_index, find_twins
from lib.data.twins import COLUMNS, drop_twins, pair_up, read_twins
from lib.data.wlasl import read_annotations
from lib.paths import Paths
from lib.study import load_study


def performance(seed, frames=60):
    """Two hands that change shape and place all the time: landmarks (frames, 2, 21, 3), as MediaPipe gives them."""
    rng = np.random.default_rng(seed)
    moments = np.linspace(0, 1, frames)[:, None, None, None]
    wave = sum(
        rng.normal(0, 0.03 / k, (2, 21, 2)) * np.sin(2 * np.pi * (k * moments + rng.random((2, 21, 2))))
        for k in (1, 2, 3)
    )
    path = 0.1 * np.sin(2 * np.pi * (moments + rng.random((2, 1, 2))))
    hands = np.array([0.3, 0.7])[:, None, None] * [1, 0] + [0, 0.5] + path + rng.normal(0, 0.05, (2, 21, 2)) + wave
    return np.concatenate([hands, np.zeros((frames, 2, 21, 1))], -1).astype(np.float16)


def copy(clip, *, rate=1.0, trim=(0, 0), scale=(1.0, 1.0), shift=(0.0, 0.0), noise=0.002, seed=9):
    """The same recording encoded anew: every `rate`-th frame, another size and place, detected with some noise."""
    chosen = np.arange(trim[0], len(clip) - trim[1] - 1e-6, rate).astype(int)
    made = np.asarray(clip[chosen], np.float32)
    made[..., :2] = made[..., :2] * np.array(scale) + shift
    made[..., :2] += np.random.default_rng(seed).normal(0, noise, made[..., :2].shape)
    return made[:, ::-1].astype(np.float16)  # the slots of the hands say nothing


OTHERS = [performance(seed) for seed in range(20, 32)]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"rate": 1.2},
        {"rate": 0.5},
        {"trim": (6, 10)},
        {"scale": (0.75, 1.0), "shift": (0.1, 0.0)},
        {"rate": 1.25, "trim": (5, 4), "scale": (1.2, 1.2), "shift": (-0.1, -0.05)},
    ],
    ids=str,
)
def test_planted_copy_is_found_among_other_clips(change):
    clips = [*OTHERS, performance(1), copy(performance(1), **change)]
    assert near_copies(clips) == [(12, 13)]


def test_another_performance_of_the_same_sign_is_no_copy():
    signed = performance(1).astype(np.float32)
    other = 0.8 * signed + 0.2 * performance(2)  # alike all the way, but for a fifth
    assert near_copies([*OTHERS, signed, other]) == []
    assert min(distances(signed, other)) > FITTED


@given(
    rate=st.floats(0.8, 1.25),
    scale=st.floats(0.7, 1.4),
    x=st.floats(-0.1, 0.1),
    trim=st.integers(0, 8),
    seed=st.integers(0, 1000),
)
def test_distance_ignores_rate_place_size_and_order_of_the_hands(rate, scale, x, trim, seed):
    clip = performance(seed)
    changed = copy(clip, rate=rate, scale=(scale, scale), shift=(x, 0.0), trim=(trim, 0), noise=0.0005)
    assert distances(clip, changed)[1] <= FITTED
    assert distances(clip, performance(seed + 1))[0] > AS_IT_LIES


def test_copy_that_was_detected_badly_is_found_where_it_lies_in_the_picture():
    clip, blurred = performance(1), copy(performance(1), noise=0.01)
    assert FITTED < distances(clip, blurred)[1] <= AS_IT_LIES
    assert near_copies([*OTHERS, clip, blurred]) == [(12, 13)]


def test_a_third_of_a_clip_is_no_copy_of_it():
    assert near_copies([*OTHERS, performance(1), copy(performance(1), trim=(20, 20))]) == []


def test_hands_that_a_detector_loses_do_not_hide_a_copy():
    clip, lost = performance(1), copy(performance(1))
    lost[np.random.default_rng(0).random((60, 2)) < 0.3] = -1
    assert near_copies([*OTHERS, clip, lost]) == [(12, 13)]


def test_clips_without_hands_are_copies_of_nothing():
    empty = np.full((30, 2, 21, 3), -1, np.float16)
    assert near_copies([empty, empty]) == []
    assert near_copies([]) == []
    assert distances(empty, performance(1)) == (np.inf, np.inf)


# ---- the table -----------------------------------------------------------------------------------------


def table(*rows):
    return pd.DataFrame(rows, columns=["video_id", "gloss", "split", "content"])


def test_pairs_name_both_kinds_in_both_directions_but_begin_in_the_study():
    clips = table(
        ("1", "book", "test", "x"), ("2", "read", "train", "x"), ("3", "all", "train", "y"), ("4", "no", "val", "")
    )
    pairs = pair_up(clips, [("y", "x")], ["1", "3"])
    assert pairs.columns.tolist() == list(COLUMNS)
    assert pairs.to_numpy().tolist() == [
        ["1", "book", "test", "2", "read", "train", "identical"],
        ["1", "book", "test", "3", "all", "train", "near"],
        ["3", "all", "train", "1", "book", "test", "near"],
        ["3", "all", "train", "2", "read", "train", "near"],
    ]


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["train", "val", "test"])), max_size=12), st.data())
def test_nothing_that_is_left_is_a_twin_across_splits(clips, data):
    rows = [(f"{n:02}", "book", split, str(content)) for n, (content, split) in enumerate(clips)]
    near = data.draw(st.lists(st.tuples(*[st.sampled_from("01234")] * 2).filter(lambda p: p[0] != p[1]), max_size=3))
    index = table(*rows).assign(status="present")
    twins = pair_up(index, near, index["video_id"])
    left = drop_twins(index, twins)
    there = set(left["video_id"][left["status"] == "present"])
    across = twins[twins["video_id"].isin(there) & twins["twin"].isin(there)]
    assert (across["split"] == across["twin_split"]).all()
    assert set(index["video_id"][index["split"] == "test"]) <= there
    dropped = set(index["video_id"]) - there
    assert dropped <= set(twins["video_id"])


def statuses(*rows, near=()):
    index = table(*rows).assign(status="present")
    left = drop_twins(index, pair_up(index, near, index["video_id"]))
    return dict(zip(left["video_id"], left["status"], strict=True))


def test_train_clips_give_way_to_val_and_test_and_val_clips_to_test():
    found = statuses(
        ("1", "book", "train", "x"), ("2", "read", "val", "x"), ("3", "book", "test", "x"),
        ("4", "all", "train", "y"), ("5", "all", "val", "z"), near=[("y", "z")],
    )  # fmt: skip
    to_test = "dropped: twin of 3 (test)"
    assert found == {
        "1": to_test, "2": to_test, "3": "present", "4": "dropped: twin of 5 (val)", "5": "present",
    }  # fmt: skip


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_twins_within_a_split_stay_also_under_two_glosses(split):
    assert set(statuses(("1", "book", split, "x"), ("2", "read", split, "x")).values()) == {"present"}


def test_missing_clips_are_twins_of_nothing_and_drop_nothing():
    index = table(("1", "book", "train", "x"), ("2", "book", "test", "x")).assign(status=["present", "missing"])
    twins = pair_up(index, [], index["video_id"])
    assert drop_twins(index, twins)["status"].tolist() == ["present", "missing"]


# ---- of a study ----------------------------------------------------------------------------------------


@pytest.fixture
def planted(tmp_path):
    """A study of two glosses, a near-copy of its test clip in train, and an identical clip of a third gloss."""
    shown = {
        "1": performance(1),
        "2": copy(performance(1)),
        "3": performance(1),
        "4": performance(4),
        "5": performance(5),
    }
    splits = {"1": "test", "2": "train", "3": "train", "4": "val", "5": "train"}
    labels = {"1": 0, "2": 1, "3": 2, "4": 0, "5": 1}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "hands").mkdir()
    for size in (2, 3):
        clips = {n: {"subset": splits[n], "action": [labels[n], 1, 60]} for n in shown if labels[n] < size}
        (tmp_path / "annotations" / f"nslt_{size}.json").write_text(json.dumps(clips))
    (tmp_path / "annotations" / "wlasl_class_list.txt").write_text("0\tbook\n1\tall\n2\tno\n")
    np.savez(tmp_path / "hands" / "some.npz", **shown)
    paths = Paths("planted", tmp_path / "home")
    return SimpleNamespace(root=tmp_path, subset=2, sources=["hands"], split="official", layout="hands-42", paths=paths)


def test_planted_twins_are_found_beyond_the_study_and_refused_for_training(planted):
    index = build_index(planted)
    twins = find_twins(planted, index)
    assert twins[["video_id", "twin", "twin_gloss", "twin_split", "kind"]].to_numpy().tolist() == [
        ["1", "2", "all", "train", "near"],
        ["1", "3", "no", "train", "identical"],
        ["2", "1", "book", "test", "near"],
        ["2", "3", "no", "train", "near"],
    ]
    left = drop_twins(index, twins).set_index("video_id")["status"]
    assert left.to_dict() == {"1": "present", "2": "dropped: twin of 1 (test)", "4": "present", "5": "present"}


def test_audit_counts_near_copies_and_what_was_dropped(planted):
    index = build_index(planted)
    twins = find_twins(planted, index)
    counts = audit(drop_twins(index, twins), planted, twins).set_index("check")["count"]
    assert counts.filter(regex="near_copy|twin").to_dict() == {
        "near_copy_pairs": 2, "near_copy_pairs_across_splits": 1,
        "train_clips_dropped_as_twins": 1, "val_clips_dropped_as_twins": 0,
        "test_clips_with_identical_twin_in_train": 1, "test_clips_with_near_twin_in_train": 1,
    }  # fmt: skip


def test_table_is_read_as_it_was_written_and_empty_where_there_is_none(planted):
    assert read_twins(planted).columns.tolist() == list(COLUMNS)
    assert read_twins(planted).empty
    pairs = pair_up(table(("01", "null", "test", "x"), ("02", "no", "train", "x")), [], ["01"])
    path = planted.paths.table("twins.csv")
    path.parent.mkdir(parents=True)
    pairs.to_csv(path, index=False)
    pd.testing.assert_frame_equal(read_twins(planted), pairs)


@pytest.mark.parametrize(
    ("study", "drops"), {"wlasl2000-hands": True, "wlasl100-hands": True, "wlasl100": False}.items()
)
def test_every_study_of_hands_drops_twins(study, drops, tmp_path):
    assert load_study(study, tmp_path).drops_twins is drops


def test_known_near_copies_of_the_real_hand_landmarks_are_found(wlasl_root):
    places, _ = locate(wlasl_root, "hands", read_annotations(wlasl_root, 100)["video_id"])
    clips = {video_id: read_landmarks(place.archive, place.name) for video_id, (place,) in places.items()}
    names, contents = list(clips), list(clips.values())
    found = {
        tuple(sorted((names[i], names[j])))
        for i, j in near_copies(contents)
        if not np.array_equal(contents[i], contents[j])
    }
    assert found == {
        ("00633", "64090"), ("05742", "32255"), ("05743", "32257"), ("17721", "17722"), ("24954", "24955"),
        ("57948", "57949"), ("13697", "13698"),  # the last are two performances, but alike within the limits
    }  # fmt: skip
