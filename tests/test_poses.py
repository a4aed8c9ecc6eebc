import json
import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.data.layouts import LAYOUTS
from lib.data.poses import PoseStore, build_poses, missing_joints, read_openpose
from lib.settings import StudyError

OPENPOSE, HANDS = LAYOUTS["openpose-54"], LAYOUTS["hands-42"]
BODY_NUMBERS = [*range(8), *range(15, 19)]
KEYS = {"pose_keypoints_2d": 25, "hand_left_keypoints_2d": 21, "hand_right_keypoints_2d": 21}
in_one_folder = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


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


def test_a_small_bystander_where_the_signer_usually_is_is_not_the_signer(tmp_path):
    frames = {n: [person((100.0, 100.0), 60.0)] for n in range(1, 6)}
    moved = person((200.0, 100.0), 60.0)
    frames[6] = [person((100.0, 100.0), 20.0), moved]
    poses = read_openpose(write_frames(tmp_path / "clip", frames), OPENPOSE)
    np.testing.assert_array_equal(poses[5], in_layout(moved))


COCO = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "right_eye", "left_eye", "right_ear", "left_ear",
)  # fmt: skip


@pytest.mark.parametrize("suffix", ["", "_2d"])
@pytest.mark.parametrize("coco", [True, False])
@pytest.mark.parametrize("hands", ["with", "empty", "absent"])
@pytest.mark.parametrize("layout", [OPENPOSE, HANDS])
def test_files_of_any_version_and_model_give_the_joints_of_the_layout_by_name(tmp_path, suffix, coco, hands, layout):
    one = person()
    names = {n: joint for n, joint in zip(BODY_NUMBERS, OPENPOSE.joints[:12], strict=True)}
    if coco:  # BODY_25's joints in COCO's order; the legs, which no layout has, are 1s
        body = {names[n]: one["pose_keypoints_2d"][3 * n : 3 * n + 3] for n in names}
        one["pose_keypoints_2d"] = [v for name in COCO for v in body.get(name, [1.0] * 3)]
    lists = {key.removesuffix("_2d") + suffix: values for key, values in one.items()}
    if hands != "with":
        lists = {key: values if "pose" in key else [] for key, values in lists.items()}
    if hands == "absent":
        lists = {key: values for key, values in lists.items() if "pose" in key}
    people = [lists | {"face_keypoints" + suffix: [0.5] * 210, "pose_keypoints_3d": [], "person_id": [-1]}]
    expected = in_layout(person())
    if hands != "with":
        expected[12:] = 0
    pose = read_openpose(write_frames(tmp_path / "clip", {1: people}), layout)[0]
    np.testing.assert_array_equal(pose, expected[-len(layout.joints) :])


def test_a_file_of_an_unknown_form_names_its_version(tmp_path):
    folder = write_frames(tmp_path / "clip", {1: [person()]})
    (folder / "image_00001_keypoints.json").write_text('{"version": 0.1, "bodies": [{"joints": [1, 2, 3]}]}')
    with pytest.raises(StudyError, match=r"no OpenPose keypoints \(version 0.1, KeyError: 'people'\)"):
        read_openpose(folder, OPENPOSE)
    with pytest.raises(StudyError, match=r"version 1.3, ValueError: a person without pose_keypoints_2d"):
        read_openpose(write_frames(folder, {1: [{"pose_keypoints_3d": [0.0] * 100}]}), OPENPOSE)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("value", range(3))
def test_a_joint_that_is_nowhere_is_missing_and_the_rest_stays(tmp_path, wrong, value):
    one = person()
    one["hand_left_keypoints_2d"][6 + value] = wrong
    expected = in_layout(person())
    expected[OPENPOSE.joints.index("left_thumb_2")] = 0
    pose = read_openpose(write_frames(tmp_path / "clip", {1: [one]}), OPENPOSE)[0]
    np.testing.assert_array_equal(pose, expected)


def test_files_that_systems_leave_beside_keypoints_are_not_read(tmp_path):
    folder = write_frames(tmp_path / "clip", {1: [person()], 2: []})
    for name in ("._image_00001_keypoints.json", "._image_00002_keypoints.json", ".DS_Store", "Thumbs.db"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    assert len(read_openpose(folder, OPENPOSE)) == 2


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*KEYS, "people", "a"]), inner),
    max_leaves=5,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(whole=VALUES, people=VALUES, one=VALUES, part=VALUES, depth=st.integers(0, 3), key=st.sampled_from(list(KEYS)))
def test_any_json_is_poses_or_a_one_line_error_that_names_the_file(tmp_path, whole, people, one, part, depth, key):
    folder = write_frames(tmp_path / "clip", {1: [person()]})
    content = [whole, {"people": people}, {"people": [one]}, {"people": [person() | {key: part}]}][depth]
    (folder / "image_00002_keypoints.json").write_text(json.dumps(content))
    shape, message = (2, 54, 3), "image_00002_keypoints.json: in one line"
    try:
        shape = read_openpose(folder, OPENPOSE).shape
    except StudyError as error:
        message = str(error)
    assert shape == (2, 54, 3)
    assert "image_00002_keypoints.json: " in message
    assert len(message.splitlines()) == 1


broken = [
    ('{"people": [', "JSONDecodeError"),
    ("", "JSONDecodeError"),
    ("[1, 2]", "TypeError"),
    ('{"persons": []}', "people"),
    ('{"people": [{}]}', "pose_keypoints_2d"),
    ('{"people": 3}', "TypeError"),
    (json.dumps({"people": [person() | {"pose_keypoints_2d": [1.0] * 45}]}), "45 values, expected 75 or 54"),
    (json.dumps({"people": [person() | {"hand_right_keypoints_2d": [1.0] * 62}]}), "62 values, expected 63"),
    (json.dumps({"people": [person() | {"hand_left_keypoints_2d": ["a"] * 63}]}), "ValueError"),
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
    if length not in (3 * KEYS[key], 3 * 18):
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
    columns = ["video_id", "status", "frame_start", "frame_end", "n_frames"]
    return pd.DataFrame(rows, columns=columns[: len(rows[0])]).reindex(columns=columns).astype({"n_frames": "Int64"})


def test_present_clips_are_stored_in_index_order_and_cut_to_their_sign(tmp_path):
    for video in ("b", "a", "c"):
        (tmp_path / "keypoints").mkdir(exist_ok=True)
        frames = {n: [person(at=(n, 0.0), size=0.0)] for n in range(1, 7)}
        write_frames(tmp_path / "keypoints" / video, frames)
    study = SimpleNamespace(name="own", root=tmp_path, layout="openpose-54", pose_source="keypoints")
    index = index_of(("b", "present", 2, 5), ("c", "missing", 0, 6), ("a", "present", 1, -1))
    store, table = build_poses(study, index)
    assert store.video_id.tolist() == ["b", "a"]
    assert table.to_numpy().tolist() == [["b", "present", "", 3], ["a", "present", "", 5]]
    assert table.columns.tolist() == ["video_id", "status", "reason", "frames"]
    assert [clip[:, 0, 0].tolist() for clip in store.poses] == [[3, 4, 5], [2, 3, 4, 5, 6]]


@pytest.mark.parametrize(
    ("n_frames", "segment", "kept"),
    [
        (60, (0, 60), range(30)),  # half the rate: all of it
        (60, (20, 40), range(10, 20)),
        (60, (20, -1), range(10, 30)),
        (15, (5, 10), range(10, 20)),  # twice the rate
        (36, (12, 24), range(10, 20)),  # 25 and 30 frames a second
        (31, (10, 20), range(10, 19)),  # a frame less
        (60, (1, 2), range(0, 1)),  # never empty
        (60, (59, 60), range(29, 30)),
    ],
)
def test_segments_are_scaled_to_poses_of_another_rate_or_length_than_the_video(tmp_path, n_frames, segment, kept):
    folder = tmp_path / "keypoints"
    folder.mkdir()
    write_frames(folder / "a", {n: [person(at=(n, 0.0), size=0.0)] for n in range(30)})
    study = SimpleNamespace(name="own", root=tmp_path, layout="openpose-54", pose_source="keypoints")
    store, _ = build_poses(study, index_of(("a", "present", *segment, n_frames)))
    assert store.poses[0][:, 0, 0].tolist() == list(kept)


@pytest.mark.parametrize(("n_frames", "segment"), [(181, (20, 40)), (4, (2, 4)), (900, (0, 900))])
def test_part_of_a_video_that_the_poses_cannot_be_of_is_unreadable_with_the_reason(tmp_path, n_frames, segment):
    (tmp_path / "keypoints").mkdir()
    for name in "ab":
        write_frames(tmp_path / "keypoints" / name, {n: [person()] for n in range(30)})
    study = SimpleNamespace(name="own", root=tmp_path, layout="openpose-54", pose_source="keypoints")
    _, table = build_poses(study, index_of(("a", "present", *segment, n_frames), ("b", "present", 0, 30, 30)))
    assert table["status"].tolist() == ["unreadable", "present"]
    start, end = segment
    what, todo = f"the sign is frames {start} to {end} of {n_frames}", "make the poses again, from the same file"
    assert table["reason"][0] == f"{what}, the poses have 30; {todo}"


def test_clips_without_any_joint_are_stored_unless_there_is_no_other(tmp_path):
    (tmp_path / "keypoints").mkdir()
    write_frames(tmp_path / "keypoints" / "a", {1: [], 2: []})
    write_frames(tmp_path / "keypoints" / "b", {1: [person()]})
    study = SimpleNamespace(name="own", root=tmp_path, layout="openpose-54", pose_source="keypoints")
    store, table = build_poses(study, index_of(("a", "present", 0, 2), ("b", "present", 0, 1)))
    assert table["status"].tolist() == ["present", "present"]
    assert not store.poses[0].any()
    with pytest.raises(StudyError, match=r"no clip has poses under .*: all joints are missing"):
        build_poses(study, index_of(("a", "present", 0, 2)))


def test_poses_are_found_without_leading_zeros_and_in_folders_of_glosses(tmp_path):
    for place, at in (("book/00012", 3.0), ("13", 4.0)):
        (tmp_path / "keypoints" / place).parent.mkdir(parents=True, exist_ok=True)
        write_frames(tmp_path / "keypoints" / place, {1: [person(at=(at, 0.0), size=0.0)]})
    study = SimpleNamespace(name="own", root=tmp_path, layout="openpose-54", pose_source="keypoints")
    store, _ = build_poses(study, index_of(("00012", "present", 0, 1), ("00013", "present", 0, 1)))
    assert [clip[0, 0, 0] for clip in store.poses] == [3.0, 4.0]


def test_hands_are_found_in_any_archive_of_the_data_root(tmp_path):
    (tmp_path / "hands").mkdir()
    for video, x in (("a", 0.125), ("b", 0.25)):
        landmarks = np.full((3, 2, 21, 3), -1.0, np.float32)
        landmarks[:, 0] = x
        np.savez(tmp_path / "hands" / f"{video}.npz", **{video: landmarks})
    study = SimpleNamespace(name="own", root=tmp_path, layout="hands-42", pose_source="hands")
    store, _ = build_poses(study, index_of(("b", "present", 0, 2), ("a", "present", 0, 3)))
    assert [len(clip) for clip in store.poses] == [2, 3]
    assert [clip[..., 0].max() for clip in store.poses] == [0.25, 0.125]


def test_a_clip_that_cannot_be_read_is_a_row_with_its_reason_and_no_clip_of_the_store(tmp_path):
    for video in ("late", "good", "broken"):
        (tmp_path / "keypoints").mkdir(exist_ok=True)
        write_frames(tmp_path / "keypoints" / video, {1: [person()]})
    (tmp_path / "keypoints" / "broken" / "image_00001_keypoints.json").write_text("{")
    study = SimpleNamespace(name="own", root=tmp_path, layout="openpose-54", pose_source="keypoints")
    whole = ("present", 0, -1)
    index = index_of(("late", "present", 4, 9), ("absent", *whole), ("good", *whole), ("broken", *whole))
    store, table = build_poses(study, index)
    assert store.video_id.tolist() == ["good"]
    assert table["video_id"].tolist() == ["late", "absent", "good", "broken"]
    assert table["status"].tolist() == ["unreadable", "unreadable", "present", "unreadable"]
    assert table["frames"].tolist() == [0, 0, 1, 0]
    late, absent, good, broken = table["reason"]
    assert late == "the sign is frames 4 to 9 of 1, the poses have 1; make the poses again, from the same file"
    assert absent == "clip absent is no longer in keypoints; run the notebook 01_dataset again"
    assert good == ""
    assert broken.startswith(os.path.join("keypoints", "broken", "image_00001_keypoints.json") + ": no OpenPose")


def test_damaged_or_missing_hand_landmarks_cost_that_clip_alone(tmp_path):
    (tmp_path / "hands").mkdir()
    landmarks = {name: np.zeros((3, 2, 21, 3), np.float32) for name in ("good", "cut")}
    np.savez(tmp_path / "hands" / "a.npz", **landmarks, odd=np.zeros((3, 2, 20, 3), np.float32))
    content = bytearray((tmp_path / "hands" / "a.npz").read_bytes())
    at = content.index(b"cut.npy") + 300  # inside the array of the second clip
    content[at : at + 20] = b"\xff" * 20
    (tmp_path / "hands" / "a.npz").write_bytes(content)
    study = SimpleNamespace(name="own", root=tmp_path, layout="hands-42", pose_source="hands")
    names = ("absent", "odd", "cut", "good")
    store, table = build_poses(study, index_of(*((name, "present", 0, 3) for name in names)))
    assert store.video_id.tolist() == ["good"]
    assert table["status"].tolist() == ["unreadable"] * 3 + ["present"]
    assert table["reason"].str.contains("hand landmarks").tolist() == [False, True, True, False]


def test_a_study_without_any_clip_is_an_error(tmp_path):
    study = SimpleNamespace(name="own", root=tmp_path, layout="hands-42", pose_source="hands")
    with pytest.raises(StudyError, match="hands is missing"):
        build_poses(study, index_of(("a", "present", 0, 3)))
    (tmp_path / "hands").mkdir()
    np.savez(tmp_path / "hands" / "a.npz", b=np.zeros((3, 2, 21, 3)))
    with pytest.raises(StudyError, match="own"):
        build_poses(study, index_of(("a", "missing", 0, 3)))
    with pytest.raises(StudyError, match="clip a is no longer in hands"):
        build_poses(study, index_of(("a", "present", 0, 3)))


def test_missing_joints_are_counted_by_part():
    half = np.zeros((4, 42, 3), np.float32)
    half[:2, HANDS.parts["right"], 2] = 1
    full = np.ones((4, 42, 3), np.float32)
    table = missing_joints([half, full], HANDS)
    assert table.loc["left"].tolist() == [0.5, 0.5, 0.5]
    assert table.loc["right"].tolist() == [0.25, 0.25, 0.0]
    assert table.loc["all"].tolist() == [0.375, 0.25, 0.0]
