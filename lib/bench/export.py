"""Export: time of an exported file, ours against the official implementation's, and onnxruntime against TensorFlow Lite

One thread, float32 unless said, random weights, one call with the same input again and again, by turns. A frame is a
call of MoViNet-A0-Stream at 172² with its buffers going in and out; the official file is made by the official package's
own export and TensorFlow's converter, and run by the same interpreter as ours. In the phone's form (ReLU6, no
squeeze-excite) the peer is the published int8 file, where data/weights/ has it; its input and output are float32, too.
A clip has the frames and the size of the family_of's recipe.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from lib.bench.official import CLASSES, NotInstalledError, install
from lib.bench.report import compare, machine, versions, write
from lib.bench.sides import Side, alternate
from lib.models.weights import WEIGHTS
from lib.paths import home

FRAME_TARGET, PHONE_TARGET = "≤ 1.0", "≤ 1.1"
PUBLISHED = "movinet-a0-stream-k600-int8"
RECIPES = ("movinet-a0", "i3d", "s3d", "x3d-s-scratch", "spobet-plus")
POSES = {"layout": "hands-42"}
RESIDUAL = 0.5  # the published 0 of an untrained bottleneck may be folded away with all that is multiplied by it


def main(name: str = "export", rounds: int = 500, size: int = 172, recipes: tuple[str, ...] = RECIPES) -> Path:
    """Export, measure, and write the report; a row whose peer is not to be had says so."""
    where = machine()
    with tempfile.TemporaryDirectory() as folder:
        rows = [frame_row(Path(folder), rounds, size), phone_row(Path(folder), rounds, size)]
        rows += [runtime_row(recipe, Path(folder), rounds) for recipe in recipes]
    return write(name, __doc__, rows, versions("ai-edge-litert", "litert-torch", "onnxruntime", "torch"), where)


def frame_row(folder: Path, rounds: int, size: int) -> dict[str, Any]:
    """Our float32 stream against the official one's."""
    files, problem = {"ours": exported("stream", folder, size=size)}, ""
    peer = folder / "official.tflite"
    try:
        python = install(home() / "data" / "bench" / "official")
        with Side("lib.bench.official:export", python=python, path=str(peer), size=size):
            files["peer"] = peer
    except (NotInstalledError, RuntimeError) as error:
        problem = f"the peer could not be installed or started: {' '.join(str(error).split())[:200]}"
    return timed("a frame of MoViNet-A0-Stream, against the official export", files, rounds, FRAME_TARGET, problem)


def phone_row(folder: Path, rounds: int, size: int) -> dict[str, Any]:
    """Our int8 stream in the phone's form against the published file."""
    files = {
        "ours": exported("phone", folder, size=size),
        "peer": home() / "data" / "weights" / WEIGHTS[PUBLISHED].file,
    }
    problem = ""
    if not files["peer"].exists():
        problem = f"the peer, {WEIGHTS[PUBLISHED].file}, is not in data/weights/"
        del files["peer"]
    return timed("a frame in the phone's form, int8, against the published file", files, rounds, PHONE_TARGET, problem)


def runtime_row(recipe: str, folder: Path, rounds: int) -> dict[str, Any]:
    """onnxruntime against TensorFlow Lite on the same network."""
    path = exported("clip", folder, recipe=recipe)
    files = {"ours": path.with_suffix(".onnx"), "peer": path}
    return timed(f"a clip of {recipe}, onnxruntime against TensorFlow Lite", files, max(rounds // 50, 3))


def exported(what: str, folder: Path, **options: Any) -> Path:
    """Where the TensorFlow Lite file is that `export_<what>` has made, in a process of its own."""
    path = folder / f"{options.get('recipe', what)}.tflite"
    with Side(f"lib.bench.export:export_{what}", threads=2, path=str(path), **options):
        return path


def timed(label: str, files: dict[str, Path], rounds: int, target: str = "", note: str = "") -> dict[str, Any]:
    """The row of the files called by turns."""
    with ExitStack() as stack:
        sides = {side: stack.enter_context(Side("lib.bench.export:caller", path=str(files[side]))) for side in files}
        taken = alternate(sides, "call", rounds, warm_up=3)
    return compare(label, taken["ours"], taken.get("peer", []), target, note=note)


def caller(path: str) -> dict[str, Callable[[], int]]:
    """The side of a file, which it calls with zeros."""
    from lib.export.predict import open_model

    runner = open_model(Path(path))
    inputs = runner.zeros()
    return {"call": lambda: len(runner(inputs))}


def export_stream(path: str, size: int) -> dict[str, Callable]:
    """Write our float32 file of a MoViNet-A0-Stream that goes frame by frame."""
    from lib.export import network, tflite
    from lib.models import build

    recorded, example = network.streaming(build("movinet-a0", CLASSES, (8, size, size), stream=True, residual=RESIDUAL))
    Path(path).write_bytes(tflite.convert(recorded, example))
    return {}


def export_phone(path: str, size: int) -> dict[str, Callable]:
    """Write our int8 file of the form for phones, with as many classes as the published."""
    from lib.export import network, tflite
    from lib.models import build

    recorded, example = network.streaming(build("movinet-a0", 600, (8, size, size), mobile=True, residual=RESIDUAL))
    content = tflite.convert(recorded, example)
    Path(path).write_bytes(tflite.quantise(content, "int8", random_inputs(example)))
    return {}


def random_inputs(example: dict[str, Any]) -> Iterator[dict[str, np.ndarray]]:
    """One set of inputs to measure ranges on; the time is that of any."""
    rng = np.random.default_rng(0)
    yield {name: rng.random((1, *value.shape[1:]), np.float32) for name, value in example.items()}


def export_clip(path: str, recipe: str) -> dict[str, Callable]:
    """Write a TensorFlow Lite and an ONNX file of a recipe's model, of whole clips."""
    from lib.data.layouts import LAYOUTS
    from lib.export import network, onnx, tflite
    from lib.models import build, family_of
    from lib.recipes import PoseRecipe, read_recipe

    config = read_recipe(recipe)
    if isinstance(config, PoseRecipe):
        clip: tuple[int, ...] = (config.max_frames, len(LAYOUTS[POSES["layout"]].joints), 3)
        model = build(config.model, CLASSES, **POSES, **config.options)
    else:
        clip = (config.frames, config.size, config.size, 3)
        strength = {"residual": RESIDUAL} if family_of(config.model).name == "movinet" else {}
        model = build(config.model, CLASSES, clip[:3], **config.options | strength)
    recorded, example = network.whole(model, np.random.default_rng(0).random((1, *clip), np.float32))
    Path(path).write_bytes(tflite.convert(recorded, example))
    Path(path).with_suffix(".onnx").write_bytes(onnx.convert(recorded, example))
    return {}
