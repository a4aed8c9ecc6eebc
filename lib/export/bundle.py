"""What exported files are worth: scores from their predictions, a card beside each file, and the release of files.

python -m lib.export.bundle <study> <data root, or ""> <run> copies a run's files to the report, to be committed.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lib.evaluation import evaluate
from lib.export import write
from lib.few_shot import OWN, PASSING
from lib.paths import replacing
from lib.predictions import Predictions
from lib.report import scores
from lib.settings import StudyError
from lib.study import Study, load_study

COLUMNS = ["run", "format", "precision", "bytes", "top1", "top1_source", "agreement", "max_abs_diff"]
COLUMNS += ["latency_ms_1_thread", "latency_ms_2_threads", "flex_ops"]
EXACT = 1e-3  # largest difference of a logit that a float32 file may have
AGREEMENT = 0.99  # least agreement of a float16 file with the trained model
EMBEDDING_EXACT = {"float32": 1e-4, "float16": 5e-3}  # largest difference of a value of an embedding, by precision
DROP = 0.02  # of top-1; the card of an int8 file that loses more says so
RELEASED = "float16"
LARGEST = 5_000_000  # bytes of a file to commit


def gather(study: Study) -> pd.DataFrame:
    """Score the files of all exported runs, in the order of the study file; write tables/export.csv and the cards.

    Returns the table, with COLUMNS. Files that are not on this machine get no card. StudyError: a run is not exported.
    """
    rows = [row for run in study.exports for row in score_run(study, run)]
    for row in rows:
        path = study.paths.exported(row["run"], row["format"], row["precision"])
        if path.exists():
            write(path.with_name(f"{path.name}.md"), card(study, row, path).encode())
    table = pd.DataFrame(rows, columns=COLUMNS)
    if rows:
        with replacing(study.paths.table("export.csv")) as partial:
            table.to_csv(partial, index=False, float_format="%.6g")
    return table


def score_run(study: Study, run: str) -> list[dict[str, Any]]:
    """A row for each file of a run: the facts that `export_run` wrote, and scores from the files' predictions."""
    try:
        facts = pd.read_csv(study.paths.export_table(run)).to_dict("records")
    except FileNotFoundError:
        raise StudyError(f"run {run} is not exported: run `make study STUDY={study.name}`") from None
    source = Predictions.load(study.paths.predictions(run))
    paths = [study.paths.exported_predictions(run, row["format"], row["precision"]) for row in facts]
    return [row | compare(Predictions.load(path), source) for row, path in zip(facts, paths, strict=True)]


def compare(file: Predictions, source: Predictions) -> dict[str, float]:
    """Top-1 of a file and of its trained model, their agreement, and the largest difference of a logit.

    Raises StudyError when they are of different clips.
    """
    return {
        "agreement": file.agreement(source),
        "top1": evaluate(file)["top1"],
        "top1_source": evaluate(source)["top1"],
        "max_abs_diff": file.largest_difference(source),
    }


def problem(row: dict[str, Any] | pd.Series) -> str:
    """Why the file of a row is not the trained model, "" if it is; an int8 file may lose accuracy."""
    if row["flex_ops"]:
        return f"{row['flex_ops']} operations that are not built in"
    if row["precision"] == "float32" and (row["agreement"] < 1 or row["max_abs_diff"] > EXACT):
        return f"agrees on {row['agreement']:.1%} of the clips, logits differ by up to {row['max_abs_diff']:.2g}"
    if row["precision"] == "float16" and row["agreement"] < AGREEMENT:
        return f"agrees on {row['agreement']:.1%} of the clips"
    if (apart := row.get("embedding_diff", 0)) > EMBEDDING_EXACT.get(row["precision"], 1):
        return f"embeddings differ by up to {apart:.2g}"
    return ""


def card(study: Study, row: dict[str, Any], path: Path) -> str:
    """The Markdown card of the file at `path`: input, accuracy, size, speed, data, limits, licence, checksum.

    row: as `score_run` gives it. What does not depend on scores comes from the description in the file.
    """
    from lib.export.files import read_metadata  # it loads the runtimes, and few who read scores write cards

    description, labels = read_metadata(path)
    loader = FileSystemLoader(Path(__file__).parent)
    template = Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True)
    return template.get_template("card.md.j2").render(
        name=path.name,
        title=study.title,
        description=description,
        labels=labels,
        row={"kept": 0} | row,
        scores=scores(study, row["run"]),
        problem=problem(row),
        drop=DROP,
        own=OWN,
        passing=PASSING,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def release(study: Study, run: str) -> list[Path]:
    """Copy the float16 files of an exported run, with cards, labels, licence and checksums, to reports/<study>/models/.

    Returns the paths of what was written. Raises StudyError, and writes nothing, when the study file does not release
    the run, or a file was not exported, is not the trained model or is too large.
    """
    from lib.export.files import read_metadata

    if run not in study.release:
        raise StudyError(f"study {study.name} does not release run {run}: add it under the key 'release'")
    rows = {row["format"]: row for row in score_run(study, run) if row["precision"] == RELEASED}
    sources = {form: study.paths.exported(run, form, RELEASED) for form in ("tflite", "onnx")}
    for form, source in sources.items():
        if form not in rows or not source.exists():
            raise StudyError(f"run {run} has no {RELEASED} file of {form}: export it first (notebook 10)")
        if wrong := problem(rows[form]):
            raise StudyError(f"run {run}, {form}: not released, as the file is not the trained model: {wrong}")
        if (size := source.stat().st_size) >= LARGEST:
            raise StudyError(f"run {run}, {form}: not released, as it has {size} bytes, not below {LARGEST}")
    folder, sums, texts = study.paths.models, "", {}
    targets = {form: folder / f"{run}.{form}" for form in sources}
    for form, target in targets.items():
        content = sources[form].read_bytes()
        write(target, content)
        sums += f"{hashlib.sha256(content).hexdigest()}  {target.name}\n"
        texts[f"{target.name}.md"] = card(study, rows[form], target)
    description, labels = read_metadata(targets["tflite"])
    texts[f"{run}-labels.txt"] = "\n".join(labels) + "\n"
    texts["LICENCE.md"] = f"{description['licence']}\n"
    texts[f"{run}.sha256"] = sums
    for name, text in texts.items():
        write(folder / name, text.encode())
    return [*targets.values(), *(folder / name for name in texts)]


if __name__ == "__main__":
    name, data, run = sys.argv[1:]
    try:
        release(load_study(name, data, require_data=False), run)
    except StudyError as error:
        sys.exit(f"error: {error}")
