"""The command `python -m lib.predict`: each form of its answers, from what it is given and in that order."""

import csv
import io
import json
import os
import subprocess
import sys
import time

import cv2
import numpy as np
import pandas as pd
import pytest

from helpers import encode_video, found_in, landmarks_of, signing, write_keypoints_of
from lib.data.holistic import FORM
from lib.predict import model as model_module
from lib.predict import name_sign, recordings
from lib.predict.__main__ import COLUMNS, main
from lib.predict.naming import open_all
from lib.predict.timeline import STEP, clock, elan_csv, find_signs, read_steps, said, webvtt


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder of two videos, and a third one beside it."""
    root = tmp_path_factory.mktemp("clips")
    for number, name in enumerate(["folder/b.mp4", "folder/deeper/a.mp4", "c.mp4"]):
        encode_video(root / name, signing(number, 12 + number))
    (root / "folder" / "notes.txt").write_text("not a clip")
    return root


@pytest.fixture
def run(of_videos, capsys):
    """A function that runs the command on the video model and returns exit code, lines and complaints."""

    def run(*arguments, model=of_videos.files["tflite"]):
        code = main([*map(str, arguments), *(["--model", str(model)] if model else [])])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


def test_the_table_has_a_line_for_each_clip_in_the_order_given(run, of_videos, clips):
    code, lines, errors = run(clips / "c.mp4", clips / "folder", "--top", 2)
    assert (code, errors) == (0, [])
    paths = [clips / "c.mp4", clips / "folder" / "b.mp4", clips / "folder" / "deeper" / "a.mp4"]
    width = max(len(str(path)) for path in paths)
    for line, path in zip(lines, paths, strict=True):
        named = name_sign(path, of_videos.files["tflite"], top=2)
        assert line == f"{str(path).ljust(width)}  " + ", ".join(
            f"{gloss} {share:.0%}" for gloss, share in named.items()
        )


def test_json_is_a_line_for_each_clip_with_all_that_is_known_of_it(run, of_videos, clips):
    code, lines, errors = run(clips / "folder", "--json")
    assert (code, errors, len(lines)) == (0, [], 2)
    for line, path, frames in zip(lines, ["b.mp4", "deeper/a.mp4"], [12, 13], strict=True):
        said = json.loads(line)
        assert list(said) == ["path", "top", "known", "frames", "seconds", "model"]
        named = name_sign(clips / "folder" / path, of_videos.files["tflite"])
        assert said["top"] == [[gloss, pytest.approx(share, abs=1e-4)] for gloss, share in named.items()]
        assert (said["path"], said["frames"]) == (str(clips / "folder" / path), frames)
        assert (said["seconds"], said["known"], said["model"]) == (frames / 25, True, "videos/tiny")


def test_csv_is_one_table_with_a_row_for_each_gloss(run, clips):
    code, lines, _ = run(clips / "folder", clips / "c.mp4", "--csv", "--top", 2)
    rows = list(csv.DictReader(io.StringIO("\n".join(lines))))
    assert code == 0
    assert list(rows[0]) == COLUMNS
    assert [row["rank"] for row in rows] == ["1", "2"] * 3
    assert [os.path.basename(row["path"]) for row in rows[::2]] == ["b.mp4", "a.mp4", "c.mp4"]
    assert all(
        float(above["probability"]) >= float(below["probability"])
        for above, below in zip(rows[::2], rows[1::2], strict=True)
    )
    assert {row["model"] for row in rows} == {"videos/tiny"}


@pytest.mark.parametrize(("top", "count"), [(1, 1), (3, 3), (99, 3)])
def test_as_many_glosses_as_asked_for_or_as_there_are(run, clips, top, count):
    assert len(json.loads(run(clips / "c.mp4", "--json", "--top", top)[1][0])["top"]) == count


def test_landmarks_of_every_form_are_named_in_sorted_order(run, of_hands, tmp_path):
    np.savez(tmp_path / "hands.npz", second=landmarks_of(2), first=landmarks_of(3))
    np.savez(tmp_path / "poses.npz", **found_in(2, fps=50.0))
    np.savez(tmp_path / "rateless.npz", **found_in(2, fps=np.nan))
    write_keypoints_of(tmp_path / "clips" / "openpose", 4)
    code, lines, errors = run(tmp_path, "--json", model=of_hands.files["onnx"])
    said = [json.loads(line) for line in lines]
    assert (code, errors) == (0, [])
    names = ["clips/openpose", "hands.npz:first", "hands.npz:second", "poses.npz", "rateless.npz"]
    assert [one["path"] for one in said] == [os.path.join(tmp_path, name) for name in names]
    assert [one["frames"] for one in said] == [13, 11, 9, 9, 9]
    assert [one["seconds"] for one in said] == [None, None, None, 0.18, None]
    assert said[3]["top"] == said[4]["top"] != said[2]["top"]


def test_a_sign_that_the_model_does_not_know_is_unknown(run, of_videos, clips, monkeypatch):
    of_videos.here(monkeypatch)
    known = of_videos.folder / "home" / "reports" / "videos" / "runs" / "tiny" / "known.json"
    known.write_text(json.dumps({"known_from": 1e6}))
    try:
        assert "  unknown (perhaps " in run(clips / "c.mp4", "--top", 1)[1][0]
        for model in (of_videos.files["onnx"], of_videos.name):
            assert json.loads(run(clips / "c.mp4", "--json", model=model)[1][0])["known"] is False
    finally:
        known.unlink()
    assert json.loads(run(clips / "c.mp4", "--json")[1][0])["known"] is True


def test_without_a_model_the_best_released_one_names(run, of_hands, tmp_path, monkeypatch):
    monkeypatch.setattr(model_module, "REPOSITORY", tmp_path)
    np.savez(tmp_path / "hands.npz", clip=landmarks_of(2))
    code, _, errors = run(tmp_path / "hands.npz", model=None)
    assert code == 1
    assert errors == ["error: no model is released in reports/*/models/; name one with --model"]
    for study, top1, signs in [("one", 0.9, 2), ("two", 0.7, 3), ("three", 0.6, 3)]:
        (tmp_path / "reports" / study / "models").mkdir(parents=True)
        (tmp_path / "reports" / study / "runs" / "a").mkdir(parents=True)
        (tmp_path / "reports" / study / "runs" / "a" / "metrics.json").write_text(json.dumps({"top1": top1}))
        path = tmp_path / "reports" / study / "models" / "a.tflite"
        path.with_name("a-labels.txt").write_text("sign\n" * signs)
        path.write_bytes(of_hands.files["tflite"].read_bytes() if study == "two" else b"worse")
    code, lines, _ = run(tmp_path / "hands.npz", "--json", model=None)
    assert (code, json.loads(lines[0])["model"]) == (0, "hands/tiny")


def test_a_model_is_released_here():
    assert model_module.best_released().suffix == ".tflite"
    model = model_module.open_model()
    assert len(model.glosses) >= 100
    assert model.layout.name == "hands-42"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give one INPUT or more, or --camera"),
        (["a.mp4", "--camera", "0"], "give one INPUT or more, or --camera"),
        (["a.mp4", "--top", "0"], "--top is at least 1"),
        (["a.mp4", "--top", "many"], "invalid int value: 'many'"),
        (["a.mp4", "--json", "--csv"], "not allowed with argument"),
        (["a.mp4", "--figure", "a.txt"], "ends in .png"),
        (["a.mp4", "--wrong"], "unrecognized arguments: --wrong"),
    ],
)
def test_wrong_arguments_are_exit_code_2_and_say_what_is_right(capsys, arguments, said):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_help_shows_how_to_call_it(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--help"])
    assert exit.value.code == 0
    assert "python -m lib.predict long.mp4 --timeline" in capsys.readouterr().out


def command(*arguments, **options):
    line = [sys.executable, "-m", "lib.predict", *map(str, arguments)]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, **options)


@pytest.mark.parametrize("form", ["tflite", "onnx"])
def test_a_process_has_answers_alone_on_stdout_and_complaints_alone_on_stderr(of_hands, repository, tmp_path, form):
    odd = os.fsdecode(b"n\xff\xc3\xa9.npz")  # a name that is not UTF-8
    np.savez(tmp_path / "clip.npz", clip=landmarks_of(2))
    (tmp_path / "clip.npz").rename(tmp_path / odd)
    process = command(tmp_path, tmp_path / "none.mp4", "--json", "--model", of_hands.files[form], cwd=repository)
    out, err = process.communicate()
    assert process.returncode == 1
    (line,) = out.decode().splitlines()
    assert json.loads(line)["path"] == f"{tmp_path / odd}:clip"
    assert err.decode().splitlines() == [f"error: {tmp_path / 'none.mp4'}: cannot be read (No such file or directory)"]


def test_nobody_may_read_at_all(of_hands, repository, tmp_path):
    np.savez(tmp_path / "clips.npz", one=landmarks_of(2), two=landmarks_of(3))
    process = command(tmp_path / "clips.npz", "--model", of_hands.files["onnx"], cwd=repository)
    process.stdout.close()
    assert process.wait(timeout=60) == 1
    assert process.stderr.read() == b""


def test_whoever_reads_may_stop_before_the_end(of_hands, repository, tmp_path):
    archive = {f"{'long' * 20}{number}": landmarks_of(2) for number in range(2000)}  # more than a pipe holds
    np.savez(tmp_path / "clips.npz", **archive)
    process = command(tmp_path / "clips.npz", "--json", "--model", of_hands.files["onnx"], cwd=repository)
    assert json.loads(process.stdout.readline())["path"].endswith("0")
    process.stdout.close()
    assert process.wait(timeout=60) == 1
    assert process.stderr.read() == b""


def test_who_wants_no_more_answers_does_not_wait_for_the_rest(of_hands, tmp_path, monkeypatch):
    np.savez(tmp_path / "clips.npz", **{f"{number:03d}": landmarks_of(2) for number in range(200)})
    model, opened = model_module.open_model(of_hands.files["onnx"]), []

    def slow(*arguments, **options):
        opened.append(arguments)
        time.sleep(0.01)
        return open_one(*arguments, **options)

    open_one = recordings._open
    monkeypatch.setattr(recordings, "_open", slow)
    answers = open_all(model, recordings.find_inputs(str(tmp_path)))
    assert next(answers)[0].endswith("000")
    answers.close()
    assert len(opened) < 100


# ---- timelines -----------------------------------------------------------------------------------------


@pytest.fixture
def long(tmp_path):
    """A file of poses of seven seconds at 50 frames/s, with a pause of three."""
    found = found_in(3, fps=50.0)
    for part in FORM:
        found[part] = np.resize(found[part][2:-1], (350, *found[part].shape[1:]))
        found[part][100:250] = np.nan
    np.savez(tmp_path / "long.npz", **found)
    return tmp_path / "long.npz"


@pytest.fixture
def expected(of_hands, long):
    """The signs of that file."""
    model = model_module.open_model(of_hands.files["onnx"])
    with recordings.recorder(model, videos=0) as record:
        return find_signs(
            read_steps(model, record(recordings.find_inputs(str(long))[0])), model.glosses, model.known_from
        )


def test_the_timeline_is_a_line_for_each_sign(run, of_hands, long, expected):
    code, lines, errors = run(long, "--timeline", model=of_hands.files["onnx"])
    assert (code, errors, len(expected) > 1) == (0, [], True)
    signs = [f"  {clock(sign.start)}  {clock(sign.end)}  {said(sign)}" for sign in expected.itertuples()]
    assert lines == [str(long), *signs]


def test_the_timeline_in_json_is_a_line_for_each_video(run, of_hands, long, expected, tmp_path):
    np.savez(tmp_path / "short.npz", clip=landmarks_of(2))
    code, lines, _ = run(long, tmp_path / "short.npz", "--timeline", "--json", model=of_hands.files["onnx"])
    first, second = map(json.loads, lines)
    assert code == 0
    assert list(first) == ["path", "timeline", "frames", "seconds", "model"]
    assert (first["path"], first["frames"], first["seconds"], first["model"]) == (str(long), 350, 7.0, "hands/tiny")
    pd.testing.assert_frame_equal(pd.DataFrame(first["timeline"]), expected, rtol=1e-6)
    assert second["seconds"] is None


def test_an_unknown_sign_has_no_confidence_in_json(run, of_hands, long, monkeypatch):
    monkeypatch.setattr(model_module, "_known_from", lambda name: 1e6)
    lines = run(long, "--timeline", "--json", model=of_hands.files["onnx"])[1]
    rows = json.loads(lines[0], parse_constant=pytest.fail)["timeline"]
    assert [(row["gloss"], row["confidence"]) for row in rows] == [("", None)] * 2
    assert run(long, "--timeline", model=of_hands.files["onnx"])[1][1].endswith("  unknown")


def test_subtitles_and_the_table_for_elan_are_of_one_video(run, of_hands, long, expected, tmp_path):
    for options, text in [(["--vtt"], webvtt(expected)), (["--timeline", "--csv"], elan_csv(expected))]:
        code, lines, _ = run(long, *options, model=of_hands.files["onnx"])
        assert (code, lines) == (0, text.splitlines())
        code, lines, errors = run(long, long, *options, model=of_hands.files["onnx"])
        assert (code, lines, errors) == (1, [], [f"error: {options[-1]} is of one video, and there are 2"])


def test_a_figure_is_drawn_beside_the_table(run, of_hands, long, expected, tmp_path):
    pytest.importorskip("lib.figures.inside")
    path = tmp_path / "new" / "a.png"
    code, lines, errors = run(long, "--figure", path, model=of_hands.files["onnx"])
    assert (code, len(lines), errors) == (0, 1 + len(expected), [])
    assert cv2.imread(str(path)).std() > 10
    code, _, errors = run(long, "--figure", long / "a.png", model=of_hands.files["onnx"])
    assert code == 1
    assert len(errors) == 1
    assert "long.npz" in errors[0]


def test_a_recording_in_which_nobody_signs_says_so(run, of_videos, tmp_path):
    still = encode_video(tmp_path / "still.mp4", [signing(1, 2)[1]] * 60)
    assert run(still, "--timeline") == (0, [str(still), "  nobody signs"], [])
    assert run(still, "--vtt") == (0, ["WEBVTT"], [])


def test_the_timeline_of_a_video_leaves_out_what_stands_still_and_what_is_black(run, of_videos, tmp_path):
    moves = signing(5, 50)
    images = [moves[0]] * 20 + [moves[1]] * 30 + moves[1:] + [moves[-1]] * 40 + [moves[0]] * 10
    path = encode_video(tmp_path / "long.mp4", images)
    (line,) = run(path, "--timeline", "--json")[1]
    signs = json.loads(line)["timeline"]
    assert min(sign["start"] for sign in signs) == pytest.approx(50 / 25, abs=STEP)
    assert max(sign["end"] for sign in signs) == pytest.approx(99 / 25, abs=STEP)
