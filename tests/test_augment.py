"""What each augmentation of poses and of RGB clips changes and what it keeps."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import ANY_BATCH
from lib.data.augment import ClipAugment, PoseAugment, _view_matrix, augment_clip, resample, resize
from lib.data.layouts import LAYOUTS
from lib.data.pose_augment import AugmentedPoses, PoseClips

OPENPOSE = LAYOUTS["openpose-54"]
LEFT, RIGHT, BODY = (OPENPOSE.parts[part] for part in ("left", "right", "body"))
ALL_OF_POSES = PoseAugment(
    rotation=13, scale=0.2, shear=0.1, shift=0.1, noise=0.02, mirror=0.5, warp=0.3, speed=0.2, crop=0.2,
    frame_dropout=0.3, hand_dropout=0.5, splice=0.5, hand_rotation=15, hand_scale=0.2, hand_shear=0.1,
    finger_rotation=20, time_mask=0.3, box=0.3,
)  # fmt: skip
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


def rng(seed=0):
    return np.random.default_rng(seed)


def clip_of(frames=20, layout=OPENPOSE, missing=0.2, seed=1):
    """A random clip in pixels, some of whose joints are missing."""
    draw = rng(seed)
    present = (draw.random((frames, len(layout.joints), 1)) >= missing).astype(np.float32)
    return np.concatenate([draw.uniform(50, 200, (*present.shape[:2], 2)) * present, present], -1, dtype=np.float32)


def augment_poses(clip, how, layout, generator, other=None):
    """The clip augmented, alone in its batch and without padding."""
    clips = [clip] if other is None else [clip, other]
    poses = AugmentedPoses(clips, how, layout, "cpu", max_frames=10_000, pad_to=1)
    return poses.batch(np.array([0]), np.array([len(clips) - 1]), generator)[0].numpy()


def augmented(clip, seed=0, layout=OPENPOSE, other=None, **how):
    """The clip with these augmentations alone."""
    return augment_poses(clip, PoseAugment(**how), layout, rng(seed), other)


def centre(clip):
    """Mean position of the present joints."""
    return clip[clip[..., 2] > 0][:, :2].mean(0)


def spread(clip):
    """Root mean square distance of the present joints from their centre."""
    return np.sqrt(((clip[clip[..., 2] > 0][:, :2] - centre(clip)) ** 2).sum(-1).mean())


def linear_map(before, after):
    """The (2, 2) matrix that maps the joints of one clip, relative to their centre, to those of another."""
    here, there = (joined(clip).astype(float) - centre(clip) for clip in (before, after))
    return np.linalg.lstsq(here, there, rcond=None)[0].T


def joined(clip):
    """Positions of the present joints, (n, 2)."""
    return clip[clip[..., 2] > 0][:, :2]


def distances(points):
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


# --- Space ---------------------------------------------------------------------------------------------------


def test_rotation_keeps_all_distances_and_the_centre():
    clip = clip_of(4)
    turned = augmented(clip, rotation=30)
    assert np.abs(turned - clip).max() > 1
    np.testing.assert_allclose(distances(joined(turned)), distances(joined(clip)), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(centre(turned), centre(clip), rtol=1e-5)


def test_rotation_is_drawn_from_the_whole_range_in_degrees():
    clip = clip_of(4)
    matrices = [linear_map(clip, augmented(clip, seed, rotation=13)) for seed in range(300)]
    angles = np.degrees([np.arctan2(m[1, 0], m[0, 0]) for m in matrices])
    assert -13.01 <= angles.min() < -12
    assert 12 < angles.max() <= 13.01


def test_scale_stretches_each_axis_about_the_centre_and_keeps_ratios_along_it():
    clip = clip_of(4)
    scaled = augmented(clip, scale=0.3)
    factors = np.diag(linear_map(clip, scaled))
    assert (np.abs(factors - 1) <= 0.3 + 1e-5).all()
    assert abs(factors[0] - factors[1]) > 0.01
    moved = joined(scaled) - centre(clip)
    np.testing.assert_allclose(moved, (joined(clip) - centre(clip)) * factors, rtol=1e-3, atol=1e-3)


def test_shear_keeps_areas_and_heights():
    clip = clip_of(4)
    sheared = augmented(clip, shear=0.5)
    assert np.linalg.det(linear_map(clip, sheared)) == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(sheared[..., 1], clip[..., 1], rtol=1e-4)
    assert np.abs(sheared[..., 0] - clip[..., 0]).max() > 1


def test_shift_moves_each_hand_as_a_whole_and_leaves_the_body():
    clip = clip_of(missing=0)
    moved = augmented(clip, shift=0.2) - clip
    np.testing.assert_allclose(moved[:, BODY], 0, atol=1e-3)
    for hand in (LEFT, RIGHT):
        np.testing.assert_allclose(moved[:, hand, :2], np.broadcast_to(moved[0, hand.start, :2], (20, 21, 2)),
                                   atol=1e-3)  # fmt: skip
    assert np.abs(moved[0, LEFT.start] - moved[0, RIGHT.start]).max() > 1


def test_hands_turn_about_their_wrists_by_one_map_each_and_the_body_stays():
    clip = clip_of(missing=0)
    turned = augmented(clip, 3, hand_rotation=90)
    np.testing.assert_allclose(turned[:, BODY], clip[:, BODY], atol=1e-3)
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
        grown = augmented(clip, seed, hand_scale=0.2)
        after, before = (c[:, LEFT, :2][:, 1:] - c[:, LEFT, :2][:, :1] for c in (grown, clip))
        ratio = (after * before).sum((0, 1)) / (before**2).sum((0, 1))
        np.testing.assert_allclose(after, before * ratio, atol=1e-2)
        ratios.append(ratio)
    assert 0.8 <= np.min(ratios) < 0.85
    assert 1.15 < np.max(ratios) <= 1.2


def test_a_hand_without_a_wrist_is_not_turned_in_that_frame():
    clip = clip_of(missing=0)
    clip[3, LEFT.start] = 0
    turned = augmented(clip, 3, hand_rotation=90)
    np.testing.assert_allclose(turned[3, LEFT], clip[3, LEFT], atol=1e-3)
    assert np.abs(turned[4, LEFT] - clip[4, LEFT]).max() > 1


def test_some_fingers_turn_each_about_its_own_knuckle_within_the_asked_angle():
    clip, angles = clip_of(5, missing=0), []
    for seed in range(40):
        turned = augmented(clip, seed, finger_rotation=30)
        np.testing.assert_allclose(turned[:, BODY], clip[:, BODY], rtol=1e-6)
        for hand in (LEFT, RIGHT):
            np.testing.assert_allclose(turned[:, hand.start], clip[:, hand.start], rtol=1e-6)
            before, after = (c[:, hand, :2][:, 1:].reshape(5, 5, 4, 2) for c in (clip, turned))
            np.testing.assert_allclose(after[:, :, 0], before[:, :, 0], rtol=1e-6)  # knuckles
            a, b = ((c[:, :, 1:] - c[:, :, :1]) @ [1, 1j] for c in (before, after))
            np.testing.assert_allclose(b / a, np.broadcast_to((b / a)[:1, :, :1], a.shape), atol=1e-3)
            np.testing.assert_allclose(np.abs(b / a), 1, atol=1e-3)
            angles += np.angle((b / a)[0, :, 0], deg=True).tolist()
    assert 0.4 < np.mean(np.abs(angles) > 1e-2) < 0.6
    assert 25 < np.max(np.abs(angles)) <= 30.1


def test_noise_has_the_asked_deviation_is_independent_and_keeps_the_mean():
    clip = clip_of(200, missing=0)
    added = (augmented(clip, noise=0.04) - clip)[..., :2]
    assert added.std() == pytest.approx(0.04 * spread(clip), rel=0.02)
    assert added.mean() == pytest.approx(0, abs=0.05)
    neighbours = np.corrcoef(added[:-1].ravel(), added[1:].ravel())[0, 1]
    assert abs(neighbours) < 0.03


@every_layout
def test_mirror_reflects_and_swaps_left_with_right(layout):
    clip = clip_of(5, layout, missing=0.3)
    flipped = augmented(clip, layout=layout, mirror=1)
    for left, right in layout.pairs:
        np.testing.assert_allclose(flipped[:, left, 1:], clip[:, right, 1:], rtol=1e-5)
        np.testing.assert_array_equal(flipped[:, right, 2], clip[:, left, 2])
        seen = clip[:, right, 2] > 0
        np.testing.assert_allclose(flipped[seen, left, 0], 2 * centre(clip)[0] - clip[seen, right, 0], rtol=1e-4)


def test_mirror_keeps_joints_of_the_middle_in_their_place_on_the_axis():
    clip = clip_of(5)
    nose = OPENPOSE.joints.index("nose")
    np.testing.assert_array_equal(augmented(clip, mirror=1)[:, nose, 2], clip[:, nose, 2])


@every_layout
def test_mirror_twice_is_the_clip_itself(layout):
    clip = clip_of(5, layout)
    twice = augmented(augmented(clip, layout=layout, mirror=1), layout=layout, mirror=1)
    np.testing.assert_allclose(twice, clip, rtol=1e-4, atol=1e-3)


def test_mirror_keeps_the_length_of_every_bone():
    clip = clip_of(5, missing=0)
    a, b = np.array(OPENPOSE.edges).T
    lengths = [np.sort(np.linalg.norm(c[:, a, :2] - c[:, b, :2], axis=-1), axis=1)
               for c in (clip, augmented(clip, mirror=1))]  # fmt: skip
    np.testing.assert_allclose(lengths[1], lengths[0], rtol=1e-4)


def test_space_leaves_a_clip_without_joints_alone():
    empty = np.zeros((3, 54, 3), np.float32)
    np.testing.assert_array_equal(augmented(empty, rotation=13, shift=0.1, noise=0.1, hand_scale=0.2), empty)


def test_strength_goes_by_the_size_of_the_signer_and_not_by_the_unit():
    clip = clip_of(missing=0)
    larger = clip * [2, 2, 1]
    a, b = (augmented(c.astype(np.float32), shift=0.2, noise=0.05) for c in (clip, larger))
    np.testing.assert_allclose(b[..., :2], 2 * a[..., :2], rtol=1e-4)


# --- Time ----------------------------------------------------------------------------------------------------


def straight(frames):
    """A clip in which every joint's x is the number of its frame."""
    clip = np.ones((frames, 54, 3), np.float32)
    clip[..., 0] = np.arange(frames)[:, None]
    return clip


@given(seed=st.integers(0, 1000), frames=st.integers(1, 60), warp=st.floats(0, 0.9))
def test_warp_keeps_order_length_and_both_ends(seed, frames, warp):
    times = augmented(straight(frames), seed, warp=warp, probability=0)[:, 0, 0]
    assert len(times) == frames
    assert (np.diff(times) > 0).all()
    assert times[[0, -1]].tolist() == pytest.approx([0, frames - 1], abs=1e-4)


def test_warp_changes_the_speed_inside():
    times = augmented(straight(41), 1, warp=0.6, probability=0)[:, 0, 0]
    assert np.abs(times - np.arange(41)).max() > 1


@given(seed=st.integers(0, 1000), frames=st.integers(1, 60), crop=st.floats(0, 0.9))
def test_crop_keeps_a_stretch_at_the_same_speed(seed, frames, crop):
    times = augmented(straight(frames), seed, crop=crop, probability=0)[:, 0, 0]
    assert len(times) >= max(1, int((1 - crop) * frames))
    assert times[0] >= 0
    assert times[-1] <= frames - 1
    if len(times) > 2:
        steps = np.diff(times)
        np.testing.assert_allclose(steps, steps[0], atol=1e-4)
        assert steps[0] == pytest.approx(1, abs=1 / (len(times) - 1))


def test_crop_cuts_at_either_end():
    kept = [augmented(straight(60), seed, crop=0.5, probability=0)[:, 0, 0] for seed in range(50)]
    assert max(times[0] for times in kept) > 10
    assert min(times[-1] for times in kept) < 49


def test_speed_changes_the_length_both_ways_and_keeps_the_ends():
    varied = [augmented(straight(50), seed, speed=0.2, probability=0)[:, 0, 0] for seed in range(100)]
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
        lost = ~augmented(clip, seed, hand_dropout=1, probability=0)[..., 2].astype(bool)
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
        dropped = augmented(clip, seed, frame_dropout=0.4, probability=0)
        lost = ~dropped.any((1, 2))
        np.testing.assert_array_equal(dropped[~lost], clip[~lost])
        shares.append(lost.mean())
    assert max(shares) < 0.4 + 0.05
    assert max(shares) > 0.3
    assert min(shares) < 0.1


def test_time_mask_loses_one_run_of_20_to_40_percent_of_the_frames_as_often_as_asked():
    clip, shares = clip_of(100, missing=0), []
    for seed in range(60):
        masked = augmented(clip, seed, time_mask=0.5, probability=0)
        lost = np.flatnonzero(~masked.any((1, 2)))
        np.testing.assert_array_equal(np.delete(masked, lost, 0), np.delete(clip, lost, 0))
        assert (np.diff(lost) == 1).all()
        shares.append(len(lost) / 100)
    hit = [share for share in shares if share]
    assert 0.35 < len(hit) / len(shares) < 0.65
    assert 0.2 <= min(hit) < 0.24
    assert 0.36 < max(hit) <= 0.4


def test_box_loses_all_joints_in_it_and_none_outside_it_as_often_as_asked():
    clip, sides = clip_of(30, missing=0.2), []
    extent = np.ptp(joined(clip), axis=0)
    for seed in range(60):
        masked = augmented(clip, seed, box=0.5, probability=0)
        lost = (clip[..., 2] > 0) & (masked[..., 2] == 0)
        np.testing.assert_array_equal(masked[~lost], clip[~lost])
        if lost.any():
            low, high = clip[lost, :2].min(0), clip[lost, :2].max(0)
            kept = joined(masked)
            assert not ((kept >= low) & (kept <= high)).all(1).any()
            sides.append((high - low) / extent)
    assert 0.35 < len(sides) / 60 < 0.65
    assert 0.15 < np.min(sides) < 0.24  # the outermost joints do not reach the edges of the box
    assert 0.34 < np.max(sides) <= 0.4


# --- Splicing ------------------------------------------------------------------------------------------------


def aligned(other, clip):
    """The other clip as it is spliced into this one: where all frames are taken from it."""
    for seed in range(2000):
        mixed = augmented(clip, seed, splice=1, probability=0, other=other)
        if not (mixed == clip)[..., :2].all((1, 2)).any() and (mixed != clip)[:, BODY].any((1, 2)).all():
            return mixed
    raise AssertionError("no seed takes the whole clip")


def test_aligned_clip_has_the_length_centre_and_spread_of_the_other():
    clip, to = clip_of(31, missing=0, seed=3), clip_of(20, missing=0, seed=4)
    to[..., :2] *= 2
    taken = aligned(clip, to)
    assert len(taken) == 20
    np.testing.assert_allclose(centre(taken), centre(to), atol=1e-2)
    # Resampling draws the frames together a little before the ratio of spreads is taken.
    resampled = resample(clip, np.linspace(0, 30, 20))
    np.testing.assert_allclose(spread(taken) / spread(to), 1, rtol=1e-3)
    assert spread(resampled) != pytest.approx(spread(to), rel=0.1)


def test_splice_takes_one_hand_or_one_end_of_the_other_clip_and_the_rest_of_this_one():
    clip, other = clip_of(20, missing=0, seed=5), clip_of(20, missing=0, seed=6)
    whole, kinds = aligned(other, clip), set()
    for seed in range(40):
        mixed = augmented(clip, seed, splice=1, probability=0, other=other)
        foreign = (mixed == whole).all(-1) & (mixed != clip).any(-1)
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
    taken = aligned(one, to)
    np.testing.assert_allclose(taken[:, 3, :2], np.broadcast_to(to[..., :2].mean((0, 1)), (6, 2)), rtol=1e-4)
    assert not taken[:, [0, 1, 53]].any()


def test_without_another_clip_nothing_is_spliced():
    clip = clip_of()
    np.testing.assert_allclose(augmented(clip, splice=1, probability=0), clip, rtol=1e-6)


# --- Together ------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), frames=st.integers(1, 40), missing=st.floats(0, 1))
@example(seed=243, frames=1, missing=0.9375)  # spliced with a clip of one joint
def test_whatever_is_drawn_the_result_is_a_clip_and_missing_stays_without_coordinates(seed, frames, missing):
    clip = clip_of(frames, missing=missing, seed=seed)
    before = clip.copy()
    varied = augment_poses(clip, ALL_OF_POSES, OPENPOSE, rng(seed), clip_of(7, missing=missing, seed=seed + 1))
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
    "hand_scale": 0.3, "hand_shear": 0.3, "finger_rotation": 60, "time_mask": 1, "box": 1,
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
    a, b, c = (augment_poses(clip, ALL_OF_POSES, OPENPOSE, rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(a, b)
    assert a.shape != c.shape or not np.array_equal(a, c)


@pytest.mark.parametrize("wrong", [{"rotation": -1}, {"mirror": 1.5}, {"scale": 1}, {"rotate": 3}])
def test_wrong_or_unknown_settings_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        PoseAugment(**wrong)


def test_strength_is_in_units_of_the_root_mean_square_distance_from_the_centre():
    clip = np.zeros((1, 54, 3), np.float32)
    clip[0, :2] = [[0, 0, 1], [6, 8, 1]]  # 5 from their centre
    moved = [augmented(clip, seed, noise=0.2)[0, :2, :2] - clip[0, :2, :2] for seed in range(4000)]
    assert np.std(moved) == pytest.approx(0.2 * 5, rel=0.05)


# --- In batches ----------------------------------------------------------------------------------------------


def batch_of(clips, how, seed=0, **form):
    rows = np.arange(len(clips))
    poses = AugmentedPoses(clips, how, OPENPOSE, "cpu", **{"max_frames": 64, "pad_to": 8, **form})
    return poses.batch(rows, rows[::-1].copy(), rng(seed)).numpy()


def test_clips_of_a_batch_are_varied_each_in_its_own_way():
    clip = clip_of(20, missing=0)
    angles = [
        np.degrees(np.arctan2(*linear_map(clip, row)[::-1, 0]))
        for row in batch_of([clip] * 30, PoseAugment(rotation=40), pad_to=1)
    ]
    assert np.ptp(angles) > 60
    assert len(set(np.round(angles, 2))) == 30


@settings(max_examples=60)
@given(**ANY_BATCH, seed=st.integers(0, 1000))
def test_batches_of_any_lengths_have_1_to_max_frames_of_each_clip_and_then_only_empty_ones(
    lengths, max_frames, pad_to, seed
):
    clips = [clip_of(length, missing=0, seed=length) for length in lengths]
    before = [clip.copy() for clip in clips]
    how = ALL_OF_POSES.model_copy(update={"frame_dropout": 0, "hand_dropout": 0, "time_mask": 0, "box": 0})
    batch = batch_of(clips, how, seed, max_frames=max_frames, pad_to=pad_to)
    assert batch.dtype == np.float32
    assert batch.shape[1] % pad_to == 0
    longest = 0
    for row, length in zip(batch, lengths, strict=True):
        frames = int(row.any((1, 2)).sum())
        assert 1 <= frames <= min(max_frames, np.ceil(1.2 * length))
        assert row[:frames, :, 2].all()
        assert not row[frames:].any()
        longest = max(longest, frames)
    assert batch.shape[1] < longest + pad_to
    assert all(np.array_equal(*pair) for pair in zip(clips, before, strict=True))


@given(seed=st.integers(0, 1000), frames=st.integers(1, 30), missing=st.floats(0, 1))
def test_clips_on_a_device_are_sampled_as_any_other_and_no_joint_is_made_up(seed, frames, missing):
    clips = [clip_of(frames, missing=missing, seed=seed), clip_of(12, missing=missing, seed=seed + 1)]
    positions = rng(seed).uniform(0, frames - 1, 9).astype(np.float32)
    there = torch.from_numpy(np.stack([np.append(positions, -1), np.linspace(0, 11, 10)])).float()
    sampled = PoseClips(clips[::-1], "cpu").sample(torch.tensor([1, 0]), there).transpose(2, 3).numpy()
    np.testing.assert_allclose(sampled[0, :9], resample(clips[0], positions), rtol=1e-5, atol=1e-4)
    assert not sampled[0, 9].any()
    np.testing.assert_allclose(sampled[1], resample(clips[1], there[1].numpy()), rtol=1e-5, atol=1e-4)


class NothingIsAsked(TorchDispatchMode):
    """Refuses what would make the CPU wait for a GPU: reading a value, or a shape that depends on values."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        masks = name.startswith("index") and any(torch.is_tensor(i) and i.dtype == torch.bool for i in flat(args[1:]))
        assert not masks, f"{name} with a mask"
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select"), name
        return function(*args, **kwargs or {})


def flat(arguments):
    return [part for argument in arguments for part in (argument if isinstance(argument, list | tuple) else [argument])]


@pytest.mark.parametrize(
    "ask", [lambda x: x[x > 0], lambda x: x.sum().item(), lambda x: x.nonzero(), lambda x: bool(x[0])]
)
def test_what_asks_a_device_is_seen(ask):
    with pytest.raises(AssertionError), NothingIsAsked():
        ask(torch.ones(3))


def test_to_make_a_batch_the_device_is_asked_nothing():
    poses = AugmentedPoses([clip_of(9), clip_of(12)], ALL_OF_POSES, OPENPOSE, "cpu", max_frames=64, pad_to=8)
    with NothingIsAsked():
        assert len(poses.batch(np.array([0, 1, 1]), np.array([1, 1, 0]), rng())) == 3


# --- RGB clips -----------------------------------------------------------------------------------------------


ALL_OF_CLIPS = ClipAugment(
    jitter=1, crop=0.4, rotation=30, flip=0.5, brightness=0.2, contrast=0.3, saturation=0.5, tint=0.2
)
SIDE = 64


def scene(seed=0):
    """A smooth picture without symmetry, so that any change of place or colour shows."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    phase = rng(seed).uniform(0, 1, 3)
    waves = np.stack([np.sin(2 * (x * 2 + y) + phase[0]), np.cos(3 * x * y + phase[1]), np.sin(4 * y + phase[2])], -1)
    return (120 + 60 * waves).astype(np.uint8)


def images_of(frames=4):
    return [scene(seed) for seed in range(frames)]


def planes_of(image):
    """The planes of an RGB image, none of them reduced."""
    y, v, u = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb))
    return y, u, v


def varied_clip(images, size, how, generator):
    """The images augmented, uint8 (frames, size, size, 3) RGB."""
    return np.stack([image.copy() for image in augment_clip(map(planes_of, images), size, how, generator)])


def difference(one, other):
    return np.abs(one.astype(int) - other.astype(int)).max()


def test_nothing_is_varied_in_clips_by_default():
    clip = images_of()
    assert difference(varied_clip(clip, SIDE, ClipAugment(), rng()), np.stack(clip)) <= 1
    resized = np.stack(list(resize(map(planes_of, clip), 48)))
    assert difference(varied_clip(clip, 48, ClipAugment(), rng()), resized) <= 4  # 1 in each plane is 2.8 of blue


@pytest.mark.parametrize("field", ClipAugment.model_fields)
def test_each_setting_alone_changes_pixels_except_the_choice_of_frames(field):
    how = ClipAugment(**{field: 0.9 if field != "rotation" else 20.0})
    changed = [difference(varied_clip(images_of(1), SIDE, how, rng(s)), np.stack(images_of(1))) > 3 for s in range(8)]
    assert any(changed) == (field != "jitter")


@pytest.mark.parametrize("setting", [{"flip": 1.5}, {"crop": 1.0}, {"rotation": -1.0}, {"blur": 1.0}])
def test_settings_of_clips_out_of_range_or_unknown_are_refused(setting):
    with pytest.raises(ValidationError):
        ClipAugment(**setting)


@settings(max_examples=80)
@given(seed=st.integers(0, 10**6), size=st.integers(8, 96), frames=st.integers(1, 5))
def test_all_frames_of_a_clip_are_varied_alike(seed, size, frames):
    still = varied_clip([scene()] * frames, size, ALL_OF_CLIPS, rng(seed))
    assert still.shape == (frames, size, size, 3)
    assert still.dtype == np.uint8
    assert (still == still[0]).all()


@settings(max_examples=80)
@given(seed=st.integers(0, 10**6))
def test_rotation_and_crop_bring_in_no_black(seed):
    bright = [np.full((SIDE, SIDE, 3), 200, np.uint8)]
    how = ClipAugment(rotation=180, crop=0.5, flip=0.5)
    assert (varied_clip(bright, 48, how, rng(seed)) == 200).all()


@settings(max_examples=80)
@given(seed=st.integers(0, 10**6))
def test_the_same_generator_state_gives_the_same_images(seed):
    one, two = (varied_clip(images_of(2), 40, ALL_OF_CLIPS, rng(seed)) for _ in range(2))
    assert np.array_equal(one, two)


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6))
def test_images_in_three_planes_and_in_rgb_are_varied_alike(seed):
    of_rgb = np.stack(
        [image.copy() for image in augment_clip([[image] for image in images_of()], 48, ALL_OF_CLIPS, rng(seed))]
    )
    away = np.abs(varied_clip(images_of(), 48, ALL_OF_CLIPS, rng(seed)).astype(int) - of_rgb)
    assert away.max() <= 6
    assert away.mean() < 1


def test_small_colour_planes_lie_where_the_image_is():
    clip, how = [scene()], ClipAugment(crop=0.3, rotation=20, flip=0.5, saturation=0.3)
    for seed in range(10):
        y, u, v = planes_of(scene())
        small = [y, *(cv2.resize(plane, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for plane in (u, v))]
        away = np.abs(
            next(augment_clip([small], 48, how, rng(seed))).astype(int) - varied_clip(clip, 48, how, rng(seed))[0]
        )
        assert away.mean() < 1


def test_flip_mirrors_left_and_right_exactly():
    clip = images_of()
    mirrored = varied_clip(clip, SIDE, ClipAugment(flip=1), rng())
    assert difference(mirrored, np.stack(clip)[:, :, ::-1]) <= 1


def test_without_flip_left_stays_left():
    half = np.zeros((SIDE, SIDE, 3), np.uint8)
    half[:, : SIDE // 2] = 200
    for seed in range(30):
        varied = varied_clip([half], SIDE, ALL_OF_CLIPS.model_copy(update={"flip": 0.0}), rng(seed))[0].astype(float)
        assert varied[:, : SIDE // 4].mean() > varied[:, -SIDE // 4 :].mean()


@settings(max_examples=200)
@given(seed=st.integers(0, 10**6), crop=st.floats(0, 0.95), size=st.integers(1, 300))
def test_crop_stays_inside_the_image_and_keeps_at_least_the_share_asked(seed, crop, size):
    matrix = _view_matrix(SIDE, size, ClipAugment(crop=crop), rng(seed))
    low, high = (matrix @ [at, at, 1] for at in (-0.5, size - 0.5))  # the outer edges of the first and last pixel
    assert (low >= -0.5 - 1e-6).all()
    assert (high <= SIDE - 0.5 + 1e-6).all()
    assert (1 - crop) * SIDE - 1e-6 <= high[0] - low[0] <= SIDE + 1e-6


def test_crop_reaches_every_corner_of_the_image():
    starts = [_view_matrix(100, 100, ClipAugment(crop=0.5), rng(seed))[:, 2] for seed in range(500)]
    assert np.min(starts, 0).max() < 2
    assert np.max(starts, 0).min() > 35


def test_rotation_turns_about_the_middle():
    how = ClipAugment(rotation=90)
    for seed in range(10):
        matrix = _view_matrix(SIDE, SIDE, how, rng(seed))
        middle = (SIDE - 1) / 2
        assert np.allclose(matrix @ [middle, middle, 1], middle)
        assert np.allclose(matrix[:, :2] @ matrix[:, :2].T, np.eye(2))


def recoloured(images, seed, **how):
    """The images with these variations of colour alone, uint8 (frames, side, side, 3)."""
    return varied_clip(images, len(images[0]), ClipAugment(**how), rng(seed))


def test_brightness_adds_and_contrast_keeps_mid_grey():
    grey = np.full((1, 4, 4, 3), 128, np.uint8)
    for seed in range(20):
        assert difference(recoloured(grey, seed, contrast=0.9), grey) <= 1
        brighter = recoloured(grey, seed, brightness=0.2)
        assert np.ptp(brighter) == 0
        assert difference(brighter, grey) <= 0.2 * 255 + 1


def test_saturation_keeps_the_brightness_of_every_pixel():
    clip = np.stack(images_of())
    luma = [0.299, 0.587, 0.114]
    for seed in range(10):
        varied = recoloured(clip, seed, saturation=0.5)
        inside = ((varied > 0) & (varied < 255)).all(-1)
        assert inside.mean() > 0.5
        assert np.abs((varied @ luma - clip @ luma)[inside]).max() < 1.5


def test_colours_beyond_the_range_are_cut_and_do_not_wrap():
    light = np.full((1, 4, 4, 3), 250, np.uint8)
    for clip, end in ((light, 255), (255 - light, 0)):
        values = {int(recoloured(clip, seed, brightness=0.5)[0, 0, 0, 0]) for seed in range(100)}
        assert end in values
        assert max(abs(value - int(clip[0, 0, 0, 0])) for value in values) <= 0.5 * 255 + 1
