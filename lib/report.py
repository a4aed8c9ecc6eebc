"""The comparison of a study's runs, for programs and for people, beside published figures."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from lib.evaluation import METRICS, evaluate, rounded, wilson
from lib.paths import replacing
from lib.predictions import Predictions, RunFacts
from lib.settings import StudyError
from lib.study import Study

PUBLISHED = Path(__file__).with_name("published.csv")
SCORES = [*(name for name in METRICS if name != "loss"), "top1_full", "loss", "val_top1"]
MEASURED = [*SCORES, "train_seconds"]  # differ between the seeds of one recipe
# fmt: off
COLUMNS = [
    "run", "model", "variant", "recipe", "input", "frames", "size", "weights", "backend", "seed", "runs", "split",
    "n", "n_missing", "top1_ci95", *SCORES, *(f"{score}_sd" for score in SCORES),
    "params_m", "gflops", "epochs", "train_seconds",
    "published_top1", "published_top5", "published_source",
]
# fmt: on


def read_facts(study: Study, run: str) -> dict[str, Any]:
    """RunFacts of a run, and n_missing of its test split, from metrics.json; the scores in that file are not read.

    Raises StudyError, naming the run and the command that makes it, for an absent, broken or old file.
    """
    path = study.paths.metrics(run)
    advice = f"run `make study STUDY={study.name}`"
    try:
        metrics = json.loads(path.read_text())
    except FileNotFoundError:
        raise StudyError(f"run {run} has no {path.name}: {advice} to train it") from None
    except json.JSONDecodeError as error:
        raise StudyError(f"{path}: broken JSON ({error}); delete it and {advice}") from None
    facts = ["n_missing", *RunFacts.__annotations__]
    if lacking := sorted(set(facts) - metrics.keys()):
        raise StudyError(f"{path}: lacks {', '.join(lacking)}; delete it and {advice}")
    return {name: metrics[name] for name in facts}


def scores(study: Study, run: str) -> dict[str, Any]:
    """What `evaluate` says of a run's test predictions, rounded to 6 digits, and its facts.

    Raises StudyError when its predictions or facts are absent or broken.
    """
    facts = read_facts(study, run)
    return facts | rounded(evaluate(study.paths.predictions(run), facts["n_missing"]))


def read_predictions(study: Study, split: str = "test") -> dict[str, Predictions]:
    """The predictions of every run by its name. Raises StudyError when a file is absent or broken."""
    return {run: Predictions.load(study.paths.predictions(run, split)) for run in study.run_names()}


def comparison(study: Study) -> pd.DataFrame:
    """One row per run of the study file, in its order, with `COLUMNS`: facts from metrics.json, scores of predictions.

    Fractions are in [0, 1], `top1_ci95` is [low, high], `val_top1` the top-1 on the validation split. Several seeds of
    one recipe are followed by their mean, named like `spobet-plus (mean of 3)`, with their number as `runs`;
    `<score>_sd` is then the sample standard deviation over the seeds, and empty in rows of one run.
    The published columns are filled where the study measures what was published; see `published`.

    Raises StudyError naming the run when its files are absent or broken, or when seeds saw different clips.
    """
    rows: list[dict[str, Any]] = []
    for spec in study.runs:
        seeds = [
            {
                "run": run,
                "runs": 1,
                **scores(study, run),
                "val_top1": rounded(evaluate(study.paths.predictions(run, "val")))["top1"],
            }
            for run, _ in spec.runs()
        ]
        rows += seeds
        if len(seeds) > 1:
            rows.append(_mean_row(spec.title, seeds))
    return pd.DataFrame([row | published(study, row["model"], row["variant"]) for row in rows], columns=COLUMNS)


def _mean_row(title: str, seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """The first seed's facts with the mean and sample standard deviation of what is measured.

    Its interval is Wilson's for the mean top-1 on the n clips: what the choice of clips leaves open.
    """
    if len({(row["n"], row["n_missing"]) for row in seeds}) > 1:
        names = ", ".join(f"{row['run']} {row['n']}" for row in seeds)
        raise StudyError(f"seeds of {title} were scored on different clips ({names}): train them again")
    table, n = pd.DataFrame(seeds), seeds[0]["n"]
    means = table[MEASURED].astype(float).mean().to_dict()
    spreads = table[SCORES].astype(float).std(ddof=1).add_suffix("_sd").to_dict()
    name = f"{title} (mean of {len(seeds)})"
    interval = [round(bound, 6) for bound in wilson(means["top1"] * n, n)]
    return seeds[0] | means | spreads | {"run": name, "runs": len(seeds), "seed": None, "top1_ci95": interval}


def published(study: Study, model: str, variant: str) -> dict[str, Any]:
    """published_top1, published_top5 in [0, 1] and published_source of a model, from published.csv.

    A figure without a variant is for every variant of its model. All empty when nothing was published for the
    model on this subset, and for studies that do not score the official split of the real data.
    """
    figures = pd.read_csv(PUBLISHED, keep_default_na=False)
    match = figures[(figures["model"] == model) & figures["variant"].isin(["", variant])]
    match = match[match["subset"] == study.subset]
    if study.synthetic or "clips" in study.sources or study.split != "official" or match.empty:
        return dict.fromkeys(["published_top1", "published_top5", "published_source"])
    figure = match.iloc[-1]
    return {
        "published_top1": float(figure["top1"]),
        "published_top5": float(figure["top5"]),
        "published_source": figure["source"],
    }


# ---- for people ----------------------------------------------------------------------------------------


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The comparison as text to print: percent with one decimal, and mean ± standard deviation over seeds.

    One row per row of `comparison`, in its order; `top-1, absent wrong` is top1_full, where clips are absent.
    Published percents keep their two decimals. Columns that are empty throughout are left out.
    """
    text = pd.DataFrame([_readable_row(row) for row in table.to_dict("records")])
    return text.loc[:, (text != "").any()]


def _readable_row(row: dict[str, Any]) -> dict[str, str]:
    low, high = row["top1_ci95"]
    frames = "" if pd.isna(row["frames"]) else f", {row['frames']:.0f} frames"
    size = "" if pd.isna(row["size"]) else f", {row['size']:.0f}²"
    titled = {metric.title: _percent(row, name) for name, metric in METRICS.items() if metric.title}
    return {
        "run": row["run"],
        "input": f"{row['input']}{frames}{size}",
        "params (M)": _number(row["params_m"], ".2f"),
        "GFLOPs": _number(row["gflops"], ".2f"),
        "training (min)": _number(row["train_seconds"], ".1f", scale=1 / 60),
        "val top-1": _percent(row, "val_top1"),
        "top-1": titled.pop("top-1"),
        "95 % interval": f"{100 * low:.1f} to {100 * high:.1f}",
        **titled,
        "top-1, absent wrong": _percent(row, "top1_full") if row["n_missing"] else "",
        "published top-1": _number(row["published_top1"], ".2f", scale=100),
        "published top-5": _number(row["published_top5"], ".2f", scale=100),
    }


def _percent(row: dict[str, Any], name: str) -> str:
    spread = row.get(f"{name}_sd")
    text = _number(row[name], ".1f", scale=100)
    return text if spread is None or pd.isna(spread) else f"{text} ± {100 * spread:.1f}"


def _number(value: float | None, form: str, scale: float = 1) -> str:
    return "" if value is None or pd.isna(value) else format(value * scale, form)


def comparison_markdown(study: Study, table: pd.DataFrame) -> str:
    """The comparison as a Markdown page: what was measured, the table with means in bold, the sources."""
    text = readable(table)
    means = table["runs"] > 1
    text.loc[means, "run"] = "**" + text.loc[means, "run"] + "**"
    published_for = table.dropna(subset="published_source").groupby("published_source", sort=False)["model"].unique()
    parts = [
        f"# {'SYNTHETIC data. ' if study.synthetic else ''}Comparison: {study.title}",
        *_notes(study, table),
        text.to_markdown(index=False, disable_numparse=True),
        *(
            f"Published for {', '.join(models)}, on the whole official split: {source}."
            for source, models in published_for.items()
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _notes(study: Study, table: pd.DataFrame) -> list[str]:
    """What the figures are of: percent of which clips, how many of them absent, made up or real."""
    notes = ["Accuracy in percent of clips; the interval is Wilson's for n clips; ± is over seeds."]
    if study.synthetic:
        notes.insert(0, "**SYNTHETIC data: the figures show that the study runs, nothing about signing.**")
    for n, n_missing, split in table[["n", "n_missing", "split"]].drop_duplicates().itertuples(index=False):
        whole = f"{study.split} {split} split"
        if n_missing == 0:
            notes.append(f"Measured on all {n} clips of the {whole}.")
        else:
            notes.append(
                f"**Measured on {n} of the {n + n_missing} clips of the {whole}**, those present. "
                f"“absent wrong” counts the {n_missing} others as errors."
            )
    return notes


def write_comparison(study: Study) -> pd.DataFrame:
    """Write tables/comparison.csv and tables/comparison.md of the study's report and return `comparison`."""
    table = comparison(study)
    with replacing(study.paths.table("comparison.csv")) as path:
        table.to_csv(path, index=False, float_format="%.6g")
    with replacing(study.paths.table("comparison.md")) as path:
        path.write_text(comparison_markdown(study, table), encoding="utf-8")
    return table
