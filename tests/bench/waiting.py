"""Waiting for data: its share of a training epoch of MoViNet-a0 stream

On TensorFlow with all cores, batches of 4 clips of 20 frames × 172² from the clip store, augmented as in training, on a
dozen synthetic videos of data/sample.py, each used several times. "Ours" is the time spent in the batches'
__getitem__, which the loader's threads shorten by preparing batches ahead; "peer" is the whole epoch.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.clips import CLASSES, DRAWN, make_videos, store
from bench.report import machine, row, versions, write
from bench.sides import Side


def main(name: str = "waiting", rounds: int = 3, steps: int = 24, batch: int = 4, size: int = 172) -> Path:
    """Measure, and write the report."""
    where = machine()
    form = {"steps": steps, "batch": batch, "size": size, "threads": where["cores"]}
    with tempfile.TemporaryDirectory() as folder:
        make_videos(Path(folder), DRAWN, noise=0)
        with Side("bench.waiting:ours", backend="tensorflow", folder=folder, **form) as side:
            epochs = [side("epoch") for _ in range(rounds + 1)][1:]
    waited, whole = [epoch["value"] for epoch in epochs], [epoch["seconds"] for epoch in epochs]
    label, extra = f"waiting in an epoch of {steps} batches", {"rounds": rounds, "threads": where["cores"]}
    rows = [row(label, "s", waited, whole, "≤ 0.05", **extra)]
    return write(name, __doc__, rows, versions("tensorflow", "keras", "opencv-python-headless"), where)


def ours(folder: str, steps: int, batch: int, size: int) -> dict[str, Callable[[], float]]:
    """The side: `epoch` trains for one, as lib.training.fit does, and returns the seconds spent waiting."""
    from bench.training import compiled
    from lib.data.loaders import ClipBatches
    from lib.models import build
    from lib.recipes import read_recipe
    from lib.training import feed

    class TimedBatches(ClipBatches):
        waited = 0.0  # seconds

        def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
            start = time.perf_counter()
            try:
                return super().__getitem__(number)
            finally:
                self.waited += time.perf_counter() - start

    config = read_recipe("movinet-a0")
    clip = (config.frames, size, size)
    model = compiled(lambda: build("movinet-a0", CLASSES, clip, **config.options), config.train)
    paths = np.resize(store(Path(folder)), steps * batch)
    labels = np.arange(len(paths)) % CLASSES
    batches = TimedBatches(paths, labels, CLASSES, batch, size=size, vary=config.augment)

    def epoch() -> float:
        batches.set_epoch(batches.epoch + 1)
        data = feed(batches)
        batches.waited = 0.0
        model.fit(data, epochs=1, verbose=0, shuffle=False)
        return batches.waited

    return {"epoch": epoch}
