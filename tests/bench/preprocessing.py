"""Preprocessing: 2000 clips against 100, time per clip and memory

"Ours" is 2000 clips, "peer" 100: a ratio of 1 means that the time grows in proportion to the number of clips, and that
the memory does not grow. The clips are one small synthetic video under so many names. Building the clip store and a
pass over the loader run in processes of their own for each number of clips and each round. Memory is the peak of the
process and that of its largest worker, in MiB. Keras runs on numpy here: a framework would hide what grows.
"""

import os
import resource
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.clips import store
from bench.report import machine, row, versions, write
from bench.sides import Side
from sample import encode

FRAMES, VIDEO_SIZE, STORED_SIZE, BATCH = 12, 96, 64, 8
STEPS = {"build": "building the clip store", "read": "a pass over the loader"}


def main(name: str = "preprocessing", rounds: int = 3, counts: tuple[int, int] = (2000, 100)) -> Path:
    """Measure, and write the report."""
    where, rows = machine(), []
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "clip.mp4"
        _make_video(video)
        answers = [[_measure(video, Path(folder) / f"{turn}-{n}", n) for n in counts] for turn in range(rounds)]
    for step, label in STEPS.items():
        many, few = ([answer[step] for answer in side] for side in zip(*answers, strict=True))
        times, processor, memory = ([[each[what] for each in side] for side in (many, few)] for what in range(3))
        cpu_ratio = np.divide(*np.median(processor, axis=1))
        for what, unit, values, ratio in (("time", "ms a clip", times, cpu_ratio), ("memory", "MiB", memory, np.nan)):
            extra = {"cpu_ratio": ratio, "rounds": rounds, "threads": 1}
            rows.append(row(f"{label}, {what}", unit, *values, "≤ 1.1", **extra))
    return write(name, __doc__, rows, versions("av", "opencv-python-headless", "keras"), where)


def _make_video(path: Path) -> None:
    """Write a small video of something that moves."""
    images = np.full((FRAMES, VIDEO_SIZE, VIDEO_SIZE, 3), 128, np.uint8)
    for number, image in enumerate(images):
        image[10:40, 4 * number : 4 * number + 30] = 255
    encode(path, images, 25, (VIDEO_SIZE, VIDEO_SIZE))


def _measure(video: Path, folder: Path, count: int) -> dict[str, tuple[float, float, float]]:
    """Store `count` clips and pass over them: by step, wall and processor time (ms a clip) and peak memory (MiB)."""
    folder.mkdir()
    for number in range(count):
        os.link(video, folder / f"{number:05d}.mp4")
    results = {}
    for step in STEPS:
        with Side("bench.preprocessing:steps", backend="numpy", folder=str(folder)) as side:
            taken = side(step)
            memory = side("memory")["value"]
        results[step] = (1000 * taken["seconds"] / count, 1000 * taken["cpu"] / count, memory)
    return results


def steps(folder: str) -> dict[str, Callable[[], Any]]:
    """The side: `build` the store of the folder's videos, `read` all of it once, report the `memory` that took."""
    from lib.data.augment import ClipAugment
    from lib.data.clip_store import clip_path
    from lib.data.loaders import ClipBatches

    def build() -> None:
        store(Path(folder), FRAMES, size=STORED_SIZE)

    def read() -> None:
        paths = [clip_path(Path(folder), video.stem) for video in sorted(Path(folder).glob("*.mp4"))]
        labels = np.zeros(len(paths), int)
        how = ClipAugment(jitter=1.0, crop=0.2, flip=0.5)
        batches = ClipBatches(paths, labels, 10, BATCH, size=STORED_SIZE, vary=how, threads=1)
        for number in range(len(batches)):
            batches[number]

    return {"build": build, "read": read, "memory": peak_memory}


def peak_memory() -> float:
    """The most memory (MiB) that this process has held, and the most that any one of its ended workers has."""
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10  # of ru_maxrss per MiB: bytes on macOS, else kilobytes
    status = Path("/proc/self/status")  # on Linux, where ru_maxrss may be that of the parent process
    if status.exists():
        own = peak_of(status.read_text().splitlines())
    else:
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return own + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit


def peak_of(status: Sequence[str]) -> float:
    """The peak (MiB) in the lines of a Linux process's status."""
    line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
