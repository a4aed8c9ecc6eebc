"""Figures of runs: training curves, accuracy, errors and attention; of searches; of exported files."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from lib.figures import subplots
from lib.recipes import Dimension

READABLE_GLOSSES = 30  # rows of a confusion matrix whose labels can still be read
PANELS = 3  # side by side
MOST_LINES = 20  # of glosses in a panel
SIGNIFICANT = 0.05  # p below which a difference counts as more than chance
COLOURS = "viridis"  # from low to high accuracy


def training_curves(history: pd.DataFrame, title: str = "") -> Figure:
    """Loss and, where the history has it, accuracy of training and validation by epoch.

    history: columns epoch, loss and val_loss, and perhaps accuracy and val_accuracy. Validation is empty in epochs that
    a recipe's `validate_every` leaves out; the line joins the others.
    """
    panels = ["loss", "accuracy"] if "accuracy" in history else ["loss"]
    validated = history.dropna(subset="val_loss")
    figure, axes = subplots(1, len(panels), size=(5 * len(panels), 3.5), squeeze=False, title=title)
    for ax, name in zip(axes[0], panels, strict=True):
        ax.plot(history["epoch"], history[name], label="training")
        ax.plot(validated["epoch"], validated[f"val_{name}"], label="validation")
        ax.set(xlabel="epoch", title=name)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if "accuracy" in panels:
        axes[0, 1].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes[0, 1].set_ylim(0, 1)
    axes[0, 0].legend()
    return figure


def accuracy_intervals(comparison: pd.DataFrame, chance: float, title: str = "Top-1 accuracy") -> Figure:
    """Top-1 of each row of `lib.report.comparison` with its Wilson 95 % interval and the published figure.

    chance: 1 / number of glosses, a dashed line. Means over seeds are diamonds.
    """
    figure, ax = subplots(size=(8, 1.4 + 0.4 * len(comparison)))
    low, high = np.array(comparison["top1_ci95"].tolist()).T
    place, colours = np.arange(len(comparison)), sns.color_palette()
    ax.hlines(place, low, high, color=colours[0], linewidth=2)
    mean, known = comparison["runs"] > 1, comparison["published_top1"].notna()
    for label, rows, marker in (("run", ~mean, "o"), ("mean of seeds", mean, "D")):
        if rows.any():
            label = f"{label}, 95 % interval"
            ax.plot(comparison["top1"][rows], place[rows], marker, color=colours[0], label=label)
    if known.any():
        values = comparison["published_top1"][known].astype(float)
        ax.plot(values, place[known] + 0.25, "x", color=colours[3], markeredgewidth=2, label="published")
    ax.axvline(chance, color="grey", linestyle="--", label="chance")
    ax.set_yticks(place, comparison["run"])
    ax.set(xlim=(0, 1), ylim=(len(comparison) - 0.5, -0.5), title=title)
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def as_frames_arrive(
    accuracy: np.ndarray, probabilities: dict[str, np.ndarray], true: list[str], glosses: list[str], title: str = ""
) -> Figure:
    """Accuracy of all clips after each frame, (frames,), and of some clips the probability of each gloss.

    probabilities: (frames, classes) by the title of a panel. true: the gloss of each of these clips, drawn thick; the
    two others that rise highest are named; of the rest at most MOST_LINES are shown.
    """
    panels = 1 + len(probabilities)
    figure, axes = subplots(1, panels, size=(3 * panels, 4), sharey=True, title=title)
    frames = np.arange(1, len(accuracy) + 1)
    axes[0].plot(frames, accuracy, "o-", color="0.2")
    axes[0].set(title="top-1, all test clips", ylim=(0, 1.02))
    for ax, name, gloss in zip(axes[1:], probabilities, true, strict=True):
        rows = pd.DataFrame(probabilities[name], frames, glosses)
        others = rows.drop(columns=gloss).max().nlargest(MOST_LINES).index
        ax.plot(rows[others[2:]], color="0.85")
        for other, colour in zip(others[:2], sns.color_palette()[1:], strict=False):
            ax.plot(rows[other], "--", color=colour, label=other)
        ax.plot(rows[gloss], color=sns.color_palette()[0], linewidth=3, label=gloss)
        ax.set_title(name)
        ax.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.2))
    for ax in axes:
        ax.set_xlabel("frames seen")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


def kernels_over_time(variation: dict[str, np.ndarray], energy: pd.DataFrame, title: str = "") -> Figure:
    """How much kernels vary over time: a histogram by name, each of a share in [0, 1]; and a table's columns as bars.

    energy: share of each temporal frequency (rows), in [0, 1].
    """
    figure, (left, right) = subplots(1, 2, size=(8, 3), title=title)
    left.hist(list(variation.values()), bins=np.linspace(0, 1, 26), label=list(variation))
    left.axvline(0, color="grey", linestyle="--", label="inflated")
    left.set(title="variation over time", xlabel="0: all slices are the same", ylabel="kernels")
    left.legend(loc="upper left")
    energy.plot.bar(ax=right, rot=0, width=0.75, title="energy by temporal frequency")
    right.set_ylim(0, 1.5 * energy.to_numpy().max())  # room for the legend
    right.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


def confusion_heatmap(confusion: pd.DataFrame, most: int = READABLE_GLOSSES) -> Figure:
    """Heat map of `lib.evaluation.confusion`: number of clips by true gloss (rows) and predicted gloss (columns).

    With more than `most` glosses, only those of the most frequent confusions are shown, as the title says.
    """
    shown = confusion
    if len(confusion) > most:
        counts = confusion.to_numpy()
        cells = np.argwhere(counts)
        errors = pd.DataFrame(np.sort(cells, axis=1)).assign(clips=counts[tuple(cells.T)])
        pairs = (
            errors[errors[0] != errors[1]].groupby([0, 1])["clips"].sum().sort_values(ascending=False, kind="stable")
        )
        ranked = pd.unique(np.r_[np.array([*pairs.index], int).ravel(), : len(counts)])  # glosses never confused last
        glosses = confusion.index[np.sort(ranked[:most])]
        shown = confusion.loc[glosses, glosses]
    side = 2.5 + 0.28 * len(shown)
    figure, ax = subplots(size=(side + 0.5, side))
    sns.heatmap(
        shown, ax=ax, cmap="rocket_r", vmin=0, square=True, linewidths=0.5, cbar=False, xticklabels=True,
        yticklabels=True, annot=shown.astype(str).where(shown > 0, ""), fmt="", annot_kws={"size": 9},
    )  # fmt: skip
    number = f"all {len(confusion)}" if shown is confusion else f"{len(shown)} most confused of {len(confusion)}"
    ax.set(title=f"Clips by true and predicted gloss, {number} glosses", ylabel="true gloss")
    return figure


def accuracy_of_glosses(table: pd.DataFrame, most: int = READABLE_GLOSSES, title: str = "") -> Figure:
    """How many glosses of `lib.evaluation.accuracy_per_gloss` have which accuracy, and that of each by name.

    Of more than `most` glosses, the hardest half of `most` and the easiest half (of equally easy ones those with the
    most clips) are named.
    """
    shown = table
    if len(table) > most:
        easiest = table.sort_values(["accuracy", "clips"], ascending=False, kind="stable").head(most // 2)
        shown = pd.concat([table.head(most // 2), easiest.iloc[::-1]])
    figure, (left, right) = subplots(1, 2, size=(9, 1.4 + 0.2 * max(len(shown), 10)), title=title)
    left.hist(table["accuracy"], bins=np.linspace(0, 1, 11), color=sns.color_palette()[0])
    left.set(xlabel="top-1 of a gloss", ylabel="glosses", title=f"all {len(table)} glosses that have clips")
    left.yaxis.set_major_locator(MaxNLocator(integer=True))
    place, clips = np.arange(len(shown)), shown["clips"].astype(str)
    right.plot(shown["accuracy"], place, "o", color=sns.color_palette()[0])
    right.set_yticks(place, shown["gloss"] + " (" + clips + ")", fontsize="small")
    which = "all" if shown is table else f"the {most // 2} hardest and the {most // 2} easiest"
    right.set(xlim=(-0.05, 1.05), ylim=(len(shown) - 0.5, -0.5), xlabel="top-1", title=f"{which} (clips)")
    if shown is not table:
        right.axhline(most // 2 - 0.5, color="grey", linestyle=":")
    for ax in (left, right):
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


def calibration_curve(calibration: pd.DataFrame, error: float) -> Figure:
    """Reliability diagram: accuracy by confidence (`lib.evaluation.calibration`), with the diagonal.

    error: expected calibration error, in [0, 1]. The area of a dot grows with its number of clips.
    """
    figure, ax = subplots(size=(4.5, 4.5))
    ax.plot([0, 1], [0, 1], color="grey", linestyle="--", label="perfect")
    ax.plot(calibration["confidence"], calibration["accuracy"], color=sns.color_palette()[0], alpha=0.5)
    area = 20 + 300 * calibration["n"] / calibration["n"].sum()
    ax.scatter(calibration["confidence"], calibration["accuracy"], s=area, label="clips by confidence")
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal", xlabel="confidence", ylabel="accuracy")
    ax.set_title(f"Calibration, expected error {100 * error:.1f} %")
    ax.legend(loc="upper left")
    return figure


def restored_features(
    true: np.ndarray, restored: np.ndarray, hidden: np.ndarray, columns: dict[int, str], title: str = ""
) -> Figure:
    """What masked-frame pre-training restores: one panel per feature, over the frames of a clip.

    true, restored: (frames, values); a true value of 0 is a missing joint. hidden: (frames,) of 0 and 1, shaded.
    columns: the features to draw, by number, and their names.
    """
    size = 8, 0.8 + 1.5 * len(columns)
    figure, axes = subplots(len(columns), 1, size, sharex=True, squeeze=False, gridspec_kw={"hspace": 0.1}, title=title)
    frames, gone, (blue, orange) = np.arange(len(true)), np.flatnonzero(hidden), sns.color_palette()[:2]
    for ax, (column, name) in zip(axes[:, 0], columns.items(), strict=True):
        values = np.where(true[:, column] != 0, true[:, column], np.nan)
        for frame in gone:
            ax.axvspan(frame - 0.5, frame + 0.5, color="0.88", linewidth=0)
        ax.plot(frames, values, "o-", color=blue, markersize=3, label="true")
        ax.plot(gone, restored[gone, column], "x", color=orange, markeredgewidth=2, label="restored")
        ax.set_title(name, fontsize="small")
        ax.margins(y=0.15)
        ax.grid(visible=False)
    axes[0, 0].legend(loc="upper left", bbox_to_anchor=(1, 1))
    axes[-1, 0].set_xlabel("frame (grey: hidden from the model)")
    axes[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def both_ways(forwards: np.ndarray, backwards: np.ndarray, title: str = "") -> Figure:
    """Every logit (clips, classes) of clips as they are, against the same logit of the clips played backwards."""
    figure, ax = subplots(size=(5.5, 4.2))
    ends = [min(forwards.min(), backwards.min()), max(forwards.max(), backwards.max())]
    ax.plot(ends, ends, color="grey", linestyle="--", label="equal")
    ax.plot(forwards.ravel(), backwards.ravel(), "o", color=sns.color_palette()[0], alpha=0.3, markersize=3)
    ax.set(xlabel="logit, played forwards", ylabel="logit, played backwards", aspect="equal", title=title)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def attention_over_time(
    scores: np.ndarray, hands: np.ndarray, stride: int = 1, title: str = "", rollout: np.ndarray | None = None
) -> Figure:
    """Attention of the classification token to the frames of a clip: one row per head, grouped by layer.

    scores: of `Spobet.attention` for one clip, float (layers, heads, 1 + tokens, 1 + tokens), a token for `stride`
    frames. hands: bool (frames,), whether a hand is detected, a strip below. rollout: (frames,), attention traced
    through all layers, a curve in between. Raises ValueError when the shapes differ.
    """
    (layers, heads), frames = scores.shape[:2], len(hands)
    tokens = scores[:, :, 0, 1:].astype(np.float32).reshape(layers * heads, -1)
    rows = np.repeat(tokens, stride, axis=1)[:, :frames]
    if rows.shape[1] < frames:
        raise ValueError(f"{tokens.shape[1]} tokens of {stride} frames do not cover {frames} frames")
    ratio = [layers * heads, *([6] if rollout is not None else []), 1.5]
    figure, (top, *middle, strip) = subplots(
        len(ratio), 1, size=(8, 1 + 0.16 * sum(ratio)), sharex=True, height_ratios=ratio
    )
    image = top.imshow(rows, aspect="auto", cmap="rocket_r", vmin=0, interpolation="nearest")
    figure.colorbar(image, ax=top, label="attention")
    top.hlines(np.arange(1, layers) * heads - 0.5, -0.5, frames - 0.5, color="grey", linewidth=1)
    top.set_yticks(np.arange(layers) * heads + (heads - 1) / 2, [f"layer {layer + 1}" for layer in range(layers)])
    top.set_title(title or "Attention of the class token, one row per head")
    for ax in middle:
        ax.step(np.arange(frames), rollout, where="mid", color=sns.color_palette()[0])
        ax.set(ylabel="rollout", ylim=(0, 1.1 * rollout.max()))
    strip.imshow(hands[None].astype(float), aspect="auto", cmap="Greens", vmin=0, vmax=1.5, interpolation="nearest")
    strip.set_yticks([0], ["hand seen"])
    strip.set_xlabel("frame")
    strip.xaxis.set_major_locator(MaxNLocator(integer=True))
    for ax in figure.axes:
        ax.grid(visible=False)
    return figure


def sizes_and_speeds(table: pd.DataFrame, title: str = "") -> Figure:
    """Size and latency on one thread of each file of `lib.export.run.write_files`, one panel per run."""
    table = table.assign(megabytes=table["bytes"] / 1e6)
    runs, speeds = list(table["run"].unique()), table["latency_ms_1_thread"]
    columns = min(len(runs), PANELS)
    rows = -(-len(runs) // columns)
    size = (2.2 + 2.1 * columns, 1 + 2.4 * rows) if len(runs) > 1 else (6.5, 4)
    figure, axes = subplots(rows, columns, size=size, squeeze=False, sharey=True, title=title)
    look = {"hue": "precision", "style": "format", "s": 70, "alpha": 0.8}
    look |= {"hue_order": table["precision"].unique(), "style_order": table["format"].unique()}
    for ax in axes.flat[len(runs) :]:
        ax.remove()
    for ax, run in zip(axes.flat, runs, strict=False):
        files = table[table["run"] == run]
        sns.scatterplot(files, x="megabytes", y="latency_ms_1_thread", ax=ax, legend=run == runs[0], **look)
        ax.set(title=run, xlabel="size in MB", ylabel="", yscale="log", xlim=(0, None))
        ax.set_ylim(speeds.min() / 1.6, speeds.max() * 1.6)  # a factor of more than 2.5, so that a tick is in sight
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_locator(NullLocator())
    handles, names = axes[0][0].get_legend_handles_labels()
    axes[0][0].get_legend().remove()
    figure.legend(handles, names, loc="outside right", fontsize="small")
    for row in axes:
        row[0].set_ylabel("ms a clip (stream: a frame)", fontsize="small")
    return figure


def differences(paired: pd.DataFrame, runs: list[str], title: str = "") -> Figure:
    """Map of `lib.evaluation.paired_tests`: points of accuracy by which the row's run is ahead of the column's.

    runs: their order, from the best. Cells of pairs that differ by more than chance (p_holm < 0.05) are coloured.
    """
    both = pd.concat([paired, paired.rename(columns={"a": "b", "b": "a"}).assign(difference=-paired["difference"])])
    points = 100 * both.pivot_table("difference", "a", "b").loc[runs, runs]
    chance = both.pivot_table("p_holm", "a", "b").loc[runs, runs] >= SIGNIFICANT
    side = 2.2 + 0.5 * len(runs)
    figure, ax = subplots(size=(side, side))
    look = {"square": True, "cbar": False, "linewidths": 0.5, "annot_kws": {"size": 8}, "vmin": -50, "vmax": 50}
    sns.heatmap(points, ax=ax, cmap="vlag_r", mask=chance | points.isna(), annot=True, fmt="+.0f", **look)
    sns.heatmap(points, ax=ax, cmap=["white"], mask=~chance | points.isna(), annot=True, fmt="+.0f", **look)
    ax.set(title=title, xlabel="", ylabel="")
    ax.tick_params("x", rotation=90)
    ax.grid(visible=False)
    return figure


def best_so_far(trials: pd.DataFrame, equal: int, chance: float, title: str = "", own: float | None = None) -> Figure:
    """Best validation accuracy of each tuner by the epochs that it has spent; each trial is a dot.

    trials: `lib.tuning.read_trials`. equal: epochs that every tuner has spent, a dotted line. chance: a dashed line.
    own: the validation accuracy of the recipe's own settings, a black line.
    """
    figure, ax = subplots(size=(8, 4))
    for colour, (tuner, found) in zip(sns.color_palette(), trials.groupby("tuner", sort=False), strict=False):
        ax.step(found["spent"], found["best"], where="post", color=colour, label=tuner)
        ax.plot(found["spent"], found["val_accuracy"], "o", color=colour, alpha=0.4, markersize=4)
    ax.axvline(equal, color="grey", linestyle=":", label="equal cost")
    ax.axhline(chance, color="grey", linestyle="--", label="chance")
    if own is not None:
        ax.axhline(own, color="black", linewidth=1, label="own settings")
    ax.set(xlabel="epochs trained, all trials together", ylabel="validation top-1", title=title, ylim=(0, 1))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def hyperband_rounds(plan: pd.DataFrame, title: str = "") -> Figure:
    """The rounds of `lib.oracles.hyperband_plan`, a panel per bracket: trials (height) and epochs of each (width).

    The area of a rectangle is what its round costs.
    """
    brackets = list(plan.groupby("bracket", sort=False))
    figure, axes = subplots(1, len(brackets), size=(8, 3.2), sharex=True, sharey=True, squeeze=False, title=title)
    for ax, colour, (_, rounds) in zip(axes[0], sns.color_palette(), brackets, strict=False):
        width = rounds["until"] - rounds["start"]
        bars = ax.bar(rounds["start"], rounds["trials"], width, align="edge", color=colour, edgecolor="white")
        ax.bar_label(bars, rounds["trials"], padding=2, fontsize="small")
        ax.set_title(f"{(rounds['trials'] * width).sum()} epochs")
        ax.set_xlabel("epochs of a trial")
        ax.grid(visible=False)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].set(ylabel="trials", ylim=(0, 1.15 * plan["trials"].max()))
    return figure


def parallel_coordinates(trials: pd.DataFrame, space: dict[str, Dimension], title: str = "") -> Figure:
    """Every completed trial as a line through its settings, coloured by its accuracy, the best one on top.

    Each axis is on the scale that was searched, with the first value of the space at the bottom.
    """
    done = trials[trials["status"] == "COMPLETED"].sort_values("val_accuracy", kind="stable")
    figure, ax = subplots(size=(2.2 + 1.5 * len(space), 4.5))
    norm = Normalize(done["val_accuracy"].min(), done["val_accuracy"].max())
    for row in done.to_dict("records"):
        line = [float(dimension.place(row[key])) for key, dimension in space.items()]
        ax.plot(line, color=colormaps[COLOURS](norm(row["val_accuracy"])), linewidth=1.5, alpha=0.8)
    for number, dimension in enumerate(space.values()):
        for place, value in enumerate(dimension.ends()):
            text = f"{value:g}" if type(value) in (int, float) else str(value)
            ax.annotate(text, (number, place), (0, 8 if place else -16), textcoords="offset points", ha="center")
    ax.set_xticks(range(len(space)), [key.replace(".", ".\n", 1) for key in space])
    ax.tick_params("x", pad=18)
    ax.set_yticks([])
    ax.set_ylim(-0.02, 1.02)
    ax.set_title(title, pad=24)  # above the last values
    ax.grid(axis="x", color="black", linewidth=1)
    figure.colorbar(ScalarMappable(norm, COLOURS), ax=ax, label="validation top-1", format=PercentFormatter(1, 0))
    return figure


def importances(table: pd.DataFrame, title: str = "") -> Figure:
    """Bars of `lib.tuning.importance` with one standard deviation; the title says how reliable they are."""
    figure, ax = subplots(size=(7, 1.6 + 0.35 * len(table)))
    ax.barh(table["setting"], table["importance"], xerr=table["sd"], color=sns.color_palette()[0], capsize=3)
    ax.axvline(0, color="black", linewidth=1)
    ax.invert_yaxis()
    trust = "" if table.attrs["reliable"] else ": too little to rank by"
    explained = f"{table.attrs['trials']} trials, {max(table.attrs['r2'], 0):.0%} of the variance explained{trust}"
    ax.set(xlabel="share of the variance that shuffling costs", title=f"{title}\n{explained}")
    return figure


def cost(tuners: pd.DataFrame, title: str = "") -> Figure:
    """Epochs and minutes of each tuner of `lib.tuning.compare_tuners`."""
    figure, axes = subplots(1, 2, size=(8, 1.4 + 0.4 * len(tuners)), sharey=True, title=title)
    for ax, key, form in zip(axes, ("epochs", "minutes"), ("{:,.0f}", "{:,.1f}"), strict=True):
        bars = ax.barh(tuners["tuner"], tuners[key], color=sns.color_palette()[0])
        ax.bar_label(bars, fmt=form, padding=3)
        ax.set(xlabel=key, xmargin=0.15)
        ax.grid(visible=False)
    axes[0].invert_yaxis()
    return figure


def heatmaps(images: dict[str, np.ndarray], title: str = "", xlabel: str = "", ylabel: str = "") -> Figure:
    """Named matrices of positive and negative values side by side, on one scale of colours with white at zero."""
    figure, axes = subplots(1, len(images), size=(0.5 + 1.9 * len(images), 2.6), squeeze=False, title=title)
    limit = max(np.abs(image).max() for image in images.values())
    for ax, (name, image) in zip(axes[0], images.items(), strict=True):
        ax.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit)
        ax.set_title(name, fontsize="small")
        ax.set(xticks=[], yticks=[], xlabel=xlabel)
    axes[0, 0].set_ylabel(ylabel)
    return figure
