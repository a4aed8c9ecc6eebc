"""Figures that hold runs against each other: mixed into one, and beside what was published."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lib.figures import subplots


def weights(curve: pd.DataFrame, chosen: float, names: tuple[str, str], title: str = "") -> Figure:
    """Validation top-1 and loss of a mix by the weight of the first of `names`, with the chosen weight dotted.

    curve: of `lib.fusion.weight_curve`. At the ends stands one of the two alone.
    """
    figure, axes = subplots(1, 2, size=(9, 3.5), sharex=True, title=title)
    for ax, column, name in zip(axes, ("top1", "loss"), ("validation top-1", "validation loss, nats"), strict=True):
        ax.plot(curve["weight"], curve[column], "o-", markersize=4, color=sns.color_palette()[0])
        ax.axvline(chosen, color="grey", linestyle=":", label=f"chosen: {chosen:.2f}")
        ax.set(title=name, xlabel=f"weight of {names[0]}\n(0: {names[1]} alone)")
    axes[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes[0].legend()
    return figure


def gains(table: pd.DataFrame, most: int, title: str = "") -> Figure:
    """Clips of each gloss that one of two runs alone names rightly, the other's to the left of zero.

    table: columns gloss, gained and lost (clips), of which those where something changes are drawn: at most `most`,
    those that gain most and those that lose most.
    """
    changed = table[(table["gained"] > 0) | (table["lost"] > 0)]
    changed = changed.assign(net=changed["gained"] - changed["lost"])
    changed = changed.sort_values(["net", "gloss"], ascending=[False, True], ignore_index=True)
    shown = changed if len(changed) <= most else pd.concat([changed.head(most // 2), changed.tail(most // 2)])
    figure, ax = subplots(size=(7, 1.6 + 0.22 * max(len(shown), 3)), title=title)
    place, colours = np.arange(len(shown)), sns.color_palette()
    ax.barh(place, shown["gained"], color=colours[0], label="gained")
    ax.barh(place, -shown["lost"], color=colours[3], label="lost")
    ax.axvline(0, color="black", linewidth=1)
    ax.set_yticks(place, shown["gloss"], fontsize="small")
    most_clips = max(1, shown[["gained", "lost"]].max().max()) if len(shown) else 1
    ax.set(xlim=(-most_clips - 0.5, most_clips + 0.5), ylim=(len(shown) - 0.5, -0.5), xlabel="test clips")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def published_and_ours(table: pd.DataFrame, title: str = "") -> Figure:
    """Ours against the published top-1 of each row of `lib.report.beside_published` that has both, with intervals.

    On the dashed diagonal both are equal.
    """
    rows = table.dropna(subset="published_top1")
    figure, ax = subplots(size=(5.5, 4.2))
    for row, colour in zip(rows.itertuples(), sns.color_palette(), strict=False):
        across = [[row.published_top1 - row.published_low], [row.published_high - row.published_top1]]
        along = [[row.top1 - row.low], [row.high - row.top1]]
        place = row.published_top1, row.top1
        ax.errorbar(*place, xerr=across, yerr=along, fmt="o", capsize=3, color=colour, label=row.model)
    ends = [rows[["published_low", "low"]].min().min() - 0.03, rows[["published_high", "high"]].max().max() + 0.03]
    ax.plot(ends, ends, color="grey", linestyle="--", label="equal")
    ax.set(xlim=ends, ylim=ends, aspect="equal", xlabel="published, on videos", ylabel="ours, on drawn hands")
    ax.set_title(title)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
