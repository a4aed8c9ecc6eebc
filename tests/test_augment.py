"""What each augmentation varies and what it keeps."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lib.data.augment import (
    PoseAugment,
    affine_matrix,
    align,
    augment_poses,
    centre,
    drop_frames,
    drop_hand,
    jitter,
    mirror,
    resample,
    shift_hands,
    splice,
    spread,
    transform,
    turn_hands,
    vary_space,
    vary_time,
)
from lib.data.layouts import LAYOUTS

OPENPOSE = LAYOUTS["openpose-54"]
LEFT, RIGHT, BODY = (OPENPOSE.parts[part] for part in ("left", "right", "body"))
EVERYTHING = PoseAugment(
    rotation=13, scale=0.2, shear=0.1, shift=0.1, noise=0.02, mirror=0.5, warp=0.3, speed=0.2, crop=0.2,
    frame_dropout=0.3, hand_dropout=0.5, splice=0.5, hand_rotation=15, hand_scale=0.2, hand_shear=0.1,
)  # fmt: skip
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


def rng(seed=0):
    return np.random.default_rng(seed)


def clip_of(frames=20, layout=OPENPOSE, missing=0.2, seed=1):
    """A random clip in pixels, some of whose joints are missing."""
    draw = rng(seed)
    present = (draw.random((frames, len(layout.joints), 1)) >= missing).astype(np.float32)
    return np.concatenate([draw.uniform(50, 200, (*present.shape[:2], 2)) * present, present], -1, dtype=np.float32)


def joined(clip):
    """Positions of the present joints, (n, 2)."""
    return clip[clip[..., 2] > 0][:, :2]


def distances(points):
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


# --- Space ---------------------------------------------------------------------------------------------------


def test_rotation_keeps_all_distances_and_the_centre():
    clip = clip_of(4)
    turned = transform(clip, affine_matrix(30, 0, 0, rng()))
    assert np.abs(turned - clip).max() > 1
    np.testing.assert_allclose(distances(joined(turned)), distances(joined(clip)), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(centre(turned), centre(clip), rtol=1e-5)


def test_rotation_is_drawn_from_the_whole_range_in_degrees():
    matrices = [affine_matrix(13, 0, 0, rng(seed)) for seed in range(300)]
    angles = np.degrees([np.arctan2(m[1, 0], m[0, 0]) for m in matrices])
    assert -13 <= angles.min() < -12
    assert 12 < angles.max() <= 13


def test_scale_stretches_each_axis_about_the_centre_and_keeps_ratios_along_it():
    clip = clip_of(4)
    matrix = affine_matrix(0, 0.3, 0, rng())
    assert matrix[0, 1] == matrix[1, 0] == 0
    factors = np.diag(matrix)
    assert (np.abs(factors - 1) <= 0.3).all()
    assert factors[0] != factors[1]
    moved = joined(transform(clip, matrix)) - centre(clip)
    np.testing.assert_allclose(moved, (joined(clip) - centre(clip)) * factors, rtol=1e-3, atol=1e-3)


def test_shear_keeps_areas_and_heights():
    clip = clip_of(4)
    matrix = affine_matrix(0, 0, 0.5, rng())
    assert np.linalg.det(matrix) == pytest.approx(1)
    sheared = transform(clip, matrix)
    np.testing.assert_allclose(sheared[..., 1], clip[..., 1], rtol=1e-4)
    assert np.abs(sheared[..., 0] - clip[..., 0]).max() > 1


def test_shift_moves_each_hand_as_a_whole_and_leaves_the_body():
    clip = clip_of(missing=0)
    moved = shift_hands(clip, 10.0, OPENPOSE, rng()) - clip
    assert not moved[:, BODY].any()
    for hand in (LEFT, RIGHT):
        np.testing.assert_allclose(moved[:, hand, :2], np.broadcast_to(moved[0, hand.start, :2], (20, 21, 2)),
                                   atol=1e-3)  # fmt: skip
    assert np.abs(moved[0, LEFT.start] - moved[0, RIGHT.start]).max() > 1


def test_hands_turn_about_their_wrists_by_one_map_each_and_the_body_stays():
    clip = clip_of(missing=0)
    turned = turn_hands(clip, PoseAugment(hand_rotation=90), OPENPOSE, rng(3))
    np.testing.assert_array_equal(turned[:, BODY], clip[:, BODY])
    angles = []
    for hand in (LEFT, RIGHT):
        before, after = (c[:, hand, :2] - c[:, hand][:, :1, :2] for c in (clip, turned))
        np.testing.assert_allclose(turned[:, hand.start], clip[:, hand.start], atol=1e-3)
        np.testing.assert_allclose(np.linalg.norm(after, axis=-1), np.linalg.norm(before, axis=-1), rtol=1e-3)
        turn = (after[..., 0] + 1j * after[..., 1])[:, 1:] / (before[..., 0] + 1j * before[..., 1])[:, 1:]
        np.testing.assert_allclose(turn, turn[0, 0], atol=1e-3)
        angles.append(np.angle(turn[0, 0], deg=True))
    assert abs(angles[0] - angles[1]) > 1


def test_hands_stretch_from_their_wrists_within_the_asked_share():
    clip = clip_of(missing=0)
    ratios = []
    for seed in range(50):
        grown = turn_hands(clip, PoseAugment(hand_scale=0.2), OPENPOSE, rng(seed))
        after, before = (c[:, LEFT, :2][:, 1:] - c[:, LEFT, :2][:, :1] for c in (grown, clip))
        ratio = (after * before).sum((0, 1)) / (before**2).sum((0, 1))
        np.testing.assert_allclose(after, before * ratio, atol=1e-2)
        ratios.append(ratio)
    assert 0.8 <= np.min(ratios) < 0.85
    assert 1.15 < np.max(ratios) <= 1.2


def test_a_hand_without_a_wrist_is_not_turned_in_that_frame():
    clip = clip_of(missing=0)
    clip[3, LEFT.start] = 0
    turned = turn_hands(clip, PoseAugment(hand_rotation=90), OPENPOSE, rng(3))
    np.testing.assert_array_equal(turned[3, LEFT], clip[3, LEFT])
    assert np.abs(turned[4, LEFT] - clip[4, LEFT]).max() > 1


def test_noise_has_the_asked_deviation_is_independent_and_keeps_the_mean():
    clip = clip_of(200, missing=0)
    added = (jitter(clip, 2.0, rng()) - clip)[..., :2]
    assert added.std() == pytest.approx(2.0, rel=0.02)
    assert added.mean() == pytest.approx(0, abs=0.05)
    neighbours = np.corrcoef(added[:-1].ravel(), added[1:].ravel())[0, 1]
    assert abs(neighbours) < 0.03


@every_layout
def test_mirror_reflects_and_swaps_left_with_right(layout):
    clip = clip_of(5, layout, missing=0.3)
    flipped = mirror(clip, layout)
    for left, right in layout.pairs:
        np.testing.assert_allclose(flipped[:, left, 1:], clip[:, right, 1:], rtol=1e-5)
        np.testing.assert_array_equal(flipped[:, right, 2], clip[:, left, 2])
        seen = clip[:, right, 2] > 0
        np.testing.assert_allclose(flipped[seen, left, 0], 2 * centre(clip)[0] - clip[seen, right, 0], rtol=1e-4)


def test_mirror_keeps_joints_of_the_middle_in_their_place_on_the_axis():
    clip = clip_of(5)
    nose = OPENPOSE.joints.index("nose")
    np.testing.assert_array_equal(mirror(clip, OPENPOSE)[:, nose, 2], clip[:, nose, 2])


@every_layout
def test_mirror_twice_is_the_clip_itself(layout):
    clip = clip_of(5, layout)
    np.testing.assert_allclose(mirror(mirror(clip, layout), layout), clip, rtol=1e-4, atol=1e-3)


def test_mirror_keeps_the_length_of_every_bone():
    clip = clip_of(5, missing=0)
    a, b = np.array(OPENPOSE.edges).T
    lengths = [np.sort(np.linalg.norm(c[:, a, :2] - c[:, b, :2], axis=-1), axis=1)
               for c in (clip, mirror(clip, OPENPOSE))]  # fmt: skip
    np.testing.assert_allclose(lengths[1], lengths[0], rtol=1e-4)


def test_space_leaves_a_clip_without_joints_alone():
    empty = np.zeros((3, 54, 3), np.float32)
    np.testing.assert_array_equal(vary_space(empty, EVERYTHING, OPENPOSE, rng()), empty)


def test_strength_goes_by_the_size_of_the_signer_and_not_by_the_unit():
    clip = clip_of(missing=0)
    larger = clip * [2, 2, 1]
    how = PoseAugment(shift=0.2, noise=0.05)
    a, b = (vary_space(c.astype(np.float32), how, OPENPOSE, rng()) for c in (clip, larger))
    np.testing.assert_allclose(b[..., :2], 2 * a[..., :2], rtol=1e-4)


# --- Time ----------------------------------------------------------------------------------------------------


def straight(frames):
    """A clip in which every joint's x is the number of its frame."""
    clip = np.ones((frames, 54, 3), np.float32)
    clip[..., 0] = np.arange(frames)[:, None]
    return clip


@given(seed=st.integers(0, 1000), frames=st.integers(1, 60), warp=st.floats(0, 0.9))
def test_warp_keeps_order_length_and_both_ends(seed, frames, warp):
    times = vary_time(straight(frames), PoseAugment(warp=warp), rng(seed))[:, 0, 0]
    assert len(times) == frames
    assert (np.diff(times) > 0).all()
    assert times[[0, -1]].tolist() == pytest.approx([0, frames - 1], abs=1e-4)


def test_warp_changes_the_speed_inside():
    times = vary_time(straight(41), PoseAugment(warp=0.6), rng(1))[:, 0, 0]
    assert np.abs(times - np.arange(41)).max() > 1


@given(seed=st.integers(0, 1000), frames=st.integers(1, 60), crop=st.floats(0, 0.9))
def test_crop_keeps_a_stretch_at_the_same_speed(seed, frames, crop):
    times = vary_time(straight(frames), PoseAugment(crop=crop), rng(seed))[:, 0, 0]
    assert len(times) >= max(1, int((1 - crop) * frames))
    assert times[0] >= 0
    assert times[-1] <= frames - 1
    if len(times) > 2:
        steps = np.diff(times)
        np.testing.assert_allclose(steps, steps[0], atol=1e-4)
        assert steps[0] == pytest.approx(1, abs=1 / (len(times) - 1))


def test_crop_cuts_at_either_end():
    kept = [vary_time(straight(60), PoseAugment(crop=0.5), rng(seed))[:, 0, 0] for seed in range(50)]
    assert max(times[0] for times in kept) > 10
    assert min(times[-1] for times in kept) < 49


def test_speed_changes_the_length_both_ways_and_keeps_the_ends():
    varied = [vary_time(straight(50), PoseAugment(speed=0.2), rng(seed))[:, 0, 0] for seed in range(100)]
    lengths = [len(times) for times in varied]
    assert 40 <= min(lengths) < 43
    assert 57 < max(lengths) <= 60
    assert all(times[0] == 0 and times[-1] == pytest.approx(49) for times in varied)


def test_resampling_lies_between_two_frames_only_where_both_have_the_joint():
    clip = straight(3)
    clip[1, 0] = 0
    halves = resample(clip, np.array([0.4, 0.6, 2.0]))
    np.testing.assert_allclose(halves[:, 1, 0], [0.4, 0.6, 2.0], rtol=1e-6)
    np.testing.assert_array_equal(halves[:, 0], [[0, 1, 1], [0, 0, 0], [2, 1, 1]])


# --- What the detector loses ---------------------------------------------------------------------------------


def test_hand_dropout_loses_one_hand_over_one_stretch_and_nothing_else():
    clip = clip_of(missing=0)
    stretches, hands = [], set()
    for seed in range(60):
        lost = ~drop_hand(clip, OPENPOSE, rng(seed))[..., 2].astype(bool)
        assert not lost[:, BODY].any()
        assert not (lost[:, LEFT].any() and lost[:, RIGHT].any())
        hands.add("left" if lost[:, LEFT].any() else "right")
        frames = np.flatnonzero(lost.any(1))
        assert (np.diff(frames) == 1).all()
        assert lost[frames].sum() == 21 * len(frames)
        stretches.append(len(frames))
    assert hands == {"left", "right"}
    assert min(stretches) >= 1
    assert max(stretches) == 10  # half of the frames


def test_frame_dropout_loses_whole_frames_up_to_its_share_and_keeps_the_others():
    clip = clip_of(1000, missing=0)
    shares = []
    for seed in range(40):
        dropped = drop_frames(clip, 0.4, rng(seed))
        lost = ~dropped.any((1, 2))
        np.testing.assert_array_equal(dropped[~lost], clip[~lost])
        shares.append(lost.mean())
    assert max(shares) < 0.4 + 0.05
    assert max(shares) > 0.3
    assert min(shares) < 0.1


# --- Splicing ------------------------------------------------------------------------------------------------


def test_aligned_clip_has_the_length_centre_and_spread_of_the_other():
    clip, to = clip_of(31, missing=0, seed=3), clip_of(20, missing=0, seed=4)
    to = transform(to, 2 * np.eye(2))
    aligned = align(clip, to)
    assert len(aligned) == 20
    np.testing.assert_allclose(centre(aligned), centre(to), atol=1e-3)
    # Resampling draws the frames together a little before the ratio of spreads is taken.
    resampled = resample(clip, np.linspace(0, 30, 20))
    np.testing.assert_allclose(spread(aligned) / spread(to), 1, rtol=1e-3)
    assert spread(resampled) != pytest.approx(spread(to), rel=0.1)


def test_splice_takes_one_hand_or_one_end_of_the_other_clip_and_the_rest_of_this_one():
    clip, other = clip_of(20, missing=0, seed=5), clip_of(20, missing=0, seed=6)
    aligned, kinds = align(other, clip), set()
    for seed in range(40):
        mixed = splice(clip, other, OPENPOSE, rng(seed))
        foreign = (mixed == aligned).all(-1) & (mixed != clip).any(-1)
        np.testing.assert_array_equal(mixed[~foreign], clip[~foreign])
        whole_frames = foreign.all(1)
        if foreign[:, LEFT].all() and not foreign[:, RIGHT].any() and not foreign[:, BODY].any():
            kinds.add("left")
        elif foreign[:, RIGHT].all() and not foreign[:, LEFT].any() and not foreign[:, BODY].any():
            kinds.add("right")
        else:
            assert foreign.any(1).tolist() == whole_frames.tolist()
            assert np.count_nonzero(np.diff(whole_frames)) <= 1  # one cut
            kinds.add("beginning" if whole_frames[0] else "end")
    assert kinds == {"left", "right", "beginning", "end"}


def test_a_clip_of_one_joint_has_no_size_to_bring_to_that_of_another():
    one = np.zeros((1, 54, 3), np.float32)
    one[0, 3] = [417.3, 291.7, 1]
    to = clip_of(6, missing=0, seed=1)
    aligned = align(one, to)
    np.testing.assert_allclose(aligned[:, 3, :2], np.broadcast_to(to[..., :2].mean((0, 1)), (6, 2)), rtol=1e-4)
    assert not aligned[:, [0, 1, 53]].any()


def test_without_another_clip_nothing_is_spliced():
    clip = clip_of()
    np.testing.assert_array_equal(augment_poses(clip, PoseAugment(splice=1, probability=0), OPENPOSE, rng()), clip)


# --- Together ------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), frames=st.integers(1, 40), missing=st.floats(0, 1))
@example(seed=243, frames=1, missing=0.9375)  # spliced with a clip of one joint
def test_whatever_is_drawn_the_result_is_a_clip_and_missing_stays_without_coordinates(seed, frames, missing):
    clip = clip_of(frames, missing=missing, seed=seed)
    before = clip.copy()
    varied = augment_poses(clip, EVERYTHING, OPENPOSE, rng(seed), clip_of(7, missing=missing, seed=seed + 1))
    assert varied.dtype == np.float32
    assert varied.shape[1:] == (54, 3)
    assert 1 <= len(varied) <= np.ceil(frames * 1.2)
    assert np.isfinite(varied).all()
    assert set(np.unique(varied[..., 2])) <= {0, 1}
    assert not varied[varied[..., 2] == 0].any()
    np.testing.assert_array_equal(clip, before)  # the store's own clip is untouched


def test_nothing_asked_is_nothing_changed():
    clip = clip_of()
    np.testing.assert_allclose(augment_poses(clip, PoseAugment(), OPENPOSE, rng()), clip, rtol=1e-4, atol=1e-3)


STRENGTHS = {
    "rotation": 20, "scale": 0.3, "shear": 0.3, "shift": 0.3, "noise": 0.1, "mirror": 1, "warp": 0.5,
    "speed": 0.3, "crop": 0.5, "frame_dropout": 0.9, "hand_dropout": 1, "splice": 1, "hand_rotation": 30,
    "hand_scale": 0.3, "hand_shear": 0.3,
}  # fmt: skip


def test_every_strength_is_tested():
    assert set(STRENGTHS) | {"probability"} == set(PoseAugment.model_fields)


@pytest.mark.parametrize("name", STRENGTHS)
def test_each_setting_changes_the_clip_by_itself(name):
    clip = clip_of(30)
    varied = augment_poses(clip, PoseAugment(**{name: STRENGTHS[name]}), OPENPOSE, rng(2), clip_of(30, seed=9))
    assert varied.shape != clip.shape or np.abs(varied - clip).max() > 0.5


def test_probability_0_switches_space_off_but_not_time():
    clip = clip_of(30, missing=0)
    space = PoseAugment(rotation=20, noise=0.1, probability=0)
    np.testing.assert_array_equal(augment_poses(clip, space, OPENPOSE, rng()), clip)
    assert len(augment_poses(clip, PoseAugment(speed=0.5, probability=0), OPENPOSE, rng(3))) != 30


def test_the_same_generator_state_gives_the_same_clip():
    clip = clip_of()
    a, b, c = (augment_poses(clip, EVERYTHING, OPENPOSE, rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(a, b)
    assert a.shape != c.shape or not np.array_equal(a, c)


@pytest.mark.parametrize("wrong", [{"rotation": -1}, {"mirror": 1.5}, {"scale": 1}, {"rotate": 3}])
def test_wrong_or_unknown_settings_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        PoseAugment(**wrong)


def test_spread_is_the_root_mean_square_distance_from_the_centre():
    clip = np.zeros((1, 54, 3), np.float32)
    clip[0, :2] = [[0, 0, 1], [6, 8, 1]]
    assert spread(clip) == pytest.approx(5)
    np.testing.assert_array_equal(centre(clip), [3, 4])
