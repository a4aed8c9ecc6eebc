"""Batches: the same for the same seed and epoch, every clip once, little padding, and what becomes of odd clips."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.loaders import PoseBatches, pad, shorten, trim

JOINTS = 42


def clip_of(number, frames):
    """A clip that says which one it is (x) and which frame each is (y)."""
    clip = np.ones((frames, JOINTS, 3), np.float32)
    clip[..., 0], clip[..., 1] = number + 1, np.arange(frames)[:, None] + 1
    return clip


def clips_of(lengths):
    return [clip_of(number, frames) for number, frames in enumerate(lengths)]


def jitter(clip, other, rng):
    """Any variation that draws a number and shows which other clip it was given."""
    varied = clip.copy()
    varied[..., 1] += rng.random() / 2
    varied[..., 2] = other[0, 0, 0]
    return varied


def training(lengths=(5, 9, 30, 12, 7, 20, 17), batch_size=3, labels=None, **options):
    options = {"max_frames": 250, "vary": jitter, **options}
    labels = np.arange(len(lengths)) % 2 if labels is None else labels
    return PoseBatches(clips_of(lengths), labels, 10, batch_size, **options)


def contents(batches):
    return [batches[i] for i in range(len(batches))]


def same(one, other):
    return all(
        len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
        for a, b in zip(contents(one), contents(other), strict=True)
    )


def clip_numbers(batches):
    """Which clips stand in the batches, in their order."""
    return [round(float(row[0, 0, 0])) - 1 for batch in contents(batches) for row in batch[0]]


def test_same_seed_and_epoch_give_the_same_batches():
    assert same(training(seed=4, epoch=2), training(seed=4, epoch=2))


@pytest.mark.parametrize("other", [{"seed": 5, "epoch": 2}, {"seed": 4, "epoch": 3}])
def test_other_seed_or_epoch_gives_other_batches(other):
    one, two = training(range(5, 25), seed=4, epoch=2), training(range(5, 25), **other)
    assert clip_numbers(one) != clip_numbers(two)


def test_variation_differs_between_epochs_even_of_the_same_clip():
    batches = training(lengths=(6,), batch_size=1)
    first = batches[0][0].copy()
    batches.on_epoch_end()
    assert not np.array_equal(first, batches[0][0])


def test_setting_an_epoch_equals_living_through_the_epochs_before_it():
    lived, jumped = training(), training()
    for _ in range(3):
        contents(lived)
        lived.on_epoch_end()
    jumped.set_epoch(3)
    assert same(lived, jumped)


def test_reading_a_batch_twice_or_out_of_order_gives_the_same():
    batches = training()
    last_first = [batches[i] for i in reversed(range(len(batches)))]
    for (poses, targets), (again, targets_again) in zip(contents(batches), reversed(last_first), strict=True):
        assert np.array_equal(poses, again)
        assert np.array_equal(targets, targets_again)


def test_every_clip_comes_exactly_once_in_each_epoch_with_its_own_label():
    labels = np.array([3, 1, 4, 1, 5, 9, 2])
    batches = training(labels=labels)
    for epoch in range(3):
        batches.set_epoch(epoch)
        numbers = clip_numbers(batches)
        assert sorted(numbers) == list(range(7))
        targets = np.concatenate([batch[1] for batch in contents(batches)])
        assert np.array_equal(targets, np.eye(10, dtype=np.float32)[labels[numbers]])


def test_a_clip_is_varied_with_one_of_its_own_gloss():
    labels = np.array([0, 1, 0, 2, 1, 0, 2])
    batches, partners = training(labels=labels), {}
    for epoch in range(20):
        batches.set_epoch(epoch)
        for poses, _ in contents(batches):
            for row in poses[:, 0, 0]:
                partners.setdefault(round(row[0]) - 1, set()).add(round(row[2]) - 1)
    assert partners == {clip: set(np.flatnonzero(labels == labels[clip])) for clip in range(7)}


def test_without_labels_a_clip_is_varied_with_itself_and_no_targets_are_given():
    batches = PoseBatches(clips_of([4, 6, 8]), None, 10, 2, max_frames=250, vary=jitter)
    for batch in contents(batches):
        assert len(batch) == 1
        assert np.array_equal(batch[0][:, 0, 0, 0], batch[0][:, 0, 0, 2])


def test_evaluation_keeps_the_order_of_the_clips_and_changes_nothing():
    lengths = [30, 4, 17, 8, 25]
    batches = PoseBatches(clips_of(lengths), np.arange(5), 5, 2, max_frames=250, seed=3)
    batches.set_epoch(7)
    assert clip_numbers(batches) == [0, 1, 2, 3, 4]
    assert np.array_equal(np.concatenate([batch[1] for batch in contents(batches)]), np.eye(5))
    rows = [row for batch in contents(batches) for row in batch[0]]
    for row, clip in zip(rows, clips_of(lengths), strict=True):
        assert np.array_equal(row[: len(clip)], clip)


def test_clips_of_similar_length_share_a_batch():
    lengths = [10] * 8 + [100] * 8
    for epoch in range(5):
        batches = training(lengths=lengths, batch_size=4, epoch=epoch)
        assert sorted(batch[0].shape[1] for batch in contents(batches)) == [16, 16, 104, 104]


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    batch_size=st.integers(1, 5),
    max_frames=st.integers(1, 40),
    pad_to=st.integers(1, 16),
    train=st.booleans(),
)
def test_batches_of_any_lengths_are_complete_and_padded_with_missing_frames_only_as_far_as_needed(
    lengths, batch_size, max_frames, pad_to, train
):
    batches = PoseBatches(
        clips_of(lengths), np.zeros(len(lengths), int), 2, batch_size,
        max_frames=max_frames, pad_to=pad_to, vary=(lambda clip, other, rng: clip) if train else None,
    )  # fmt: skip
    assert sorted(clip_numbers(batches)) == list(range(len(lengths)))
    for poses, targets in contents(batches):
        assert poses.dtype == np.float32
        assert 1 <= len(poses) == len(targets) <= batch_size
        real = [min(lengths[round(float(row[0, 0, 0])) - 1], max_frames) for row in poses]
        assert poses.shape[1] % pad_to == 0
        assert max(real) <= poses.shape[1] < max(real) + pad_to
        for row, frames in zip(poses, real, strict=True):
            assert row[:frames, :, 2].all()
            assert not row[frames:].any()


def test_padding_is_to_a_multiple_of_eight_unless_said_otherwise():
    assert [batch[0].shape[1] for batch in contents(training(lengths=(5, 8, 9, 17), batch_size=1, vary=None))] == [
        8, 8, 16, 24,
    ]  # fmt: skip


@settings(max_examples=40)
@given(frames=st.integers(1, 80), max_frames=st.integers(2, 40))
def test_long_clips_are_resampled_from_the_first_to_the_last_frame_and_short_ones_stay(frames, max_frames):
    clip = clip_of(0, frames)
    short = shorten(clip, max_frames)
    if frames <= max_frames:
        assert np.array_equal(short, clip)
    else:
        expected = np.linspace(1, frames, max_frames)  # y is the frame's number
        np.testing.assert_allclose(short[:, 0, 1], expected, rtol=1e-5)
        assert np.array_equal(short[[0, -1]], clip[[0, -1]])


def test_trimming_cuts_empty_frames_at_both_ends_but_none_inside():
    clip = clip_of(0, 9)
    clip[[0, 1, 4, 8]] = 0
    assert np.array_equal(trim(clip), clip[2:8])
    assert not trim(clip)[2].any()


def test_one_joint_is_enough_to_keep_a_frame():
    clip = np.zeros((5, JOINTS, 3), np.float32)
    clip[1, 7] = clip[3, 41] = 1
    assert np.array_equal(trim(clip), clip[1:4])


def test_a_clip_without_joints_becomes_one_empty_frame():
    trimmed = trim(np.zeros((6, JOINTS, 3), np.float32))
    assert trimmed.shape == (1, JOINTS, 3)
    assert not trimmed.any()


def test_padding_keeps_each_clip_and_fills_with_zeros():
    batch = pad([clip_of(0, 3), clip_of(1, 5)], 4)
    assert batch.shape == (2, 8, JOINTS, 3)
    assert np.array_equal(batch[0, :3], clip_of(0, 3))
    assert np.array_equal(batch[1, :5], clip_of(1, 5))
    assert not batch[0, 3:].any()
    assert not batch[1, 5:].any()


def test_no_clips_are_refused():
    with pytest.raises(ValueError, match="no clips"):
        PoseBatches([], None, 2, 4, max_frames=8)
