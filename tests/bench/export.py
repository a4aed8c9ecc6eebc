"""Export: time of an exported file, ours against the official implementation's, and onnxruntime against TensorFlow Lite

One thread, float32 unless stated, random weights, repeated calls with the same input, alternately. A frame is a call of
MoViNet-A0-Stream at 172² with its buffers going in and out; the official file is made by the official package's own
export and TensorFlow's converter, and run by the same interpreter as ours. In the form for phones (ReLU6, no
squeeze-excite) the peer is the published int8 file, if it is in data/weights/; its input and output are float32, too.
A clip has the frames and the size of the recipe.
"""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from bench import official
from bench.official import CLASSES, NotInstalledError
from bench.report import compare, machine, versions, write
from bench.sides import Side, alternate
from lib.models.weights import WEIGHTS
from lib.paths import home

PUBLISHED = WEIGHTS["movinet-a0-stream-k600-int8"].file
RECIPES = {"movinet-a0": "≤ 1.2", "i3d": "", "s3d": "", "x3d-s-scratch": "≤ 1.2", "spobet-plus": ""}  # with targets
LAYOUT = "hands-42"
RESIDUAL = 0.5  # with 0, as published, a converter may fold an untrained bottleneck away


def main(name: str = "export", rounds: int = 500, size: int = 172) -> Path:
    """Export, measure, and write the report; a row without a peer says why."""
    where = machine()
    with tempfile.TemporaryDirectory() as folder:
        rows = [frame_row(Path(folder), rounds, size), phone_row(Path(folder), rounds, size)]
        for recipe, target in RECIPES.items():
            path = exported("clip", Path(folder), recipe=recipe)
            files = {"ours": path.with_suffix(".onnx"), "peer": path}
            label = f"a clip of {recipe}, onnxruntime against TensorFlow Lite"
            rows.append(timed(label, files, max(rounds // 50, 3), target))
    return write(name, __doc__, rows, versions("ai-edge-litert", "litert-torch", "onnxruntime", "torch"), where)


def frame_row(folder: Path, rounds: int, size: int) -> dict[str, Any]:
    """Our float32 stream against the official one's."""
    files, problem = {"ours": exported("stream", folder, size=size)}, ""
    peer = folder / "official.tflite"
    try:
        with official.start("export", path=str(peer), size=size):
            files["peer"] = peer
    except NotInstalledError as error:
        problem = str(error)
    return timed("a frame of MoViNet-A0-Stream, against the official export", files, rounds, "≤ 0.9", problem)


def phone_row(folder: Path, rounds: int, size: int) -> dict[str, Any]:
    """Our int8 stream in the form for phones against the published file."""
    files, problem = {"ours": exported("phone", folder, size=size)}, ""
    peer = home() / "data" / "weights" / PUBLISHED
    if peer.exists():
        files["peer"] = peer
    else:
        problem = f"the peer, {PUBLISHED}, is not in data/weights/"
    return timed("a frame in the phone's form, int8, against the published file", files, rounds, "≤ 1.0", problem)


def exported(what: str, folder: Path, **options: Any) -> Path:
    """The TensorFlow Lite file that `export_<what>` makes, in a process of its own."""
    path = folder / f"{options.get('recipe', what)}.tflite"
    with Side(f"bench.export:export_{what}", threads=2, path=str(path), **options):
        return path


def timed(label: str, files: dict[str, Path], rounds: int, target: str = "", note: str = "") -> dict[str, Any]:
    """The row of calling the files "ours" and "peer", which may be missing, alternately."""
    with ExitStack() as stack:
        sides = {side: stack.enter_context(Side("bench.export:caller", path=str(files[side]))) for side in files}
        taken = alternate(sides, "call", rounds, warm_up=3)
    return compare(label, taken["ours"], taken.get("peer", []), target, note=note)


def caller(path: str) -> dict[str, Callable[[], int]]:
    """The side of a file, which it calls with zeros."""
    from lib.export.files import open_model

    runner = open_model(Path(path))
    inputs = runner.zeros()
    return {"call": lambda: len(runner(inputs))}


def export_stream(path: str, size: int, classes: int = CLASSES, mobile: bool = False) -> dict[str, Callable]:
    """Write our file of a MoViNet-A0-Stream that goes frame by frame: float32, or int8 in the form for phones."""
    from lib.export import network, tflite
    from lib.models import build

    form = {"mobile": True} if mobile else {"stream": True}
    recorded, example = network.streaming(build("movinet-a0", classes, (8, size, size), residual=RESIDUAL, **form))
    content = tflite.convert(recorded, example)
    if mobile:
        rng = np.random.default_rng(0)
        inputs = {name: rng.random((1, *value.shape[1:]), np.float32) for name, value in example.items()}
        content = tflite.quantise(content, "int8", iter([inputs]))
    Path(path).write_bytes(content)
    return {}


def export_phone(path: str, size: int) -> dict[str, Callable]:
    """Write our int8 file of the form for phones, with as many classes as the published one."""
    return export_stream(path, size, classes=600, mobile=True)


def export_clip(path: str, recipe: str) -> dict[str, Callable]:
    """Write a TensorFlow Lite and an ONNX file of a recipe's model, of whole clips."""
    from lib.data.layouts import LAYOUTS
    from lib.export import network, onnx, tflite
    from lib.models import build, config_of
    from lib.recipes import PoseRecipe, read_recipe

    config = read_recipe(recipe)
    if isinstance(config, PoseRecipe):
        clip: tuple[int, ...] = (config.max_frames, len(LAYOUTS[LAYOUT].joints), 3)
        model = build(config.model, CLASSES, layout=LAYOUT, **config.options)
    else:
        clip = (config.frames, config.size, config.size, 3)
        residual = {"residual": RESIDUAL} if "residual" in config_of(config.model).model_fields else {}
        model = build(config.model, CLASSES, clip[:3], **config.options | residual)
    recorded, example = network.whole(model, np.random.default_rng(0).random((1, *clip), np.float32))
    Path(path).write_bytes(tflite.convert(recorded, example))
    Path(path).with_suffix(".onnx").write_bytes(onnx.convert(recorded, example))
    return {}
