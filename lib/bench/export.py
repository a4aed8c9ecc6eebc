"""Exported files: a frame of MoViNet-A0-Stream against the official export, and onnxruntime against TensorFlow Lite

Files of random weights (the time does not depend on them), one thread each, a call after the other: of a stream a frame
of 172², of the others a clip. "Official" is what the official implementation's own export_saved_model and TensorFlow's
converter make, in the environment data/bench/official; "published" is the int8 file for phones of Kinetics-600, beside
ours of the same network, ranges measured on random frames. In the other rows ours is the ONNX file by onnxruntime and
the peer the TensorFlow Lite file, both float32, of the same network at the size of its recipe.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from lib.bench.official import NotInstalledError, install
from lib.bench.report import compare, machine, versions, write
from lib.bench.sides import Side, alternate
from lib.models.weights import fetch
from lib.study import StudyError, home

CLASSES, SIZE = 600, 172
PUBLISHED = "movinet-a0-stream-k600-int8"
CALLS = {"stream": 50, "clip": 3}  # in a round
CALIBRATION = 8  # frames
RECIPES = ("movinet-a0", "i3d", "s3d", "x3d-s-scratch", "spobet", "spobet-plus")


def main(name: str = "export", rounds: int = 7, size: int = SIZE, recipes: tuple[str, ...] = RECIPES) -> Path:
    """Measure, and write the report; without a peer that can't be had."""
    where = machine()
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            official_row(Path(folder), rounds, size),
            published_row(Path(folder), rounds, size),
            *(family_row(Path(folder), recipe, rounds) for recipe in recipes),
        ]
    return write(name, __doc__, rows, versions("litert-torch", "ai-edge-litert", "onnxruntime", "torch"), where)


def official_row(folder: Path, rounds: int, size: int) -> dict[str, Any]:
    """A frame in float32, against the official export."""
    make("lib.bench.export:stream_file", path=str(folder / "ours.tflite"), size=size)
    peer, problem = folder / "official.tflite", ""
    try:
        python = install(home() / "data" / "bench" / "official")
        make("lib.bench.official:stream_file", python=python, path=str(peer), size=size)
    except (NotInstalledError, RuntimeError) as error:
        problem = f"the peer could not be installed or made: {' '.join(str(error).split())[:200]}"
    label = f"MoViNet-A0-Stream float32, {CALLS['stream']} frames, against official"
    return timed(label, folder / "ours.tflite", None if problem else peer, rounds, "≤ 1.0", problem)


def published_row(folder: Path, rounds: int, size: int) -> dict[str, Any]:
    """A frame in int8, against the published file."""
    make("lib.bench.export:phone_file", path=str(folder / "phone.tflite"), size=size)
    peer, problem = None, ""
    try:
        peer = fetch(PUBLISHED)
    except StudyError as error:
        problem = f"the published file could not be had: {error}"
    label = f"MoViNet-A0-Stream int8 for phones, {CALLS['stream']} frames, against published"
    return timed(label, folder / "phone.tflite", peer, rounds, "≤ 1.1", problem)


def family_row(folder: Path, recipe: str, rounds: int) -> dict[str, Any]:
    """A clip by onnxruntime, against TensorFlow Lite."""
    make("lib.bench.export:clip_files", path=str(folder / recipe), recipe=recipe)
    label = f"{recipe}, {CALLS['clip']} clips, onnxruntime against TensorFlow Lite"
    return timed(label, folder / f"{recipe}.onnx", folder / f"{recipe}.tflite", rounds)


def make(place: str, **options: Any) -> None:
    """Have a process of its own make files."""
    with Side(place, **options):
        pass


def timed(label: str, ours: Path, peer: Path | None, rounds: int, target: str = "", note: str = "") -> dict[str, Any]:
    """The row of two files, in turn."""
    sides = {"ours": ours, **({"peer": peer} if peer else {})}
    with ExitStack() as stack:
        running = {
            name: stack.enter_context(Side("lib.bench.export:calls", path=str(path))) for name, path in sides.items()
        }
        taken = alternate(running, "calls", rounds)
    return compare(label, taken["ours"], taken.get("peer", []), target, note=note)


# ---- in the processes ------------------------------------------------------------------------------------


def calls(path: str) -> dict[str, Callable[[], None]]:
    """Calls of a file, with random images and with buffers that are zero."""
    from lib.export.files import open_model

    runner = open_model(Path(path))
    rng = np.random.default_rng(0)
    shapes = runner.shapes()
    inputs = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    pictures = "image" if "image" in shapes else "clip"
    inputs[pictures] = rng.random(shapes[pictures], np.float32)
    count = CALLS["stream" if pictures == "image" else "clip"]

    def work() -> None:
        for _ in range(count):
            runner(inputs)

    return {"calls": work}


def stream_file(path: str, size: int) -> dict[str, Callable]:
    """Write our float32 file of one frame."""
    from lib.export import network, tflite
    from lib.models import build

    frames, example = network.streaming(build("movinet-a0", CLASSES, (1, size, size), stream=True))
    Path(path).write_bytes(tflite.convert(frames, network.of_one(example)))
    return {}


def phone_file(path: str, size: int) -> dict[str, Callable]:
    """Write our int8 file of one frame of the network for phones."""
    from lib.export import network, stream, tflite
    from lib.models import build

    frames, example = network.streaming(build("movinet-a0", CLASSES, (1, size, size), mobile=True, residual=0.5))
    content = tflite.convert(frames, network.of_one(example))
    clip = np.random.default_rng(0).random((1, CALIBRATION, size, size, 3), np.float32)
    seen = stream.seen_by(tflite.Runner(content), [clip])
    Path(path).write_bytes(tflite.quantise(content, "int8", seen))
    return {}


def clip_files(path: str, recipe: str) -> dict[str, Callable]:
    """Write both float32 files of a recipe's network."""
    from lib.data.layouts import LAYOUTS
    from lib.export import network, onnx, tflite
    from lib.models import build
    from lib.recipes import PoseConfig, read_config

    config = read_config(recipe)
    if isinstance(config, PoseConfig):
        layout = LAYOUTS["openpose-54"]
        model = build("spobet", CLASSES, layout=layout.name, **config.options)
        clip = np.ones((1, config.max_frames, len(layout.joints), 3), np.float32)
    else:
        clip = np.zeros((1, config.frames, config.size, config.size, 3), np.float32)
        model = build(config.model, CLASSES, clip.shape[1:4], **config.options)
    flat, example = network.whole(model, clip)
    Path(f"{path}.onnx").write_bytes(onnx.convert(flat, example))
    Path(f"{path}.tflite").write_bytes(tflite.convert(flat, network.of_one(example)))
    return {}
