"""Notebook 10: every file of a trained run is converted, quantised, described, timed, and predicts the test split."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from torch import nn

from lib.data.layouts import LAYOUTS
from lib.data.twins import read_twins
from lib.export import CLIP, EMBEDDING, IMAGE, LOGITS, Inputs, network, write
from lib.export.files import FORMATS, Runner, embed_clip, run_clip, stream_clip
from lib.few_shot import own_signs_from
from lib.models import family_of
from lib.models.weights import WEIGHTS
from lib.paths import replacing
from lib.predictions import Predictions
from lib.runs import Run, embed_batch
from lib.settings import load_yaml

# Training clips to measure int8's ranges on; a stream sees each of their frames.
CALIBRATION, STREAM_CALIBRATION = 24, 8
KEPT = (0, 1 / 8, 1 / 3, 1 / 2)  # shares of the layers, from the input, that an int8 file may keep in float32
AGREEMENT = 0.95  # of an int8 file with the trained model on val, below which it keeps more layers
WARM_UP, LEAST, MOST, SECONDS = 2, 5, 50, 0.4  # repetitions of a timing, and the time after which it stops
TEXTS = load_yaml(Path(__file__).with_name("texts.yaml"))


def record(model: keras.Model, clip: np.ndarray) -> dict[str, tuple[nn.Module, network.Example]]:
    """Record a model as networks to convert: "" reads whole clips like `clip`, "-stream" one frame at a time."""
    recorded = {"": network.whole(model, clip)}
    if getattr(getattr(model, "config", None), "stream", False):
        recorded["-stream"] = network.streaming(model)
    return recorded


def write_files(run: Run, exact: dict[str, bytes]) -> pd.DataFrame:
    """Write every file of a run to data/<study>/exports/, in the study's precisions; return the facts of each.

    exact: the float32 files by form, "tflite" or "onnx-stream" and so on. Each file predicts the test split:
    exports/predictions-test-<form>-<precision>.npz in the run's report. The facts, a row each, go to export.csv there:
    run, format (the form), precision, bytes, latency_ms_1_thread, latency_ms_2_threads, flex_ops (operations that are
    not built in), kept (share of the layers that an int8 file keeps in float32), agreement (with the trained model on
    test), embedding_diff (the largest difference of a value of an embedding on test; none without embeddings).
    Raises StudyError, in one line, when the run is not trained, there are no clips to calibrate with, or a file cannot
    be written; no partial file is left behind.
    """
    paths, rows = run.study.paths, []
    source, embeddings, stated = Predictions.load(paths.predictions(run.name)), None, {}
    for form, whole in exact.items():
        suffix = f".{form.partition('-')[0]}"
        maker = FORMATS[suffix]
        runner = maker.Runner(whole)
        calibration = calibrate(run, runner)
        if EMBEDDING in runner.outputs and embeddings is None:
            val, embeddings = embed_clips(run)
            least = own_signs_from(val, run.clips("val"), read_twins(run.study))
            stated = {} if least is None else {"own_signs_from": round(least, 3)}
        for precision in (one for one in maker.PRECISIONS if one in run.study.precisions):
            content, kept = quantise(run, suffix, precision, whole, calibration)
            about = describe(run, form, precision, runner.outputs)
            content = maker.add_metadata(content, about | stated, run.glosses)
            write(paths.exported(run.name, form, precision), content)
            file = maker.Runner(content)
            predictions = _predict(run, "test", file, source)
            predictions.save(paths.exported_predictions(run.name, form, precision))
            rows.append({
                "run": run.name,
                "format": form,
                "precision": precision,
                "bytes": len(content),
                "latency_ms_1_thread": latency(maker.Runner(content, 1), calibration[0]),
                "latency_ms_2_threads": latency(maker.Runner(content, 2), calibration[0]),
                "flex_ops": sum(maker.custom_ops(content).values()),
                "kept": kept,
                "agreement": predictions.agreement(source),
                "embedding_diff": _embedding_diff(run, file, embeddings) if EMBEDDING in runner.outputs else np.nan,
            })  # fmt: skip
            print(f"{form} {precision}: {len(content):,} bytes", file=sys.stderr)
    table = pd.DataFrame(rows)
    with replacing(paths.export_table(run.name)) as partial:
        table.to_csv(partial, index=False, float_format="%.6g")
    written = {paths.exported_predictions(run.name, row["format"], row["precision"]) for row in rows}
    for path in {*(paths.run(run.name) / "exports").glob("*.npz")} - written:
        path.unlink()  # of a precision that the study no longer has
    return table


def embed_clips(run: Run) -> list[np.ndarray]:
    """The trained run's embeddings of the clips of val and of test, float32 (clips, width) each."""
    model = run.trained()
    return [np.concatenate([embed_batch(model, clip) for clip in clips(run, split)]) for split in ("val", "test")]


def clips(run: Run, split: str, count: int | None = None) -> Iterator[np.ndarray]:
    """Clips of a split as a file reads them, float32 (1, frames, …): all, or `count` spread evenly over it."""
    recipe, frames = run.config.train.model_copy(update={"batch_size": 1}), describe_input(run)["shape"][1]
    batches = run.batches(split, recipe, vary=False, targets=False, every=split != "train")
    chosen = np.unique(np.linspace(0, len(batches) - 1, count).astype(int)) if count else range(len(batches))
    for number in chosen:
        yield of_length(batches[int(number)][0], frames)


def of_length(clip: np.ndarray, frames: int) -> np.ndarray:
    """Pad a clip (1, frames', …) to `frames` with zeros, which are frames without joints, or cut such frames off."""
    missing = max(frames - clip.shape[1], 0)
    return np.pad(clip, [(0, 0), (0, missing), *[(0, 0)] * (clip.ndim - 2)])[:, :frames]


def calibrate(run: Run, runner: Runner) -> list[Inputs]:
    """Inputs to measure int8's ranges on, from training clips; in a stream those of each frame, with its buffers."""
    if IMAGE in runner.zeros():
        return [inputs for clip in clips(run, "train", STREAM_CALIBRATION) for inputs, _ in stream_clip(runner, clip)]
    return [{CLIP: clip} for clip in clips(run, "train", CALIBRATION)]


def quantise(run: Run, suffix: str, precision: str, exact: bytes, calibration: list[Inputs]) -> tuple[bytes, float]:
    """Convert a float32 file to another precision. Returns it with the share of its layers that int8 left in float32.

    The first layers see few channels and many pixels, and all others read what they round: X3D-S on gestures, entirely
    in int8, agreed with the trained model on 82 % of val, without the first eighth of its layers on 98 %. Takes the
    first of KEPT that reaches AGREEMENT on val, or else the best; test plays no part.
    """
    maker = FORMATS[suffix]
    if not precision.startswith("int8"):
        return maker.quantise(exact, precision), 0
    source = Predictions.load(run.study.paths.predictions(run.name, "val"))
    tried: list[tuple[float, float, bytes]] = []
    for kept in KEPT:
        content = maker.quantise(exact, precision, calibration, kept)
        agreement = _predict(run, "val", maker.Runner(content), source).agreement(source)
        tried.append((agreement, -kept, content))
        print(f"{precision}, {kept:.0%} of the layers in float32: agreement on val {agreement:.1%}", file=sys.stderr)
        if agreement >= AGREEMENT:
            break
    _, kept, content = max(tried)
    return content, -kept


def _predict(run: Run, split: str, runner: Runner, source: Predictions) -> Predictions:
    logits = np.concatenate([run_clip(runner, clip) for clip in clips(run, split)])
    return Predictions(source.video_id, source.label, logits, source.glosses)


def _embedding_diff(run: Run, runner: Runner, source: np.ndarray) -> float:
    found = np.concatenate([embed_clip(runner, clip) for clip in clips(run, "test")])
    return float(np.abs(found - source).max())


def latency(work: Callable[..., Any], *arguments: Any) -> float:
    """Median milliseconds of a call, after warming up."""
    for _ in range(WARM_UP):
        work(*arguments)
    taken: list[float] = []
    while len(taken) < LEAST or (sum(taken) < SECONDS and len(taken) < MOST):
        start = time.perf_counter()
        work(*arguments)
        taken.append(time.perf_counter() - start)
    return 1000 * float(np.median(taken))


def describe(run: Run, form: str, precision: str, outputs: Iterable[str] = (LOGITS,)) -> dict[str, Any]:
    """What a program needs to know to use a file with these outputs; it is stored in the file as JSON."""
    study, clip = run.study, describe_input(run)
    inputs = {CLIP: clip}
    if form.endswith("-stream"):
        image = clip | {"shape": [1, 1, *clip["shape"][2:]], "frames": TEXTS["inputs"]["stream"]["image"]}
        inputs = {IMAGE: image, "all others": TEXTS["inputs"]["stream"]["others"]}
    data = f"Trained on {len(run.taught('train'))} clips, split “{study.split}”."
    if study.synthetic:
        data = f"SYNTHETIC: generated signing, of no use for real signs. {data}"
    if published := WEIGHTS.get(getattr(run.config, "weights", None)):
        data += f" Initialised with published weights of {published.trained_on} ({published.licence}, {published.url})."
    return {
        "name": f"{study.name}/{run.name}",
        "model": run.config.model,
        "format": form,
        "precision": precision,
        "frames": clip["shape"][1],  # of a whole clip
        "input": inputs,
        "output": {name: TEXTS["outputs"][name] for name in outputs if name in TEXTS["outputs"]},
        "checksum": run.checksum(),  # of the trained weights: the same in every file of the run
        "data": data,
        "licence": TEXTS["licences"]["sample" if study.synthetic else "own" if "clips" in study.sources else "wlasl"],
    }


def describe_input(run: Run) -> dict[str, Any]:
    """How a program prepares a clip: its shape, (1, frames, …), and the rest in words."""
    config, kind = run.config, family_of(run.config.model).kind
    if kind == "clips":
        how = run.study.clips
        size = {"shape": [1, config.frames, config.size, config.size, 3]}
        size |= {"stored": how.size, "margin": how.margin, "find_person": how.find_person}
    else:
        joints = list(LAYOUTS[run.study.layout].joints)
        size = {"shape": [1, config.max_frames, len(joints), 3], "joints": joints}
    return size | TEXTS["inputs"][kind]
