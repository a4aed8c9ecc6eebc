"""The comparison of a study's runs, for programs and for people, beside published figures."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from lib.evaluation import METRICS, evaluate, other_glosses, rounded, top1_either, wilson, without_twins
from lib.models import FAMILIES
from lib.paths import replacing
from lib.predictions import Predictions, RunFacts
from lib.settings import StudyError
from lib.study import Study

PUBLISHED = Path(__file__).with_name("published.csv")  # n: test clips
DRAWN = "drawn"  # what the input of a model of videos begins with, in metrics.json, where it reads drawn poses
TWINS = ["video_id", "gloss", "split", "twin", "twin_gloss", "twin_split", "kind"]  # columns of twins.csv
TWIN_SCORES = ["top1_untwinned", "top5_untwinned", "top1_either"]
TWIN_FACTS = ["n_untwinned", "top1_untwinned_ci95", "n_either"]
SCORES = [*(name for name in METRICS if name != "loss"), "top1_full", "loss", "val_top1", *TWIN_SCORES]
MEASURED = [*SCORES, "train_seconds"]  # differ between the seeds of one recipe
# fmt: off
COLUMNS = [
    "run", "model", "variant", "recipe", "input", "frames", "size", "weights", "backend", "seed", "runs", "split",
    "n", "n_missing", "top1_ci95", *TWIN_FACTS, *SCORES, *(f"{score}_sd" for score in SCORES),
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


def read_twins(study: Study) -> pd.DataFrame | None:
    """tables/twins.csv of the study's report, every value a str; None where it has none.

    A row is a clip of the study and another clip, of any gloss and split of the largest annotation file, that is the
    same recording: see `lib.evaluation.without_twins`. Raises StudyError when a column is missing.
    """
    path = study.paths.table("twins.csv")
    if not path.is_file():
        return None
    twins = pd.read_csv(path, dtype=str, keep_default_na=False)  # a gloss may read like a missing value
    if lacking := sorted({*TWINS} - {*twins}):
        raise StudyError(f"{path}: lacks the column(s) {', '.join(lacking)}; run `make study STUDY={study.name}`")
    return twins


def twin_scores(predictions: Predictions, twins: pd.DataFrame | None) -> dict[str, Any]:
    """What the twins of test clips leave of an accuracy, rounded to 6 digits; all None where no twins are known.

    `n_untwinned` clips have no twin in training; top1_untwinned, its Wilson 95 % interval and top5_untwinned are of
    these. `n_either` clips are identical to one of another gloss of the predictions; top1_either, of all clips, takes
    either gloss as right.
    """
    if twins is None:
        return dict.fromkeys([*TWIN_FACTS, *TWIN_SCORES])
    kept, others = without_twins(predictions, twins), other_glosses(predictions, twins)
    left = rounded(evaluate(predictions.of(kept))) if kept.any() else {}
    return {
        "n_untwinned": int(kept.sum()),
        "top1_untwinned": left.get("top1"),
        "top1_untwinned_ci95": left.get("top1_ci95"),
        "top5_untwinned": left.get("top5"),
        "n_either": int(others.any(axis=1).sum()),
        "top1_either": round(top1_either(predictions, others), 6),
    }


def read_predictions(study: Study, split: str = "test") -> dict[str, Predictions]:
    """The predictions of every run by its name. Raises StudyError when a file is absent or broken."""
    return {run: Predictions.load(study.paths.predictions(run, split)) for run in study.run_names()}


def comparison(study: Study) -> pd.DataFrame:
    """One row per run of the study file, in its order, with `COLUMNS`: facts from metrics.json, scores of predictions.

    Fractions are in [0, 1], `top1_ci95` is [low, high], `val_top1` the top-1 on the validation split. Several seeds of
    one recipe are followed by their mean, named like `spobet-plus (mean of 3)`, with their number as `runs`;
    `<score>_sd` is then the sample standard deviation over the seeds, and empty in rows of one run. TWIN_FACTS and
    TWIN_SCORES, of `twin_scores`, are filled where the report has a table of twins.
    The published columns are filled where the study measures what was published; see `published`.

    Raises StudyError naming the run when its files are absent or broken, or when seeds saw different clips.
    """
    twins = read_twins(study)
    rows: list[dict[str, Any]] = []
    for spec in study.runs:
        seeds = [row_of(study, run, twins) for run, _ in spec.runs()]
        rows += seeds
        if len(seeds) > 1:
            rows.append(_mean_row(spec.title, seeds))
    return pd.DataFrame(
        [row | published(study, row["model"], row["variant"], row["input"]) for row in rows], columns=COLUMNS
    )


def row_of(study: Study, run: str, twins: pd.DataFrame | None) -> dict[str, Any]:
    """The row of one run in `comparison`, without the published columns."""
    return {
        "run": run,
        "runs": 1,
        **scores(study, run),
        **twin_scores(Predictions.load(study.paths.predictions(run)), twins),
        "val_top1": rounded(evaluate(study.paths.predictions(run, "val")))["top1"],
    }


def _mean_row(title: str, seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """The first seed's facts with the mean and sample standard deviation of what is measured.

    Its intervals are Wilson's for the mean top-1 on the clips: what the choice of clips leaves open.
    """
    if len({(row["n"], row["n_missing"]) for row in seeds}) > 1:
        names = ", ".join(f"{row['run']} {row['n']}" for row in seeds)
        raise StudyError(f"seeds of {title} were scored on different clips ({names}): train them again")
    table, n = pd.DataFrame(seeds), seeds[0]["n"]
    means = table[MEASURED].astype(float).mean().to_dict()
    spreads = table[SCORES].astype(float).std(ddof=1).add_suffix("_sd").to_dict()
    name = f"{title} (mean of {len(seeds)})"
    intervals = {"top1_ci95": _interval(means["top1"], n)}
    if untwinned := seeds[0]["n_untwinned"]:
        intervals["top1_untwinned_ci95"] = _interval(means["top1_untwinned"], untwinned)
    weights = ", ".join(dict.fromkeys(row["weights"] for row in seeds if row["weights"])) or None
    own = {"run": name, "runs": len(seeds), "seed": None, "weights": weights}  # seeds may start from several runs
    return seeds[0] | means | spreads | intervals | own


def _interval(share: float, n: int) -> list[float]:
    return [round(bound, 6) for bound in wilson(share * n, n)]


def published(study: Study, model: str, variant: str, seen: str) -> dict[str, Any]:
    """published_top1, published_top5 in [0, 1] and published_source of a model, from published.csv.

    A figure without a variant is for every variant of its model. All empty when nothing was published for the
    model on this subset, for studies that do not score the official split of the real data, and for models of videos
    that read drawn poses (seen: a run's `input`), as the published ones read videos: see `beside_published`.
    """
    figure = None if seen.startswith(DRAWN) else published_figure(study, model, variant)
    if figure is None:
        return dict.fromkeys(["published_top1", "published_top5", "published_source"])
    return {
        "published_top1": float(figure["top1"]),
        "published_top5": float(figure["top5"]),
        "published_source": figure["source"],
    }


def published_figure(study: Study, model: str, variant: str) -> pd.Series | None:
    """The row of published.csv for a model on this study's test split; see `published`."""
    figures = pd.read_csv(PUBLISHED, keep_default_na=False)
    match = figures[(figures["model"] == model) & figures["variant"].isin(["", variant])]
    match = match[match["subset"] == study.subset]
    if study.synthetic or "clips" in study.sources or study.split != "official" or match.empty:
        return None
    return match.iloc[-1]


def beside_published(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """Models of videos that read drawn poses, beside what was published of the same models on videos.

    table: of `comparison`. A row for each model and size: of its runs the one with the highest validation top-1, as
    what was published are single runs, too. Runs that start from another study's, which has more glosses than the
    published ones saw, are left out. Columns model (such as "movinet-a0"), family, run, top1, low, high (Wilson
    95 %), published_top1, published_low, published_high and published_n; these are empty where nothing was published.
    Highest published figure first.
    """
    drawn = table[(table["runs"] == 1) & table["input"].str.startswith(DRAWN) & ~table["weights"].str.contains("/")]
    rows = []
    for row in drawn.sort_values("val_top1", ascending=False, kind="stable").to_dict("records"):
        size = row["variant"].partition("-")[0]
        size = size if size in FAMILIES[row["model"]].sizes else ""
        model = "-".join(filter(None, (row["model"], size)))
        made = {"model": model, "family": row["model"], "run": row["run"], "top1": row["top1"]}
        made |= dict(zip(("low", "high"), row["top1_ci95"], strict=True))
        figure = published_figure(study, row["model"], size)
        if figure is not None:
            low, high = wilson(figure["top1"] * figure["n"], figure["n"])
            made |= {"published_top1": figure["top1"], "published_low": low, "published_high": high}
            made |= {"published_n": figure["n"]}
        rows.append(made)
    names = ["model", "family", "run", "top1", "low", "high"]
    names += ["published_top1", "published_low", "published_high", "published_n"]
    best = pd.DataFrame(rows, columns=names).drop_duplicates("model")
    return best.sort_values("published_top1", ascending=False, kind="stable", ignore_index=True)


# ---- for people ----------------------------------------------------------------------------------------


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The comparison as text to print: percent with one decimal, and mean ± standard deviation over seeds.

    One row per row of `comparison`, in its order; where test clips have twins in training, a second one with the
    figures of the clips without. `top-1, absent wrong` is top1_full, where clips are absent; `weights`, what the runs
    started from, where not all started from random weights. Published percents keep their two decimals. Columns that
    are empty throughout are left out.
    """
    rows = table.to_dict("records")
    text = pd.DataFrame([text for row in rows for text in (_readable_row(row), _untwinned_row(row)) if text])
    if text["weights"].isin(["scratch", ""]).all():
        text = text.drop(columns="weights")
    return text.fillna("").loc[:, lambda all_: (all_ != "").any()]


def _readable_row(row: dict[str, Any]) -> dict[str, str]:
    frames = "" if pd.isna(row["frames"]) else f", {row['frames']:.0f} frames"
    size = "" if pd.isna(row["size"]) else f", {row['size']:.0f}²"
    titled = {metric.title: _percent(row, name) for name, metric in METRICS.items() if metric.title}
    return {
        "run": row["run"],
        "input": f"{row['input']}{frames}{size}",
        "weights": row["weights"] or "",
        "params (M)": _number(row["params_m"], ".2f"),
        "GFLOPs": _number(row["gflops"], ".2f"),
        "training (min)": _number(row["train_seconds"], ".1f", scale=1 / 60),
        "val top-1": _percent(row, "val_top1"),
        "test clips": f"{row['n']}, all present" if _has_twins(row) else "",
        "top-1": titled.pop("top-1"),
        "95 % interval": _span(row["top1_ci95"]),
        **titled,
        "top-1, either gloss": _percent(row, "top1_either") if row["n_either"] else "",
        "top-1, absent wrong": _percent(row, "top1_full") if row["n_missing"] else "",
        "published top-1": _number(row["published_top1"], ".2f", scale=100),
        "published top-5": _number(row["published_top5"], ".2f", scale=100),
    }


def _untwinned_row(row: dict[str, Any]) -> dict[str, str]:
    """The second row of a run, {} where no test clip has a twin in training."""
    if not _has_twins(row):
        return {}
    text = {"run": row["run"], "weights": "", "test clips": f"{row['n_untwinned']:.0f}, no twin in training"}
    if row["n_untwinned"]:
        text |= {"top-1": _percent(row, "top1_untwinned"), "95 % interval": _span(row["top1_untwinned_ci95"])}
        text |= {"top-5": _percent(row, "top5_untwinned")}
    return text


def _has_twins(row: dict[str, Any]) -> bool:
    return pd.notna(row["n_untwinned"]) and row["n_untwinned"] < row["n"]


def _span(interval: list[float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def _percent(row: dict[str, Any], name: str) -> str:
    spread = row.get(f"{name}_sd")
    text = _number(row[name], ".1f", scale=100)
    return text if spread is None or pd.isna(spread) else f"{text} ± {100 * spread:.1f}"


def _number(value: float | None, form: str, scale: float = 1) -> str:
    return "" if value is None or pd.isna(value) else format(value * scale, form)


def comparison_markdown(study: Study, table: pd.DataFrame) -> str:
    """The comparison as a Markdown page: what was measured, the table with means in bold, the sources."""
    text = readable(table)
    means = text["run"].isin(table.loc[table["runs"] > 1, "run"])
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
    return notes + _twin_notes(table)


def _twin_notes(table: pd.DataFrame) -> list[str]:
    """How many test clips have twins; nothing where that is not known."""
    notes, counts = [], table[["n", "n_untwinned", "n_either"]].dropna().drop_duplicates().astype(int)
    for n, untwinned, either in counts.itertuples(index=False):
        if untwinned == n:
            notes.append("No test clip has a twin, the same recording once more, in the training clips of any gloss.")
        else:
            notes.append(
                f"**{n - untwinned} of the {n} test clips have a twin in training**: the same recording, identical or "
                "nearly so, under any gloss, in the training split of the largest annotation file. The second row of "
                "a run is without them."
            )
        if either:
            notes.append(
                f"{either} of the {n} test clips are byte-identical to a clip of another gloss of this study, so that "
                "no answer is right for both; “top-1, either gloss” takes both as right."
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
