"""Figures of a search: how fast its tuners got where, which settings were good, and which mattered."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lib.figures.style import subplots
from lib.spaces import Dimension

COLOURS = "viridis"  # of the accuracy, from low to high


def best_so_far(trials: pd.DataFrame, equal: int, chance: float, title: str = "") -> Figure:
    """The best validation accuracy of each tuner over the epochs that it has spent; each trial is a dot.

    trials: `lib.trials.read_trials`; equal: epochs that every tuner has spent, a dotted line; chance: a dashed line.
    """
    figure, ax = subplots(size=(8, 4))
    for colour, (tuner, own) in zip(sns.color_palette(), trials.groupby("tuner", sort=False), strict=False):
        ax.step(own["spent"], own["best"], where="post", color=colour, label=tuner)
        ax.plot(own["spent"], own["val_accuracy"], "o", color=colour, alpha=0.4, markersize=4)
    ax.axvline(equal, color="grey", linestyle=":", label="equal cost")
    ax.axhline(chance, color="grey", linestyle="--", label="chance")
    ax.set(xlabel="epochs trained, all trials together", ylabel="validation top-1", title=title, ylim=(0, 1))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def parallel_coordinates(trials: pd.DataFrame, space: dict[str, Dimension], title: str = "") -> Figure:
    """Every trial that succeeded as a line through its settings, coloured by its accuracy; the best is drawn last.

    Each axis goes from the first value of the space, below, to the last, on the scale that was searched.
    """
    done = trials[trials["status"] == "COMPLETED"].sort_values("val_accuracy", kind="stable")
    places = np.array(
        [[space[key].place(value) for key, value in row.items()] for row in done[[*space]].to_dict("records")]
    )
    figure, ax = subplots(size=(2.2 + 1.5 * len(space), 4.5))
    norm = Normalize(done["val_accuracy"].min(), done["val_accuracy"].max())
    for line, value in zip(places, done["val_accuracy"], strict=True):
        ax.plot(line, color=colormaps[COLOURS](norm(value)), linewidth=1.5, alpha=0.8)
    for number, dimension in enumerate(space.values()):
        for place, value in zip((0, 1), dimension.ends(), strict=True):
            ax.annotate(
                _short(value), (number, place), (0, 8 if place else -16), textcoords="offset points", ha="center"
            )
    ax.set_xticks(range(len(space)), [key.replace(".", ".\n", 1) for key in space])
    ax.tick_params("x", pad=18)
    ax.set_yticks([])
    ax.set_ylim(-0.02, 1.02)
    ax.set_title(title, pad=24)  # above the last values
    ax.grid(axis="x", color="black", linewidth=1)
    figure.colorbar(ScalarMappable(norm, COLOURS), ax=ax, label="validation top-1", format=PercentFormatter(1, 0))
    return figure


def importances(table: pd.DataFrame, title: str = "") -> Figure:
    """Bars of `lib.trials.importance`, with one standard deviation; the title says how far to trust them."""
    figure, ax = subplots(size=(7, 1.6 + 0.35 * len(table)))
    ax.barh(table["setting"], table["importance"], xerr=table["spread"], color=sns.color_palette()[0], capsize=3)
    ax.axvline(0, color="black", linewidth=1)
    ax.invert_yaxis()
    trust = "" if table.attrs["reliable"] else ": too little to rank by"
    said = f"{table.attrs['trials']} trials, {max(table.attrs['r2'], 0):.0%} of the variance explained{trust}"
    ax.set(xlabel="share of the variance that shuffling costs", title=f"{title}\n{said}")
    return figure


def cost(tuners: pd.DataFrame, title: str = "") -> Figure:
    """Epochs and minutes that each tuner of `lib.trials.compare_tuners` took."""
    figure, axes = subplots(1, 2, size=(9, 1.4 + 0.4 * len(tuners)), sharey=True)
    for ax, key in zip(axes, ("epochs", "minutes"), strict=True):
        bars = ax.barh(tuners["tuner"], tuners[key], color=sns.color_palette()[0])
        ax.bar_label(bars, fmt="{:,.0f}" if key == "epochs" else "{:,.1f}", padding=3)
        ax.set(xlabel=key)
        ax.margins(x=0.15)
    axes[0].invert_yaxis()
    figure.suptitle(title)
    return figure


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
