"""Drawn poses: training batches of 20 frames × 112² against a heat map for each joint

Ours: batches of hands, varied as the recipe `x3d-s-drawn` trains on them and drawn, float32 in [0, 1]. First row:
against 200 clips a second. Second row: against what PoseConv3D's published code does, which draws a Gaussian for each
joint of each frame, one after the other (deviation .6 pixels, a patch of three deviations on each side), without any
variation; the heat maps of a hand are added up to a channel. Synthetic hands of 60 frames; one thread each.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.report import compare, machine, versions, write
from bench.sides import Side, Taken, alternate

CLIPS, LENGTH, FRAMES, SIZE, BATCH = 64, 60, 20, 112, 16
SIGMA, REACH = 0.6, 3  # pixels, deviations
RATE = 200  # clips/s
RECIPE = "x3d-s-drawn"


def main(name: str = "drawn", rounds: int = 5) -> Path:
    """Measure, and write the report."""
    where = machine()
    with Side("bench.drawn:ours") as ours, Side("bench.drawn:published") as peer:
        taken = alternate({"ours": ours, "peer": peer}, "read", rounds)
    fixed = [Taken(CLIPS / RATE, CLIPS / RATE)] * rounds
    rows = [
        compare(f"training batches, against {RATE} clips/s", taken["ours"], fixed, "≥ 1", clips=CLIPS),
        compare("training batches, against heat maps", taken["ours"], taken["peer"], "≥ 1", clips=CLIPS),
    ]
    return write(name, __doc__, rows, versions("opencv-python-headless", "torch", "numpy"), where)


def make_hands() -> list[np.ndarray]:
    """Two hands that wander, all joints seen: CLIPS arrays float32 (LENGTH, 42, 3)."""
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(0, 0.01, (CLIPS, LENGTH, 2, 1, 2)), axis=1)
    xy = 0.5 + walk + rng.normal(0, 0.05, (CLIPS, 1, 2, 21, 2)) + rng.normal(0, 0.003, (CLIPS, LENGTH, 2, 21, 2))
    poses = np.concatenate([xy, np.ones((CLIPS, LENGTH, 2, 21, 1))], -1).reshape(CLIPS, LENGTH, 42, 3)
    return list(poses.astype(np.float32))


def ours() -> dict[str, Callable[[], Any]]:
    """Our side."""
    import cv2

    from lib.data.layouts import LAYOUTS
    from lib.data.loaders import DrawnBatches
    from lib.recipes import read_recipe
    from lib.training import keep_memory

    keep_memory()  # as in every training
    cv2.setNumThreads(1)
    recipe, labels = read_recipe(RECIPE), np.arange(CLIPS) % 10
    form = {"frames": FRAMES, "size": SIZE, "drawing": recipe.drawing, "layout": LAYOUTS["hands-42"]}
    batches = DrawnBatches(make_hands(), labels, 10, BATCH, vary=recipe.augment, **form)

    def read() -> None:
        for number in range(len(batches)):
            batches[number]
        batches.on_epoch_end()

    return {"read": read}


def published() -> dict[str, Callable[[], Any]]:
    """The peer's side."""
    clips = make_hands()
    chosen = np.linspace(0, LENGTH - 1, FRAMES).astype(int)

    def read() -> None:
        for start in range(0, CLIPS, BATCH):
            np.stack([draw_heat_maps(clip[chosen]) for clip in clips[start : start + BATCH]])

    return {"read": read}


def draw_heat_maps(poses: np.ndarray) -> np.ndarray:
    """A clip of hands (frames, 42, 3) as float32 (frames, SIZE, SIZE, 3), each hand in a channel."""
    low, high = poses[..., :2].min((0, 1)), poses[..., :2].max((0, 1))
    points = (poses[..., :2] - low) / (high - low).max() * (SIZE - 1)
    images, reach = np.zeros((len(poses), SIZE, SIZE, 3), np.float32), REACH * SIGMA
    for image, joints in zip(images, points, strict=True):
        for number, (x, y) in enumerate(joints):
            left, top = max(int(x - reach), 0), max(int(y - reach), 0)
            columns = np.arange(left, min(int(x + reach) + 2, SIZE))
            rows = np.arange(top, min(int(y + reach) + 2, SIZE))[:, None]
            patch = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * SIGMA**2))
            image[top : top + len(rows), left : left + len(columns), number // 21] += patch
    return images
