"""Preprocessing: 2000 clips against 100, time per clip and memory

"Ours" is 2000 clips, "peer" 100: a ratio of 1 says that the time grows with the number of clips and no faster, and that
the memory does not grow. The clips are one small made-up video under so many names. Building the clip store and then
passing over the loader are processes of their own for each number of clips and each round. Memory is the peak of the
process and that of its largest worker, in MiB. Keras runs on numpy here: a framework would hide what grows.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.bench.report import machine, ratio, versions, write
from lib.bench.sides import Side
from lib.data.sample import encode

MANY, FEW = 2000, 100
FRAMES, VIDEO_SIZE, STORED_SIZE, BATCH = 12, 96, 64, 8
STEPS = {"build": "building the clip store", "read": "a pass over the loader"}


def main(name: str = "preprocessing", rounds: int = 3, counts: tuple[int, int] = (MANY, FEW)) -> Path:
    """Measure, and write the report."""
    where = machine()
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "clip.mp4"
        make_video(video)
        # Rounds go by turns, with 100 and with 2000 clips.
        answers = [[once(video, Path(folder) / f"{turn}-{n}", n) for n in counts] for turn in range(rounds)]
    rows = [row(answers, step, what) for step in STEPS for what in ("time", "memory")]
    return write(name, __doc__, rows, versions("av", "opencv-python-headless", "keras"), where)


def row(answers: list[list[dict]], step: str, what: str) -> dict[str, Any]:
    """The row of one step's `time` (ms a clip) or `memory` (MiB); answers: by round, many and few, of `once`."""
    many, few = ([answer[side][step] for answer in answers] for side in range(2))
    values = ratio([each[what] for each in many], [each[what] for each in few], "≤ 1.1")
    made = {"measured": f"{STEPS[step]}, {what}", "unit": "MiB" if what == "memory" else "ms a clip", **values}
    cpu = np.median([each["cpu"] for each in many]) / np.median([each["cpu"] for each in few])
    return {**made, "cpu_ratio": cpu if what == "time" else np.nan, "rounds": len(answers), "threads": 1}


def make_video(path: Path) -> None:
    """Write a small video of something that moves."""
    pictures = np.full((FRAMES, VIDEO_SIZE, VIDEO_SIZE, 3), 128, np.uint8)
    for number, picture in enumerate(pictures):
        picture[10:40, 4 * number : 4 * number + 30] = 255
    encode(path, pictures, 25, (VIDEO_SIZE, VIDEO_SIZE))


def once(video: Path, folder: Path, count: int) -> dict[str, dict[str, float]]:
    """Build a store of `count` clips and pass over it: time and cpu (ms a clip) and peak memory (MiB) by step."""
    folder.mkdir()
    for number in range(count):
        os.link(video, folder / f"{number:05d}.mp4")
    results = {}
    for step in STEPS:
        with Side("lib.bench.preprocessing:steps", backend="numpy", folder=str(folder)) as side:
            taken = side(step)
            results[step] = {key: 1000 * taken[name] / count for key, name in (("time", "seconds"), ("cpu", "cpu"))}
            results[step]["memory"] = side("memory")["value"]
    return results


def steps(folder: str) -> dict[str, Callable[[], Any]]:
    """The side: `build` the store of the folder's videos, `read` all of it once, say what `memory` that took."""
    from lib.data.augment import ClipAugment
    from lib.data.clip_store import build_clips, clip_path
    from lib.data.loaders import ClipBatches

    videos = sorted(Path(folder).glob("*.mp4"))
    names = [video.stem for video in videos]

    def build() -> None:
        index = pd.DataFrame({"video_id": names, "path": [str(video) for video in videos]})
        index = index.assign(status="present", frame_start=0, frame_end=FRAMES)
        build_clips(index, Path(folder), size=STORED_SIZE, workers=1)

    def read() -> None:
        paths = [clip_path(Path(folder), name) for name in names]
        labels = np.zeros(len(paths), int)
        how = ClipAugment(jitter=1.0, crop=0.2, flip=0.5)
        batches = ClipBatches(paths, labels, 10, BATCH, size=STORED_SIZE, vary=how, threads=1)
        for number in range(len(batches)):
            batches[number]

    return {"build": build, "read": read, "memory": peak_memory}


def peak_memory() -> float:
    """The most memory (MiB) that this process has held, and the most that any one of its ended workers has."""
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit_of_maxrss()
    return own_peak() + worker


def own_peak() -> float:
    """The most memory (MiB) that this process has held; ru_maxrss may be that of the process it was started by."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit_of_maxrss()
    return peak_of(status.read_text().splitlines())


def peak_of(status: Sequence[str]) -> float:
    """The peak (MiB) in the lines of a Linux process's status."""
    line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def unit_of_maxrss() -> int:
    """How many of ru_maxrss's units are a MiB: kilobytes on Linux, bytes on macOS."""
    return 1 << 20 if sys.platform == "darwin" else 1 << 10
