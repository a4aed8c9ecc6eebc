"""The synthetic mini-WLASL: its form, its faults, and that it is a fair little problem."""

import json
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers import audited
from lib.data.sources import build_index, find_clips, read_clips
from lib.data.video import frames, probe
from lib.data.wlasl import read_annotations, read_outside
from lib.settings import StudyError
from lib.study import load_study
from sample import OUTSIDE, SIGNS, SPLITS, joints_of, plan_clips, write_sample


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("sample") / "wlasl"
    write_sample(root, clips_per_gloss=8)
    return root


@pytest.fixture(scope="module")
def index(small):
    return build_index(load_study("sample", small))


def counts(index, small) -> dict[str, int]:
    return audited(index, load_study("sample", small))["count"].to_dict()


def ten(clips):
    """The clips of the ten glosses of the study."""
    return [clip for clip in clips if clip.gloss in SIGNS]


def test_the_whole_sample_is_10_glosses_by_24_clips_by_8_signers_split_by_signer():
    clips = ten(plan_clips(0, 24))
    assert len(clips) == 240
    assert {clip.gloss for clip in clips} == set(SIGNS)
    assert {clip.signer.number for clip in clips} == set(range(8))
    for clip in clips:
        assert clip.signer.number in SPLITS[clip.split]


def test_4_more_glosses_have_8_clips_each_mostly_in_val_and_test():
    clips = [clip for clip in plan_clips(0, 24) if clip.gloss not in SIGNS]
    assert Counter(clip.gloss for clip in clips) == dict.fromkeys(OUTSIDE, 8)
    assert Counter(clip.split for clip in clips) == {"train": 4, "val": 12, "test": 16}
    assert all(clip.signer.number in SPLITS[clip.split] for clip in clips)
    assert {clip.signer.number for clip in clips if clip.split != "train"} == {*SPLITS["val"], *SPLITS["test"]}


def test_clips_have_30_to_80_frames_and_both_frame_rates():
    clips = plan_clips(0, 24)
    lengths = [clip.before + clip.signed + clip.after for clip in clips]
    assert min(lengths) >= 30
    assert max(lengths) <= 80
    share = np.mean([clip.fps == 30 for clip in clips])
    assert 0.3 < share < 0.7


def test_every_signer_differs_from_the_others():
    signers = {clip.signer.number: clip.signer for clip in plan_clips(0, 24)}.values()
    for attribute in ("shoulders", "skin", "speed"):
        assert len({getattr(signer, attribute) for signer in signers}) == 8
    assert {signer.left_handed for signer in signers} == {True, False}


def test_annotated_segment_is_the_signed_one_at_25_frames_per_second():
    clips = [clip for clip in plan_clips(0, 24) if clip.before]
    for clip in clips:
        start, end = clip.segment()
        assert abs((start - 1) / 25 - clip.before / clip.fps) < 0.021
        assert abs(end / 25 - (clip.before + clip.signed) / clip.fps) < 0.021


def test_annotation_files_have_the_form_of_wlasl(small):
    records = json.loads((small / "annotations" / "WLASL_v0.3.json").read_text())
    keys = [
        "bbox",
        "fps",
        "frame_end",
        "frame_start",
        "instance_id",
        "signer_id",
        "source",
        "split",
        "url",
        "variation_id",
        "video_id",
    ]
    assert [record["gloss"] for record in records] == [*SIGNS, *OUTSIDE]
    assert all(sorted(instance) == keys for record in records for instance in record["instances"])


def test_subsets_are_nested_and_agree_in_all_files(small):
    first, more = (json.loads((small / "annotations" / f"nslt_{n}.json").read_text()) for n in (10, 14))
    assert first.items() <= more.items()
    assert {clip["action"][0] for clip in first.values()} == set(range(10))
    assert {more[video_id]["action"][0] for video_id in more.keys() - first.keys()} == set(range(10, 14))
    assert read_annotations(small, 10).equals(read_annotations(small, 14)[lambda clips: clips["label"] < 10])


def test_clips_outside_the_vocabulary_can_be_read_from_both_sources_and_are_in_no_study_of_ten(small, index):
    outside, study = read_outside(small, 10), load_study("sample", small)
    assert set(outside["gloss"]) == set(OUTSIDE)
    assert not set(outside["video_id"]) & set(index["video_id"])
    for source in study.sources:
        contents = read_clips(study, source, find_clips(study, source, outside))
        assert list(contents) == outside["video_id"].tolist()
        assert not any(content.problem for content in contents.values())


def test_videos_are_h264_of_256_pixels_with_a_keypoint_file_for_each_frame(small, index):
    for clip in index[index["status"] == "present"].itertuples():
        info = probe(small / "videos" / f"{clip.video_id}.mp4")
        assert (info.width, info.height) == (256, 256)
        assert len(list((small / "keypoints" / clip.video_id).glob("image_*_keypoints.json"))) == info.frames


def test_keypoints_lie_where_the_hand_is_drawn(small):
    clip = plan_clips(0, 8)[0]
    _, hands = joints_of(clip, 0)
    picture = next(iter(frames(small / "videos" / f"{clip.video_id}.mp4")))
    x, y = hands[0, 0, [0, 5, 9, 13]].mean(0).round().astype(int)
    assert np.abs(picture[y, x].astype(int) - clip.signer.skin).max() < 40


def test_audit_finds_exactly_the_planted_faults(index, small):
    found = counts(index, small)
    assert found["clips_official"] == 80
    assert found["clips_present"] == 78
    assert found["unreadable"] == 1
    assert (index["status"] == "missing").sum() == 1
    assert found["duplicate_groups"] == 1
    assert found["duplicate_groups_across_splits"] == 1
    assert found["duplicate_groups_conflicting_labels"] == 0
    assert found["test_signers"] == 2
    assert found["test_signers_also_in_train"] == 0


def test_same_seed_gives_the_same_files_of_the_ten_glosses_with_and_without_others(small, tmp_path, monkeypatch):
    monkeypatch.setattr("sample.OUTSIDE", {})
    write_sample(tmp_path / "again", clips_per_gloss=8)
    files = [p.relative_to(tmp_path / "again") for p in sorted((tmp_path / "again").rglob("*")) if p.is_file()]
    changed = [p for p in files if (small / p).read_bytes() != (tmp_path / "again" / p).read_bytes()]
    assert [p.name for p in changed] == ["WLASL_v0.3.json", "wlasl_class_list.txt"]
    for path in changed:
        assert (small / path).read_text().startswith((tmp_path / "again" / path).read_text().rstrip("\n]"))


def test_another_seed_gives_other_frames(small, tmp_path):
    write_sample(tmp_path / "other", seed=1, clips_per_gloss=8)
    first, other = (list(frames(root / "videos" / "00001.mp4")) for root in (small, tmp_path / "other"))
    assert len(first) != len(other) or not np.array_equal(first, other)


def test_existing_root_is_left_alone(small):
    before = sorted(small.rglob("*"))
    with pytest.raises(StudyError, match="already exists"):
        write_sample(small)
    assert sorted(small.rglob("*")) == before


@cache
def features(clip) -> np.ndarray:
    """Hands and arms relative to the neck in shoulder widths, the dominant hand first."""
    body, hands = joints_of(clip, 0)
    joints = np.concatenate([body[:, :8], hands.reshape(len(hands), -1, 2)], 1)
    return ((joints - np.array(clip.signer.neck)) / clip.signer.shoulders).reshape(len(joints), -1)


def twelve_frames(poses) -> np.ndarray:
    return poses[np.linspace(0, len(poses) - 1, 12).astype(int)].ravel()


def linear_accuracy(view) -> float:
    clips = ten(plan_clips(0, 24))
    rows = {split: [clip for clip in clips if (clip.split == "test") == (split == "test")] for split in ("fit", "test")}
    x = {split: np.array([view(features(clip)) for clip in rows[split]]) for split in rows}
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(x["fit"], [clip.gloss for clip in rows["fit"]])
    return model.score(x["test"], [clip.gloss for clip in rows["test"]])


def test_a_linear_model_on_the_mean_pose_stays_under_60_percent():
    assert linear_accuracy(lambda poses: poses.mean(0)) < 0.6


def test_a_linear_model_on_the_middle_frame_stays_under_60_percent():
    assert linear_accuracy(lambda poses: poses[len(poses) // 2]) < 0.6


def test_a_linear_model_on_the_whole_sequence_does_much_better():
    assert linear_accuracy(twelve_frames) > 0.75


def test_signs_outside_are_further_from_the_clips_of_train_than_the_ten_are():
    clips = plan_clips(0, 24)
    poses = np.array([twelve_frames(features(clip)) for clip in clips])
    outside = np.array([clip.gloss in OUTSIDE for clip in clips])
    train = np.array([clip.split == "train" for clip in clips])
    known = poses[train & ~outside]
    distance = np.array([np.linalg.norm(known - pose, axis=1).min() for pose in poses])
    assert roc_auc_score(outside[~train], distance[~train]) > 0.95
