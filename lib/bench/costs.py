"""Costs: parameters and multiply-adds of every model as published and as built here

On the published clip, with the published number of classes. A MoViNet's multiply-adds are published for the base form;
ours stand beside them for the stream form, too, and for the form for phones, for which nothing is published. What the
official code itself comes to (PyPI's tf-models-official) is counted by the same counter: where the published figure and
ours differ, it tells which of them is of the network that the code builds. The published sources are named by notebooks
04 to 07.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from lib.bench.official import PINNED, NotInstalledError, install
from lib.bench.report import machine, versions, write
from lib.bench.sides import Side
from lib.models import family_of, model_names
from lib.paths import home

FORMS = {"base": {}, "stream": {"stream": True}}
PHONE = {"phone": {"mobile": True}}
ON_TORCH = ("s3d", "x3d")  # the others' graph can be counted on TensorFlow without running it


def main(
    name: str = "costs", models: tuple[str, ...] = tuple(name for name in model_names() if family_of(name).published)
) -> Path:
    """Count, and write the table: one row for each model and form."""
    where, rows, used = machine(), [], versions("keras", "torchvision", "pytorchvideo")
    try:
        python, note = install(home() / "data" / "bench" / "official"), ""
        used["tf-models-official (peer)"] = PINNED.partition("==")[2]
    except NotInstalledError as error:
        python, note = None, f"the peer could not be installed: {error}"
    for model in models:
        for form, options in forms(model).items():
            backend = "torch" if family_of(model).name in ON_TORCH else "tensorflow"
            with Side("lib.bench.costs:counted", backend=backend, model=model, options=options) as side:
                counts = side("count")["value"]
            peer = beside(counts, model, form, python) if python and form in FORMS else {}
            rows.append({"measured": f"{model} {form}".strip(), **counts, **peer, "note": note})
    return write(name, __doc__, rows, used, where)


def beside(counts: dict[str, Any], model: str, form: str, python: Path) -> dict[str, float]:
    """The official code's multiply-adds and their ratio, for the row of a MoViNet's `counts`."""
    size = model.removeprefix("movinet-")
    with Side("lib.bench.official:counted", python=python, backend="tensorflow", size=size, form=form) as side:
        official = side("count")["value"]
    ratio = counts["multiply-adds, 1e9"] / official
    return {"official code's multiply-adds, 1e9": official, "multiply-adds, ours / official code": ratio}


def forms(model: str) -> dict[str, dict[str, Any]]:
    """Options of the forms of a model by their names."""
    if family_of(model).name != "movinet":
        return {"": {}}
    return FORMS | PHONE if model == "movinet-a0" else FORMS


def counted(model: str, options: dict[str, Any]) -> dict[str, Callable[[], dict[str, Any]]]:
    """The side of one model."""
    from lib.models.cost import costs

    return {"count": lambda: row(costs(model, **options))}


def row(table: pd.DataFrame) -> dict[str, Any]:
    """The table of `lib.models.cost.costs` as one row; what is not published is missing."""
    parameters, operations = table.loc["parameters"], table.loc["multiply-adds, 1e9"]
    values = {
        "parameters, 1e6": parameters["ours"] / 1e6,
        "published parameters, 1e6": parameters["published"] / 1e6,
        "parameters, ours / published": parameters["ratio"],
        "multiply-adds, 1e9": operations["ours"],
        "published multiply-adds, 1e9": operations["published"],
        "multiply-adds, ours / published": operations["ratio"],
    }
    return {name: None if pd.isna(value) else float(value) for name, value in values.items()}
