"""Batches of both kinds: the same for the same seed and epoch, every clip once, little padding, odd clips."""

from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import ANY_BATCH, encode_video, index_of_videos, numbered_images, numbers_of
from lib.data.augment import ClipAugment, PoseAugment
from lib.data.clip_store import build_clips, clip_path
from lib.data.layouts import LAYOUTS
from lib.data.loaders import ClipBatches, PoseBatches
from lib.data.poses import pad, shorten, trim
from lib.settings import StudyError

JOINTS = 42
HANDS = LAYOUTS["hands-42"]
VARY = ClipAugment(jitter=1, crop=0.2, rotation=5, flip=0.5, brightness=0.1, contrast=0.1)


def clip_of(number, frames):
    """A clip that says which one it is (x) and which frame each is (y)."""
    clip = np.ones((frames, JOINTS, 3), np.float32)
    clip[..., 0], clip[..., 1] = number + 1, np.arange(frames)[:, None] + 1
    return clip


def clips_of(lengths):
    return [clip_of(number, frames) for number, frames in enumerate(lengths)]


def pose_training(lengths=(5, 9, 30, 12, 7, 20, 17), batch_size=3, labels=None, **options):
    """Clips whose y is varied; x still says which clip is which, as all of a clip's joints have the same."""
    options = {"max_frames": 250, "vary": PoseAugment(warp=0.5), "layout": HANDS, **options}
    labels = np.arange(len(lengths)) % 2 if labels is None else labels
    return PoseBatches(clips_of(lengths), labels, 10, batch_size, **options)


def contents(batches):
    """All batches as numpy arrays."""
    return [tuple(map(np.asarray, batches[i])) for i in range(len(batches))]


def same(one, other):
    return all(
        len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
        for a, b in zip(contents(one), contents(other), strict=True)
    )


def clip_numbers(batches):
    """Which clips stand in the batches, in their order."""
    return [round(float(row[0, 0, 0])) - 1 for batch in contents(batches) for row in batch[0]]


def test_same_seed_and_epoch_give_the_same_batches():
    assert same(pose_training(seed=4, epoch=2), pose_training(seed=4, epoch=2))


@pytest.mark.parametrize("other", [{"seed": 5, "epoch": 2}, {"seed": 4, "epoch": 3}])
def test_other_seed_or_epoch_gives_other_batches(other):
    one, two = pose_training(range(5, 25), seed=4, epoch=2), pose_training(range(5, 25), **other)
    assert clip_numbers(one) != clip_numbers(two)


def test_variation_differs_between_epochs_even_of_the_same_clip():
    batches = pose_training(lengths=(6,), batch_size=1)
    first = batches[0][0].clone()
    batches.on_epoch_end()
    assert not np.array_equal(first, batches[0][0])


def test_setting_an_epoch_equals_living_through_the_epochs_before_it():
    lived, jumped = pose_training(), pose_training()
    for _ in range(3):
        contents(lived)
        lived.on_epoch_end()
    jumped.set_epoch(3)
    assert same(lived, jumped)


def test_reading_a_batch_twice_or_out_of_order_gives_the_same():
    batches = pose_training()
    last_first = [batches[i] for i in reversed(range(len(batches)))]
    for (poses, targets), (again, targets_again) in zip(contents(batches), reversed(last_first), strict=True):
        assert np.array_equal(poses, again)
        assert np.array_equal(targets, targets_again)


def test_every_clip_comes_exactly_once_in_each_epoch_with_its_own_label():
    labels = np.array([3, 1, 4, 1, 5, 9, 2])
    batches = pose_training(labels=labels)
    for epoch in range(3):
        batches.set_epoch(epoch)
        numbers = clip_numbers(batches)
        assert sorted(numbers) == list(range(7))
        targets = np.concatenate([batch[1] for batch in contents(batches)])
        assert np.array_equal(targets, np.eye(10, dtype=np.float32)[labels[numbers]])


def partners_of(batches, epochs=40):
    """By clip, the numbers of joints in its frames, which tell what clips they are from."""
    partners = {}
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        for number, rows in enumerate(batches.order):
            for row, poses in zip(rows, batches[number][0], strict=True):
                seen = poses[..., 2].sum(1)
                partners.setdefault(row, set()).update(seen[seen > 0].tolist())
    return partners


def clips_with_as_many_joints(count):
    """Clips that show by their joints which one they are: the first n + 1 of each hand."""
    clips = clips_of([9] * count)
    for number, clip in enumerate(clips):
        clip[:, number + 1 : 21] = clip[:, 21 + number + 1 :] = 0
    return clips


def test_a_clip_is_spliced_with_any_of_its_own_gloss_and_with_no_other():
    labels = np.array([0, 1, 0, 2, 1, 0, 2])
    clips, how = clips_with_as_many_joints(7), PoseAugment(splice=1)
    batches = PoseBatches(clips, labels, 3, 3, max_frames=250, vary=how, layout=HANDS)
    for clip, seen in partners_of(batches).items():
        whole = {2 * (other + 1) for other in np.flatnonzero(labels == labels[clip])}
        one_hand = {clip + 1 + joints // 2 for joints in whole}
        assert whole <= seen <= whole | one_hand


def test_without_labels_a_clip_is_varied_with_itself_and_no_targets_are_given():
    batches = PoseBatches(
        clips_with_as_many_joints(5), None, 10, 2, max_frames=250, vary=PoseAugment(splice=1), layout=HANDS
    )
    assert {len(batch) for batch in contents(batches)} == {1}
    assert partners_of(batches, 5) == {clip: {2 * clip + 2} for clip in range(5)}


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
        batches = pose_training(lengths=lengths, batch_size=4, epoch=epoch)
        assert sorted(batch[0].shape[1] for batch in contents(batches)) == [16, 16, 104, 104]


@settings(max_examples=60)
@given(**ANY_BATCH, batch_size=st.integers(1, 5), train=st.booleans())
def test_batches_of_any_lengths_are_complete_and_padded_with_missing_frames_only_as_far_as_needed(
    lengths, batch_size, max_frames, pad_to, train
):
    batches = PoseBatches(
        clips_of(lengths), np.zeros(len(lengths), int), 2, batch_size,
        max_frames=max_frames, pad_to=pad_to, vary=PoseAugment() if train else None, layout=HANDS,
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
    assert [batch[0].shape[1] for batch in contents(pose_training(lengths=(5, 8, 9, 17), batch_size=1, vary=None))] == [
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


# --- Stored clips --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Stored clips of 5 to 12 frames; the brightness of a frame says its clip and number."""
    tmp_path = tmp_path_factory.mktemp("store")
    videos = {f"v{i}": encode_video(tmp_path / f"v{i}.mp4", numbered_images(5 + i, first=3 * i)) for i in range(8)}
    build_clips(index_of_videos(**videos), tmp_path / "clips", size=64, workers=1)
    return [clip_path(tmp_path / "clips", name) for name in videos]


def clip_training(paths, **options):
    options = {"frames": 4, "size": 32, "vary": VARY, **options}
    return ClipBatches(paths, np.arange(len(paths)) % 3, 3, 3, **options)


def test_evaluation_gives_every_clip_in_order_with_its_middle_frames(store):
    batches = ClipBatches(store, np.arange(8), 8, 3, frames=2, size=32)
    assert [len(clips) for clips, _ in contents(batches)] == [3, 3, 2]
    clips, labels = (np.concatenate(part) for part in zip(*contents(batches), strict=True))
    assert clips.dtype == labels.dtype == np.float32
    assert clips.shape == (8, 2, 32, 32, 3)
    assert np.array_equal(labels, np.eye(8))
    frames = [numbers_of(255 * clip) for clip in clips]
    assert frames == [[3 * i + (5 + i) // 4, 3 * i + 3 * (5 + i) // 4] for i in range(8)]


def test_values_lie_between_0_and_1_and_are_varied_in_training_alone(store):
    varied, plain = clip_training(store), clip_training(store, vary=None)
    assert all(clips.min() >= 0 and clips.max() <= 1 for clips, _ in contents(varied))
    plain.set_epoch(5)
    assert same(plain, clip_training(store, vary=None))


def test_same_seed_and_epoch_give_the_same_clips(store):
    assert same(clip_training(store, seed=4, epoch=2), clip_training(store, seed=4, epoch=2, threads=1))
    assert not same(clip_training(store, seed=4, epoch=2), clip_training(store, seed=5, epoch=2))
    assert not same(clip_training(store, seed=4, epoch=2), clip_training(store, seed=4, epoch=3))


def test_setting_an_epoch_of_clips_equals_living_through_the_epochs_before_it(store):
    lived, jumped = clip_training(store), clip_training(store)
    for _ in range(3):
        contents(lived)
        lived.on_epoch_end()
    jumped.set_epoch(3)
    assert same(lived, jumped)


def test_batches_read_in_any_order_and_again_are_the_same(store):
    batches = clip_training(store)
    first = {number: batches[number] for number in (2, 0, 1, 1, 0)}
    for number, (clips, labels) in first.items():
        assert np.array_equal(clips, batches[number][0])
        assert np.array_equal(labels, batches[number][1])


def test_every_stored_clip_comes_once_in_each_epoch_with_its_own_label(store):
    batches = clip_training(store, vary=ClipAugment(crop=0.2), frames=1)
    middles = [3 * i + (5 + i) // 2 for i in range(8)]
    for epoch in range(3):
        batches.set_epoch(epoch)
        seen = []
        for clips, labels in contents(batches):
            rows = [middles.index(number) for number in numbers_of(255 * clips[:, 0])]
            assert [row % 3 for row in rows] == labels.argmax(1).tolist()
            seen += rows
        assert sorted(seen) == list(range(8))


def test_without_labels_there_are_no_targets_and_without_clips_no_batches(store):
    assert [len(batch) for batch in contents(ClipBatches(store, None, 3, 4, frames=2, size=16))] == [1, 1]
    with pytest.raises(ValueError, match="no clips"):
        ClipBatches([], None, 3, 4)


def test_no_more_batches_are_begun_than_are_needed_next(store):
    batches = clip_training(store)
    for number in range(len(batches)):
        batches[number]
        assert set(batches.begun) <= {(0, number + 1), (0, number + 2)}


def test_a_batch_stays_as_it_is_while_later_ones_are_read(store):
    batches = clip_training(store)
    kept = [batches[number][0][1, ..., :2] for number in range(3)]  # parts of the batches
    before = [part.copy() for part in kept]
    for _ in range(2):
        batches.on_epoch_end()
        contents(batches)
    assert all(np.array_equal(*pair) for pair in zip(kept, before, strict=True))


def test_a_clip_that_cannot_be_read_stops_the_training_with_its_name(store):
    batches = clip_training([*store, Path("nowhere.mjpeg")], vary=None)
    with pytest.raises(StudyError, match=r"nowhere.mjpeg: cannot be read"):
        contents(batches)


def test_fit_sees_the_batches_of_each_epoch_once(store):
    seen = []

    class Recorder(ClipBatches):
        """Notes which batches are read in which epoch."""

        def __getitem__(self, number):
            seen.append((self.epoch, number))
            return super().__getitem__(number)

    layers = [keras.layers.Input((2, 16, 16, 3)), keras.layers.Flatten(), keras.layers.Dense(3)]
    model = keras.Sequential(layers)
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    batches = Recorder(store, np.arange(8) % 3, 3, 3, frames=2, size=16, vary=VARY)
    follow = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: batches.set_epoch(epoch))
    model.fit(batches, epochs=2, shuffle=False, verbose=0, callbacks=[follow])  # as lib.training does
    assert seen[-6:] == [(epoch, number) for epoch in range(2) for number in range(3)]
