"""Exported files in use: open one, and run clips or a camera's frames through it; `lib.predict` names signs with it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from scipy.special import softmax

from lib.export import CLIP, EMBEDDING, IMAGE, LOGITS, NEXT, Inputs, onnx, tflite
from lib.settings import StudyError

FORMATS = {".tflite": tflite, ".onnx": onnx}  # by suffix
MOST = 1.0  # of a value from the middle of [0, 1]: scaled images may overshoot, but those in [0, 255] are noise
Runner = tflite.Runner | onnx.Runner


def open_model(path: Path | str, threads: int = 1) -> Runner:
    """Open a .tflite or .onnx file. Raises StudyError when it cannot be read or is neither."""
    path = Path(path)
    if path.suffix not in FORMATS:
        raise StudyError(f"{path}: a model has the suffix .tflite or .onnx, not {path.suffix!r}")
    try:
        return FORMATS[path.suffix].Runner(path.read_bytes(), threads)
    except OSError as error:
        raise StudyError(f"{path}: cannot be read: {error.strerror}") from None
    except StudyError as error:
        raise StudyError(f"{path}: {error}") from error


def read_metadata(path: Path | str) -> tuple[dict[str, Any], list[str]]:
    """Read the description and the labels in a file. Raises StudyError when there are none."""
    path = Path(path)
    try:
        return FORMATS[path.suffix].read_metadata(path)
    except (OSError, KeyError, BadZipFile, ValueError) as error:
        raise StudyError(f"{path}: not an exported model of this study: {error}") from None


class Stream:
    """A MoViNet-Stream file that a camera feeds frame by frame."""

    def __init__(self, path: Path | str, threads: int = 1) -> None:
        """Open an exported stream file. Raises StudyError when it cannot be read or takes whole clips."""
        self.runner, (_, self.labels) = open_model(path, threads), read_metadata(path)
        inputs = self.runner.zeros()
        if IMAGE not in inputs:
            raise StudyError(f"{path}: takes whole clips, not frames; open a file whose name has -stream")
        self.shape = inputs[IMAGE].shape[2:]
        self.reset()

    def reset(self) -> None:
        """Start a new clip."""
        self.buffers = None

    def push(self, frame: np.ndarray) -> np.ndarray:
        """Read a frame (height, width, 3), float in [0, 1] or uint8; give probabilities (labels,) of all frames so far.

        Raises StudyError when the frame has another size, type or range.
        """
        return softmax(self.logits(frame)[0])

    def logits(self, frame: np.ndarray) -> np.ndarray:
        """Read a frame as `push` does; give logits (1, labels)."""
        frame = np.asarray(frame)
        if frame.dtype == np.uint8:
            frame = frame / np.float32(255)
        if frame.shape != self.shape or frame.dtype.kind != "f" or not (np.abs(frame - 0.5) <= MOST).all():
            need = f"a frame is uint8, or float in [0, 1], of shape {self.shape}"
            raise StudyError(f"{need}; this one is {frame.dtype} of shape {frame.shape}, or has other values")
        _, outputs, self.buffers = _step(self.runner, frame[None, None], self.buffers)
        return outputs[LOGITS]


def run_clip(runner: Runner, clip: np.ndarray) -> np.ndarray:
    """Logits (1, classes) of a clip (1, frames, …), which a stream file reads frame by frame."""
    return read_clip(runner, clip)[LOGITS]


def embed_clip(runner: Runner, clip: np.ndarray) -> np.ndarray:
    """Embedding (1, width) of a clip (1, frames, …). Raises StudyError for a file that gives none."""
    outputs = read_clip(runner, clip)
    if EMBEDDING not in outputs:
        raise StudyError("the model's file gives no embeddings of clips: export it again")
    return outputs[EMBEDDING]


def read_clip(runner: Runner, clip: np.ndarray) -> Inputs:
    """All outputs for a clip (1, frames, …), which a stream file reads frame by frame."""
    if CLIP in runner.zeros():
        return runner({CLIP: clip})
    return [outputs for _, outputs in stream_clip(runner, clip)][-1]


def stream_clip(runner: Runner, clip: np.ndarray) -> Iterator[tuple[Inputs, Inputs]]:
    """Run a stream file over a clip (1, frames, height, width, 3); yield inputs and outputs of each frame's call."""
    buffers = None
    for frame in range(clip.shape[1]):
        inputs, outputs, buffers = _step(runner, clip[:, frame : frame + 1], buffers)
        yield inputs, outputs


def _step(runner: Runner, image: np.ndarray, buffers: Inputs | None) -> tuple[Inputs, Inputs, Inputs]:
    """One call of a stream file: its inputs and outputs, and the buffers for the next call; None starts a clip."""
    inputs = (buffers or runner.zeros()) | {IMAGE: np.ascontiguousarray(image, np.float32)}
    outputs = runner(inputs)
    return inputs, outputs, {name: outputs[NEXT + name] for name in inputs if name != IMAGE}
