"""The comparison of runs: rows, means over seeds, published figures, labels and errors."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from lib.evaluation import wilson, write_metrics
from lib.paths import REPOSITORY
from lib.predictions import Predictions
from lib.report import COLUMNS, comparison, comparison_markdown, read_predictions, write_comparison
from lib.settings import StudyError
from lib.study import load_study

FACTS = {
    "input": "videos",
    "frames": 20,
    "size": 172,
    "weights": "kinetics600",
    "backend": "torch",
    "params_m": 3.1,
    "gflops": 2.7,
    "train_seconds": 60.0,
    "epochs": 5,
}


@pytest.fixture
def make_study(tmp_path, monkeypatch):
    """Make a study of the given runs; further keys replace those of the study file."""
    monkeypatch.setenv("STUDY_HOME", str(tmp_path))

    def make(runs, **keys):
        study = {
            "title": "One hundred glosses",
            "subset": 100,
            "sources": ["videos"],
            "split": "official",
            "layout": "openpose-54",
            "runs": runs,
        }
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump(study | keys))
        return load_study(str(path), data=tmp_path, require_data=False)

    return make


def write_run(study, run, model, variant="", *, right=5, clips=10, n_missing=0, seed=0):
    """A run whose first `right` of `clips` clips are right."""
    logits = np.zeros((clips, 100), np.float32)
    logits[np.arange(clips), np.where(np.arange(clips) < right, 0, 1)] = 1
    glosses = np.array([f"gloss {number}" for number in range(100)])
    names = np.array([f"{number:05d}" for number in range(clips)])
    predictions = Predictions(names, np.zeros(clips, int), logits, glosses)
    facts = {**FACTS, "model": model, "variant": variant, "recipe": run, "seed": seed}
    for split in ("test", "val"):
        predictions.save(study.paths.predictions(run, split))
    write_metrics(study.paths.metrics(run), predictions, n_missing, **facts, split="test")


@pytest.fixture
def three_seeds(make_study):
    """spobet-plus at 0.4, 0.5 and 0.9, and movinet-a0 at 0.5."""
    study = make_study([{"recipe": "spobet-plus", "seeds": [1, 2, 3]}, {"recipe": "movinet-a0"}])
    for seed, right in ((1, 4), (2, 5), (3, 9)):
        write_run(study, f"spobet-plus-s{seed}", "spobet", "plus", right=right, seed=seed)
    write_run(study, "movinet-a0", "movinet", "a0")
    return study


def test_rows_are_the_runs_of_the_study_file_and_a_mean_after_its_seeds(three_seeds):
    write_run(three_seeds, "not-in-the-study-file", "i3d")
    assert comparison(three_seeds)["run"].tolist() == [
        "spobet-plus-s1",
        "spobet-plus-s2",
        "spobet-plus-s3",
        "spobet-plus (mean of 3)",
        "movinet-a0",
    ]


def test_mean_row_is_mean_and_sample_deviation_over_seeds(three_seeds):
    row = comparison(three_seeds).set_index("run").loc["spobet-plus (mean of 3)"]
    assert row["runs"] == 3
    assert row["top1"] == pytest.approx(0.6)
    assert row["top1_sd"] == pytest.approx(np.std([0.4, 0.5, 0.9], ddof=1))
    assert row["val_top1_sd"] == row["top1_sd"]
    assert row["top1_ci95"] == pytest.approx(wilson(6, 10), abs=1e-6)
    assert pd.isna(row["seed"])
    assert (row["model"], row["variant"], row["n"]) == ("spobet", "plus", 10)


def test_a_row_of_one_run_has_its_metrics_and_no_deviation(three_seeds):
    row = comparison(three_seeds).set_index("run").loc["movinet-a0"]
    assert (row["top1"], row["val_top1"], row["runs"], row["size"]) == (0.5, 0.5, 1, 172)
    assert pd.isna(row["top1_sd"])


def test_published_figures_stand_beside_the_same_model_and_variant(make_study):
    models = {"movinet-a0": ("movinet", "a0"), "i3d": ("i3d", ""), "spobet-plus": ("spobet", "plus")}
    study = make_study([{"recipe": run} for run in [*models, "movinet-a9"]])
    for run, (model, variant) in models.items():
        write_run(study, run, model, variant)
    write_run(study, "movinet-a9", "movinet", "a9")
    table = comparison(study).set_index("run")
    assert table["published_top1"].tolist()[:3] == [0.5349, 0.4845, 0.6395]
    assert table["published_top5"].tolist()[:3] == [0.8217, 0.7635, 0.8798]
    assert "SPOBET README" in table.loc["spobet-plus", "published_source"]
    assert table.loc["movinet-a9", ["published_top1", "published_source"]].isna().all()


@pytest.mark.parametrize(
    "keys", [{"subset": 300}, {"synthetic": True}, {"split": "signer-disjoint"}, {"sources": ["clips"], "layout": None}]
)
def test_published_figures_are_left_out_where_something_else_is_measured(make_study, keys):
    study = make_study([{"recipe": "i3d"}], **keys)
    write_run(study, "i3d", "i3d")
    assert comparison(study)[["published_top1", "published_top5", "published_source"]].isna().all(axis=None)


def test_an_absent_run_is_named_with_the_command_that_makes_it(make_study):
    study = make_study([{"recipe": "i3d"}, {"recipe": "movinet-a0"}])
    write_run(study, "i3d", "i3d")
    with pytest.raises(StudyError, match=r"run movinet-a0 has no metrics.*`make study STUDY=small`"):
        comparison(study)
    study.paths.predictions("i3d", "val").unlink()
    with pytest.raises(StudyError, match=r"i3d/predictions-val\.npz: no such predictions file; train the run first"):
        comparison(study)


def test_broken_and_incomplete_metrics_are_named(make_study):
    study = make_study([{"recipe": "i3d"}])
    write_run(study, "i3d", "i3d")
    path = study.paths.metrics("i3d")
    metrics = json.loads(path.read_text())
    del metrics["n_missing"], metrics["seed"]
    path.write_text(json.dumps(metrics))
    with pytest.raises(StudyError, match=r"i3d/metrics\.json: lacks n_missing, seed"):
        comparison(study)
    path.write_text("{")
    with pytest.raises(StudyError, match=r"i3d/metrics\.json: broken JSON"):
        comparison(study)


def test_seeds_scored_on_different_clips_have_no_mean(make_study):
    study = make_study([{"recipe": "spobet", "seeds": [1, 2]}])
    write_run(study, "spobet-s1", "spobet", clips=10)
    write_run(study, "spobet-s2", "spobet", clips=9)
    with pytest.raises(StudyError, match=r"spobet .*spobet-s1 10, spobet-s2 9"):
        comparison(study)


def test_written_csv_has_every_contract_column_and_parses(three_seeds):
    write_comparison(three_seeds)
    text = three_seeds.paths.table("comparison.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == COLUMNS
    assert json.loads(rows[0]["top1_ci95"]) == pytest.approx(wilson(4, 10), abs=1e-6)
    assert rows[0]["top1_sd"] == ""
    assert float(rows[3]["top1_sd"]) == pytest.approx(0.264575)
    assert rows[-1]["published_top1"] == "0.5349"


def test_markdown_shows_percent_interval_and_mean_in_bold(three_seeds):
    write_comparison(three_seeds)
    text = three_seeds.paths.table("comparison.md").read_text()
    low, high = (100 * bound for bound in wilson(4, 10))
    assert f"| 40.0 | {low:.1f} to {high:.1f} |" in " ".join(text.split())
    assert "**spobet-plus (mean of 3)**" in text
    assert "60.0 ± 26.5" in text
    assert "Published for movinet, on the whole official split: mobile sign-language" in text
    assert "SYNTHETIC" not in text
    assert "Measured on all 10 clips of the official test split." in text
    assert "53.49" in text  # as published, two decimals
    assert "absent" not in text


def test_markdown_of_synthetic_data_says_so_in_its_title(make_study):
    study = make_study([{"recipe": "i3d"}], synthetic=True)
    write_run(study, "i3d", "i3d")
    write_comparison(study)
    title = study.paths.table("comparison.md").read_text().splitlines()[0]
    assert title == "# SYNTHETIC data. Comparison: One hundred glosses"


def test_markdown_says_on_how_many_of_the_official_clips_it_was_measured(make_study):
    study = make_study([{"recipe": "i3d"}])
    write_run(study, "i3d", "i3d", n_missing=15)
    write_comparison(study)
    text = study.paths.table("comparison.md").read_text()
    assert "**Measured on 10 of the 25 clips of the official test split**" in text
    assert "| 20.0 " in text  # 5 of 25, absent ones wrong


def test_predictions_of_all_runs_are_read_by_name(three_seeds):
    predictions = read_predictions(three_seeds)
    assert list(predictions) == three_seeds.run_names()
    assert (predictions["movinet-a0"].logits.argmax(axis=1) == 0).sum() == 5
    three_seeds.paths.predictions("movinet-a0", "val").unlink()
    with pytest.raises(StudyError, match="movinet-a0/predictions-val"):
        read_predictions(three_seeds, "val")


def test_scores_in_metrics_files_are_not_read(three_seeds):
    before = comparison(three_seeds)
    path = three_seeds.paths.metrics("movinet-a0")
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps(metrics | {"top1": 0.99, "loss": 0.0}))
    pd.testing.assert_frame_equal(comparison(three_seeds), before)


NEW_METRIC = """

def margin(predictions: Predictions) -> float:
    top = np.sort(predictions.logits, axis=1)
    return float((top[:, -1] - top[:, -2]).mean())


METRICS["margin"] = Metric(margin, "margin")
"""


def test_a_new_metric_is_added_in_one_file_and_scores_old_reports(tmp_path):
    shutil.copytree(REPOSITORY / "lib", tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPOSITORY / "workflow", tmp_path / "workflow")
    shutil.copytree(REPOSITORY / "reports" / "sample" / "runs", tmp_path / "reports" / "sample" / "runs")
    with (tmp_path / "lib" / "evaluation.py").open("a") as file:
        file.write(NEW_METRIC)
    notebook_11 = """
from lib.report import write_comparison
from lib.study import load_study
write_comparison(load_study("sample", require_data=False))
"""
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "STUDY_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", notebook_11], cwd=tmp_path, env=environment, check=True)
    table = pd.read_csv(tmp_path / "reports" / "sample" / "tables" / "comparison.csv").set_index("run")
    logits = Predictions.load(REPOSITORY / "reports/sample/runs/spobet/predictions-test.npz").logits
    top = np.sort(logits, axis=1)
    assert table.loc["spobet", "margin"] == pytest.approx((top[:, -1] - top[:, -2]).mean(), rel=1e-5)
    assert "margin_sd" in table
    assert "| margin" in (tmp_path / "reports" / "sample" / "tables" / "comparison.md").read_text()


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("reports/*/tables/comparison.csv")), ids=lambda p: p.parts[-3])
def test_every_committed_comparison_comes_out_of_its_predictions_to_the_digit(path):
    study = load_study(path.parts[-3], "data", require_data=False)
    table = comparison(study)
    assert table.to_csv(index=False, float_format="%.6g") == path.read_text()
    assert comparison_markdown(study, table) == path.with_suffix(".md").read_text()
