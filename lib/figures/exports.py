"""Figure of the exported files of a study: how large and how fast each is."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lib.figures.style import subplots

PANELS = {"megabytes": "size in MB", "latency_ms_1_thread": "ms a clip (stream: a frame), one thread"}


def sizes_and_speeds(table: pd.DataFrame, title: str = "") -> Figure:
    """Size and latency of every file, one group for each run; both on scales of powers of ten.

    table: `lib.export.verify.gather`.
    """
    table = table.assign(megabytes=table["bytes"] / 1e6, file=table["format"] + " " + table["precision"])
    figure, axes = subplots(1, 2, size=(11, 1.5 + 1.1 * table["run"].nunique()), sharey=True)
    for ax, (column, label) in zip(axes, PANELS.items(), strict=True):
        sns.barplot(table, x=column, y="run", hue="file", ax=ax, palette="tab20", legend=ax is axes[1])
        ax.set(xscale="log", xlabel=label, ylabel="")
    axes[0].set_title(title)
    axes[1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
