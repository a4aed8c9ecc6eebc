"""Released models: the files of a run that are committed, small and complete, in reports/<study>/models/."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from lib.export.card import licence, write_card
from lib.export.run import path_of, write
from lib.export.verify import problem, table_path
from lib.runs import Run
from lib.settings import StudyError

PRECISION = "float16"
FORMATS = ("tflite", "onnx")
LARGEST = 5_000_000  # bytes of a file that a repository may hold


def release(run: Run) -> list[Path]:
    """Copy the float16 files of an exported run, with cards, labels, licence and checksums. Returns all paths.

    Raises StudyError, and writes nothing, for a run that the study file does not release, that is not exported, whose
    files are not the trained model or are too large.
    """
    study = run.study
    if run.name not in study.release:
        raise StudyError(f"study {study.name} does not release run {run.name}: key 'release'")
    rows = [released_row(run, kind) for kind in FORMATS]
    folder, written = study.paths.models, []
    for row in rows:
        source = path_of(study, run.name, row["format"], PRECISION)
        target = folder / f"{run.name}{source.suffix}"
        write(target, source.read_bytes())
        write_card(run, row, target)
        written += [target, target.with_name(f"{target.name}.md")]
    texts = {f"{run.name}-labels.txt": "\n".join(run.glosses) + "\n", "LICENCE.md": f"{licence(study)}\n"}
    for name, text in texts.items():
        write(folder / name, text.encode())
        written.append(folder / name)
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in written[::2][:2])
    write(folder / f"{run.name}.sha256", sums.encode())
    return [*written, folder / f"{run.name}.sha256"]


def released_row(run: Run, kind: str) -> dict:
    """The row of export.csv about a file to release. Raises StudyError when it must not be released."""
    table = pd.read_csv(table_path(run.study, run.name)) if table_path(run.study, run.name).exists() else pd.DataFrame()
    rows = table[(table["format"] == kind) & (table["precision"] == PRECISION)] if len(table) else table
    if rows.empty:
        raise StudyError(f"run {run.name} has no {PRECISION} file of {kind}: export it first (notebook 10)")
    row = rows.iloc[0].to_dict()
    if wrong := problem(row):
        raise StudyError(f"run {run.name}, {kind}: not released, as the file is not the trained model: {wrong}")
    if row["bytes"] >= LARGEST:
        raise StudyError(f"run {run.name}, {kind}: not released, as it has {row['bytes']} bytes, not below {LARGEST}")
    return row
