"""What the page shows of training clips; tests/test_app_page.py plays it."""

import numpy as np
import pandas as pd
import pytest

from lib.app.skeletons import FRAMES, clearest, compact, write_skeletons
from lib.data.poses import PoseStore
from lib.paths import Paths


def clip(frames, hands, seed=0):
    """Poses in whose frames so many hands are seen: one number, or one for each frame."""
    poses = np.ones((frames, 42, 3), np.float32)
    poses[..., :2] = np.random.default_rng(seed).uniform(0.2, 0.8, (frames, 42, 2))
    for pose, seen in zip(poses, np.broadcast_to(hands, frames), strict=True):
        pose[21 * seen :] = 0
    return poses


@pytest.fixture
def study(tmp_path):
    """A pose store whose index says what is a training clip."""
    rows = [
        ("1", "book", "train", "present", 25.0),
        ("2", "book", "val", "present", 25.0),
        ("3", "drink", "train", "dropped: twin of 2 (val)", 25.0),
        ("4", "go", "train", "present", 50.0),
        ("5", "see", "train", "present", np.nan),
    ]
    paths = Paths("three", tmp_path)
    clips = [clip(10, 2, seed) for seed in range(5)]
    clips[0][[0, 1, -1]] = 0
    clips[4][:] = 0  # nothing is seen
    PoseStore(np.array([row[0] for row in rows]), clips).save(paths.poses)
    pd.DataFrame(rows, columns=["video_id", "gloss", "split", "status", "fps"]).to_parquet(paths.index)
    return paths


def test_the_clearest_clip_shows_as_many_hands_as_most_and_is_of_usual_length():
    two = [clip(40, 2), clip(41, [2] * 20 + [1] * 21), clip(39, [0] * 5 + [2] * 34)]
    assert clearest(two) == 0
    assert clearest([clip(38, 1), *two[:2]]) == 1  # of all frames, most show two hands
    assert clearest([clip(10, 1), clip(38, 1), clip(40, 1), clip(44, 1), clip(90, 1)]) == 2
    assert clearest([clip(9, 2)]) == 0


def test_each_label_has_the_record_of_a_training_clip_or_an_empty_one(study, tmp_path):
    path = tmp_path / "app" / "x.skeletons"
    assert write_skeletons(path, ["go", "book", "drink", "see"], study)
    records = np.frombuffer(path.read_bytes(), [("seconds", "<f4"), ("joints", "u1", (FRAMES, 42, 2))])
    assert records["seconds"].tolist() == pytest.approx([10 / 50, 7 / 25, 0, 0])
    assert records["joints"][:2].min() >= 1
    assert not records["joints"][2:].any()
    np.testing.assert_array_equal(records["joints"][1], compact(clip(10, 2)[2:-1]))


def test_without_a_store_nothing_is_written(tmp_path):
    assert not write_skeletons(tmp_path / "x", ["go"], Paths("none", tmp_path))
    assert not (tmp_path / "x").exists()


def test_joints_lie_in_the_square_around_them_all_and_missing_ones_are_zero():
    poses = clip(FRAMES, [2] * 9 + [1] * (FRAMES - 9))
    made = compact(poses)
    assert not made[9:, 21:].any()
    seen = made[poses[..., 2] > 0].astype(float)
    places = poses[poses[..., 2] > 0][:, :2] * (1.5, 1)
    middle, side = (places.min(0) + places.max(0)) / 2, np.ptp(places, 0).max()
    np.testing.assert_allclose((seen - 128) / 254, (places - middle) / side, atol=0.6 / 254)
    assert seen.min() == 1
    assert seen.max() == 255
    assert (compact(np.repeat(poses[:1, :1], 2, 0).repeat(42, 1)) == 128).all()  # all joints in one place
