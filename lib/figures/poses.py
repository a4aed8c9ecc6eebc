"""Figures of poses: skeletons over time, and which parts are there when."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from lib.data.layouts import SIDES, Layout
from lib.figures.style import subplots

COLOURS = {
    "body": "0.35",
    "left": "C0",
    "right": "C1",
}  # grey, and two colours that colour-blind people tell apart


def skeleton_strip(poses: np.ndarray, layout: Layout, count: int = 8, title: str = "") -> Figure:
    """Draw `count` frames of one clip side by side, evenly spread from the first with joints to the last.

    poses: (frames, joints, 3). Bones are coloured by part; the thin line is the way of each hand so far.
    The image's axes: y grows downwards, one scale for all frames.
    Raises ValueError when no frame has a joint.
    """
    seen = np.flatnonzero(poses[..., 2].any(1))
    if not len(seen):
        raise ValueError("the clip has no joints to draw")
    figure, axes = subplots(1, count, size=(1.6 * count, 2.3), sharex=True, sharey=True, squeeze=False)
    for axis, frame in zip(axes[0], np.linspace(seen[0], seen[-1], count).round().astype(int), strict=True):
        _trails(axis, poses[: frame + 1], layout)
        _skeleton(axis, poses[frame], layout)
        axis.set_title(f"frame {frame}", fontsize="small")
        axis.set(xticks=[], yticks=[], aspect="equal")
    _frame_all(axes[0, 0], poses)
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    return figure


def presence_over_time(poses: list[np.ndarray], layout: Layout, title: str, bins: int = 40) -> Figure:
    """Share of clips in which each part is seen, over the course of a clip from its start (0) to its end (1).

    A part is seen in a frame when any of its joints is present.
    """
    figure, axis = subplots(size=(7, 3.2))
    when = np.linspace(0, 1, bins)
    for part, where in layout.parts.items():
        seen = [clip[:, where, 2].any(1)[np.rint(when * (len(clip) - 1)).astype(int)] for clip in poses]
        axis.plot(when, np.mean(seen, axis=0), color=COLOURS[part], label=part)
    axis.set(title=title, xlabel="time within the clip", ylabel="share of clips")
    axis.set(xlim=(0, 1), ylim=(0, 1.02))
    axis.legend(title="part")
    return figure


def _skeleton(axis: Axes, pose: np.ndarray, layout: Layout) -> None:
    """The bones of one frame (joints, 3) whose two ends are present, and its joints."""
    bones = [edge for edge in layout.edges if pose[list(edge), 2].all()]
    colours = [COLOURS[_part(layout, end)] for _, end in bones]
    axis.add_collection(LineCollection([pose[list(bone), :2] for bone in bones], colors=colours, linewidths=1.3))
    for part, where in layout.parts.items():
        joints = pose[where][pose[where, 2] > 0]
        axis.scatter(*joints[:, :2].T, s=3, color=COLOURS[part])


def _trails(axis: Axes, poses: np.ndarray, layout: Layout) -> None:
    """The way of each hand's wrist up to the last frame given, broken where the hand was not seen."""
    for side in SIDES:
        wrist = poses[:, layout.parts[side].start]
        way = np.where(wrist[:, 2:] > 0, wrist[:, :2], np.nan)
        axis.plot(*way.T, color=COLOURS[side], linewidth=0.8, alpha=0.5)


def _frame_all(axis: Axes, poses: np.ndarray) -> None:
    """Show what all frames together cover, with y growing downwards."""
    shown = poses[poses[..., 2] > 0][:, :2]
    low, high = shown.min(0), shown.max(0)
    margin = 0.05 * (high - low).max() + 1e-6
    axis.set(xlim=(low[0] - margin, high[0] + margin), ylim=(high[1] + margin, low[1] - margin))


def _part(layout: Layout, joint: int) -> str:
    return next(part for part, where in layout.parts.items() if where.start <= joint < where.stop)
