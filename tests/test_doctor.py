"""`make doctor`: what is there, what is odd, what it costs, and that nothing is written."""

import json
import os
import subprocess
import sys

import doctor
import pytest
import yaml

from helpers import encode_video, numbered_images
from lib.paths import REPOSITORY
from lib.study import SearchSpec

SPLITS = ("train", "val", "test")
RUN = {"recipe": "x3d-s-scratch", "set": {"frames": 4, "size": 32, "train.epochs": 3}}
KEYS = {
    "title": "Two signs", "subset": 2, "sources": ["clips"], "split": "official",
    "runs": [RUN, RUN | {"name": "twice", "seeds": [0, 1]}], "exports": ["x3d-s-scratch"],
}  # fmt: skip


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A study of six own clips, one of them cut off, and a note among them."""
    monkeypatch.setenv("STUDY_HOME", str(tmp_path / "home"))
    for split in SPLITS:
        for gloss in ("yes", "no"):
            encode_video(tmp_path / "data" / split / gloss / "1.mp4", numbered_images(12))
    cut = tmp_path / "data" / "test" / "no" / "1.mp4"
    cut.write_bytes(cut.read_bytes()[:-400])
    (tmp_path / "data" / "train" / "yes" / "notes.txt").touch()
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(KEYS))
    return tmp_path


def findings(bench, data="data"):
    found = list(doctor.examine(str(bench / "two.yaml"), str(bench / data)))
    return {finding.part: finding for finding in found}, found


def test_it_says_what_is_there_what_is_odd_and_what_it_costs(bench):
    last, found = findings(bench)
    assert {last[split].text for split in SPLITS} == {"2 clips"}
    odd = " | ".join(finding.text for finding in found if finding.state == doctor.ODD)
    assert "notes.txt" in odd
    assert "6 of 6 read, unreadable: 1: test-no-1 " in odd
    assert {"x3d-s-scratch", "twice-s0", "twice-s1"} <= last.keys()
    for part in ("time", "disk", "memory"):
        assert last[part].text.startswith("about ")
    assert not [finding for finding in found if finding.state == doctor.STOP]
    assert not (bench / "home").exists()


def test_what_there_is_no_time_to_measure_is_estimated_or_said_to_be_unknown(bench, monkeypatch):
    ticks = iter(range(0, 10_000, 20))  # of the clock: time for one network
    monkeypatch.setattr(doctor.time, "monotonic", lambda: float(next(ticks)))
    last, _ = findings(bench)
    assert "estimated" not in last["x3d-s-scratch"].text
    assert last["twice-s0"].text.endswith("estimated from its operations")
    monkeypatch.setattr(doctor, "MEASURING", -1.0)
    last, _ = findings(bench)
    assert last["x3d-s-scratch"].text == "not measured"
    assert last["time"].state == doctor.ODD


@pytest.mark.parametrize("data", ["nowhere", "data/train"])
def test_a_study_that_cannot_run_is_one_line_and_a_failure(bench, capsys, data):
    assert doctor.main(str(bench / "two.yaml"), str(bench / data), as_json=True) == 1
    found = json.loads(capsys.readouterr().out)
    assert [finding["state"] for finding in found].count("stop") == 1
    assert "\n" not in found[-1]["text"]


def test_the_searches_trials_count_as_many_epochs_as_the_tuners_run():
    spec = SearchSpec(name="a", recipe="spobet", space="any", tuners=["hyperband", "random"], trials=5)
    recipe = doctor.Training(epochs=9)
    plan = doctor.hyperband_plan(9)
    hyperband = sum(row.trials * (row.until - row.start) for row in plan.itertuples())
    assert doctor.search_epochs(spec, recipe) == hyperband + 5 * 9
    assert doctor.search_epochs(spec.model_copy(update={"trials": None}), recipe) == 2 * hyperband


def test_for_programs_it_prints_json_and_nothing_else(bench):
    command = [sys.executable, "workflow/doctor.py", str(bench / "two.yaml"), str(bench / "data"), "--json"]
    result = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | {"KERAS_BACKEND": "torch"}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert {"part", "state", "text"} == set(json.loads(result.stdout)[0])
