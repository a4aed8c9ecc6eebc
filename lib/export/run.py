"""All files of a trained run: made, scored on the test split, timed, described."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from lib.evaluation import Predictions
from lib.export import network, onnx, stream, tflite, verify
from lib.export.card import describe, write_card
from lib.export.files import Runner, add_metadata, runner_of
from lib.paths import replacing
from lib.runs import PoseRun, Run
from lib.settings import StudyError
from lib.study import Study
from lib.training import BEST, compute_in_float32

FORMATS = {"tflite": tflite, "onnx": onnx}
CALIBRATION = 24  # clips of train on which the ranges of an int8 file are measured
STREAM_CALIBRATION = 8  # clips of train for a stream, of which it sees each frame
KEPT = (0, 1 / 8, 1 / 3, 1 / 2)  # shares of the layers, the first ones, that an int8 file may leave in float32
ALIKE = 0.95  # share of the clips of val that an int8 file must name as the trained model does, or more layers are left


def export_run(run: Run) -> pd.DataFrame:
    """Export a run in every form, format and precision, into data/<study>/exports/, with a card beside each file.

    Scores each file on the test split: predictions-test-<format>-<precision>.npz and export.csv in the run's report.
    Returns the rows of export.csv, columns `verify.COLUMNS`.
    Raises StudyError, in one line, when the run is not trained, a layer has no counterpart in a format, there is
    nothing to calibrate on or a file can't be written; no unfinished file is left.
    """
    source = Predictions.load(run.report / "predictions-test.npz")
    model = trained(run)
    rows: list[dict[str, Any]] = []
    for form in forms(run, model):
        for name, maker in FORMATS.items():
            content = maker.convert(*form.recorded(one=name == "tflite"))
            calibration = form.calibration(runner_of(suffix(name), content))
            for precision in maker.PRECISIONS:
                quantised, kept = in_precision(form, name, precision, content, calibration)
                rows.append({**export(form, source, name, precision, quantised), "kept": kept})
                print("{format} {precision}: {bytes:,} bytes, top-1 {top1:.1%}".format(**rows[-1]), flush=True)
    for row in rows:
        write_card(run, row, path_of(run.study, run.name, row["format"], row["precision"]))
    return verify.write_table(rows, verify.table_path(run.study, run.name))


def trained(run: Run) -> keras.Model:
    """The run's model with its best weights, on the processor, in float32.

    Raises StudyError when the run was not trained on this machine.
    """
    path = run.folder / "train" / BEST
    if not path.is_file():
        raise StudyError(f"{path} is missing: train the run first (make study STUDY={run.study.name})")
    with keras.device("cpu"):
        model = Run.build(run)  # not a ClipRun's: the published weights are not needed any more
        model.load_weights(path)
    compute_in_float32(model)
    return model


class Form:
    """A form in which a run is exported: here whole clips."""

    label = ""  # in the names of files and formats

    def __init__(self, run: Run, model: keras.Model) -> None:
        self.run = run
        self.network, self.example = self.prepare(model)

    def prepare(self, model: keras.Model) -> tuple[Any, network.Example]:
        """The network and example inputs."""
        return network.whole(model, next(clips(self.run, "test")))

    def recorded(self, *, one: bool) -> tuple[Any, network.Example]:
        """The network, with example inputs of one clip or of several."""
        return self.network, network.of_one(self.example) if one else self.example

    def name(self, runner: Runner, clip: np.ndarray) -> np.ndarray:
        """Logits of a clip (1, …)."""
        return runner({network.CLIP: clip})[network.LOGITS]

    def calibration(self, _runner: Runner) -> list[tflite.Inputs]:
        """Inputs on which the ranges of values are measured."""
        return [{network.CLIP: clip} for clip in spread(self.run, CALIBRATION)]


class StreamForm(Form):
    """Frame by frame."""

    label = "-stream"

    def prepare(self, model: keras.Model) -> tuple[Any, network.Example]:
        """See Form."""
        return network.streaming(model)

    def name(self, runner: Runner, clip: np.ndarray) -> np.ndarray:
        """See Form."""
        return stream.run_clip(runner, clip)

    def calibration(self, runner: Runner) -> list[tflite.Inputs]:
        """See Form; with the buffers that the float32 file has at each frame."""
        return stream.seen_by(runner, spread(self.run, STREAM_CALIBRATION))


def forms(run: Run, model: keras.Model) -> Iterator[Form]:
    """Whole clips, and frame by frame where the model can."""
    yield Form(run, model)
    if getattr(getattr(model, "config", None), "stream", False):
        yield StreamForm(run, model)


def in_precision(
    form: Form, kind: str, precision: str, content: bytes, calibration: list[tflite.Inputs]
) -> tuple[bytes, float]:
    """A float32 file in another precision, and which share of its layers, the first ones, had to stay float32 for int8.

    These see few channels in many pixels, and what they round all others read: X3D-S on gestures, whole in int8, named
    82 % of val as the trained model did, without the first eighth 98 %. The first of KEPT with which ALIKE is reached,
    or the best of all. Only val is looked at.
    """
    if not precision.startswith("int8"):
        return FORMATS[kind].quantise(content, precision), 0
    source = Predictions.load(form.run.report / "predictions-val.npz")
    tried: list[tuple[float, float, bytes]] = []
    for kept in KEPT:
        quantised = FORMATS[kind].quantise(content, precision, calibration, kept)
        named = verify.score(partial(form.name, runner_of(suffix(kind), quantised)), clips(form.run, "val"), source)
        alike = verify.compare(named, source)["agreement"]
        tried.append((alike, -kept, quantised))
        print(f"{kind}{form.label} {precision}, {kept:.0%} of the layers in float32: names {alike:.1%} of val alike")
        if alike >= ALIKE:
            break
    _, left, quantised = max(tried)
    return quantised, -left


def export(form: Form, source: Predictions, kind: str, precision: str, content: bytes) -> dict[str, Any]:
    """Write a file, score and time it. Returns its row of the table."""
    run, title = form.run, f"{kind}{form.label}"
    content = add_metadata(content, suffix(kind), describe(run, title, precision), run.glosses)
    write(path_of(run.study, run.name, title, precision), content)
    make: Callable[[int], Runner] = partial(runner_of, suffix(kind), content)
    runner = make(1)
    named = verify.score(partial(form.name, runner), clips(run, "test"), source)
    named.save(run.report / "exports" / f"predictions-test-{title}-{precision}.npz")
    inputs = {name: value.numpy() for name, value in network.of_one(form.example).items()}
    return {
        "run": run.name,
        "format": title,
        "precision": precision,
        "bytes": len(content),
        **verify.compare(named, source),
        **verify.latencies(make, inputs),
        "flex_ops": sum(FORMATS[kind].custom_ops(content).values()),
    }


def path_of(study: Study, run: str, title: str, precision: str) -> Path:
    """Where a file lies: data/<study>/exports/<run>[-stream]-<precision>.tflite or .onnx."""
    kind, _, form = title.partition("-")
    name = "-".join(filter(None, (run, form, precision)))
    return study.paths.data / "exports" / f"{name}{suffix(kind)}"


def suffix(kind: str) -> str:
    """Of the files of a format."""
    return f".{kind}"


def write(path: Path, content: bytes) -> None:
    """Write a file in one step. Raises StudyError when that is not possible."""
    try:
        with replacing(path) as partial_path:
            partial_path.write_bytes(content)
    except OSError as error:
        raise StudyError(f"{path}: cannot be written: {error.strerror}") from None


def clips(run: Run, split: str) -> Iterator[np.ndarray]:
    """Every clip of a split as a file reads it, (1, …): poses padded to one length with frames without joints."""
    recipe = run.config.train.model_copy(update={"batch_size": 1})
    batches = run.batches(split, recipe, vary=False, targets=False)
    for number in range(len(batches)):
        yield of_length(batches[number][0], frames_of(run))


def frames_of(run: Run) -> int:
    """How many frames the files of a run read."""
    return run.config.max_frames if isinstance(run, PoseRun) else run.config.frames


def of_length(clip: np.ndarray, frames: int) -> np.ndarray:
    """Pad a clip (1, frames', …) with zeros, or cut such off, to `frames`."""
    short = max(frames - clip.shape[1], 0)
    return np.pad(clip, [(0, 0), (0, short), *[(0, 0)] * (clip.ndim - 2)])[:, :frames]


def spread(run: Run, count: int) -> list[np.ndarray]:
    """So many clips of train, evenly spread over it. Raises StudyError when there is none."""
    recipe = run.config.train.model_copy(update={"batch_size": 1})
    batches = run.batches("train", recipe, vary=False, targets=False)
    chosen = np.unique(np.linspace(0, len(batches) - 1, count).astype(int))
    return [of_length(batches[int(number)][0], frames_of(run)) for number in chosen]
