"""Signs as a camera shows them.

A model reads the last SPAN seconds again and again, but for a stream file (MoViNet), which reads each frame as it comes
and starts anew when its clip is full: it was trained on clips of that length.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from lib.data.holistic import Holistic, parts_of, to_layout
from lib.data.video import frames, probe, sample_frames, square
from lib.predict.model import Model, probabilities, score
from lib.predict.recordings import LEAST, pose_recording
from lib.predict.timeline import FPS
from lib.settings import StudyError

SPAN = 2.0  # seconds
EVERY = 0.2  # seconds from one answer to the next
HOLD = 3  # answers in a row that have to agree
RECENT = 30  # frames that the rate is measured on

Moment = tuple[float, np.ndarray]  # seconds, and what is seen then


class Sight(NamedTuple):
    """What a model sees at a moment: the likeliest gloss, "" for no sign that it knows, and its probability.

    steady: whether the last HOLD answers were this gloss. rate: frames a second.
    """

    gloss: str
    share: float
    steady: bool
    rate: float


def open_camera(camera: str) -> Iterator[Moment]:
    """Seconds and frames, uint8 (height, width, 3) RGB, of a camera, by its number, or of a video file in its place.

    Raises StudyError when the camera cannot be opened or stops, or the file cannot be read.
    """
    if not camera.isdecimal():
        rate = probe(Path(camera)).fps or FPS
        yield from ((number / rate, image) for number, image in enumerate(frames(Path(camera))))
        return
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # what it warns of is said below, in one line
    source = cv2.VideoCapture(int(camera))
    try:
        if not source.isOpened():
            raise StudyError(f"camera {camera} cannot be opened: is it connected, and does no other program use it?")
        while (read := source.read())[0]:
            yield time.monotonic(), cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
        raise StudyError(f"camera {camera} has stopped")
    finally:
        source.release()


def watch(model: Model, moments: Iterable[Moment]) -> Iterator[Sight]:
    """What the model sees, frame after frame. Raises StudyError as `Holistic.see` does."""
    with closing(Holistic()) if model.layout else nullcontext() as holistic:
        ask = _ask_poses(model, holistic) if holistic else _ask_stream(model) if model.stream else _ask_clips(model)
        times, last, sight = deque(maxlen=RECENT), deque(maxlen=HOLD), Sight("", 0, False, 0)
        for moment in moments:
            times.append(time.perf_counter())
            rate = (len(times) - 1) / max(times[-1] - times[0], 1e-6)
            if (logits := ask(*moment)) is not None:
                gloss, share = "", 0.0
                if len(logits) and score(logits)[0] >= model.known_from:
                    shares = probabilities(logits)[0]
                    gloss, share = model.glosses[shares.argmax()], float(shares.max())
                last.append(gloss)
                sight = Sight(gloss, share, bool(gloss) and [*last] == [gloss] * HOLD, rate)
            yield sight._replace(rate=rate)


# Each of these makes a function of seconds and an image that returns logits (1, glosses), (0, glosses) where there is
# no sign, and None where the last answer stands.

Ask = Callable[[float, np.ndarray], np.ndarray | None]


def _ask_poses(model: Model, holistic: Holistic) -> Ask:
    size: dict[str, int] = {}

    def prepare(image: np.ndarray) -> np.ndarray:
        """What MediaPipe finds in a frame."""
        size["height"], size["width"] = image.shape[:2]
        return holistic.see(image)

    def name(found: list[np.ndarray]) -> np.ndarray:
        """The logits of what was seen last."""
        poses = to_layout(parts_of(np.stack(found)) | size, model.layout)
        return model.logits([pose_recording(poses, None, "", model).clip()] if poses[..., 2].any() else [])

    return _ask_again(prepare, name)


def _ask_clips(model: Model) -> Ask:
    def name(pictures: list[np.ndarray]) -> np.ndarray:
        """The logits of the last clip."""
        if len(pictures) < LEAST:
            return model.logits([])
        chosen = sample_frames(0, len(pictures), model.frames)
        return model.logits([np.stack([pictures[number] for number in chosen])])

    return _ask_again(lambda image: _picture(image, model.size), name)


def _ask_again(prepare: Callable[[np.ndarray], np.ndarray], name: Callable[[list[np.ndarray]], np.ndarray]) -> Ask:
    """Ask about the last SPAN seconds, EVERY so often."""
    recent: deque[Moment] = deque()
    due = [-np.inf]

    def ask(seconds: float, image: np.ndarray) -> np.ndarray | None:
        """Take a frame in, and ask if it is time to."""
        recent.append((seconds, prepare(image)))
        while recent[0][0] < seconds - SPAN:
            recent.popleft()
        if seconds < due[0]:
            return None
        due[0] = seconds + EVERY
        return name([item for _, item in recent])

    return ask


def _ask_stream(model: Model) -> Ask:
    stream, read = model.stream, []
    stream.reset()  # others may have used it

    def ask(seconds: float, image: np.ndarray) -> np.ndarray | None:
        """Take a frame in if it is time for the next of the clip."""
        if read and seconds < read[-1] + SPAN / model.frames:
            return None
        if len(read) == model.frames:
            stream.reset()
            read.clear()
        read.append(seconds)
        return stream.logits(_picture(image, model.size))

    return ask


def _picture(image: np.ndarray, size: int) -> np.ndarray:
    """The centred square of an image, float32 (size, size, 3) in [0, 1]."""
    height, width = image.shape[:2]
    x, y, side = square((0, 0, width, height), width, height, 0)
    small = cv2.resize(image[y : y + side, x : x + side], (size, size), interpolation=cv2.INTER_AREA)
    return np.float32(1 / 255) * small
