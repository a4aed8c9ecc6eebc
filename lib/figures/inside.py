"""Figures of what a model looks at in one clip, of the signs that it finds in a long video, and of new signs."""

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lib.data.layouts import Layout
from lib.figures import subplots
from lib.figures.data import draw_skeletons, moments_with_joints

CELL = 1.6  # inches, width of a frame
HEAT = "inferno"
BRIGHTEST = 99.5  # percentile of a gradient map that is drawn brightest, so that a few outliers do not dim the rest

# Of the timeline, in inches: a second, the least and the greatest width, the room beside the bars, a bar, a letter.
SECOND, WIDTHS, BESIDE, BAR, LETTER = 0.3, (7, 14), 1.2, 0.3, 0.08
SLANT = 45  # degrees by which crowded glosses are turned
GREY = 7  # of the palette, here kept for signs that are unknown
UNKNOWN = "unknown"


def rollout_over_frames(
    reached: np.ndarray, poses: np.ndarray, layout: Layout, video: np.ndarray | None = None, count: int = 8,
    title: str = "",
) -> Figure:  # fmt: skip
    """The rollout of attention over the frames of a pose clip, above `count` of its skeletons, each below its moment.

    reached: (frames,), of `lib.inside.frame_rollout`. poses: (frames, joints, 3). video: the same clip, uint8 (frames,
    height, width, 3), whose pictures of these moments are a row below; it may have another number of frames.
    Frames before the first joint and after the last are left out. Raises ValueError when no frame has a joint.
    """
    numbers = moments_with_joints(poses, count)
    heights = [0.9, CELL] if video is None else [0.9, CELL, CELL * video.shape[1] / video.shape[2]]
    figure, curve, rows = _curve_above_rows(reached, numbers, heights, title)
    curve.set_ylabel("rollout", fontsize="small")
    draw_skeletons(rows[0], poses, layout, numbers)
    if video is not None:
        for axis, number in zip(rows[1], numbers, strict=True):
            axis.imshow(video[round(number * (len(video) - 1) / max(len(poses) - 1, 1))])
    return figure


def gradient_over_frames(clip: np.ndarray, gradient: np.ndarray, count: int = 8, title: str = "") -> Figure:
    """A gradient map summed over each frame; below it `count` frames as they are, and in grey with the map as heat.

    clip: (frames, height, width, 3), float in [0, 1] or uint8. gradient: (frames, height, width), of
    `lib.inside.gradient_map`.
    """
    numbers = np.linspace(0, len(clip) - 1, count).round().astype(int)
    height = CELL * clip.shape[1] / clip.shape[2]
    figure, curve, rows = _curve_above_rows(gradient.sum((1, 2)), numbers, [0.9, height, height], title)
    curve.set_ylabel("gradient", fontsize="small")
    limit = np.percentile(gradient, BRIGHTEST) or gradient.max() or 1.0
    for above, below, number in zip(*rows, numbers, strict=True):
        above.imshow(clip[number])
        above.set_title(f"frame {number}", fontsize="small")
        below.imshow(clip[number].mean(-1), cmap="gray", vmin=0, vmax=255 if clip.dtype == np.uint8 else 1)
        strength = np.clip(gradient[number] / limit, 0, 1)
        below.imshow(gradient[number], cmap=HEAT, vmin=0, vmax=limit, alpha=strength)
    return figure


def _curve_above_rows(
    values: np.ndarray, numbers: np.ndarray, heights: Sequence[float], title: str
) -> tuple[Figure, Axes, np.ndarray]:
    """A figure with bars of a value per frame above rows of pictures, each below the bar of its frame.

    numbers: the frames of the pictures, evenly spread; their bars are dark. heights: of the curve and of each row, in
    inches. Returns the figure, the axes of the bars and those of the pictures (rows, pictures).
    """
    count = len(numbers)
    size = CELL * count, sum(heights) + 0.65
    figure, axes = subplots(len(heights), count, size=size, squeeze=False, height_ratios=heights, title=title)
    figure.get_layout_engine().set(w_pad=0, wspace=0)  # pictures touch, so that a moment stands in their middle
    curve = figure.add_subplot(axes[0, 0].get_gridspec()[0, :])
    for axis in axes[0]:
        axis.remove()
    light, dark = sns.color_palette("Blues", 6)[1], sns.color_palette()[0]
    frames = np.arange(len(values))
    curve.bar(frames, values, 1.0, color=[dark if n in numbers else light for n in frames], linewidth=0)
    half = (numbers[-1] - numbers[0]) / max(count - 1, 1) / 2 or 0.5
    curve.set(xlim=(numbers[0] - half, numbers[-1] + half), ylim=(0, 1.1 * values.max() or 1.0), xticks=[])
    curve.tick_params("y", labelsize="x-small")
    curve.locator_params("y", nbins=3)
    for axis in axes[1:].flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(visible=False)
    return figure, curve, axes[1:]


def timeline(
    signs: pd.DataFrame, truth: pd.DataFrame | None = None, seconds: np.ndarray | None = None,
    score: np.ndarray | None = None, threshold: float | None = None, title: str = "",
) -> Figure:  # fmt: skip
    """The signs found in a long video as bars over its seconds, each gloss in a colour of its own, unknown ones grey.

    signs: columns start and end in seconds, gloss ("" where it is unknown) and confidence in [0, 1], which is written
    in bars that are wide enough. truth: columns start, end and gloss of the true signs, a lane of their own in the same
    colours. seconds, score: (n,), a curve below of the confidence in [0, 1] at each moment; threshold: a dashed line in
    it. Raises ValueError for seconds without a score or a score without seconds.
    """
    if (seconds is None) != (score is None):
        raise ValueError("a curve needs both seconds and score")
    lanes = {"found": signs} | ({} if truth is None else {"true": truth})
    every = pd.concat([lane[["end", "gloss"]] for lane in lanes.values()])
    colours = _colours(every["gloss"])
    last = float(max([*every["end"], *(() if seconds is None else seconds)], default=1))
    width = float(np.clip(SECOND * last, *WIDTHS))
    inches = (width - BESIDE) / last
    heights = [BAR + _label_height(lane, inches) for lane in lanes.values()] + [1.3] * (score is not None)
    size = width, sum(heights) + 0.8
    figure, axes = subplots(len(heights), 1, size, title, sharex=True, squeeze=False, height_ratios=heights)
    for axis, height, (name, lane) in zip(axes[:, 0], heights, lanes.items(), strict=False):
        _draw_lane(axis, lane, colours, inches)
        axis.set_yticks([0.5], [name])
        axis.set_ylim(0, height / BAR)
    if score is not None:
        _draw_scores(axes[-1, 0], signs, colours, seconds, score, threshold)
    axes[-1, 0].set(xlabel="seconds", xlim=(0, last))
    return figure


def _colours(glosses: pd.Series) -> dict[str, Any]:
    """A colour for each gloss in order of appearance, grey for "" alone; after nine they come again."""
    palette = [colour for number, colour in enumerate(sns.color_palette("colorblind")) if number != GREY]
    known = [gloss for gloss in glosses.unique() if gloss]
    return dict(zip(known, cycle(palette), strict=False)) | {"": "0.7"}


def _crowded(lane: pd.DataFrame, inches: float) -> bool:
    """Whether glosses of signs that follow each other would touch if they were written side by side."""
    letters = lane["gloss"].where(lane["gloss"] != "", UNKNOWN).str.len().to_numpy()
    centres = (lane["start"] + lane["end"]).to_numpy() / 2
    return bool((np.diff(centres) * inches < LETTER * (letters[1:] + letters[:-1]) / 2 + LETTER).any())


def _label_height(lane: pd.DataFrame, inches: float) -> float:
    """Inches that the glosses take above the bars."""
    if not _crowded(lane, inches):
        return 0.25
    return 0.2 + LETTER * np.sin(np.radians(SLANT)) * max(map(len, [*lane["gloss"], UNKNOWN]))


def _draw_lane(axis: Axes, lane: pd.DataFrame, colours: dict[str, Any], inches: float) -> None:
    """Bars from 0 to 1 of y with their glosses above; `inches` are those of a second."""
    turned = (
        {"rotation": SLANT, "ha": "left", "rotation_mode": "anchor"} if _crowded(lane, inches) else {"ha": "center"}
    )
    for sign in lane.to_dict("records"):
        long, middle = sign["end"] - sign["start"], (sign["start"] + sign["end"]) / 2
        colour, name = colours[sign["gloss"]], sign["gloss"] or UNKNOWN
        axis.barh(0.5, long, 1, sign["start"], color=colour, alpha=0.65, edgecolor=colour, linewidth=1)
        axis.text(middle, 1.15, name, fontsize=9, color="black" if sign["gloss"] else "0.45", va="bottom", **turned)
        if np.isfinite(sign.get("confidence", np.nan)) and long * inches >= 5 * LETTER:  # unknown signs have none
            axis.text(middle, 0.5, f"{sign['confidence']:.0%}", fontsize=8, ha="center", va="center")
    if lane.empty:
        axis.text(0.5, 0.5, "no sign", fontsize=9, color="0.45", ha="center", va="center", transform=axis.transAxes)
    axis.grid(visible=False)
    axis.spines[["top", "left", "right"]].set_visible(False)


def _draw_scores(
    axis: Axes, signs: pd.DataFrame, colours: dict[str, Any], seconds: np.ndarray, score: np.ndarray,
    threshold: float | None,
) -> None:  # fmt: skip
    """The curve of the confidence, on the colours of the signs found."""
    for sign in signs.to_dict("records"):
        axis.axvspan(sign["start"], sign["end"], color=colours[sign["gloss"]], alpha=0.2, linewidth=0)
    axis.plot(seconds, score, color="0.2", linewidth=1.5)
    if threshold is not None:
        axis.axhline(threshold, color="grey", linestyle="--", linewidth=1)
        place = {"xycoords": axis.get_yaxis_transform(), "xytext": (4, 0), "textcoords": "offset points"}
        axis.annotate("threshold", (1, threshold), va="center", fontsize="x-small", color="0.4", **place)
    axis.set(ylabel="confidence", ylim=(0, 1.02))
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.grid(visible=False, axis="x")


def few_shot_accuracy(table: pd.DataFrame, title: str = "") -> Figure:
    """Accuracy on new signs by the number of examples with 95 % intervals, a line for each number of signs.

    table: as `lib.few_shot.few_shot` gives it. Dotted: guessing.
    """
    figure, axes = subplots(size=(7, 4), title=title)
    for number, (way, rows) in enumerate(table.groupby("way")):
        errors = [rows["accuracy"] - rows["low"], rows["high"] - rows["accuracy"]]
        axes.errorbar(rows["shot"], rows["accuracy"], errors, fmt="o-", capsize=3, label=f"among {way}")
        axes.axhline(1 / way, color=f"C{number}", linestyle=":", linewidth=1)
    axes.set(ylim=(0, 1.02), xlabel="examples of each new sign", ylabel="named right", xticks=table["shot"].unique())
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(loc="lower right")
    return figure


def roc_curves(curves: dict[str, tuple[np.ndarray, np.ndarray]], title: str = "") -> Figure:
    """Share of known signs kept against share of unknown ones let through, a curve for each score.

    curves: by name, shares of false and of true positives (n,), as of sklearn.metrics.roc_curve.
    """
    figure, axis = subplots(size=(5, 4.2))
    axis.plot([0, 1], [0, 1], color="grey", linestyle="--", label="guessing")
    for name, (false, true) in curves.items():
        axis.plot(false, true, label=name)
    axis.set(xlabel="unknown signs let through", ylabel="known signs kept", aspect="equal", title=title)
    axis.legend(loc="lower right")
    return figure
