"""Figure of the exported files of a study: how large and how fast each is."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from lib.figures.style import subplots

ACROSS = 3  # panels side by side


def sizes_and_speeds(table: pd.DataFrame, title: str = "") -> Figure:
    """Each file as a point, size against latency on one thread, one panel for each run; the best is below, left.

    table: `lib.export.verify.gather`.
    """
    table = table.assign(megabytes=table["bytes"] / 1e6)
    runs = list(table["run"].unique())
    columns = min(len(runs), ACROSS)
    rows = -(-len(runs) // columns)
    figure, axes = subplots(rows, columns, size=(2 + 3.4 * columns, 0.6 + 3.2 * rows), squeeze=False)
    look = {"hue": "precision", "style": "format", "s": 90, "alpha": 0.8}
    kinds = {"hue_order": table["precision"].unique(), "style_order": table["format"].unique()}
    for ax in axes.flat[len(runs) :]:
        ax.remove()
    for ax, run in zip(axes.flat, runs, strict=False):
        files = table[table["run"] == run]
        sns.scatterplot(files, x="megabytes", y="latency_ms_1_thread", ax=ax, legend=run == runs[0], **look, **kinds)
        ax.set(title=run, xlabel="size in MB", ylabel="", yscale="log", xlim=(0, None))
        ax.yaxis.set_major_formatter(ScalarFormatter())
        ax.yaxis.set_minor_formatter(ScalarFormatter())
    handles, names = axes[0][0].get_legend_handles_labels()
    axes[0][0].get_legend().remove()
    figure.legend(handles, names, loc="outside right")
    for row in axes:
        row[0].set_ylabel("ms a clip (stream: a frame)")
    figure.suptitle(title, x=0.01, ha="left")
    return figure
