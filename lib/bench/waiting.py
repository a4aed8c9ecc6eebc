"""Waiting for data: its share of a training epoch of MoViNet-a0 stream

On TensorFlow with all cores, batches of 4 clips of 20 frames × 172² from the clip store, varied as in training, on a
dozen made-up videos of lib.data.sample, each several times. "Ours" is the time spent in the batches' __getitem__, which
the loader's threads shorten by making batches ahead; "peer" is the whole epoch.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lib.bench.clips import CLASSES, CLIPS, DRAWN, make_videos, store
from lib.bench.report import machine, ratio, versions, write
from lib.bench.sides import Side

STEPS = 24  # of an epoch


def main(name: str = "waiting", rounds: int = 3, steps: int = STEPS, batch: int = 4, size: int = 172) -> Path:
    """Measure, and write the report."""
    where = machine()
    form = {"steps": steps, "batch": batch, "size": size}
    with tempfile.TemporaryDirectory() as folder:
        make_videos(Path(folder), DRAWN, 0, CLIPS)
        with Side(
            "lib.bench.waiting:ours", backend="tensorflow", threads=where["cores"], folder=folder, **form
        ) as side:
            epochs = [side("epoch") for _ in range(rounds + 1)][1:]
    waited, whole = [epoch["value"] for epoch in epochs], [epoch["seconds"] for epoch in epochs]
    row = {"measured": f"waiting in an epoch of {steps} batches", "unit": "s", **ratio(waited, whole, "≤ 0.05")}
    row |= {"rounds": rounds, "threads": where["cores"]}
    return write(name, __doc__, [row], versions("tensorflow", "keras", "opencv-python-headless"), where)


def ours(folder: str, steps: int, batch: int, size: int) -> dict[str, Callable[[], float]]:
    """The side: `epoch` trains one, as lib.training.fit does, and returns the seconds spent waiting."""
    import keras

    from lib.models import build
    from lib.recipes import read_recipe
    from lib.training import feed, make_optimizer, prepare

    config = read_recipe("movinet-a0")
    prepare(config.train, seed=0)
    model = build("movinet-a0", CLASSES, (config.frames, size, size), **config.options)
    model.compile(
        make_optimizer(config.train, 1000), keras.losses.CategoricalCrossentropy(from_logits=True), jit_compile=False
    )
    paths = np.resize(store(Path(folder)), steps * batch)
    labels = np.arange(len(paths)) % CLASSES
    batches = timed_batches()(paths, labels, CLASSES, batch, size=size, vary=config.augment)

    def epoch() -> float:
        batches.set_epoch(batches.epoch + 1)
        data = feed(batches)
        batches.waited = 0.0
        model.fit(data, epochs=1, verbose=0, shuffle=False)
        return batches.waited

    return {"epoch": epoch}


def timed_batches() -> type:
    """ClipBatches that know how many seconds their reader has waited."""
    from lib.data.loaders import ClipBatches

    class TimedBatches(ClipBatches):
        waited = 0.0

        def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
            start = time.perf_counter()
            try:
                return super().__getitem__(number)
            finally:
                self.waited += time.perf_counter() - start

    return TimedBatches
