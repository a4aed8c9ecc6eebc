"""Is an exported file the trained model? It names the clips of the test split anew, and it is timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.evaluation import Predictions, evaluate
from lib.export.files import Runner
from lib.paths import replacing
from lib.settings import StudyError
from lib.study import Study

COLUMNS = [
    *("run", "format", "precision", "bytes", "top1", "top1_source", "agreement", "max_abs_diff"),
    *("latency_ms_1_thread", "latency_ms_2_threads", "flex_ops"),
]
EXACT = 1e-3  # largest difference of a logit that a float32 file may have
AGREEMENT = 0.99  # least share of clips that a float16 file names as its source does
DROP = 0.02  # of top-1; an int8 file that loses more says so in its card
WARM_UP, LEAST, MOST, SECONDS = 2, 5, 50, 0.4  # repetitions of a timing, and after how long it ends


def compare(file: Predictions, source: Predictions) -> dict[str, Any]:
    """top1 of a file and of its source, the share of clips that both name alike, the greatest difference of logits.

    Raises StudyError when they are not of the same clips.
    """
    if not np.array_equal(file.video_id, source.video_id):
        raise StudyError("the exported file and the run were scored on different clips: train the run again")
    alike = file.logits.argmax(1) == source.logits.argmax(1)
    return {
        "top1": evaluate(file)["top1"],
        "top1_source": evaluate(source)["top1"],
        "agreement": float(alike.mean()),
        "max_abs_diff": float(np.abs(file.logits - source.logits).max()),
    }


def problem(row: dict[str, Any] | pd.Series) -> str:
    """What is wrong with a row of the table, "" if it is as it must be; an int8 file may lose accuracy."""
    if row["flex_ops"]:
        return f"{row['flex_ops']} operations that are not built in"
    if row["precision"] == "float32" and (row["agreement"] < 1 or row["max_abs_diff"] > EXACT):
        return f"agrees on {row['agreement']:.1%} of the clips, logits differ by up to {row['max_abs_diff']:.2g}"
    if row["precision"] == "float16" and row["agreement"] < AGREEMENT:
        return f"agrees on {row['agreement']:.1%} of the clips"
    return ""


def score(name: Callable[[np.ndarray], np.ndarray], clips: Iterable[np.ndarray], source: Predictions) -> Predictions:
    """The predictions of a file: `name` makes logits (1, classes) of one clip, (1, …); clips: those of `source`."""
    logits = np.concatenate([name(clip) for clip in clips])
    return Predictions(source.video_id, source.label, logits, source.glosses)


def latency(work: Callable[..., Any], *arguments: Any) -> float:
    """Median milliseconds of a piece of work, after warming up."""
    for _ in range(WARM_UP):
        work(*arguments)
    taken: list[float] = []
    while len(taken) < LEAST or (sum(taken) < SECONDS and len(taken) < MOST):
        start = time.perf_counter()
        work(*arguments)
        taken.append(time.perf_counter() - start)
    return 1000 * float(np.median(taken))


def latencies(make: Callable[[int], Runner], inputs: dict[str, np.ndarray]) -> dict[str, float]:
    """Milliseconds of one call on one and on two threads; `make` makes a runner of so many threads."""
    columns = {1: "latency_ms_1_thread", 2: "latency_ms_2_threads"}
    return {column: latency(make(threads), inputs) for threads, column in columns.items()}


def table_path(study: Study, run: str) -> Path:
    """Where the rows of one run lie."""
    return study.paths.report / "runs" / run / "export.csv"


def write_table(rows: list[dict[str, Any]], path: Path) -> pd.DataFrame:
    """Write rows of COLUMNS, and return them."""
    table = pd.DataFrame(rows, columns=COLUMNS)
    with replacing(path) as partial:
        table.to_csv(partial, index=False, float_format="%.6g")
    return table


def gather(study: Study) -> pd.DataFrame:
    """Write tables/export.csv from the rows of every exported run, in the order of the study file, and return it.

    Raises StudyError when a run has none yet.
    """
    rows: list[dict[str, Any]] = []
    for run in study.exports:
        try:
            rows += pd.read_csv(table_path(study, run)).to_dict("records")
        except FileNotFoundError:
            raise StudyError(f"run {run} is not exported: run `make study STUDY={study.name}`") from None
    return write_table(rows, study.paths.table("export.csv"))
