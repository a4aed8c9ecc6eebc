"""Figures of RGB clips: strips of frames. Only made-up ones are shown; frames of WLASL are not ours to publish."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lib.data.clips import clip_path, read_stored
from lib.data.video import frames, sample_frames
from lib.evaluation import Predictions
from lib.figures.style import subplots

THUMBNAIL = 96  # pixels, at least, on a side of a frame in a strip


def before_and_after(clips: pd.DataFrame, folder: Path, count: int = 8, title: str = "") -> Figure:
    """For each row of an index two strips of `count` frames: of the video with the signer's box, and of the store.

    Both show the same moments, the middles of even spans of the signed segment. `folder` is the clip store.
    """
    figure, axes = subplots(2 * len(clips), count, size=(1.1 * count, 2.4 * len(clips)), squeeze=False)
    for row, clip in enumerate(clips.to_dict("records")):
        pictures = list(frames(Path(clip["path"])))
        numbers = sample_frames(clip["frame_start"], clip["frame_end"], count)
        stored = read_stored(clip_path(folder, clip["video_id"]), lambda n: sample_frames(0, n, count))
        for column, number in enumerate(numbers):
            before, after = axes[2 * row, column], axes[2 * row + 1, column]
            before.imshow(pictures[number])
            before.add_patch(_rectangle(clip["bbox"]))
            after.imshow(stored[column])
            before.set_title(f"frame {number}", fontsize="x-small", loc="center", pad=2)
        axes[2 * row + 1, 0].set_title(clip["gloss"], fontsize="x-small", loc="left", pad=2)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    return figure


def strips(clips: Sequence[np.ndarray], names: Sequence[str], title: str = "") -> Figure:
    """Clips (frames, height, width, 3), float in [0, 1] or uint8, as strips below each other, each with a name."""
    figure, axes = subplots(len(clips), 1, size=(0.9 * len(clips[0]), 1.15 * len(clips)), squeeze=False)
    for axis, clip, name in zip(axes[:, 0], clips, names, strict=True):
        axis.imshow(np.hstack(list(clip)))
        axis.set_axis_off()
        axis.set_title(name, fontsize="small")
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    return figure


def contact_sheet(clips: pd.DataFrame, folder: Path, count: int = 14, title: str = "") -> Figure:
    """The middle frame of the first `count` clips of each gloss in an index, from the store, a row for each gloss."""
    named = {str(gloss): rows["video_id"].head(count) for gloss, rows in clips.groupby("gloss")}
    rows = [
        np.stack([read_stored(clip_path(folder, clip), lambda n: [n // 2], THUMBNAIL)[0] for clip in ids])
        for ids in named.values()
    ]
    return strips(rows, list(named), title)


def right_and_wrong(predictions: Predictions, folder: Path, count: int = 5, frames: int = 8, title: str = "") -> Figure:
    """Strips of the first `count` clips that were named right and of the first `count` that were not, from the store.

    Above each its gloss and, where that is another one, what it was taken for. `folder` is the clip store.
    """
    answers = predictions.logits.argmax(1)
    right = answers == predictions.label
    shown = [*np.flatnonzero(right)[:count], *np.flatnonzero(~right)[:count]]
    names = [predictions.glosses[predictions.label[row]] for row in shown]
    taken = ["" if right[row] else f", taken for {predictions.glosses[answers[row]]}" for row in shown]
    paths = [clip_path(folder, predictions.video_id[row]) for row in shown]
    clips = [np.stack(read_stored(path, lambda n: sample_frames(0, n, frames), THUMBNAIL)) for path in paths]
    return strips(clips, [name + other for name, other in zip(names, taken, strict=True)], title)


def _rectangle(box: Sequence[float]) -> Rectangle:
    """The outline of a box xmin, ymin, xmax, ymax."""
    x, y, right, low = box
    return Rectangle((x, y), right - x, low - y, fill=False, color="C1", linewidth=1.5)
