"""Known and unknown signs, and clips in a row: what is measured in notebook 12."""

import numpy as np
import pytest

from lib.data.layouts import LAYOUTS
from lib.predict.timeline import FPS
from lib.predict.trial import PAUSE, in_a_row, told_apart

HANDS = LAYOUTS["hands-42"]


def test_the_area_is_the_chance_that_a_known_sign_scores_higher():
    # Of the six pairs, 5 is above both, 3 above one and level with the other, 1 below both: 2 + 1.5 + 0.
    roc = told_apart(np.array([5.0, 3, 1]), np.array([2.0, 3]))
    assert roc.area == pytest.approx(3.5 / 6)
    assert (roc.false[-1], roc.true[-1]) == (1, 1)
    assert told_apart(np.array([2.0, 3]), np.array([0.0, 1])).area == 1


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
