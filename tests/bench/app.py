"""The page in a browser: milliseconds a frame and a clip by stage, in headless Chromium without a GPU

The page's modules, one thread of WebAssembly, and the same work in Python (NumPy, OpenCV, onnxruntime with one thread),
alternately. What has no peer in Python is held against real time: a frame of a video (its first clip under DATA) may
take as long as it lasts. The target of a clip of `spobet-plus` is 10 ms. Weights of `spobet-plus` and of MoViNet are
random, float32; the released model is the file that the page opens first, float16. "Ours" and "peer" are medians; the
quickest rounds are those that other work on the machine has disturbed least.
"""

import base64
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench.export import CLASSES, LAYOUT, RESIDUAL, exported
from bench.report import machine, row, versions, write
from bench.sides import Side
from lib.app.__main__ import server
from lib.app.build import SOURCES, assemble
from lib.data.find import locate
from lib.data.hands import order_hands
from lib.data.layouts import LAYOUTS
from lib.data.poses import pad, shorten, trim
from lib.data.video import probe
from lib.export import onnx
from lib.export.files import open_model
from lib.predict.camera import _picture
from lib.predict.model import best_released
from lib.settings import StudyError

SIZE, FRAMES, LENGTH = 172, 60, 64  # of MoViNet's picture, of a clip, and of what a pose model reads
MOST = 10.0  # ms a clip of spobet-plus
LABELS = [str(number) for number in range(CLASSES)]
# Defines the page's side of each kind of work, and the function that times it.
SETUP = """async ([clip, models, png]) => {
    const [{ openModel }, { takePicture }, { prepare }] = await Promise.all(
        ["model", "picture", "preprocess"].map((name) => import(`./${name}.js`)));
    const landmarks = clip.map((frame) => Float32Array.from(frame));
    const bytes = Uint8Array.from(atob(png), (one) => one.charCodeAt(0));
    const image = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
    const works = {
        prepare: () => prepare(landmarks, LENGTH),
        picture: () => takePicture(image, SIZE),
    };
    for (const [name, address] of Object.entries(models)) {
        const model = await openModel(address);
        const given = model.size ? takePicture(image, model.size) : prepare(landmarks, model.frames);
        works[name] = model.size ? () => model.push(given) : () => model.run(given);
    }
    window.timed = async (name) => {
        const start = performance.now(); // in steps of .1 ms
        await works[name]();
        return performance.now() - start;
    };
}"""
# Milliseconds of each frame of a video: until it is shown, and until its hands are found.
WATCH = """async (address) => {
    const [{ openDetector }, { everyFrame, openFile }] = await Promise.all(
        ["detector", "sources"].map((name) => import(`./${name}.js`)));
    const [video, detector] = [document.createElement("video"), await openDetector()];
    await openFile(video, new File([await (await fetch(address)).blob()], address));
    const [shown, found] = [[], []];
    let start = performance.now();
    for await (const _ of everyFrame(video, new AbortController().signal)) {
        const seen = performance.now();
        await detector.find(video);
        shown.push(seen - start);
        start = performance.now();
        found.push(start - seen);
    }
    return [shown.slice(1), found.slice(1)];
}"""


def main(name: str = "app", root: str = "", rounds: int = 200) -> Path | None:
    """Measure and write the report; None where the page cannot be built or opened here."""
    try:
        from playwright.sync_api import sync_playwright

        from browsing import CHROMIUM, SOFTWARE_GL, launch
    except ImportError:
        return _not_measured("playwright is not installed")
    if not CHROMIUM:
        return _not_measured("Chromium is not installed")
    where, root = machine(), Path(root or os.environ.get("DATA") or ".")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "app"
        try:
            video = locate(root, "videos", ())[1][0].path
            assemble(folder)
        except (StudyError, IndexError) as error:
            return _not_measured(f"{error or 'there are no videos'}; DATA=<root> names videos")
        files = _put_models(folder, Path(made))
        shutil.copyfile(video, folder / "clip.mp4")
        with server(folder, 0) as serving, sync_playwright() as tool:
            threading.Thread(target=serving.serve_forever, daemon=True).start()
            browser = launch(tool, *SOFTWARE_GL)
            page = browser.new_page(service_workers="block")
            page.goto(f"http://localhost:{serving.server_port}/")
            rows = [*frame_rows(page, 1000 / (probe(video).fps or 25)), *rows_of(page, files, rounds)]
            used = versions("onnxruntime", "opencv-python-headless") | {"Chromium": browser.version}
            browser.close()
            serving.shutdown()
    used |= json.loads((SOURCES / "package.json").read_text())["dependencies"]
    return write(name, __doc__, rows, used, where)


def frame_rows(page: Any, lasts: float) -> list[dict[str, Any]]:
    """What the frames of clip.mp4 take in the page, each of which lasts so many milliseconds."""
    shown, found = page.evaluate(WATCH, "clip.mp4")
    labels = {"a frame of a file, until it is shown": shown, "a frame, MediaPipe's hands": found}
    return [_row(label, took, [lasts] * len(took)) for label, took in labels.items()]


def rows_of(page: Any, files: dict[str, Path], rounds: int) -> list[dict[str, Any]]:
    """What preparing and the models, by label, take in the page, against Python; the files lie in the page's folder."""
    rng = np.random.default_rng(0)
    clip = rng.uniform(0.2, 0.8, (1, 2, 1, 3)) + np.cumsum(rng.normal(0, 0.01, (FRAMES, 2, 21, 3)), 0)
    clip = clip.astype(np.float32)
    clip[rng.random((FRAMES, 2)) < 0.2] = -1
    image = rng.integers(0, 256, (480, 640, 3), np.uint8)
    page.evaluate(
        SETUP.replace("LENGTH", str(LENGTH)).replace("SIZE", str(SIZE)),
        [clip.reshape(FRAMES, -1).tolist(), {label: path.name for label, path in files.items()}, _png(image)],
    )
    sides: dict[str, tuple[str, Callable[[], Any]]] = {
        f"preparing the hands of {FRAMES} frames": ("prepare", lambda: _prepared(clip)),
        f"a picture of 640 × 480 to {SIZE}²": ("picture", lambda: _picture(image, SIZE)),
    }
    for label, path in files.items():
        sides[label] = (label, _caller(path))
    rows = []
    for label, (name, in_python) in sides.items():
        ours, peer = [], []
        for turn in range(-3, rounds):
            took = page.evaluate("(name) => timed(name)", name), _timed(in_python)
            if turn >= 0:
                ours.append(took[0])
                peer.append(took[1])
        rows.append(_row(label, ours, peer))
        if "spobet-plus" in label:
            rows.append(_row(f"{label}, against {MOST:g} ms", ours, [MOST] * rounds, "≤ 1"))
    return rows


def _row(label: str, ours: list[float], peer: list[float], target: str = "") -> dict[str, Any]:
    quickest = {"quickest": min(ours), "quickest of the peer": min(peer)}
    return row(label, "ms", ours, peer, target, **quickest, rounds=len(ours))


def _prepared(clip: np.ndarray) -> np.ndarray:
    return pad([shorten(trim(order_hands(clip)), LENGTH)], LENGTH)


def _caller(path: Path) -> Callable[[], Any]:
    """Calls a file with zeros; a stream with its buffers going in and out."""
    runner = open_model(path)
    inputs = runner.zeros()
    if "clip" in inputs:
        return lambda: runner(inputs)
    state = {"inputs": inputs}

    def step() -> None:
        outputs = runner(state["inputs"])
        state["inputs"] = {name: outputs.get(f"next_{name}", value) for name, value in state["inputs"].items()}

    return step


def _timed(work: Callable[[], Any]) -> float:
    """Milliseconds of a call."""
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def _put_models(folder: Path, scratch: Path) -> dict[str, Path]:
    """Put the models that are timed into the page's folder, by label."""
    files = {"spobet-plus, a clip": folder / "pose.onnx", "MoViNet-A0-Stream, a frame": folder / "stream.onnx"}
    pose, stream = files.values()
    content = exported("clip", scratch, recipe="spobet-plus").with_suffix(".onnx").read_bytes()
    about = {"name": "bench/spobet-plus", "frames": LENGTH, "input": {"clip": {"joints": list(LAYOUTS[LAYOUT].joints)}}}
    pose.write_bytes(onnx.add_metadata(content, about, LABELS))
    with Side("bench.app:export_stream", threads=2, path=str(stream)):
        pass
    about = {"name": "bench/movinet", "frames": 20, "input": {"image": {"shape": [1, 1, SIZE, SIZE, 3]}}}
    stream.write_bytes(onnx.add_metadata(stream.read_bytes(), about, LABELS))
    files["the released model, a clip"] = folder / "released.onnx"
    shutil.copyfile(best_released().with_suffix(".onnx"), files["the released model, a clip"])
    return files


def export_stream(path: str) -> dict[str, Callable]:
    """Write an ONNX file of a MoViNet-A0-Stream that goes frame by frame."""
    from lib.export import network
    from lib.models import build

    model = build("movinet-a0", CLASSES, (8, SIZE, SIZE), residual=RESIDUAL, stream=True)
    Path(path).write_bytes(onnx.convert(*network.streaming(model)))
    return {}


def _png(image: np.ndarray) -> str:
    return base64.b64encode(cv2.imencode(".png", image[..., ::-1])[1]).decode()


def _not_measured(problem: str) -> None:
    print(f"not measured: {problem}", file=sys.stderr)
