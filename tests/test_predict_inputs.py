"""What people have and cannot be named: one line for each, which names it, and the others are named."""

import json
import os
import shutil
import struct
from pathlib import Path

import av
import numpy as np
import poses
import pytest
import yaml

from helpers import (
    encode_video,
    found_in,
    landmarks_of,
    make_trained,
    numbered_images,
    signing,
    stand_in,
    write_keypoints_of,
)
from lib.predict.__main__ import main
from lib.predict.recordings import LEAST, SMALLEST

HOURS = 2


def good(path, number=1):
    return encode_video(path, signing(number, 20))


def lying(path):
    """A video whose header says that it takes two hours."""
    content = bytearray(good(path).read_bytes())
    if path.suffix == ".mkv":
        start = content.index(b"\x44\x89\x88") + 3
        content[start : start + 8] = struct.pack(">d", HOURS * 3600 * 1000)
    else:
        rates = {atom: content[content.index(atom) + 16 :][:4] for atom in (b"mvhd", b"mdhd")}
        for atom, at, rate in [(b"mvhd", 20, b"mvhd"), (b"tkhd", 24, b"mvhd"), (b"mdhd", 20, b"mdhd")]:
            start = content.index(atom) + at
            content[start : start + 4] = (HOURS * 3600 * int.from_bytes(rates[rate], "big")).to_bytes(4, "big")
    path.write_bytes(content)
    return path


def sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux([*stream.encode(frame), *stream.encode()])


def cut(path):
    content = good(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def folder_of(path, name, content):
    path.mkdir()
    (path / name).write_text(content)


# What is wrong with a video for a video model, and what is said of it.
BAD = {
    "empty.mp4": (lambda path: path.touch(), "cannot be opened as a video"),
    "text.mp4": (lambda path: path.write_text("<html>404</html>" * 99), "cannot be opened as a video"),
    "cut.mp4": (cut, "cannot be opened as a video"),
    "cut.mkv": (cut, "cut short"),
    "sound.mp4": (sound, "contains no video stream"),
    "one.mp4": (lambda path: encode_video(path, numbered_images(1)), "holds one frame, and a sign takes more"),
    "narrow.mp4": (lambda path: encode_video(path, numbered_images(9, width=8)), "8 × 96 pixels are too few"),
    "black.mp4": (lambda path: encode_video(path, [np.zeros((96, 96, 3), np.uint8)] * 9), "black throughout"),
    "folder": (lambda path: folder_of(path, "notes.txt", "none"), "holds no video, no OpenPose keypoints"),
    "missing.mp4": (lambda path: None, "cannot be read (No such file or directory)"),
    "link.mp4": (lambda path: path.symlink_to("nowhere"), "cannot be read (No such file or directory)"),
    "new\nline.mp4": (lambda path: path.touch(), "cannot be opened as a video"),
    "hands.npz": (lambda path: np.savez(path, clip=landmarks_of(1)), "holds landmarks, and videos/tiny reads videos"),
    "openpose": (lambda path: write_keypoints_of(path, 2), "holds landmarks, and videos/tiny reads videos"),
}
# What is wrong with landmarks for a model of hands.
BAD_POSES = {
    "text.npz": (lambda path: path.write_text("no archive"), "holds no poses"),
    "empty.npz": (lambda path: path.touch(), "holds no poses"),
    "array.npz": (lambda path: np.save(path.open("wb"), np.zeros(3)), "holds no poses"),
    "none.npz": (lambda path: np.savez(path), "holds no poses"),
    "other.npz": (lambda path: np.savez(path, weights=np.zeros((3, 3))), "hand landmarks are float64 of shape (3, 3)"),
    "words.npz": (lambda path: np.savez(path, words=np.array(["a"])), "hand landmarks are"),
    "body.npz": (lambda path: np.savez(path, body=np.zeros((3, 33, 4))), "holds no poses"),
    "nobody.npz": (lambda path: np.savez(path, clip=np.full((9, 2, 21, 3), -1.0)), "nobody's hands are seen in it"),
    "broken": (lambda path: folder_of(path, "image_00001_keypoints.json", "{"), "no OpenPose keypoints"),
    "numberless": (lambda path: folder_of(path, "first_keypoints.json", "{}"), "no frame number in the name"),
    "peopleless": (lambda path: folder_of(path, "a_00001_keypoints.json", '{"people": []}'), "nobody's hands"),
}


@pytest.fixture
def run(capsys):
    """A function that runs the command and returns exit code, lines and complaints."""

    def run(*arguments, model):
        capsys.readouterr()
        code = main([*map(str, arguments), "--model", str(model)])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


def check_bad(run, folder, bad, names, model):
    """Name good clips with bad ones between them."""
    paths = [folder / name for name in bad]
    for path, (make, _) in zip(paths, bad.values(), strict=True):
        make(path)
    between = [*paths[::2], names[0], *paths[1::2], *names[1:]]
    code, lines, errors = run(*between, "--json", model=model)
    assert code == 1
    assert [json.loads(line)["path"].removesuffix(":clip") for line in lines] == [str(name) for name in names]
    assert len(errors) == len(bad)
    for path, (_, said) in zip(paths, bad.values(), strict=True):
        (line,) = [error for error in errors if error.startswith(f"error: {path}".replace("\n", " "))]
        assert said in line
        assert line.count(str(path).replace("\n", " ")) <= 2  # of a folder's files, too


def test_each_bad_video_is_one_line_and_the_others_are_named(run, of_videos, tmp_path):
    names = [good(tmp_path / f"good{number}.mp4", number) for number in range(2)]
    check_bad(run, tmp_path, BAD, names, of_videos.files["tflite"])


def test_bad_landmarks_are_one_line_each_and_the_others_are_named(run, of_hands, tmp_path):
    names = [tmp_path / f"good{number}.npz" for number in range(2)]
    np.savez(names[0], clip=landmarks_of(2))
    np.savez(names[1], **found_in(2))
    check_bad(run, tmp_path, BAD_POSES, names, of_hands.files["onnx"])


def test_bad_files_in_a_folder_are_named_by_their_path_in_it(run, of_videos, tmp_path):
    for name in ("empty.mp4", "one.mp4", "hands.npz"):
        BAD[name][0](tmp_path / name)
    good(tmp_path / "deep" / "good.mp4")
    code, lines, errors = run(tmp_path, "--json", model=of_videos.files["tflite"])
    assert (code, [json.loads(line)["path"] for line in lines]) == (1, [str(tmp_path / "deep" / "good.mp4")])
    assert [error.split(": ")[1] for error in errors] == [
        str(tmp_path / "empty.mp4"), f"{tmp_path / 'hands.npz'}:clip", str(tmp_path / "one.mp4"),
    ]  # fmt: skip


def closed(opener, closed):
    """An opener that may not open one place."""

    def open_others(place, *arguments, **options):
        if place == closed:
            raise PermissionError(13, "Permission denied")
        return opener(place, *arguments, **options)

    return open_others


def test_what_may_not_be_read_is_one_line(run, of_videos, tmp_path, monkeypatch):
    path, folder = good(tmp_path / "locked.mp4"), tmp_path / "folder"
    folder.mkdir()
    if os.geteuid():
        path.chmod(0)
        folder.chmod(0)
    else:  # nothing is closed to root
        monkeypatch.setattr(Path, "open", closed(Path.open, path))
        monkeypatch.setattr("os.scandir", closed(os.scandir, folder))
    code, lines, errors = run(path, folder, model=of_videos.files["tflite"])
    folder.chmod(0o755)
    assert (code, lines) == (1, [])
    assert errors == [f"error: {place}: cannot be read (Permission denied)" for place in (path, folder)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_header_that_lies_about_two_hours_changes_nothing(run, of_videos, tmp_path, suffix):
    lies, true = lying(tmp_path / f"lies{suffix}"), good(tmp_path / f"true{suffix}")
    assert lies.read_bytes() != true.read_bytes()
    with av.open(str(lies)) as container:
        assert (
            container.duration == (HOURS * 3600 if suffix == ".mkv" else 0.8) * 1_000_000
        )  # FFmpeg corrects the other
    code, lines, errors = run(tmp_path, "--json", model=of_videos.files["tflite"])
    first, second = map(json.loads, lines)
    assert (code, errors, second["seconds"]) == (0, [], 20 / 25)
    assert first | {"path": ""} == second | {"path": ""}


@pytest.mark.parametrize(
    ("width", "frames", "code"), [(SMALLEST, LEAST, 0), (SMALLEST - 2, LEAST, 1), (SMALLEST, LEAST - 1, 1)]
)
def test_the_smallest_video_that_is_named(run, of_videos, tmp_path, width, frames, code):
    path = encode_video(tmp_path / "a.mp4", numbered_images(frames, width=width))
    assert run(path, model=of_videos.files["onnx"])[0] == code


# ---- poses from videos ---------------------------------------------------------------------------------


@pytest.fixture
def mediapipe(tmp_path, monkeypatch):
    """MediaPipe's stand-in; returns the log of its starts."""
    (tmp_path / "stand-in").mkdir()
    return stand_in(tmp_path / "stand-in", monkeypatch)


def flat(path, value):
    return encode_video(path, [np.full((96, 128, 3), value, np.uint8)] * 5)


def test_a_video_in_which_nobody_is_seen_or_that_crashes_mediapipe_is_one_line(run, of_hands, tmp_path, mediapipe):
    names = [good(tmp_path / f"good{number}.mp4", number) for number in range(3)]
    bad = {
        "nobody.mp4": (lambda path: flat(path, 0), "nobody's hands are seen in it"),
        "crash.mp4": (lambda path: flat(path, 255), "MediaPipe crashed (ValueError: too white)"),
        "text.mp4": BAD["text.mp4"],
        "one.mp4": BAD["one.mp4"],
    }
    check_bad(run, tmp_path, bad, names, of_hands.files["onnx"])
    assert len(mediapipe.read_text().splitlines()) <= 3  # a process for each core, and one after the crash


def test_a_video_is_named_by_the_poses_that_make_poses_finds_in_it(run, of_hands, tmp_path, mediapipe):
    videos = {name: good(tmp_path / f"{name}.mp4", number) for number, name in enumerate("ab")}
    assert poses.write_poses(videos, tmp_path / "poses", workers=1) == {}
    from_videos, from_poses = (
        [json.loads(line) for line in run(*paths, "--json", model=of_hands.files["onnx"])[1]]
        for paths in (videos.values(), [tmp_path / "poses"])
    )
    assert len(from_videos) == 2
    assert from_videos[0]["top"] != from_videos[1]["top"]
    for one, other in zip(from_videos, from_poses, strict=True):
        assert one | {"path": ""} == other | {"path": ""}


def test_where_mediapipe_cannot_be_had_one_line_says_so(run, of_hands, tmp_path, monkeypatch):
    monkeypatch.setenv("UV", "/nowhere/uv")
    code, lines, errors = run(good(tmp_path / "a.mp4"), good(tmp_path / "b.mp4"), model=of_hands.files["onnx"])
    assert (code, lines) == (1, [])
    (line,) = errors
    assert line.startswith("error: poses from videos need uv, and /nowhere/uv cannot be run")


# ---- models --------------------------------------------------------------------------------------------


def test_landmarks_without_the_joints_that_a_model_reads_are_one_line(run, tmp_path, monkeypatch):
    model = make_trained(tmp_path / "study", "poses", layout="body-hands", export=False).here(monkeypatch)
    np.savez(tmp_path / "hands.npz", clip=landmarks_of(2))
    write_keypoints_of(tmp_path / "openpose", 2)
    np.savez(tmp_path / "poses.npz", **found_in(2))
    code, lines, errors = run(*(tmp_path / name for name in ("hands.npz", "openpose", "poses.npz")), model=model)
    assert (code, len(lines)) == (1, 1)
    assert errors == [
        f"error: {tmp_path / 'hands.npz'}:clip: holds hands only, and poses/tiny reads body-hands",
        f"error: {tmp_path / 'openpose'}: holds keypoints only, and poses/tiny reads body-hands",
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.tflite", b"", "a.tflite"),
        ("a.tflite", b"no model" * 99, "a.tflite"),
        ("a.onnx", b"", "a.onnx"),
        ("a.onnx", b"no model" * 99, "a.onnx"),
        ("a.onnx", None, "a.onnx: cannot be read: No such file or directory"),
        ("a.mp4", b"no model", "a model has the suffix .tflite or .onnx, not '.mp4'"),
        ("a", None, "there is no study"),
    ],
)
def test_a_model_that_is_none_is_one_line(run, tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    code, lines, errors = run(good(tmp_path / "clip.mp4"), model=tmp_path / name)
    assert (code, lines, len(errors)) == (1, [], 1)
    assert said in errors[0]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_that_says_nothing_of_itself_is_one_line(run, of_hands, tmp_path):
    from lib.export.files import FORMATS

    for form in ("tflite", "onnx"):
        whole = of_hands.files[form].read_bytes()
        path = tmp_path / f"a.{form}"
        path.write_bytes(FORMATS[f".{form}"].add_metadata(whole, {"name": "hands/tiny"}, ["book"]))
        code, _, errors = run(good(tmp_path / "clip.mp4"), model=path)
        assert (code, len(errors)) == (1, 1)
        assert f"{path}: " in errors[0]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("nope", "nope: a model is a .tflite or .onnx file, or <study>/<run>, such as sample/spobet-plus"),
        ("nope/tiny", "there is no study 'nope'"),
        ("hands/nope", "study hands has no run 'nope'; its runs: tiny"),
        ("fresh/tiny", "run tiny of fresh is not trained here: `make study STUDY=fresh`"),
        ("broken/tiny", "broken.yaml: "),
    ],
)
def test_a_run_that_does_not_exist_or_is_not_trained_is_one_line(run, of_hands, tmp_path, monkeypatch, model, said):
    of_hands.here(monkeypatch)
    shutil.copy(of_hands.folder / "hands.yaml", of_hands.folder / "fresh.yaml")
    (of_hands.folder / "broken.yaml").write_text(yaml.safe_dump({"title": "?"}))
    code, lines, errors = run(good(tmp_path / "a.mp4"), model=model)
    assert (code, lines, len(errors)) == (1, [], 1)
    assert said in errors[0]


def test_a_run_whose_weights_are_on_another_machine_is_one_line(run, tmp_path, monkeypatch):
    trained = make_trained(tmp_path / "study", "hands", layout="hands-42", export=False)
    model = trained.here(monkeypatch)
    shutil.rmtree(trained.folder / "home" / "data" / "hands" / "runs")
    code, _, errors = run(trained.root / "hands", model=model)
    assert (code, len(errors)) == (1, 1)
    assert "best.weights.h5 is missing: train the run first" in errors[0]
    shutil.rmtree(trained.folder / "home" / "data")
    code, _, errors = run(trained.root / "hands", model=model)
    assert (code, len(errors)) == (1, 1)
    assert "is missing; run notebooks/01_dataset.ipynb, or `make study STUDY=hands`" in errors[0]
