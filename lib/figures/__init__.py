"""One style for every figure of a study."""

import io
from pathlib import Path
from typing import Any, TypeVar

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from lib.paths import replacing
from lib.png import smaller

T = TypeVar("T", Figure, pd.DataFrame)
DPI = 80  # keeps the report of a whole study below 8 MB
STYLE = {
    "figure.dpi": DPI, "savefig.dpi": DPI, "savefig.bbox": "tight",
    "axes.titlelocation": "left", "axes.titlesize": "medium", "legend.frameon": False,
}  # fmt: skip


def save(content: T, path: Path, **options: Any) -> T:
    """Write a figure (.png) or a table (.csv, .parquet; `options` are pandas') and return it, for a cell to show."""
    with replacing(path) as partial:
        if isinstance(content, Figure):
            content.savefig(file := io.BytesIO())
            partial.write_bytes(smaller(file.getvalue()))
        else:
            getattr(content, f"to_{path.suffix[1:]}")(partial, **options)
    return content


def table(content: pd.DataFrame, formats: dict[str, str] | None = None, *, index: bool = False) -> Styler:
    """A table to show in a notebook, with `formats` by column; `index`: with its row names.

    Its HTML is the same in every run, so that it can be compared: pandas would draw a new identifier each time.
    """
    shown = content.style.format(formats, na_rep="–").set_uuid("-".join(map(str, content.columns[:2])))
    return shown if index else shown.hide(axis="index")


def subplots(
    rows: int = 1, columns: int = 1, size: tuple[float, float] = (7, 4), title: str = "", **options: object
) -> tuple[Figure, Any]:
    """A styled figure of `size` inches (width, height) and its axes, as `plt.subplots` returns them.

    The figure is closed in pyplot, so that a notebook shows it once, as the value of its cell.
    """
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind", rc=STYLE)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", **options)
    plt.close(figure)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    return figure, axes
