"""Poses from videos: a stand-in for MediaPipe's process, which says what it was given; and the real one where it is."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import poses
import pytest

from helpers import encode_video, numbered_images, stand_in
from lib.data.holistic import FORM, Holistic, find_poses, finders, read_found, to_layout
from lib.data.layouts import LAYOUTS
from lib.data.poses import build_poses, read_hands
from lib.data.sources import build_index
from lib.settings import StudyError
from lib.study import Study


@pytest.fixture
def starts(tmp_path, monkeypatch):
    """Put the stand-in in the place of uv. Returns a function that gives the arguments of each start so far."""
    log = stand_in(tmp_path, monkeypatch)
    return lambda: log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def holistic():
    process = Holistic()
    yield process
    process.close()


def video(path, count=3, first=0):
    return encode_video(path, numbered_images(count, first))


def flat(path, value, count=3):
    return encode_video(path, [np.full((96, 128, 3), value, np.uint8)] * count)


def study(root, sources, layout, subset=2):
    runs = [{"recipe": "spobet"}]
    fields = {"title": "t", "subset": subset, "split": "official", "runs": runs, "name": "t", "root": root}
    return Study(sources=sources, layout=layout, **fields)


def annotate(root, *ids):
    """The annotations of these clips: the first of one gloss, the others of another."""
    clips = [{"video_id": video_id, "split": "train", "frame_start": 1, "frame_end": -1, "fps": 25} for video_id in ids]
    glosses = [{"gloss": "book", "instances": clips[:1]}, {"gloss": "all", "instances": clips[1:]}]
    (root / "annotations").mkdir(parents=True)
    (root / "annotations" / "WLASL2.json").write_text(json.dumps(glosses))


def test_every_frame_is_seen_in_order_and_the_first_of_a_clip_says_so(tmp_path, starts, holistic):
    for name, first in (("a", 0), ("b", 7)):
        found = find_poses(video(tmp_path / f"{name}.mp4", 4, first), holistic)
        assert {part: found[part].shape for part in FORM} == {part: (4, *shape) for part, shape in FORM.items()}
        numbers = np.round((found["hands"][:, 0, 0, 0] - 40) / 5)
        assert numbers.tolist() == [first, first + 1, first + 2, first + 3]
        assert found["body"][:, 0, 3].tolist() == [1, 0, 0, 0]
        assert (found["width"], found["height"], found["fps"], found["mediapipe"]) == (128, 96, 25, "stand-in")
        assert "face" not in found
    assert len(starts()) == 1


def test_what_a_notebook_sets_does_not_reach_the_process(tmp_path, monkeypatch):
    worker_says = 'import os, sys; sys.stderr.write(repr([n for n in os.environ if n.startswith(("PYTHON", "MPL"))]))'
    (tmp_path / "say.py").write_text(worker_says)
    stand_in(tmp_path, monkeypatch, f'exec "{sys.executable}" "{tmp_path / "say.py"}"')
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    with pytest.raises(StudyError, match=r"MediaPipe cannot be started: \[\];"):
        Holistic().start()


def test_a_process_that_hangs_is_ended_and_the_next_frame_starts_another(tmp_path, monkeypatch):
    (tmp_path / "hang.py").write_text('import time\nprint(\'{"mediapipe": "x"}\', flush=True)\ntime.sleep(60)\n')
    stand_in(tmp_path, monkeypatch, f'exec "{sys.executable}" "{tmp_path / "hang.py"}"')
    monkeypatch.setattr("lib.data.holistic.HANGS", 0.2)
    process, start = Holistic(), time.monotonic()
    for _ in range(2):
        with pytest.raises(StudyError, match="MediaPipe crashed"):
            process.see(np.zeros((8, 8, 3), np.uint8), True)
    assert time.monotonic() - start < 30


def test_clips_share_processes_and_a_second_run_does_what_is_left(tmp_path, starts):
    videos = {name: video(tmp_path / f"{name}.mp4") for name in "abc"}
    folder = tmp_path / "poses"
    assert poses.write_poses({name: videos[name] for name in "ab"}, folder, workers=1) == {}
    assert len(starts()) == 1
    before = (folder / "a.npz").stat().st_mtime_ns
    assert poses.write_poses(videos, folder, workers=1) == {}
    assert (folder / "a.npz").stat().st_mtime_ns == before
    assert sorted(path.name for path in folder.iterdir()) == ["a.npz", "b.npz", "c.npz"]
    assert poses.write_poses(videos, folder) == {}
    assert len(starts()) == 2  # nothing was left


def test_threads_share_as_many_processes_as_are_asked_for_and_all_of_them_end(tmp_path, starts, monkeypatch):
    videos = [video(tmp_path / f"{number}.mp4", 4, 3 * number) for number in range(9)]
    alone = Holistic()
    expected = [find_poses(path, alone) for path in videos]
    alone.close()
    begun, opened, start = len(starts()), [], subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *given, **options: opened.append(start(*given, **options)) or opened[-1]
    )
    with finders(3) as find, ThreadPoolExecutor(5) as pool:
        assert len(starts()) == begun + 1  # says at once whether it can be had
        for found, other in zip(pool.map(find, videos), expected, strict=True):
            assert found.keys() == other.keys()
            for part in FORM:
                np.testing.assert_array_equal(found[part], other[part])
        assert begun + 1 < len(starts()) <= begun + 3
        assert [process.poll() for process in opened] == [None] * (len(starts()) - begun)
    assert [process.poll() for process in opened] == [0] * len(opened)


def test_finders_of_nothing_start_nothing_and_a_problem_in_one_video_leaves_its_process_to_the_others(tmp_path, starts):
    with finders(0):
        pass
    assert starts() == []
    (tmp_path / "text.mp4").write_text("no video")
    with finders(1) as find:
        for _ in range(2):
            with pytest.raises(StudyError, match="cannot be opened as a video"):
                find(tmp_path / "text.mp4")
            with pytest.raises(StudyError, match="MediaPipe crashed"):
                find(flat(tmp_path / "white.mp4", 255))
        assert len(find(video(tmp_path / "a.mp4"))["body"]) == 3
    assert len(starts()) == 3  # a crash costs a start


def test_finders_say_at_once_where_mediapipe_cannot_be_had(monkeypatch):
    monkeypatch.setenv("UV", "/nowhere/uv")
    with pytest.raises(StudyError, match="need uv"), finders(2):
        pytest.fail("they were given")


def test_a_replaced_video_a_damaged_file_and_one_without_the_face_asked_for_are_made_again(tmp_path, starts):
    one, folder = {"a": video(tmp_path / "a.mp4")}, tmp_path / "poses"
    poses.write_poses(one, folder)
    video(tmp_path / "a.mp4", 5)
    poses.write_poses(one, folder)
    assert len(read_found(folder / "a.npz")["body"]) == 5
    (folder / "a.npz").write_bytes((folder / "a.npz").read_bytes()[:500])
    poses.write_poses(one, folder, face=True)
    assert read_found(folder / "a.npz")["face"].shape == (5, 478, 3)
    poses.write_poses(one, folder)
    assert [line.split()[-1] for line in starts()[2:]] == ["--face"]
    assert len(starts()) == 3


def test_a_crash_and_a_broken_video_cost_their_clips_alone(tmp_path, starts):
    videos = {"a": video(tmp_path / "a.mp4"), "b": flat(tmp_path / "b.mp4", 255), "c": tmp_path / "c.mp4"}
    videos |= {"d": video(tmp_path / "d.mp4"), "e": video(tmp_path / "e.mp4")}
    videos["c"].write_text("no video")
    problems = poses.write_poses(videos, tmp_path / "poses", workers=1)
    assert list(problems) == ["b", "c"]
    assert problems["b"].startswith(f"{videos['b']}: MediaPipe crashed (ValueError: too white)")
    assert problems["c"].startswith(f"{videos['c']}: ")
    assert sorted(path.name for path in (tmp_path / "poses").iterdir()) == ["a.npz", "d.npz", "e.npz"]
    assert len(starts()) == 2


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("echo 'error: No interpreter found for Python >=3.9, <3.13' >&2; exit 2", "No interpreter found for Python"),
        ("exit 2", "exit code 2"),
    ],
)
def test_where_mediapipe_cannot_be_had_one_line_says_so(tmp_path, monkeypatch, line, part):
    stand_in(tmp_path, monkeypatch, line)
    with pytest.raises(StudyError, match=part) as error:
        poses.write_poses({"a": video(tmp_path / "a.mp4")}, tmp_path / "poses")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "poses").exists()


def test_where_uv_cannot_be_had_one_line_says_so(monkeypatch, holistic):
    monkeypatch.setenv("UV", "/nowhere/uv")
    with pytest.raises(StudyError, match=r"need uv, and /nowhere/uv cannot be run \(No such file"):
        holistic.start()


def test_make_poses_names_what_it_cannot_read_and_a_study_reads_the_rest(tmp_path, starts, monkeypatch, capfd):
    root = tmp_path / "root"
    annotate(root, "00001", "00002", "00003", "00004")
    video(root / "videos" / "00001.mp4", 6)
    (root / "videos" / "2.mp4").write_text("no video")  # found without its zeros
    flat(root / "videos" / "00003.mp4", 0)
    path = tmp_path / "ten.yaml"
    path.write_text(json.dumps({"title": "t", "subset": 2, "sources": ["poses"], "layout": "body-hands",
                                "split": "official", "runs": [{"recipe": "spobet"}]}))  # fmt: skip
    assert poses.main(str(path), str(root)) == 1
    said = capfd.readouterr()
    assert [line for line in said.err.splitlines() if line.startswith("unreadable")] == [
        f"unreadable: {root / 'videos' / '2.mp4'}: cannot be opened as a video (Invalid data found when processing "
        "input); download it again"
    ]
    assert said.out.startswith("2 of 4 clips of ten have poses")
    index = build_index(study(root, ["poses"], "body-hands")).set_index("video_id")
    assert index["status"].to_dict() == dict.fromkeys(["00001", "00003"], "present") | dict.fromkeys(
        ["00002", "00004"], "missing"
    )
    assert (index.loc["00001", "n_frames"], index.loc["00001", "fps"]) == (6, 25)
    assert index.loc["00003", "notes"] == "nobody is found in it"
    both = build_index(study(root, ["videos", "poses"], "body-hands")).set_index("video_id")
    assert both.loc["00001", "content"] == index.loc["00001", "content"]
    store, table = build_poses(study(root, ["videos", "poses"], "hands-42"), both.reset_index())
    assert {name: len(clip) for name, clip in zip(store.video_id, store.poses, strict=True)} == {"00001": 6, "00003": 3}
    assert table["status"].tolist() == ["present"] * 2


def test_own_clips_get_poses_by_their_id_and_can_be_studied(tmp_path, starts):
    root = tmp_path / "own"
    for split in ("train", "val", "test"):
        for gloss in ("no", "yes"):
            video(root / split / gloss / "a.mp4")
    path = tmp_path / "own.yaml"
    path.write_text(json.dumps({"title": "t", "subset": 2, "sources": ["clips", "poses"], "layout": "openpose-54",
                                "split": "official", "runs": [{"recipe": "spobet"}]}))  # fmt: skip
    assert poses.main(str(path), str(root)) == 0
    assert (root / "poses" / "train-no-a.npz").is_file()
    index = build_index(study(root, ["clips", "poses"], "openpose-54"))
    assert set(index["status"]) == {"present"}
    assert index["path"].str.endswith(".mp4").all()
    assert build_poses(study(root, ["clips", "poses"], "openpose-54"), index)[1]["frames"].tolist() == [3] * 6


def test_a_study_whose_root_is_absent_is_one_line(tmp_path, capsys):
    assert poses.main("wlasl100", str(tmp_path / "nowhere")) == 1
    assert capsys.readouterr().err.startswith("error: the data root ")


# ---- layouts -------------------------------------------------------------------------------------------


def made(frames=2, **other):
    """What a file holds: each joint at a place of its own, all visible, in an image of 200 × 100 pixels."""
    rng = np.random.default_rng(0)
    arrays = {part: rng.random((frames, *shape), np.float32) for part, shape in FORM.items()}
    arrays["body"][..., 3] = 1
    return arrays | {"fps": 25.0, "width": 200, "height": 100} | other


@pytest.mark.parametrize("layout", [LAYOUTS["openpose-54"], LAYOUTS["body-hands"]], ids=lambda layout: layout.name)
def test_each_layout_with_a_body_is_read_joint_by_joint_in_pixels(layout):
    found = made()
    read = to_layout(found, layout)
    assert read.dtype == np.float32
    assert read.shape == (2, len(layout.joints), 3)
    assert (read[..., 2] == 1).all()
    joints = dict(zip(layout.joints, read.transpose(1, 0, 2), strict=True))
    expected = {"left_hand_wrist": found["hands"][:, 0, 0], "right_little_4": found["hands"][:, 1, 20]}
    body = found["body"]
    expected |= {"nose": body[:, 0], "left_wrist": body[:, 15], "right_wrist": body[:, 16], "left_ear": body[:, 7]}
    expected |= {"neck": (body[:, 11] + body[:, 12]) / 2, "right_eye": body[:, 5], "left_elbow": body[:, 13]}
    if "lips" in layout.parts:
        expected |= {"right_lip_1": found["lips"][:, 0], "left_lip_1": found["lips"][:, 6]}
        expected |= {"lower_inner_lip": found["lips"][:, 18]}
    for name, place in expected.items():
        np.testing.assert_allclose(joints[name][:, :2], place[:, :2] * (200, 100), rtol=1e-6)


def test_hands_alone_are_what_an_archive_of_the_same_landmarks_gives():
    found = made(6)
    found["hands"][2:4, 1] = np.nan
    archive = {"a": np.nan_to_num(found["hands"], nan=-1)}
    np.testing.assert_array_equal(to_layout(found, LAYOUTS["hands-42"]), read_hands(archive, "a"))


def test_what_is_hidden_or_not_found_is_missing_and_so_is_a_neck_of_one_shoulder():
    found = made()
    found["body"][0, 11, 3] = 0.4
    found["hands"][1, 1] = np.nan
    read, layout = to_layout(found, LAYOUTS["body-hands"]), LAYOUTS["body-hands"]
    missing = [[layout.joints[joint] for joint in np.flatnonzero(frame[:, 2] == 0)] for frame in read]
    assert missing[0] == ["neck", "left_shoulder"]
    assert missing[1] == list(layout.joints[layout.parts["right"]])
    assert (read[read[..., 2] == 0] == 0).all()


@pytest.mark.parametrize(
    "change",
    [
        {"hands": np.zeros((3, 2, 21, 3))},
        {"body": np.zeros((2, 25, 3))},
        {part: np.zeros((0, *shape)) for part, shape in FORM.items()},
        {"lips": None},
        {"width": None},
    ],
)
def test_a_file_of_another_form_is_one_line_that_names_it(tmp_path, change):
    content = {name: value for name, value in (made() | change).items() if value is not None}
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(StudyError, match=r"a\.npz: holds no poses") as error:
        read_found(tmp_path / "a.npz")
    assert "\n" not in str(error.value)


# ---- the real process ----------------------------------------------------------------------------------


@pytest.fixture
def mediapipe():
    """MediaPipe itself; skipped where it cannot be had."""
    process = Holistic(face=True)
    try:
        process.start()
    except StudyError as error:
        pytest.skip(str(error))
    yield process
    process.close()


def test_mediapipe_answers_every_frame_and_finds_nobody_in_a_picture_of_nothing(tmp_path, mediapipe):
    for height, width in ((96, 128), (8, 8), (241, 321)):
        found = find_poses(
            encode_video(tmp_path / "a.mp4", numbered_images(2, 0, height // 2 * 2, width // 2 * 2)), mediapipe
        )
        assert len(found["body"]) == 2
        assert np.isnan(found["body"]).all()
        assert np.isnan(found["face"]).all()
    assert mediapipe.version == "0.10.21"


def test_mediapipe_finds_a_signer_the_same_in_every_run(wlasl_root, mediapipe):
    path = min((wlasl_root / "videos").glob("*.mp4"), key=os.path.getsize)
    first, second = (find_poses(path, mediapipe) for _ in range(2))
    assert np.isfinite(first["body"]).all()
    shoulders = first["body"][:, [11, 12], 0].mean(0)
    assert shoulders[0] > shoulders[1]  # the signer's left is on the right of the picture
    for part in ("body", "hands", "face"):
        np.testing.assert_array_equal(first[part], second[part])
