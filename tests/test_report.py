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
from lib.predictions import MOST_IN_FLOAT32, Predictions
from lib.report import (
    COLUMNS,
    SCORES,
    beside_published,
    comparison,
    comparison_markdown,
    published,
    read_predictions,
    read_twins,
    readable,
    row_of,
    write_comparison,
)
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


def write_run(study, run, model, variant="", *, right=5, clips=10, classes=100, n_missing=0, **changes):
    """A run whose first `right` of `clips` clips are right, the others are taken for gloss 1. changes: of its facts."""
    logits = np.zeros((clips, classes), np.float32)
    logits[np.arange(clips), np.where(np.arange(clips) < right, 0, 1)] = 1
    glosses = np.array([f"gloss {number}" for number in range(classes)])
    names = np.array([f"{number:05d}" for number in range(clips)])
    predictions = Predictions(names, np.zeros(clips, int), logits, glosses)
    facts = {**FACTS, "model": model, "variant": variant, "recipe": run, "seed": 0, **changes}
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


# ---- twins


def write_twins(study, *rows):
    """tables/twins.csv with rows of clip, twin's gloss, twin's split and kind; every clip is of test and gloss 0."""
    columns = ["video_id", "twin_gloss", "twin_split", "kind"]
    table = pd.DataFrame(rows, columns=columns).assign(gloss="gloss 0", split="test", twin="77777")
    path = study.paths.table("twins.csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)


@pytest.fixture
def with_twins(three_seeds):
    """Of ten test clips, 0 and 9 have twins in training; 9, of a gloss of the study, and 8 identical ones."""
    write_twins(
        three_seeds,
        ("00000", "null", "train", "near"),
        ("00009", "gloss 1", "train", "identical"),
        ("00009", "gloss 0", "val", "identical"),
        ("00008", "gloss 1", "val", "identical"),
    )
    return three_seeds


def test_a_run_is_scored_with_and_without_the_clips_that_have_twins_in_training(with_twins):
    row = comparison(with_twins).set_index("run").loc["movinet-a0"]
    assert (row["n"], row["top1"]) == (10, 0.5)
    assert row["n_untwinned"] == 8
    assert row["top1_untwinned"] == 4 / 8  # clips 1 to 4 of 1 to 8
    assert row["top1_untwinned_ci95"] == pytest.approx(wilson(4, 8), abs=1e-6)
    # A wrong clip has a logit of 1 for gloss 1 and 0 for the other 99: its gloss is among the first five 4 in 99 times.
    assert row["top5_untwinned"] == pytest.approx((4 + 4 * 4 / 99) / 8, abs=1e-6)


def test_either_gloss_of_identical_clips_is_right_in_a_column_of_its_own(with_twins):
    row = comparison(with_twins).set_index("run").loc["movinet-a0"]
    assert (row["n_either"], row["top1_either"]) == (2, 0.7)


def test_seeds_have_a_mean_without_twins_with_its_deviation_and_interval(with_twins):
    row = comparison(with_twins).set_index("run").loc["spobet-plus (mean of 3)"]
    shares = [3 / 8, 4 / 8, 8 / 8]  # of 4, 5 and 9 right ones, the first of which has a twin
    assert row["top1_untwinned"] == pytest.approx(np.mean(shares))
    assert row["top1_untwinned_sd"] == pytest.approx(np.std(shares, ddof=1))
    assert row["top1_untwinned_ci95"] == pytest.approx(wilson(sum(shares) / 3 * 8, 8), abs=1e-6)
    assert row["top1_either"] == pytest.approx(np.mean([0.6, 0.7, 1]))


def test_markdown_has_a_row_of_all_clips_and_one_of_those_without_twins(with_twins):
    write_comparison(with_twins)
    page = with_twins.paths.table("comparison.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    table = pd.DataFrame(rows[2:], columns=rows[0])
    first, second = table[table["run"] == "movinet-a0"].to_dict("records")
    assert (first["test clips"], first["top-1"], first["top-1, either gloss"]) == ("10, all present", "50.0", "70.0")
    low, high = (100 * bound for bound in wilson(4, 8))
    assert (second["test clips"], second["top-1"]) == ("8, no twin in training", "50.0")
    assert second["95 % interval"] == f"{low:.1f} to {high:.1f}"
    assert second["top-1, either gloss"] == second["val top-1"] == ""
    assert table["run"].tolist().count("**spobet-plus (mean of 3)**") == 2
    assert "**2 of the 10 test clips have a twin in training**" in page
    assert "2 of the 10 test clips are byte-identical to a clip of another gloss" in page


def test_a_study_without_twins_says_so_and_one_whose_twins_are_unknown_says_nothing(three_seeds):
    unknown = comparison(three_seeds)
    assert unknown[["n_untwinned", "top1_untwinned", "top1_either"]].isna().all(axis=None)
    assert "twin" not in comparison_markdown(three_seeds, unknown)
    write_twins(three_seeds, ("00000", "gloss 0", "test", "identical"))
    none = comparison(three_seeds)
    assert (none["top1_untwinned"] == none["top1"]).all()
    assert (none["top1_either"] == none["top1"]).all()
    page = comparison_markdown(three_seeds, none)
    assert "No test clip has a twin" in page
    assert "test clips |" not in page


def test_where_every_test_clip_has_a_twin_nothing_is_left_to_score(make_study):
    study = make_study([{"recipe": "i3d"}])
    write_run(study, "i3d", "i3d", clips=2)
    write_twins(study, ("00000", "gloss 0", "train", "near"), ("00001", "gloss 0", "train", "near"))
    table = comparison(study)
    assert table.loc[0, "n_untwinned"] == 0
    assert pd.isna(table.loc[0, "top1_untwinned"])
    assert "0, no twin in training" in comparison_markdown(study, table)


def test_a_table_of_twins_that_lacks_a_column_is_named(make_study):
    study = make_study([{"recipe": "i3d"}])
    write_run(study, "i3d", "i3d")
    write_twins(study)
    path = study.paths.table("twins.csv")
    pd.read_csv(path).drop(columns="twin_split").to_csv(path, index=False)
    with pytest.raises(StudyError, match=r"twins\.csv: lacks the column\(s\) twin_split"):
        comparison(study)


# ---- models of videos on drawn poses


@pytest.fixture
def drawn(make_study):
    """MoViNet-A0 with two seeds, from published weights and from a study's, I3D, S3D with three; I3D on videos, too."""
    movinet = [{"recipe": "movinet-a0", "seeds": [0, 1]}]
    movinet += [{"recipe": "movinet-a0", "name": f"movinet-a0-{name}"} for name in ("k600", "transfer")]
    s3d = {"recipe": "s3d", "seeds": [0, 1, 2]}
    study = make_study([*movinet, s3d, {"recipe": "i3d", "name": "i3d-drawn"}, {"recipe": "i3d"}])
    for name, variant, right in (("s0", "a0-drawn", 3), ("s1", "a0-drawn", 6), ("k600", "a0-k600-drawn", 5)):
        write_run(study, f"movinet-a0-{name}", "movinet", variant, right=right, input="drawn")
    write_run(study, "movinet-a0-transfer", "movinet", "a0-drawn", right=9, input="drawn", weights="large/movinet-s0")
    for seed in (0, 1, 2):  # the mean of three equal floats may be larger than each
        write_run(study, f"s3d-s{seed}", "s3d", "drawn", right=8, input="drawn differences")
    write_run(study, "i3d-drawn", "i3d", "drawn", right=2, input="drawn")
    write_run(study, "i3d", "i3d", right=9)
    return study


def test_drawn_poses_get_no_published_figure_as_if_videos_were_read(drawn):
    table = comparison(drawn).set_index("run")["published_top1"]
    assert table["i3d"] == 0.4845
    assert table.drop("i3d").isna().all()


def test_models_on_drawn_poses_stand_beside_their_published_figures_with_intervals(drawn):
    table = beside_published(drawn, comparison(drawn))
    assert table["model"].tolist() == ["movinet-a0", "i3d", "s3d"]  # best published first, unpublished last
    assert table["run"].tolist() == ["movinet-a0-s1", "i3d-drawn", "s3d-s0"]  # the seed that validation prefers
    assert table["top1"].tolist() == [0.6, 0.2, 0.8]
    movinet, i3d, s3d = table.to_dict("records")
    assert (movinet["published_low"], movinet["published_high"]) == pytest.approx(wilson(138, 258), abs=1e-4)
    assert (i3d["published_top1"], i3d["published_n"]) == (0.4845, 258)
    assert (i3d["low"], i3d["high"]) == pytest.approx(wilson(2, 10), abs=1e-6)
    assert pd.isna(s3d["published_top1"])


def test_without_drawn_poses_nothing_stands_beside_what_is_published(three_seeds):
    assert beside_published(three_seeds, comparison(three_seeds)).empty


# ---- what runs started from


def test_the_table_says_what_runs_started_from_unless_all_started_from_random_weights(make_study):
    study = make_study([{"recipe": "spobet"}, {"recipe": "spobet-plus"}])
    write_run(study, "spobet", "spobet", weights="scratch")
    write_run(study, "spobet-plus", "spobet", "plus", weights="scratch")
    assert "weights" not in readable(comparison(study))
    write_run(study, "spobet-plus", "spobet", "plus", weights="wlasl2000-hands/spobet-plus-s0")
    assert readable(comparison(study))["weights"].tolist() == ["scratch", "wlasl2000-hands/spobet-plus-s0"]


def test_a_mean_names_all_that_its_seeds_started_from(make_study):
    study = make_study([{"recipe": "spobet", "seeds": [0, 1, 2]}])
    for seed, start in enumerate(("large/a-s0", "large/a-s1", "large/a-s0")):
        write_run(study, f"spobet-s{seed}", "spobet", weights=start)
    assert comparison(study)["weights"].tolist()[-1] == "large/a-s0, large/a-s1"


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


# ---- what is committed


def recompute(study):
    """Assert that the study's tables come out of its report to the digit.

    Of more than MOST_IN_FLOAT32 glosses only the predictions of some runs are committed. The rows of the others must
    have the scores of metrics.json, which the run has written, and a mean over seeds those of its rows.
    """
    path = study.paths.table("comparison.csv")
    absent = [run for run in study.run_names() if not study.paths.predictions(run).exists()]
    if not absent:
        table = comparison(study)
        assert table.to_csv(index=False, float_format="%.6g") == path.read_text()
        assert comparison_markdown(study, table) == path.with_suffix(".md").read_text()
        return
    assert study.subset > MOST_IN_FLOAT32
    assert len(absent) < len(study.run_names()), "no run's predictions are committed"
    header, *lines = path.read_text().splitlines()
    assert header == ",".join(COLUMNS)
    intervals = dict.fromkeys(["top1_ci95", "top1_untwinned_ci95"], lambda text: json.loads(text or "null"))
    table = pd.read_csv(path, converters=intervals)
    assert comparison_markdown(study, table) == path.with_suffix(".md").read_text()
    committed = table.set_index("run")
    assert [run for run in committed.index if "(mean of" not in run] == study.run_names()
    twins = read_twins(study)
    for spec in study.runs:
        runs = [run for run, _ in spec.runs()]
        for run in runs:
            row = committed.loc[run]
            if run in absent:
                metrics = json.loads(study.paths.metrics(run).read_text())
                names = ["n", "n_missing", *(name for name in SCORES if name in metrics)]
                assert row[names].astype(float).tolist() == pytest.approx([metrics[name] for name in names], rel=1e-5)
            else:
                made = row_of(study, run, twins)
                made |= published(study, made["model"], made["variant"], made["input"])
                line = pd.DataFrame([made], columns=COLUMNS).to_csv(index=False, header=False, float_format="%.6g")
                assert line.strip() in lines, run
        if len(runs) > 1:
            names = [score for score in SCORES if score in committed]
            mean = committed.loc[f"{spec.title} (mean of {len(runs)})", names].astype(float)
            expected = committed.loc[runs, names].astype(float).mean()
            assert mean.tolist() == pytest.approx(expected.tolist(), rel=2e-5, nan_ok=True)


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("reports/*/tables/comparison.csv")), ids=lambda p: p.parts[-3])
def test_every_committed_comparison_comes_out_of_its_predictions_to_the_digit(path):
    recompute(load_study(path.parts[-3], "data", require_data=False))


@pytest.fixture
def partly_committed(make_study):
    """A study of 301 glosses: one run with its predictions and three seeds, two of them without."""
    study = make_study([{"recipe": "spobet-plus", "seeds": [1, 2, 3]}, {"recipe": "spobet"}], subset=301)
    for seed, right in ((1, 4), (2, 5), (3, 9)):
        write_run(study, f"spobet-plus-s{seed}", "spobet", "plus", right=right, classes=301)
    write_run(study, "spobet", "spobet", classes=301)
    write_twins(study, ("00000", "gloss 1", "train", "near"))
    write_comparison(study)
    for seed in (1, 2):
        for split in ("val", "test"):
            study.paths.predictions(f"spobet-plus-s{seed}", split).unlink()
    return study


def test_a_comparison_whose_predictions_are_partly_committed_is_recomputed_as_far_as_they_go(partly_committed):
    recompute(partly_committed)


@pytest.mark.parametrize(("row", "was", "now"), [
    ("spobet,", "0.444444", "0.444443"), ("spobet-plus-s1,", ",0.4,", ",0.5,"), ("spobet-plus (mean", ",0.6,", ",0.7,"),
])  # fmt: skip
def test_a_changed_figure_is_noticed_in_every_kind_of_row(partly_committed, row, was, now):
    path = partly_committed.paths.table("comparison.csv")
    lines = path.read_text().splitlines(keepends=True)
    changed = [line.replace(was, now) if line.startswith(row) else line for line in lines]
    assert changed != lines
    path.write_text("".join(changed))
    with pytest.raises(AssertionError):
        recompute(partly_committed)


def test_a_changed_page_is_noticed(partly_committed):
    path = partly_committed.paths.table("comparison.md")
    page = path.read_text()
    assert "44.4" in page
    path.write_text(page.replace("44.4", "44.5"))
    with pytest.raises(AssertionError):
        recompute(partly_committed)


LARGE = ("wlasl1000-hands", "wlasl2000-hands")


def test_the_reports_of_thousands_of_glosses_stay_small():
    listed = ["git", "ls-files", "--", *(f"reports/{name}" for name in LARGE)]
    names = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.splitlines()
    assert sum((REPOSITORY / name).stat().st_size for name in names) < 30e6


@pytest.mark.parametrize("name", LARGE)
def test_their_predictions_are_committed_only_where_the_list_of_ignored_files_says_so(name):
    paths = [f"reports/{name}/runs/any/{file}" for file in ("predictions-val.npz", "exports/predictions-test-a.npz")]
    ignored = subprocess.run(
        ["git", "check-ignore", *paths], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert ignored.stdout.split() == paths
