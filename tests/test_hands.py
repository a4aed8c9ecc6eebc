"""MediaPipe hands: which hand is which, and reading them from an archive."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lib.data.find import locate
from lib.data.hands import _right_handed, order_hands
from lib.data.poses import read_hands, read_landmarks
from lib.settings import StudyError

SHAPE = np.random.default_rng(3).uniform(-0.05, 0.05, (21, 3))  # of a hand, the same in all frames


def clip_of(left, right):
    """Landmarks (frames, 2, 21, 3) from the places (x, y) or None of the left and the right hand per frame."""
    landmarks = np.full((len(left), 2, 21, 3), -1.0, np.float32)
    for frame, places in enumerate(zip(left, right, strict=True)):
        for slot, place in enumerate(places):
            if place is not None:
                landmarks[frame, slot] = SHAPE + np.array([*place, 0])
    return landmarks


def places(poses):
    """Mean x of the left and of the right hand per frame; NaN where missing."""
    hands = poses.reshape(len(poses), 2, 21, 3)
    return np.where(hands[:, :, 0, 2] > 0, hands[..., 0].mean(-1), np.nan)


def swapped(landmarks, where):
    """The same landmarks with the two slots exchanged in the frames `where`."""
    landmarks = landmarks.copy()
    landmarks[where] = landmarks[where, ::-1]
    return landmarks


coordinate = st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(-0.0625, 1.125, width=16)
hand_slots = st.integers(1, 8).flatmap(
    lambda n: st.tuples(arrays(np.float32, (n, 2, 21, 3), elements=coordinate, fill=coordinate),
                        arrays(bool, (n, 2)), arrays(bool, n))
)  # fmt: skip


@settings(max_examples=200)
@given(drawn=hand_slots)
def test_the_order_of_the_slots_in_any_frame_changes_nothing(drawn):
    landmarks, missing, swap = drawn
    landmarks[missing] = -1
    np.testing.assert_array_equal(order_hands(landmarks), order_hands(swapped(landmarks, swap)))


@settings(max_examples=200)
@given(drawn=hand_slots)
def test_missing_is_a_mask_and_never_a_coordinate(drawn):
    landmarks, missing, _ = drawn
    landmarks[missing] = -1
    poses = order_hands(landmarks)
    assert set(np.unique(poses[..., 2])) <= {0, 1}
    assert not poses[poses[..., 2] == 0].any()
    assert (poses[..., :2] != -1).all()
    np.testing.assert_array_equal(poses[..., 2].any(1), (~missing).any(1))  # no hand is lost or made up


def test_two_hands_go_to_the_side_where_they_are_in_the_image():
    poses = order_hands(clip_of(left=[(0.7, 0.5)] * 5, right=[(0.3, 0.5)] * 5))
    np.testing.assert_allclose(places(poses), [[0.7 + SHAPE[:, 0].mean(), 0.3 + SHAPE[:, 0].mean()]] * 5)


def test_hands_keep_their_slots_while_they_cross():
    x = np.linspace(0.25, 0.65, 21)  # the right hand crosses over for a moment, below the left one
    x = np.concatenate([x, x[::-1]])
    landmarks = clip_of(left=[(0.6, 0.3)] * 42, right=[(each, 0.7) for each in x])
    swap = np.random.default_rng(0).random(42) < 0.5
    found = places(order_hands(swapped(landmarks, swap)))
    np.testing.assert_allclose(found[:, 0], 0.6 + SHAPE[:, 0].mean(), atol=1e-6)
    np.testing.assert_allclose(found[:, 1], x + SHAPE[:, 0].mean(), atol=1e-6)


def test_a_hand_keeps_its_slot_while_the_other_is_not_seen():
    left = [(0.7, 0.5)] * 3 + [None] * 6 + [(0.7, 0.5)] * 3
    right = [(0.3 + 0.025 * i, 0.4) for i in range(12)]  # ends beyond the middle of the image
    found = places(order_hands(clip_of(left, right)))
    assert not np.isnan(found[:, 1]).any()
    assert np.isnan(found[3:9, 0]).all()


def test_the_whole_clip_decides_which_hand_a_lone_hand_is():
    x = [0.2] * 10 + [0.3, 0.4, 0.5] + [0.6] * 6  # a right hand that ends on the left hand's side
    found = places(order_hands(clip_of([None] * 19, [(each, 0.5) for each in x])))
    assert np.isnan(found[:, 0]).all()
    assert not np.isnan(found[:, 1]).any()


def test_frames_without_hands_stay_in_their_place():
    right = [None, (0.3, 0.5), None, None, (0.3, 0.5), None]
    poses = order_hands(clip_of([None] * 6, right))
    assert poses[..., 2].any(1).tolist() == [False, True, False, False, True, False]


def test_a_clip_without_any_hand_is_all_missing():
    poses = order_hands(np.full((4, 2, 21, 3), -1.0))
    assert poses.shape == (4, 42, 3)
    assert not poses.any()


def test_a_hand_that_is_found_twice_is_kept_once():
    landmarks = clip_of([(0.4, 0.5)], [(0.401, 0.5)])
    assert order_hands(landmarks)[0, :, 2].sum() == 21


def test_hands_that_touch_are_both_kept():
    landmarks = clip_of([(0.45, 0.5)], [(0.4, 0.5)])
    assert order_hands(landmarks)[0, :, 2].all()


def test_curl_tells_right_from_left():
    """Palm to the camera, fingers up: the right hand's thumb is at the image's right, and tips come nearer."""
    right = np.zeros((21, 3))
    for finger, x in zip((5, 9, 13, 17), (0.03, 0.01, -0.01, -0.03), strict=True):
        right[finger : finger + 4, 0] = x
        right[finger : finger + 4, 1] = [-0.1, -0.15, -0.18, -0.16]
        right[finger : finger + 4, 2] = [0, -0.01, -0.03, -0.05]
    left = right * [-1, 1, 1]
    assert _right_handed(right) > 0.2
    assert _right_handed(left) == pytest.approx(-_right_handed(right))


def test_hands_are_read_from_an_archive(tmp_path):
    landmarks = clip_of([(0.7, 0.5)] * 2, [(0.3, 0.5)] * 2).astype(np.float16)
    np.savez(tmp_path / "hands.npz", a=landmarks)
    poses = read_hands({"a": landmarks}, "a")
    with np.load(tmp_path / "hands.npz") as archive:
        np.testing.assert_array_equal(read_hands(archive, "a"), poses)
    np.testing.assert_array_equal(poses[0, 0, :2], landmarks[0, 0, 0, :2])


@pytest.mark.parametrize(
    "wrong", [np.zeros((3, 21, 3)), np.zeros((3, 2, 20, 3)), np.zeros((0, 2, 21, 3)), np.full((1, 2, 21, 3), "a")]
)
def test_landmarks_of_another_form_are_an_error_that_names_the_clip(wrong):
    with pytest.raises(StudyError, match="clip 00042"):
        read_hands({"00042": wrong}, "00042")


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_hand_with_a_joint_that_is_nowhere_is_missing_and_the_other_stays(wrong):
    landmarks = clip_of(left=[(0.7, 0.5)] * 3, right=[(0.3, 0.5)] * 3)
    plain = order_hands(landmarks)
    landmarks[1, 0, 7, 1] = wrong
    poses = read_hands({"a": landmarks}, "a")
    np.testing.assert_array_equal(poses[[0, 2]], plain[[0, 2]])
    np.testing.assert_array_equal(poses[1, 21:], plain[1, 21:])
    assert not poses[1, :21].any()


def test_depth_that_is_nowhere_costs_no_hand():
    landmarks = clip_of(left=[(0.7, 0.5)] * 2, right=[(0.3, 0.5)] * 2)
    plain = order_hands(landmarks)
    landmarks[..., 2] = np.nan
    np.testing.assert_array_equal(order_hands(landmarks), plain)


any_value = coordinate | st.just(-1.0) | st.floats(width=32)
any_landmarks = st.integers(1, 5).flatmap(
    lambda n: arrays(np.float32, (n, 2, 21, 3), elements=any_value, fill=coordinate)
)


@settings(max_examples=150)
@given(landmarks=any_landmarks)
def test_any_numbers_give_poses_that_are_finite(landmarks):
    before = landmarks.copy()
    poses = order_hands(landmarks)
    assert np.isfinite(poses).all()
    assert set(np.unique(poses[..., 2])) <= {0, 1}
    np.testing.assert_array_equal(landmarks, before)


@settings(max_examples=150)
@given(data=st.data())
def test_an_archive_with_any_bytes_changed_gives_a_clip_or_a_one_line_error(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("hands")
    (root / "hands").mkdir()
    path = root / "hands" / "h.npz"
    np.savez(path, a=clip_of([(0.7, 0.5)], [None]), b=clip_of([(0.7, 0.5)], [None]))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, 300) | st.integers(0, len(content) - 1))
        content[where] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))])
    shapes, message = {(1, 42, 3)}, "one line"
    try:
        found, _ = locate(root, "hands", ["a", "b"])
        shapes = {read_hands(places[0].archive, places[0].name).shape for places in found.values()}
    except StudyError as error:
        message = str(error)
    assert all(shape[1:] == (42, 3) for shape in shapes)
    assert len(message.splitlines()) == 1


def test_a_clip_that_the_archive_lacks_is_named():
    with pytest.raises(StudyError, match="clip 00042"):
        read_hands({}, "00042")


def test_real_hands_keep_one_side_in_the_image(wlasl_root):
    with np.load(next((wlasl_root / "hands").glob("*.npz"))) as archive:
        found = np.concatenate([places(read_hands(archive, video)) for video in archive.files[::40]])
    assert np.nanmean(found[:, 0]) > 0.55  # the signer's left hand, at the right of the image
    assert np.nanmean(found[:, 1]) < 0.45
    both = found[~np.isnan(found).any(1)]
    assert (both[:, 0] > both[:, 1]).mean() > 0.9


def test_threads_read_an_archive_one_at_a_time():
    """numpy's parser of headers is not safe in CPython 3.11; see lib.machine.PARSING."""

    class Archive(dict):
        inside = most = 0

        def __getitem__(self, video_id):
            self.inside += 1
            self.most = max(self.most, self.inside)
            time.sleep(0.002)
            self.inside -= 1
            return np.zeros((3, 2, 21, 3))

    archive = Archive()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: read_landmarks(archive, str(number)), range(20)))
    assert archive.most == 1
