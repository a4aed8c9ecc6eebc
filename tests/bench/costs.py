"""Costs: parameters and multiply-adds of every model as published and as built here

On the published clip, with the published number of classes. A MoViNet's multiply-adds are published for the base form;
ours are also given for the stream form, and for the form for phones, for which nothing is published. The same counter
counts what the official code itself builds (PyPI's tf-models-official): where the published figure and ours differ, it
shows which of them fits the network that the code builds. Notebooks 04 to 07 name the published sources.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from bench.official import PACKAGE, RELEASE, NotInstalledError, start
from bench.report import machine, versions, write
from bench.sides import Side
from lib.models import config_of, family_of, model_names, size_of

FORMS = {"base": {}, "stream": {"stream": True}}
PHONE = {"phone": {"mobile": True}}


def main(name: str = "costs") -> Path:
    """Count, and write the table: one row for each model and form."""
    where, rows, used = machine(), [], versions("keras", "torchvision", "pytorchvideo")
    for model in (name for name in model_names() if family_of(name).published):
        for form, options in forms(model).items():
            side = {"backend": family_of(model).backends[0], "model": model, "options": options}
            counts, note = _answer(Side("bench.costs:count", **side)), ""
            if form in FORMS:
                try:
                    official = _answer(start("count", size=size_of(model), form=form))
                    counts["official code's multiply-adds, 1e9"] = official
                    counts["multiply-adds, ours / official code"] = counts["multiply-adds, 1e9"] / official
                    used[f"{PACKAGE} (peer)"] = RELEASE
                except NotInstalledError as error:
                    note = str(error)
            rows.append({"measured": f"{model} {form}".strip(), **counts, "note": note})
    return write(name, __doc__, rows, used, where)


def _answer(side: Side) -> Any:
    with side:
        return side("count")["value"]


def forms(model: str) -> dict[str, dict[str, Any]]:
    """Options of the forms of a model by their names."""
    if "stream" not in config_of(model).model_fields:
        return {"": {}}
    return FORMS | PHONE if model == "movinet-a0" else FORMS


def count(model: str, options: dict[str, Any]) -> dict[str, Callable[[], dict[str, float | None]]]:
    """The side of one model."""
    from lib.models.cost import costs

    return {"count": lambda: row(costs(model, **options))}


def row(table: pd.DataFrame) -> dict[str, float | None]:
    """The table of `lib.models.cost.costs` as one row; None for what is not published."""
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
