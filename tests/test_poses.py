import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lib.data.hands import drop_twins, order_hands, right_handed
from lib.data.layouts import LAYOUTS
from lib.data.poses import PoseStore, build_poses, missing_joints, read_hands, read_openpose
from lib.figures.poses import presence_over_time, skeleton_strip
from lib.study import StudyError

OPENPOSE, HANDS = LAYOUTS["openpose-54"], LAYOUTS["hands-42"]
BODY_NUMBERS = [*range(8), *range(15, 19)]
KEYS = {"pose_keypoints_2d": 25, "hand_left_keypoints_2d": 21, "hand_right_keypoints_2d": 21}
in_one_folder = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def person(at=(100.0, 100.0), size=50.0, seed=0):
    """One person whose joints fill the square of half-width `size` around `at`, all present."""
    rng = np.random.default_rng(seed)
    lists = {}
    for key, joints in KEYS.items():
        xy = np.asarray(at) + rng.uniform(-size, size, (joints, 2))
        xy[0], xy[1] = np.asarray(at) - size, np.asarray(at) + size
        lists[key] = np.column_stack([xy, np.full(joints, 0.9)]).ravel().tolist()
    return lists


def write_frames(folder, frames, name="image_{:05d}_keypoints.json"):
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for number, people in frames.items():
        (folder / name.format(number)).write_text(json.dumps({"version": 1.3, "people": people}))
    return folder


def in_layout(one):
    """A person's lists as the reader should give them."""
    body, left, right = (np.reshape(one[key], (-1, 3)) for key in KEYS)
    joints = np.concatenate([body[BODY_NUMBERS], left, right])
    present = joints[:, 2:] > 0
    return np.concatenate([joints[:, :2] * present, present], 1).astype(np.float32)


number = st.floats(-1e4, 1e4, width=32)
confidence = st.just(0.0) | st.floats(2**-10, 1.0, width=32)
joint = st.tuples(number, number, confidence)
people = st.fixed_dictionaries(
    {key: st.lists(joint, min_size=n, max_size=n).map(lambda js: [v for j in js for v in j])
     for key, n in KEYS.items()}
)  # fmt: skip


# --- OpenPose ------------------------------------------------------------------------------------------------


@in_one_folder
@given(one=people)
def test_any_person_is_read_joint_by_joint(tmp_path, one):
    poses = read_openpose(write_frames(tmp_path / "clip", {1: [one]}), OPENPOSE)
    np.testing.assert_array_equal(poses, in_layout(one)[None])
    assert poses.dtype == np.float32


@in_one_folder
@given(several=st.lists(people, max_size=3))
def test_one_of_the_people_is_kept_whole_or_the_frame_is_missing(tmp_path, several):
    pose = read_openpose(write_frames(tmp_path / "clip", {1: several}), OPENPOSE)[0]
    choices = [in_layout(one) for one in several] + [np.zeros((54, 3))]
    assert any(np.array_equal(pose, choice) for choice in choices)
    if any(choice[:, 2].any() for choice in choices):
        assert pose[:, 2].any()


def test_frames_are_sorted_by_number_and_not_by_name(tmp_path):
    frames = {n: [person(at=(n, 0.0), size=0.0)] for n in range(1, 13)}
    poses = read_openpose(write_frames(tmp_path / "clip", frames, "image_{}_keypoints.json"), OPENPOSE)
    np.testing.assert_array_equal(poses[:, 0, 0], np.arange(1, 13))


def test_a_gap_in_the_numbers_is_frames_without_joints(tmp_path):
    poses = read_openpose(write_frames(tmp_path / "clip", {2: [person()], 5: [person()]}), OPENPOSE)
    assert poses[..., 2].all(1).tolist() == [False, True, False, False, True]
    assert not poses[[0, 2, 3]].any()


def test_numbers_may_start_at_0(tmp_path):
    frames = {0: [person()], 1: []}
    poses = read_openpose(write_frames(tmp_path / "clip", frames, "clip_{:012d}_keypoints.json"), OPENPOSE)
    assert poses[..., 2].any(1).tolist() == [True, False]


def test_nobody_in_the_frame_is_missing_everywhere(tmp_path):
    poses = read_openpose(write_frames(tmp_path / "clip", {1: [], 2: []}), OPENPOSE)
    assert poses.shape == (2, 54, 3)
    assert not poses.any()


def test_a_hand_that_is_not_listed_is_missing_and_the_rest_stays(tmp_path):
    one = person() | {"hand_left_keypoints_2d": []}
    pose = read_openpose(write_frames(tmp_path / "clip", {1: [one]}), OPENPOSE)[0]
    assert not pose[OPENPOSE.parts["left"]].any()
    assert pose[OPENPOSE.parts["right"], 2].all()
    assert pose[OPENPOSE.parts["body"], 2].all()


def test_hands_alone_can_be_read_from_openpose(tmp_path):
    folder = write_frames(tmp_path / "clip", {1: [person()]})
    np.testing.assert_array_equal(read_openpose(folder, HANDS), read_openpose(folder, OPENPOSE)[:, 12:])


@pytest.mark.parametrize("order", [1, -1])
def test_the_signer_is_the_largest_person(tmp_path, order):
    small, large = person(at=(100.0, 100.0), size=20.0), person(at=(300.0, 100.0), size=60.0)
    poses = read_openpose(write_frames(tmp_path / "clip", {1: [small, large][::order]}), OPENPOSE)
    np.testing.assert_array_equal(poses[0], in_layout(large))


def test_two_people_of_similar_size_do_not_take_turns(tmp_path):
    signer, other = (100.0, 100.0), (400.0, 100.0)
    frames = {n: [person(other, 48.0), person(signer, 50.0)] for n in range(1, 8)}
    frames[4] = [person(other, 52.0), person(signer, 46.0)]  # for once the other one is larger
    poses = read_openpose(write_frames(tmp_path / "clip", frames), OPENPOSE)
    assert (poses[..., 0] < 200).all()


broken = [
    ('{"people": [', "JSONDecodeError"),
    ("", "JSONDecodeError"),
    ("[1, 2]", "TypeError"),
    ('{"persons": []}', "people"),
    ('{"people": [{}]}', "pose_keypoints_2d"),
    ('{"people": 3}', "TypeError"),
    (json.dumps({"people": [person() | {"pose_keypoints_2d": [1.0] * 54}]}), "54 values, expected 75"),
    (json.dumps({"people": [person() | {"hand_right_keypoints_2d": [1.0] * 62}]}), "62 values, expected 63"),
    (json.dumps({"people": [person() | {"hand_left_keypoints_2d": ["a"] * 63}]}), "ValueError"),
    (json.dumps({"people": [person() | {"hand_left_keypoints_2d": [float("nan")] * 63}]}), "finite"),
    (json.dumps({"people": [person() | {"hand_left_keypoints_2d": [10**400] * 63}]}), "OverflowError"),
]


@pytest.mark.parametrize(("text", "reason"), broken, ids=[reason for _, reason in broken])
def test_a_broken_file_is_an_error_that_names_it(tmp_path, text, reason):
    folder = write_frames(tmp_path / "clip", {1: [person()], 2: [person()]})
    (folder / "image_00002_keypoints.json").write_text(text)
    with pytest.raises(StudyError, match=r"image_00002_keypoints\.json: .*" + reason):
        read_openpose(folder, OPENPOSE)


@in_one_folder
@given(content=st.binary(max_size=60), key=st.sampled_from(list(KEYS)), length=st.integers(1, 100))
def test_any_wrong_content_or_length_is_a_study_error(tmp_path, content, key, length):
    folder = write_frames(tmp_path / "clip", {1: [person()]})
    (folder / "image_00002_keypoints.json").write_bytes(content)
    with pytest.raises(StudyError, match="image_00002"):
        read_openpose(folder, OPENPOSE)
    if length != 3 * KEYS[key]:
        folder = write_frames(folder, {7: [person() | {key: [0.5] * length}]})
        with pytest.raises(StudyError, match=f"image_00007.*{length} values"):
            read_openpose(folder, OPENPOSE)


@pytest.mark.parametrize("name", ["image_keypoints.json", "image_999999999999_keypoints.json"])
def test_a_file_without_a_sensible_frame_number_is_named(tmp_path, name):
    folder = write_frames(tmp_path / "clip", {1: [person()]})
    (folder / name).write_text('{"people": []}')
    with pytest.raises(StudyError, match=name):
        read_openpose(folder, OPENPOSE)


def test_a_frame_that_is_there_twice_is_an_error(tmp_path):
    folder = write_frames(tmp_path / "clip", {1: [person()]})
    (folder / "image_1_keypoints.json").write_text('{"people": []}')
    with pytest.raises(StudyError, match="frame 1 is there twice"):
        read_openpose(folder, OPENPOSE)


def test_a_folder_without_keypoints_is_named(tmp_path):
    with pytest.raises(StudyError, match=str(tmp_path)):
        read_openpose(tmp_path, OPENPOSE)


# --- MediaPipe hands -----------------------------------------------------------------------------------------

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


@settings(max_examples=200, deadline=None)
@given(drawn=hand_slots)
def test_the_order_of_the_slots_in_any_frame_changes_nothing(drawn):
    landmarks, missing, swap = drawn
    landmarks[missing] = -1
    np.testing.assert_array_equal(order_hands(landmarks), order_hands(swapped(landmarks, swap)))


@settings(max_examples=200, deadline=None)
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
    assert (drop_twins(landmarks) != -1).all((2, 3)).tolist() == [[True, False]]
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
    assert right_handed(right) > 0.2
    assert right_handed(left) == pytest.approx(-right_handed(right))


def test_read_hands_takes_an_archive_or_its_path(tmp_path):
    landmarks = clip_of([(0.7, 0.5)] * 2, [(0.3, 0.5)] * 2).astype(np.float16)
    np.savez(tmp_path / "hands.npz", a=landmarks)
    poses = read_hands({"a": landmarks}, "a")
    np.testing.assert_array_equal(read_hands(tmp_path / "hands.npz", "a"), poses)
    np.testing.assert_array_equal(poses[0, 0, :2], landmarks[0, 0, 0, :2])


@pytest.mark.parametrize("wrong", [np.zeros((3, 21, 3)), np.zeros((3, 2, 20, 3)), np.full((1, 2, 21, 3), np.nan)])
def test_landmarks_of_another_form_are_an_error_that_names_the_clip(wrong):
    with pytest.raises(StudyError, match="clip 00042"):
        read_hands({"00042": wrong}, "00042")


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


# --- The store -----------------------------------------------------------------------------------------------


def test_the_store_gives_back_what_was_saved(tmp_path):
    rng = np.random.default_rng(0)
    poses = [rng.random((length, 42, 3)).astype(np.float32) for length in (3, 1, 7)]
    PoseStore(np.array(["a", "bb", "c"]), poses).save(tmp_path / "new" / "poses.npz")
    store = PoseStore.load(tmp_path / "new" / "poses.npz")
    assert store.video_id.tolist() == ["a", "bb", "c"]
    assert len(store.poses) == 3
    for read, saved in zip(store.poses, poses, strict=True):
        np.testing.assert_array_equal(read, saved)


def test_a_store_that_is_not_there_says_what_makes_it(tmp_path):
    with pytest.raises(StudyError, match="03_poses"):
        PoseStore.load(tmp_path / "poses.npz")


def index_of(*rows):
    return pd.DataFrame(rows, columns=["video_id", "status", "frame_start", "frame_end"])


def test_present_clips_are_stored_in_index_order_and_cut_to_their_sign(tmp_path):
    for video in ("b", "a", "c"):
        (tmp_path / "keypoints").mkdir(exist_ok=True)
        frames = {n: [person(at=(n, 0.0), size=0.0)] for n in range(1, 7)}
        write_frames(tmp_path / "keypoints" / video, frames)
    study = SimpleNamespace(name="own", root=tmp_path, layout="openpose-54")
    index = index_of(("b", "present", 2, 5), ("c", "missing", 0, 6), ("a", "present", 1, -1))
    store = build_poses(study, index)
    assert store.video_id.tolist() == ["b", "a"]
    assert [clip[:, 0, 0].tolist() for clip in store.poses] == [[3, 4, 5], [2, 3, 4, 5, 6]]


def test_hands_are_found_in_any_archive_of_the_data_root(tmp_path):
    (tmp_path / "hands").mkdir()
    for video, x in (("a", 0.2), ("b", 0.4)):
        np.savez(tmp_path / "hands" / f"{video}.npz", **{video: clip_of([None] * 3, [(x, 0.5)] * 3)})
    study = SimpleNamespace(name="own", root=tmp_path, layout="hands-42")
    store = build_poses(study, index_of(("b", "present", 0, 2), ("a", "present", 0, 3)))
    assert [len(clip) for clip in store.poses] == [2, 3]
    assert [np.nanmax(places(clip)) for clip in store.poses] == pytest.approx(
        [0.4 + SHAPE[:, 0].mean(), 0.2 + SHAPE[:, 0].mean()], abs=1e-6
    )


def test_a_sign_outside_the_clip_is_an_error_that_names_it(tmp_path):
    write_frames(tmp_path / "keypoints", {})
    write_frames(tmp_path / "keypoints" / "a", {1: [person()]})
    study = SimpleNamespace(name="own", root=tmp_path, layout="openpose-54")
    with pytest.raises(StudyError, match="clip a: frames 4 to 9"):
        build_poses(study, index_of(("a", "present", 4, 9)))


def test_a_study_without_any_clip_is_an_error(tmp_path):
    study = SimpleNamespace(name="own", root=tmp_path, layout="hands-42")
    with pytest.raises(StudyError, match="own"):
        build_poses(study, index_of(("a", "missing", 0, 3)))


def test_missing_joints_are_counted_by_part():
    half = np.zeros((4, 42, 3), np.float32)
    half[:2, HANDS.parts["right"], 2] = 1
    full = np.ones((4, 42, 3), np.float32)
    table = missing_joints([half, full], HANDS)
    assert table.loc["left"].tolist() == [0.5, 0.5, 0.5]
    assert table.loc["right"].tolist() == [0.25, 0.25, 0.0]
    assert table.loc["all"].tolist() == [0.375, 0.25, 0.0]


# --- Figures -------------------------------------------------------------------------------------------------


def clip_with_a_body():
    clip = np.ones((10, 54, 3), np.float32)
    clip[..., :2] = np.random.default_rng(0).uniform(0, 100, (10, 54, 2))
    clip[:2] = 0
    clip[5, OPENPOSE.parts["left"]] = 0
    return clip


def test_the_strip_runs_from_the_first_frame_with_joints_to_the_last():
    figure = skeleton_strip(clip_with_a_body(), OPENPOSE, count=8)
    assert [axis.get_title("left") for axis in figure.axes] == [f"frame {n}" for n in range(2, 10)]


def test_the_strip_draws_only_bones_whose_two_ends_are_present():
    figure = skeleton_strip(clip_with_a_body(), OPENPOSE, count=8)
    bones = [len(axis.collections[0].get_segments()) for axis in figure.axes]
    assert bones == [53, 53, 53, 53 - 21, 53, 53, 53, 53]  # a lost hand loses its bones and that to the arm


def test_the_strip_has_y_growing_downwards():
    bottom, top = skeleton_strip(clip_with_a_body(), OPENPOSE).axes[0].get_ylim()
    assert bottom > top


def test_a_clip_without_joints_cannot_be_drawn():
    with pytest.raises(ValueError, match="no joints"):
        skeleton_strip(np.zeros((3, 42, 3)), HANDS)


def test_presence_is_the_share_of_clips_at_each_moment():
    early, always = np.zeros((10, 42, 3)), np.ones((4, 42, 3))
    early[:5, HANDS.parts["right"], 2] = 1
    lines = {line.get_label(): line.get_ydata() for line in presence_over_time([early, always], HANDS).axes[0].lines}
    np.testing.assert_array_equal(lines["left"], np.full(40, 0.5))
    np.testing.assert_array_equal(lines["right"], np.repeat([1.0, 0.5], 20))
