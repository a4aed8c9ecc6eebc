"""Drawn poses: every bone where arithmetic says, each hand in its channel, and nothing where nothing is seen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lib.data.drawing import Drawing, Pen
from lib.data.layouts import LAYOUTS, SIDES

HANDS = LAYOUTS["hands-42"]
SIZE = 32
NO_MARGIN = {"margin": 0.0}
FULL = 0.9  # of a smooth line one pixel wide


def draw(poses, layout=HANDS, size=SIZE, **how):
    return Pen(Drawing(**how), layout).draw(poses, size)


def poses_of(joints, frames=1, layout=HANDS):
    """A clip in which only these joints are seen, {name: (x, y)}, all the time."""
    poses = np.zeros((frames, len(layout.joints), 3), np.float32)
    for name, xy in joints.items():
        poses[:, layout.joints.index(name)] = *xy, 1
    return poses


def hands(rng, frames=6):
    """A clip of two hands in which all joints are seen."""
    return np.concatenate([rng.random((frames, len(HANDS.joints), 2)), np.ones((frames, len(HANDS.joints), 1))], 2)


def test_a_bone_is_a_line_between_its_joints_as_wide_as_asked_and_black_elsewhere():
    # The first bone goes from the left edge to the right edge, a quarter of the height down; the clip's places span
    # 32 × 32, so a unit is a pixel and the first pixel's centre is at 1/2.
    ends = {"left_hand_wrist": (0.5, 8.5), "left_thumb_1": (31.5, 8.5)}
    corners = {"right_hand_wrist": (0, 0), "right_little_4": (32, 32)}  # no bone is between these two
    image = draw(poses_of(ends | corners), thickness=1, **NO_MARGIN)[0]
    assert image.shape == (SIZE, SIZE, 3)
    assert image.dtype == np.float32
    assert (image[8, 1:-1, 0] > FULL).all()
    away = np.delete(image[..., 0], [7, 8, 9], axis=0)
    assert not away.any()
    assert not image[..., 1:].any()


@pytest.mark.parametrize(("thickness", "pixels"), [(1, 1), (2, 3), (3, 5)])
def test_thickness_says_how_many_pixels_are_white(thickness, pixels):
    ends = {"left_hand_wrist": (0, 16.5), "left_thumb_1": (32, 16.5)}
    corners = {"right_hand_wrist": (0, 0), "right_little_4": (32, 32)}
    column = draw(poses_of(ends | corners), thickness=thickness, **NO_MARGIN)[0, :, 16, 0]
    assert (column > FULL).sum() == pixels
    assert (column > 0).sum() == pixels + 2
    assert abs(np.average(np.arange(SIZE), weights=column) - 16) < 0.1


def test_a_clip_is_cropped_to_the_square_around_all_its_joints_with_a_margin():
    rng = np.random.default_rng(0)
    clip = hands(rng) * (3, 1, 1) + (100, -7, 0)  # three times as wide as high
    image = draw(clip, size=100, margin=0.25, thickness=1).max((0, 3))
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    across, down = (100 / 1.5 * extent / 3 for extent in np.ptp(clip[..., :2], axis=(0, 1)))
    np.testing.assert_allclose([columns[0], columns[-1] + 1], [50 - across / 2, 50 + across / 2], atol=2)
    np.testing.assert_allclose([rows[0], rows[-1] + 1], [50 - down / 2, 50 + down / 2], atol=2)


@settings(max_examples=30)
@given(scale=st.floats(1e-3, 1e4), x=st.floats(-1e3, 1e3), y=st.floats(-1e3, 1e3))
def test_units_and_places_do_not_matter(scale, x, y):
    clip = hands(np.random.default_rng(0))
    moved = clip * (scale, scale, 1) + (x, y, 0)
    np.testing.assert_allclose(draw(moved), draw(clip), atol=0.3)  # coordinates are rounded to a sixteenth of a pixel


def test_each_hand_is_in_its_channel_and_a_missing_one_leaves_nothing_behind():
    clip = hands(np.random.default_rng(0))
    for channel, side in enumerate(SIDES):
        alone = clip.copy()
        alone[:, HANDS.parts[side], 2] = 0
        image = draw(alone)
        assert not image[..., channel].any()
        assert image[..., 1 - channel].any(axis=(1, 2)).all()


def test_a_bone_with_a_missing_end_is_not_drawn():
    clip = hands(np.random.default_rng(0))
    joint = HANDS.joints.index("left_index_2")
    lost = clip.copy()
    lost[:, joint] = 0
    whole, part = draw(clip), draw(lost)
    assert (part <= whole).all()
    assert part[..., 0].sum() < whole[..., 0].sum()
    moved = lost.copy()
    moved[:, joint, :2] = 0.3  # where a joint would be that is not seen does not matter
    np.testing.assert_array_equal(draw(moved), part)


@pytest.mark.parametrize("close", [False, True])
@pytest.mark.parametrize("third", ["none", "movement", "hands"])
def test_mirrored_poses_draw_the_mirrored_picture(third, close):
    clip = hands(np.random.default_rng(1))
    clip[:, HANDS.parts["left"], 0] += 1.1  # beside the other, as what is drawn last covers what was there
    mirrored = clip.copy()
    mirrored[..., 0] = -mirrored[..., 0]
    left, right = np.array(HANDS.pairs).T
    mirrored[:, [*left, *right]] = mirrored[:, [*right, *left]]
    image, other = (draw(poses, size=64, third=third, close=close) for poses in (clip, mirrored))
    other = other[:, :, ::-1][..., [1, 0, 2]]
    assert abs(image - other).mean() < 0.01
    assert (abs(image - other) > 0.5).mean() < 0.002  # lines are rounded to the sixteenth of a pixel, from the left


@pytest.mark.parametrize("close", [False, True])
@pytest.mark.parametrize("third", ["none", "movement", "hands"])
def test_a_clip_without_hands_is_black(third, close):
    assert not draw(np.zeros((5, 42, 3), np.float32), third=third, close=close).any()


@given(background=st.floats(0, 0.99), seed=st.integers(0, 9))
@settings(max_examples=20)
def test_on_a_grey_background_lines_stay_white_and_the_rest_becomes_grey(background, seed):
    clip = hands(np.random.default_rng(seed))
    black, grey = (draw(clip, third="hands", background=value) for value in (0, background))
    np.testing.assert_allclose(grey, background + (1 - background) * black, atol=1e-6)
    assert (draw(np.zeros((5, 42, 3), np.float32), background=background) == np.float32(background)).all()


def test_a_hand_drawn_close_fills_its_channel_wherever_it_is():
    # The palm's middle is (2, 0) from the wrist, the tip of the middle finger 8 to its right: half of the 32 pixels.
    palm = {"hand_wrist": (0, 0), "index_1": (2, 2), "middle_1": (3, 0), "ring_1": (3, 0), "little_1": (2, -2)}
    hand = palm | {"middle_2": (5, 0), "middle_3": (7, 0), "middle_4": (10, 0)}
    clip = poses_of({f"right_{name}": xy for name, xy in hand.items()}, frames=9)
    seen = clip[0, :, 2] > 0
    clip[1, seen, :2] += (30, -20)  # where a hand is does not matter
    clip[2:, seen, :2] = 2 * clip[0, seen, :2] + 9  # but how large it is does, beside the rest of the clip
    image = draw(clip[:2], close=True)
    np.testing.assert_array_equal(image[0], image[1])
    line = image[0, 15:17, :, 1].max(0)
    assert line[12:30].min() > 0.4  # from the wrist, 2 left of the middle: at 16 - 2 · 2, to the right edge
    assert not line[:10].any()
    assert not image[..., [0, 2]].any()
    small, _, large = draw(clip, close=True)[:3, ..., 1].any(1)
    assert 2 * np.ptp(np.flatnonzero(small)) == pytest.approx(np.ptp(np.flatnonzero(large)), abs=3)


def test_the_hands_at_their_places_are_drawn_beside_those_that_are_close():
    clip = hands(np.random.default_rng(0))
    placed, close = draw(clip), draw(clip, close=True, third="hands")
    np.testing.assert_allclose(close[..., 2], placed[..., :2].max(-1), atol=0.3)  # soft edges add up where lines cross
    assert (close[..., :2] != placed[..., :2]).any()


def test_one_misjudged_frame_does_not_shrink_a_hand_drawn_close():
    clip = hands(np.random.default_rng(0), frames=40)
    wrong = clip.copy()
    wrong[0, :, :2] *= 50
    np.testing.assert_allclose(draw(wrong, close=True)[1:].mean(), draw(clip, close=True)[1:].mean(), rtol=0.05)


def test_movement_is_drawn_from_where_wrists_and_finger_tips_were():
    clip = poses_of({"left_hand_wrist": (4.5, 16.5), "left_thumb_2": (4.5, 4.5)}, frames=3)
    clip[1, HANDS.joints.index("left_hand_wrist"), 0] = 27.5
    clip[2, HANDS.joints.index("left_hand_wrist"), 0] = 27.5
    for name, corner in {"right_thumb_2": (0, 0), "right_little_2": (32, 32)}.items():
        clip[:, HANDS.joints.index(name)] = *corner, 1
    third = draw(clip, third="movement", thickness=1, **NO_MARGIN)[..., 2]
    assert not third[0].any()
    assert (third[1, 16, 5:27] > FULL).all()
    assert not np.delete(third[1], [15, 16, 17], axis=0).any()
    assert third[2].sum() <= 3  # where it stays, a dot
    lost = clip.copy()
    lost[0] = 0
    assert not draw(lost, third="movement", thickness=1)[1, ..., 2].any()


def test_a_body_is_drawn_in_the_third_channel():
    layout = LAYOUTS["body-hands"]
    clip = poses_of({"neck": (0, 16.5), "right_shoulder": (32, 16.5)}, layout=layout)
    clip[:, [layout.joints.index("nose"), layout.joints.index("left_eye")], 1] = 0
    image = draw(clip, layout=layout, thickness=1)[0]
    assert image[..., 2].any()
    assert not image[..., :2].any()


@pytest.mark.parametrize("far", [1e30, -1e30])
def test_a_joint_far_away_is_no_error(far):
    clip = hands(np.random.default_rng(0)).astype(np.float32)
    clip[0, 0, 0] = far
    assert np.isfinite(draw(clip)).all()


@pytest.mark.parametrize(
    "how", [{"thickness": 0}, {"close": "a"}, {"margin": -1}, {"third": "depth"}, {"background": 1}]
)
def test_a_wrong_setting_is_refused(how):
    with pytest.raises(ValidationError):
        Drawing(**how)
