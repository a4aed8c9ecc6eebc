"""Figures of the data: the index (clips per gloss, signers, lengths, sources), stored clips, poses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lib.data.audit import ALL
from lib.data.clip_store import clip_path, read_stored
from lib.data.index import present
from lib.data.layouts import SIDES, Layout
from lib.data.video import frames, sample_frames
from lib.data.wlasl import SPLITS
from lib.figures import subplots
from lib.predictions import Predictions

if TYPE_CHECKING:
    from lib.runs import RgbRun

THUMBNAIL = 96  # pixels, at least, on a side of a frame in a strip
BESIDE = {"loc": "upper left", "bbox_to_anchor": (1, 1)}  # a legend that covers no bar
# Grey and colours that colour-blind people tell apart.
COLOURS = {"body": "0.35", "left": "C0", "right": "C1", "lips": "C2"}


def clips_per_gloss(coverage: pd.DataFrame) -> Figure:
    """Official and present clips of every gloss, in descending order of official clips.

    `coverage` is the table of `lib.data.audit.coverage`. Up to 30 glosses are named, more are numbered by rank.
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
    axis.legend(**BESIDE)
    return figure


def signers(index: pd.DataFrame, top: int = 40) -> Figure:
    """Clips of the `top` most frequent signers, stacked by split; the title counts signers of both train and test.

    Annotations that name no signer leave the figure empty, which it says.
    """
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
    axis.legend(**BESIDE)
    if counts.empty:
        axis.set(title="The annotations name no signer", yticks=[])
        axis.get_legend().remove()
    return figure


def lengths(index: pd.DataFrame) -> Figure:
    """Lengths of the present clips' signed segments, in frames and in seconds, by split.

    Seconds are frames over the index's fps: exact for videos, at the annotated rate for poses without a video.
    """
    clips = present(index)
    frames = clips["frame_end"] - clips["frame_start"]
    table = clips.assign(frames=frames, seconds=frames / clips["fps"])
    figure, axes = subplots(1, 2, size=(10, 3.5))
    how = {"element": "step", "fill": False, "stat": "density", "common_norm": False}
    for axis, column in zip(axes, ("frames", "seconds"), strict=True):
        sns.histplot(table, x=column, hue="split", hue_order=SPLITS, ax=axis, **how)
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
    axis.legend(**BESIDE)
    return figure


def film_strips(index: pd.DataFrame, count: int = 9) -> Figure:
    """`count` frames, evenly over the signed segment, of one present clip of each gloss, by a different signer each.

    The first source of the `index` must be videos.
    """
    clips = present(index).groupby("label")
    chosen = [clips.get_group(label).iloc[number % clips.size()[label]] for number, label in enumerate(clips.groups)]
    rows = []
    for clip in chosen:
        pictures = list(frames(clip["path"]))[clip["frame_start"] : clip["frame_end"]]
        rows.append([pictures[i] for i in np.linspace(0, len(pictures) - 1, count).round().astype(int)])
    return strips(rows, [clip["gloss"] for clip in chosen])


def before_and_after(clips: pd.DataFrame, folder: Path, count: int = 8, title: str = "") -> Figure:
    """For each row of an index the same `count` moments of the video, with the signer's box, and of the clip store."""
    figure, axes = subplots(2 * len(clips), count, size=(1.1 * count, 2.4 * len(clips)), squeeze=False, title=title)
    for row, clip in enumerate(clips.to_dict("records")):
        pictures = list(frames(Path(clip["path"])))
        numbers = sample_frames(clip["frame_start"], clip["frame_end"], count)
        stored = read_stored(clip_path(folder, clip["video_id"]), lambda n: sample_frames(0, n, count))
        x, y, right, low = clip["bbox"]
        for column, number in enumerate(numbers):
            before, after = axes[2 * row, column], axes[2 * row + 1, column]
            before.imshow(pictures[number])
            before.add_patch(Rectangle((x, y), right - x, low - y, fill=False, color="C1", linewidth=1.5))
            after.imshow(stored[column])
            before.set_title(f"frame {number}", fontsize="x-small", loc="center", pad=2)
        axes[2 * row + 1, 0].set_title(clip["gloss"], fontsize="x-small", loc="left", pad=2)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure


def strips(clips: Sequence[np.ndarray], names: Sequence[str], title: str = "") -> Figure:
    """Clips (frames, height, width, 3), float in [0, 1] or uint8, as strips one below the other, each with a name."""
    figure, axes = subplots(len(clips), 1, size=(0.9 * len(clips[0]), 1.15 * len(clips)), squeeze=False, title=title)
    for axis, clip, name in zip(axes[:, 0], clips, names, strict=True):
        axis.imshow(np.hstack(list(clip)))
        axis.set_axis_off()
        axis.set_title(name, fontsize="small")
    return figure


def contact_sheet(clips: pd.DataFrame, folder: Path, count: int = 14, title: str = "") -> Figure:
    """The middle frame of the first `count` clips of each gloss in an index, from the store, a row for each gloss."""
    glosses, rows = [], []
    for gloss, of_gloss in clips.groupby("gloss"):
        paths = [clip_path(folder, video_id) for video_id in of_gloss["video_id"].head(count)]
        glosses.append(str(gloss))
        rows.append([read_stored(path, lambda n: [n // 2], THUMBNAIL)[0] for path in paths])
    return strips(rows, glosses, title)


def right_and_wrong(predictions: Predictions, run: RgbRun, count: int = 5, frames: int = 8, title: str = "") -> Figure:
    """Strips of the first `count` clips that a run classified correctly and of the first `count` that it did not.

    Each is titled with its gloss and, if misclassified, the predicted one.
    """
    predicted = predictions.logits.argmax(1)
    correct = predicted == predictions.label
    rows, names = [*np.flatnonzero(correct)[:count], *np.flatnonzero(~correct)[:count]], []
    for row in rows:
        gloss, taken = (predictions.glosses[label] for label in (predictions.label[row], predicted[row]))
        names.append(gloss if correct[row] else f"{gloss}, predicted as {taken}")
    return strips(run.look(predictions.video_id[rows], frames), names, title)


def skeleton_strip(poses: np.ndarray, layout: Layout, count: int = 8, title: str = "") -> Figure:
    """Draw `count` frames of one clip side by side, evenly spread from the first with joints to the last.

    poses: (frames, joints, 3); see `draw_skeletons`. Raises ValueError when no frame has a joint.
    """
    numbers = moments_with_joints(poses, count)
    figure, axes = subplots(1, count, size=(1.6 * count, 2.3), squeeze=False, title=title)
    draw_skeletons(axes[0], poses, layout, numbers)
    return figure


def moments_with_joints(poses: np.ndarray, count: int) -> np.ndarray:
    """Choose `count` frames of a clip (frames, joints, 3), evenly spread from the first with joints to the last.

    Returns int64 (count,), sorted. Raises ValueError when no frame has a joint.
    """
    seen = np.flatnonzero(poses[..., 2].any(1))
    if not len(seen):
        raise ValueError("the clip has no joints to draw")
    return np.linspace(seen[0], seen[-1], count).round().astype(int)


def draw_skeletons(axes: Sequence[Axes], poses: np.ndarray, layout: Layout, numbers: Sequence[int]) -> None:
    """Draw one numbered frame of a clip (frames, joints, 3) on each of the axes, which get the same scale.

    Bones are coloured by part; the thin line is the path of each wrist so far, interrupted where the hand was not seen.
    y grows downwards.
    """
    part_of = {joint: part for part, where in layout.parts.items() for joint in range(where.start, where.stop)}
    shown = poses[poses[..., 2] > 0][:, :2]
    low, high = shown.min(0), shown.max(0)
    margin = 0.05 * (high - low).max() + 1e-6
    for axis, frame in zip(axes, numbers, strict=True):
        for side in SIDES:
            wrist = poses[: frame + 1, layout.parts[side].start]
            path = np.where(wrist[:, 2:] > 0, wrist[:, :2], np.nan)
            axis.plot(*path.T, color=COLOURS[side], linewidth=0.8, alpha=0.5)
        pose = poses[frame]
        bones = [edge for edge in layout.edges if pose[list(edge), 2].all()]
        colours = [COLOURS[part_of[end]] for _, end in bones]
        axis.add_collection(LineCollection([pose[list(bone), :2] for bone in bones], colors=colours, linewidths=1.3))
        for part, where in layout.parts.items():
            joints = pose[where][pose[where, 2] > 0]
            axis.scatter(*joints[:, :2].T, s=3, color=COLOURS[part])
        axis.set_title(f"frame {frame}", fontsize="small")
        axis.set(xticks=[], yticks=[], aspect="equal")
        axis.set(xlim=(low[0] - margin, high[0] + margin), ylim=(high[1] + margin, low[1] - margin))


def presence_over_time(poses: list[np.ndarray], layout: Layout, title: str, bins: int = 40) -> Figure:
    """Share of clips in which each part is seen, over the course of a clip from its start (0) to its end (1).

    A part is seen in a frame when any of its joints is present.
    """
    figure, axis = subplots(size=(7, 3.2))
    when = np.linspace(0, 1, bins)
    for part, where in layout.parts.items():
        seen = [clip[:, where, 2].any(1)[np.rint(when * (len(clip) - 1)).astype(int)] for clip in poses]
        axis.plot(when, np.mean(seen, axis=0), color=COLOURS[part], label=part)
    axis.set(title=title, xlabel="time within the clip", ylabel="share of clips", xlim=(0, 1), ylim=(0, 1.02))
    axis.legend(title="part")
    return figure
