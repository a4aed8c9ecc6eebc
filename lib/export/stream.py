"""A stream model frame by frame: its buffers go out of one frame and into the next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.special import softmax

from lib.export.files import Runner, open_model, read_metadata

IMAGE, LOGITS = "image", "logits"
NEXT = "next_"  # before the name of a buffer that goes out: ONNX knows no two values of one name


class Stream:
    """What a camera feeds: the probabilities after each frame, from all frames of the clip so far."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Open an exported stream file. Raises StudyError when it can't be read."""
        self.runner = open_model(path, threads)
        self.labels = read_metadata(path)[1]
        self.reset()

    def reset(self) -> None:
        """Begin a new clip."""
        self.buffers = first_buffers(self.runner)

    def push(self, frame: np.ndarray) -> np.ndarray:
        """One frame, float32 (height, width, 3) in [0, 1], to probabilities float32 (labels,)."""
        logits, self.buffers = step(self.runner, frame[None, None], self.buffers)
        return softmax(logits[0])


def first_buffers(runner: Runner) -> dict[str, np.ndarray]:
    """The buffers before the first frame: zeros by name."""
    return {name: value for name, value in runner.zeros().items() if name != IMAGE}


def step(runner: Runner, image: np.ndarray, buffers: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One frame, (1, 1, height, width, 3): logits (1, classes) of all frames so far, and the buffers after it."""
    after = runner({IMAGE: np.ascontiguousarray(image, np.float32), **buffers})
    return after[LOGITS], {name: after[NEXT + name] for name in buffers}


def run_clip(runner: Runner, clip: np.ndarray) -> np.ndarray:
    """Logits (1, classes) after the last frame of a clip (1, frames, height, width, 3)."""
    buffers = first_buffers(runner)
    for frame in range(clip.shape[1]):
        logits, buffers = step(runner, clip[:, frame : frame + 1], buffers)
    return logits


def seen_by(runner: Runner, clips: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
    """What a stream model reads at each frame of clips, buffers included: what its ranges are measured on."""
    inputs = []
    for clip in clips:
        buffers = first_buffers(runner)
        for frame in range(clip.shape[1]):
            inputs.append({IMAGE: clip[:, frame : frame + 1], **buffers})
            buffers = step(runner, clip[:, frame : frame + 1], buffers)[1]
    return inputs
