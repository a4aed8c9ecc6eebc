"""Figures of a data set's index: clips per gloss, signers, lengths, sources."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lib.data.annotations import SPLITS
from lib.data.audit import ALL
from lib.data.video import frames
from lib.figures.style import subplots


def clips_per_gloss(coverage: pd.DataFrame) -> Figure:
    """Official and present clips of every gloss, from most to fewest official ones.

    `coverage` is the table of `lib.data.audit.coverage`. Up to 30 glosses are named, more are numbered by
    rank.
    """
    glosses = coverage[(coverage["split"] == ALL) & (coverage["gloss"] != ALL)]
    glosses = glosses.sort_values("official", ascending=False, kind="stable").reset_index(drop=True)
    figure, axis = subplots(size=(10, 3.5))
    axis.bar(glosses.index, glosses["official"], width=1.0, linewidth=0, color="0.85", label="official")
    axis.bar(glosses.index, glosses["present"], width=1.0, linewidth=0, label="present")
    axis.set(title="Clips per gloss", xlabel="gloss, by number of official clips", ylabel="clips")
    if len(glosses) <= 30:
        axis.set_xticks(glosses.index, glosses["gloss"], rotation=45, ha="right")
    axis.margins(x=0.01)
    axis.legend()
    return figure


def signers(index: pd.DataFrame, top: int = 40) -> Figure:
    """Clips of the `top` most frequent signers, stacked by split; the title says who overlaps."""
    known = index[index["signer"].notna()]
    counts = pd.crosstab(known["signer"], known["split"]).reindex(columns=list(SPLITS), fill_value=0)
    order = counts.sum(axis=1).sort_values(ascending=False, kind="stable").index
    figure, axis = subplots(size=(10, 3.5))
    shown = counts.loc[order[:top]]
    bottom = 0
    for split in SPLITS:
        axis.bar(range(len(shown)), shown[split], bottom=bottom, label=split)
        bottom = bottom + shown[split].to_numpy()
    seen = int((counts["train"].gt(0) & counts["test"].gt(0)).sum())
    axis.set_xticks(range(len(shown)), shown.index.astype(str), rotation=90)
    axis.grid(visible=False, axis="x")
    axis.margins(x=0.01)
    axis.set(title=f"{int(counts['test'].gt(0).sum())} signers in test, {seen} of them also in train "
                   f"({min(top, len(order))} of {len(order)} signers shown)",
             xlabel="signer", ylabel="official clips")  # fmt: skip
    axis.legend()
    return figure


def lengths(index: pd.DataFrame) -> Figure:
    """Lengths of the present clips' signed segments, in frames and in seconds, by split.

    Seconds are frames over the index's fps: exact for videos, by the annotated rate for poses without a
    video.
    """
    present = index[index["status"] == "present"]
    frames = (present["frame_end"] - present["frame_start"]).rename("frames")
    table = present.assign(frames=frames, seconds=frames / present["fps"])
    figure, axes = subplots(1, 2, size=(10, 3.5))
    for axis, column in zip(axes, ("frames", "seconds"), strict=True):
        sns.histplot(
            table,
            x=column,
            hue="split",
            hue_order=SPLITS,
            ax=axis,
            element="step",
            fill=False,
            stat="density",
            common_norm=False,
        )
        axis.set(title=f"Length in {column} (median {table[column].median():.3g})", ylabel="density")
    return figure


def sources(index: pd.DataFrame) -> Figure:
    """Official and present clips of every source site."""
    counts = index.assign(present=index["status"] == "present").groupby("source")["present"].agg(["size", "sum"])
    counts = counts.sort_values("size", kind="stable")
    figure, axis = subplots(size=(8, 1.6 + 0.28 * len(counts)))
    axis.barh(counts.index, counts["size"], color="0.85", label="official")
    axis.barh(counts.index, counts["sum"], label="present")
    axis.set(title="Clips per source", xlabel="clips")
    axis.legend(loc="lower right")
    return figure


def film_strips(index: pd.DataFrame, count: int = 9) -> Figure:
    """`count` frames, evenly over the signed segment, of one present clip of each gloss, by a different signer each.

    `index` has videos as its first source.
    """
    clips = index[index["status"] == "present"].groupby("label")
    chosen = [clips.get_group(label).iloc[number % clips.size()[label]] for number, label in enumerate(clips.groups)]
    figure, axes = subplots(len(chosen), 1, size=(0.9 * count, 1.15 * len(chosen)))
    for ax, clip in zip(np.atleast_1d(axes), chosen, strict=True):
        pictures = list(frames(clip["path"]))[clip["frame_start"] : clip["frame_end"]]
        at = np.linspace(0, len(pictures) - 1, count).round().astype(int)
        ax.imshow(np.hstack([pictures[i] for i in at]))
        ax.set_axis_off()
        ax.set_title(clip["gloss"], fontsize="small")
    return figure
