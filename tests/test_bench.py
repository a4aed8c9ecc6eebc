"""The benchmarks compare like with like, and their tables say what was measured."""

import sys
from math import prod

import cv2
import keras
import numpy as np
import pandas as pd
import pytest

from bench import __main__ as bench
from bench import agreement, app, clips, costs, export, i3d, official, poses, preprocessing, report, spobet, torch_video
from bench.plain_spobet import PlainSpobet
from bench.sides import REPOSITORY, Side, Taken, alternate
from lib.export.files import open_model
from lib.models.cost import costs as costs_of
from lib.recipes import read_recipe

COLUMNS = ["measured", "unit", "ours", "peer", "ratio", "lowest", "highest", "target", "met"]
MACHINE = ["processor", "cores", "memory_gib", "load", "system", "python", "versions"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the reports go."""
    monkeypatch.setenv("STUDY_HOME", str(tmp_path))
    return tmp_path / "reports" / "bench"


@pytest.fixture
def videos(tmp_path):
    """Two synthetic videos, one of them wide."""
    clips.make_videos(tmp_path, [(64, 64), (128, 64)], noise=4, clips=2)
    return sorted(tmp_path.glob("*.mp4"))


def test_sides_work_alternately_in_their_own_processes_and_answer():
    with Side("bench_sides:sleepy", seconds=0.01) as ours, Side("bench_sides:sleepy", seconds=0.1) as peer:
        taken = alternate({"ours": ours, "peer": peer}, "sleep", rounds=2)
        assert peer("answer")["value"] == 42
    assert [len(times) for times in taken.values()] == [2, 2]
    assert all(mine.seconds < theirs.seconds for mine, theirs in zip(*taken.values(), strict=True))
    assert all(theirs.cpu < 0.05 for theirs in taken["peer"])  # asleep


def test_a_side_that_fails_says_why():
    with pytest.raises(RuntimeError, match="no_such_side"):
        Side("bench_sides:no_such_side")


def test_ratio_is_that_of_medians_and_the_target_decides():
    row = report.compare("x", [Taken(1), Taken(2), Taken(9)], [Taken(4)] * 3, "≤ 0.5")
    assert (row["ours"], row["peer"], row["ratio"], row["met"]) == (2, 4, 0.5, "yes")
    assert (row["lowest"], row["highest"]) == (0.25, 2.25)
    faster = report.compare("x", [Taken(1, 1)], [Taken(4, 5)], "≥ 5", clips=8)
    assert (faster["unit"], faster["ours"], faster["ratio"], faster["met"]) == ("clips/s", 8, 4, "no")
    assert faster["cpu_ratio"] == 5
    assert list(row)[: len(COLUMNS)] == COLUMNS


def test_without_a_peer_there_is_no_ratio_and_no_target_is_met():
    row = report.compare("x", [Taken(1)], [], "≤ 0.5", note="the peer could not be installed")
    assert np.isnan(row["ratio"])
    assert row["met"] == ""


def test_a_report_names_machine_and_versions_in_both_files(folder):
    row = report.compare("a step", [Taken(1)], [Taken(3)], "≤ 0.5")
    path = report.write("x", "Title: this\n\nText.\n", [row], {"numpy": "1.2.3"}, report.machine())
    table = pd.read_csv(path)
    assert path == folder / "x.csv"
    assert [column for column in [*COLUMNS, *MACHINE] if column not in table] == []
    page = path.with_suffix(".md").read_text()
    assert page.startswith("# Title: this\n\nText.\n\n| measured")
    assert "0.333" in page
    assert f"{report.machine()['cores']} cores" in page
    assert "numpy 1.2.3" in page


def test_every_part_has_a_report_and_an_unknown_one_is_refused(capsys):
    pages = {path.stem for path in (REPOSITORY / "reports" / "bench").glob("*.md")}
    # Those of a GPU and of real videos are written only where there are some.
    assert pages | {"device", "poses-agreement"} == set(bench.PARTS)
    assert bench.main(["nonsense"]) == 2
    assert "clips, waiting" in capsys.readouterr().err


def test_hands_of_a_frame_are_paired_so_that_they_are_nearest():
    ours, missing = np.zeros((2, 21, 2)) + [[[0.1, 0.5]], [[0.8, 0.5]]], np.full((21, 2), np.nan)
    swapped = ours[::-1] + 0.01
    assert [agree for agree, _ in agreement.nearest_pairs(ours, swapped)] == [False, False]
    ((agree, apart),) = agreement.nearest_pairs(ours, np.stack([missing, ours[1] + [0, 0.02]]))
    assert agree
    np.testing.assert_allclose(apart, 0.02)
    assert agreement.nearest_pairs(ours, np.stack([missing, missing])) == []


def test_agreement_without_data_says_so(tmp_path, capsys):
    assert agreement.main(root=str(tmp_path)) is None
    assert "videos is missing" in capsys.readouterr().err


def test_letterbox_keeps_the_aspect_and_pads_with_black_in_rgb():
    picture = np.full((50, 100, 3), (255, 128, 0), np.uint8)  # BGR
    boxed = clips.letterbox(picture, 40)
    assert boxed.shape == (40, 40, 3)
    assert boxed.dtype == np.float32
    assert np.allclose(boxed[10:30], np.array([0, 128, 255]) / 255, atol=1e-6)
    assert not boxed[:10].any()
    assert not boxed[30:].any()


def test_the_published_reader_takes_consecutive_frames_from_a_random_one(videos):
    frames = read_all(videos[0])
    starts = set()
    for seed in range(8):
        clip = clips.read_published(videos[0], 5, 64, np.random.default_rng(seed))
        match = [np.allclose(clip, frames[start : start + 5]) for start in range(len(frames) - 4)]
        assert sum(match) == 1
        starts.add(match.index(True))
    assert len(starts) > 2


def test_the_published_reader_is_black_after_the_end_of_the_video(videos):
    count = len(read_all(videos[1]))
    clip = clips.read_published(videos[1], count + 3, 32, np.random.default_rng(0))
    assert clip[count - 1].any()
    assert not clip[count:].any()


def read_all(video):
    """Every frame as the published code gives it, at 64 × 64."""
    capture, frames = cv2.VideoCapture(str(video)), []
    while (answer := capture.read())[0]:
        frames.append(clips.letterbox(answer[1], 64))
    return np.stack(frames)


def test_synthetic_videos_have_the_sizes_asked_for_and_noise_where_asked(videos, tmp_path):
    assert [cv2.VideoCapture(str(video)).read()[1].shape for video in videos] == [(64, 64, 3), (64, 128, 3)]
    picture = np.full((32, 32, 3), 100, np.uint8)
    first, second = clips.film([picture, picture], noise=5)
    assert 3 < np.std(first) < 7
    assert (first != second).mean() > 0.5


def test_both_ways_of_reading_clips_are_measured():
    rows = clips.measure("small", [(80, 48)], noise=0, rounds=1, clips=2)
    assert [row["measured"] for row in rows] == ["videos small, training", "videos small, unvaried"]
    assert all(row["unit"] == "clips/s" and row["ratio"] == row["ours"] / row["peer"] for row in rows)


def test_an_official_package_that_cannot_be_installed_is_reported(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(official.shutil, "which", lambda name: str(tmp_path / "no-uv"))
    with pytest.raises(official.NotInstalledError, match=r"could not be installed or started: uv: No such file"):
        official.start("train")


def test_operations_in_functions_of_any_size_are_counted():
    with Side("bench_sides:nested", backend="tensorflow") as side:  # as the official code's are
        assert side("count")["value"] == 2 * 2 * 49 * 6 * 36


def test_a_row_of_costs_has_published_and_counted_values():
    table = costs_of("x3d-xs")
    row = costs.row(table)
    assert row["published parameters, 1e6"] == 3.79
    assert row["multiply-adds, 1e9"] == table.loc["multiply-adds, 1e9", "ours"]


def test_every_published_form_is_counted_and_the_form_for_phones_of_the_smallest_movinet():
    assert {model: list(costs.forms(model)) for model in ("movinet-a0", "movinet-a5", "s3d")} == {
        "movinet-a0": ["base", "stream", "phone"],
        "movinet-a5": ["base", "stream"],
        "s3d": [""],
    }


def test_the_page_is_not_measured_without_playwright_and_that_is_said(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    assert app.main() is None
    assert "not measured: playwright is not installed" in capsys.readouterr().err


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The two files of one network: TensorFlow Lite and ONNX."""
    path = tmp_path_factory.mktemp("export") / "m.tflite"
    export.export_clip(str(path), "spobet-plus")
    return path, path.with_suffix(".onnx")


def test_both_runtimes_are_compared_on_one_network(exported):
    runners = [open_model(path) for path in exported]
    clip = np.random.default_rng(0).random(runners[0].zeros()["clip"].shape, np.float32)
    logits = [runner({"clip": clip})["logits"] for runner in runners]
    assert logits[0].shape == (1, official.CLASSES)
    np.testing.assert_allclose(*logits, atol=1e-4)


def test_exported_files_are_called_alternately_and_a_missing_peer_is_named(exported, folder, tmp_path, monkeypatch):
    both = export.timed("a clip", dict(zip(("ours", "peer"), exported, strict=True)), rounds=3)
    assert both["ratio"] == both["ours"] / both["peer"] > 0
    assert both["rounds"] == 3

    def no_official(folder):
        raise official.NotInstalledError("no network")

    monkeypatch.setattr(export, "exported", lambda what, folder, **options: exported[0])
    monkeypatch.setattr(official, "install", no_official)
    rows = [export.frame_row(tmp_path, rounds=1, size=8), export.phone_row(tmp_path, rounds=1, size=8)]
    assert [np.isnan(row["ratio"]) for row in rows] == [True, True]
    assert "no network" in rows[0]["note"]
    assert "movinet_a0_stream_k600_int8.tflite" in rows[1]["note"]


def test_both_torch_sides_have_as_many_parameters_and_take_a_step():
    form = {"model": "x3d-s", "batch": 2, "frames": 4, "size": 64}
    sides = [getattr(torch_video, side)(**form) for side in ("ours", "published")]
    assert sides[0]["parameters"]() == sides[1]["parameters"]()
    assert all(np.isfinite(side["step"]()) for side in sides)
    keras.config.set_dtype_policy("float32")


def test_memory_is_the_peak_even_after_it_is_released():
    with Side("bench_sides:hungry", mebibytes=200) as side:
        before = side("memory")["value"]
        side("hold")
        assert 150 < side("memory")["value"] - before < 300


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_is_read_from_the_status_of_the_process():
    assert preprocessing.peak_of(["Name:\tpython", "VmHWM:\t    2048 kB"]) == 2


def test_preprocessing_is_measured_for_two_numbers_of_clips(folder):
    table = pd.read_csv(preprocessing.main(rounds=1, counts=(4, 2)))
    assert table["unit"].tolist() == ["ms a clip", "MiB"] * 2
    assert (table[["ours", "peer"]] > 0).all(axis=None)


def test_index_and_pose_store_are_measured_for_two_numbers_of_clips(folder):
    table = pd.read_csv(poses.main(rounds=1, counts=(40, 20)))
    assert table["unit"].tolist() == ["s", "s", "MiB"]
    assert table["peer"][1] == 60
    assert table["ours"][0] == table["ours"][1] > 0


def test_plain_torch_has_the_parameters_of_spobet_plus_and_takes_an_epoch():
    config, made = read_recipe("spobet-plus"), spobet.make_clips(8)
    ours, data = spobet.ours(*made, config)
    values = ours.features(data[0][0])[0].shape[-1]
    plain = PlainSpobet(values, spobet.CLASSES, config.options)
    assert sum(p.numel() for p in plain.parameters()) == sum(prod(w.shape) for w in ours.trainable_weights)
    spobet.plain(*made)()
    keras.config.set_dtype_policy("float32")


def test_both_sides_of_i3d_have_as_many_parameters_and_take_a_step():
    form = {"batch": 1, "frames": 8, "size": 32}
    sides = [i3d.ours(mixed=False, **form), i3d.published(**form)]
    assert sides[0]["parameters"]() == sides[1]["parameters"]()
    assert all(np.isfinite(side["step"]()) for side in sides)


def test_both_sides_of_spobet_are_the_same_network_on_the_same_clips():
    made = spobet.make_clips(20)
    (theirs, padded), (ours, bucketed) = spobet.published(*made), spobet.ours(*made, read_recipe("spobet"))
    # Theirs sees x, y, present of 42 joints, ours x and y: the embeddings differ by 42 rows, and by nothing else.
    assert theirs.count_params() - ours.count_params() == 42 * 64
    assert padded[0][0].shape[1] == 250
    assert max(bucketed[i][0].shape[1] for i in range(len(bucketed))) < 200
    assert sum(len(bucketed[i][0]) for i in range(len(bucketed))) == 20
    keras.config.set_dtype_policy("float32")
