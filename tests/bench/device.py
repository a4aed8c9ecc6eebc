"""The device at hand: training throughput, the loader's share of the time, and what WLASL would take

Each model trains as `make study` trains it, at its published size, with the recipe's optimiser and batch, on batches
that are in memory; float32 and bfloat16 on the same backend. *Share of the peak*: floating-point operations of a step
(three times the forward pass: two for each multiply-add) over the seconds and the rate of the device, as its maker
states it (dense; float32 with TensorFloat-32 off) or, for a device not listed, of a large matrix product in this run.
*Loader*: seconds to read, vary and stack a batch with all cores, over the seconds of a step: above 1 the device waits.
*WLASL*: hours for the training clips and epochs of the recipe, by whichever of the two is slower. On a processor this
runs with tiny sizes as a trial and writes nothing.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.report import machine, row, versions, write
from bench.sides import Side

CLASSES, WARM_UP, BATCHES = 100, 3, 4
WLASL = {"WLASL100": 1_442, "WLASL300": 3_548, "WLASL1000": 8_974, "WLASL2000": 14_289}  # clips to train on
# Dense peaks in 1e12 operations per second, float32 and bfloat16, of the makers' data sheets, by part of the name.
PEAKS = {
    "H200": (67.0, 989.0),
    "H100 PCIe": (51.0, 756.0),
    "H100": (67.0, 989.0),
    "A100": (19.5, 312.0),
    "L40S": (91.6, 362.0),
    "L4": (30.3, 121.0),
    "A10G": (31.2, 70.0),
    "RTX 4090": (82.6, 165.2),
    "RTX 3090": (35.6, 71.0),
    "T4": (8.1, None),
    "V100": (15.7, None),
}


class Case(NamedTuple):
    """A recipe and its clip: frames and size², and those of the trial."""

    recipe: str
    frames: int
    size: int
    trial: tuple[int, int]


CASES = (
    Case("movinet-a0", 20, 172, (4, 32)),
    Case("movinet-a3", 20, 172, (4, 32)),
    Case("i3d", 20, 224, (8, 32)),
    Case("s3d", 20, 224, (14, 32)),
    Case("x3d-m", 16, 224, (4, 32)),
    Case("spobet-plus", 64, 0, (16, 0)),
)


def main(name: str = "device", rounds: int = 20) -> Path | None:
    """Measure, and write the report; on a processor print a trial's rows instead."""
    where, rows = machine(), []
    device, trial = _ask("device")["value"], False
    if device is None:
        device, trial, rounds = where["processor"], True, 1
    peaks = {mixed: peak_of(device, mixed) for mixed in (False, True)}
    for case in CASES:
        for mixed in (False, True):
            rows.append(_measure(case, mixed, trial, rounds, peaks[mixed]))
            print({key: value for key, value in rows[-1].items() if value != ""}, flush=True)
    if trial:
        print("a trial with tiny sizes, for there is no GPU: its numbers mean nothing and are not kept")
        return None
    return write(name, __doc__, rows, versions("torch", "tensorflow", "keras"), {**where, "processor": device})


def peak_of(device: str, mixed: bool) -> float:
    """The peak of a device, in 1e12 operations per second: the maker's, or that of a matrix product here."""
    listed = next((peaks[mixed] for part, peaks in PEAKS.items() if part in device), None)
    return listed or _ask("matrix", mixed=mixed)["value"]


def _ask(work: str, **options: Any) -> dict[str, Any]:
    with Side(f"bench.device:{work}", backend="torch", threads=os.cpu_count(), gpu=True, **options) as side:
        return side(work)


def _measure(case: Case, mixed: bool, trial: bool, rounds: int, peak: float) -> dict[str, Any]:
    """The row of a model in one precision."""
    from lib.models import family_of

    recipe = _recipe(case.recipe)
    frames, size = case.trial if trial else (case.frames, case.size)
    batch = 2 if trial else recipe.train.batch_size
    form = {"recipe": case.recipe, "mixed": mixed, "batch": batch, "frames": frames, "size": size}
    backend = family_of(recipe.model).backends[0]
    with Side("bench.device:training", backend=backend, threads=os.cpu_count(), gpu=True, **form) as side:
        for _ in range(1 if trial else WARM_UP):
            side("step")
        steps = [side("step")["seconds"] for _ in range(rounds)]
        loads = [side("load")["seconds"] / BATCHES for _ in range(max(1, rounds // 4))]
        operations, precision = 1e9 * side("gflops")["value"], side("precision")["value"]
    step, load = np.median(steps), np.median(loads)
    hours = {
        f"{study}, hours": max(step, load) * -(-clips // batch) * recipe.train.epochs / 3600
        for study, clips in WLASL.items()
    }
    shares = {"share of peak": 3 * operations * batch / step / (1e12 * peak), "peak, 1e12/s": peak}
    return row(
        f"{case.recipe}, {batch} × {frames}" + (f" × {size}²" if size else " frames"),
        "clips/s",
        [batch / seconds for seconds in steps],
        [np.nan],
        "",
        precision=precision,
        backend=backend,
        **shares,
        loader=load / step,
        **hours,
    )


# ---- sides -----------------------------------------------------------------------------------------------


def device() -> dict[str, Callable[[], Any]]:
    """The side that names the GPU, or None."""
    import torch

    return {"device": lambda: torch.cuda.get_device_name() if torch.cuda.is_available() else None}


def matrix(mixed: bool) -> dict[str, Callable[[], float]]:
    """The side that multiplies large matrices: 1e12 operations per second, the best of five."""
    import torch

    gpu = torch.cuda.is_available()
    n, kind = 8192 if gpu else 1024, torch.bfloat16 if mixed else torch.float32
    a = torch.rand(n, n, dtype=kind, device="cuda" if gpu else "cpu")
    wait = torch.cuda.synchronize if gpu else lambda: None

    def rate() -> float:
        seconds = []
        for _ in range(6):
            wait()
            start = time.perf_counter()
            a @ a
            wait()
            seconds.append(time.perf_counter() - start)
        return 2 * n**3 / min(seconds[1:]) / 1e12

    return {"matrix": rate}


def training(recipe: str, mixed: bool, batch: int, frames: int, size: int) -> dict[str, Callable[[], Any]]:
    """The side that trains a model on one batch again and again, and that reads such batches."""
    import keras

    from bench import spobet
    from bench.training import compiled
    from lib.models import build
    from lib.models.cost import gflops

    config = _recipe(recipe)
    train = config.train.model_copy(update={"mixed_precision": mixed, "batch_size": batch})
    config = config.model_copy(update={"train": train})
    if size:
        options = {**config.options, "freeze": 0}
        model = compiled(lambda: build(config.model, CLASSES, (frames, size, size), **options), train)
        data = _clips(config, frames, size)
    else:
        model, data = spobet.ours(*spobet.make_clips(BATCHES * batch), config)
    clips, labels = data[0]
    data.set_epoch(1)  # not read yet
    return {
        "step": lambda: float(model.train_on_batch(clips, labels)),
        "load": lambda: [data[number] for number in range(BATCHES)] and data.on_epoch_end(),
        "gflops": lambda: gflops(model, clips[:1]),
        "precision": lambda: keras.config.dtype_policy().compute_dtype,
    }


def _recipe(name: str) -> Any:
    from lib.recipes import read_recipe

    return read_recipe("x3d-l", {"model": "x3d-m"}) if name == "x3d-m" else read_recipe(name)


def _clips(config: Any, frames: int, size: int) -> Any:
    """Batches of stored synthetic clips, varied as in training."""
    from bench.clips import DRAWN, make_videos, store
    from lib.data.loaders import ClipBatches

    folder = Path(tempfile.mkdtemp())
    make_videos(folder, DRAWN, noise=0)
    paths = np.resize(store(folder), BATCHES * config.train.batch_size)
    labels = np.arange(len(paths)) % CLASSES
    form = {"frames": frames, "size": size, "vary": config.augment, "threads": os.cpu_count()}
    return ClipBatches(paths, labels, CLASSES, config.train.batch_size, **form)
