"""Poses from videos: MediaPipe Holistic finds the joints of a signer; one .npz file for each clip.

MediaPipe needs packages that the study's own do not go with, so it runs as a process in an environment of its own,
which `uv run` makes (workflow/holistic.py). The process stays open for many clips, as its start takes seconds. It gets
frames as `lib.data.video` reads them, so that numbers of frames, mirrors, HDR and what counts as a whole file are those
of the study; or those of a camera.

<root>/poses/<video_id>.npz holds, for every frame of the video,
body   float32 (frames, 33, 4)      x, y, z, visibility in [0, 1]: the joints of MediaPipe's pose model
hands  float32 (frames, 2, 21, 3)   x, y, z: the signer's left hand, then the right one
lips   float32 (frames, 20, 3)      x, y, z: the points LIPS of the face
face   float32 (frames, 478, 3)     x, y, z: all points of the face, only if asked for
and once fps (NaN where unknown), width, height (pixels), notes (see `VideoInfo`), video (its name), bytes, sha256 and
mediapipe, the version. x is in units of the image's width and y of its height, from the upper left corner of the
picture as shown; joints outside it lie beyond [0, 1]; z is a depth. What was not found is NaN. A joint of the body
that is hidden or outside the picture is a guess of low visibility.
"""

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Timer
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from lib.data.hands import MISSING, order_hands
from lib.data.layouts import Layout
from lib.data.video import frames, probe
from lib.machine import PARSING
from lib.paths import REPOSITORY
from lib.settings import StudyError

WORKER = REPOSITORY / "workflow" / "holistic.py"
FORM = {"body": (33, 4), "hands": (2, 21, 3), "lips": (20, 3)}  # the arrays of every file, without the axis of frames
ABOUT = {"fps", "width", "height"}
VALUES = 33 * 4 + 2 * 21 * 3 + 478 * 3  # what the process answers for a frame: body, hands, face
# The two rings of the lips in MediaPipe's face mesh, every second point, in the order of the layouts.
LIPS = [61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91, 78, 81, 13, 311, 308, 402, 14, 178]
# The body of the layouts, by number in MediaPipe's pose model; the neck, 33, is the middle of the SHOULDERS.
BODY, SHOULDERS = [0, 33, 12, 14, 16, 11, 13, 15, 5, 2, 8, 7], [11, 12]
VISIBLE = 0.5  # a joint of the body is present from this visibility on, as in MediaPipe's own drawings
HANGS = 120  # seconds after which a process that does not answer is ended; a frame takes a twentieth of a second
LONG = 20  # seconds after which a video gets a progress bar of its own
PATIENCE = 5  # seconds for a process to end by itself
LONGEST = 300  # characters of what it said
LOG = re.compile(r"[IWE]\d{4} |INFO|WARNING")  # MediaPipe's lines that are no errors


class Holistic:
    """A process that finds the joints in the frames of one clip after another. It starts when needed; close it."""

    def __init__(self, face: bool = False) -> None:
        """face: use the finer model of the face, which has the irises, too."""
        self.face, self.version = face, ""
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start the process unless it runs. Raises StudyError when uv, Python <= 3.12 or MediaPipe cannot be had."""
        if self._process:
            return
        uv = str(os.environ.get("UV") or shutil.which("uv") or REPOSITORY / ".uv" / "bin" / "uv")
        command = [uv, "run", "--quiet", "--script", str(WORKER), *(["--face"] if self.face else [])]
        # Settings of this process: of its Python, and of its matplotlib, in a notebook a package of the study.
        env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MPL"))}
        self._said, pipe = tempfile.TemporaryFile(), subprocess.PIPE  # noqa: SIM115, `close` closes it
        try:
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._said, env=env)
            self.version = json.loads(self._process.stdout.readline())["mediapipe"]
        except OSError as error:
            problem = f"poses from videos need uv, and {uv} cannot be run ({error.strerror})"
            raise StudyError(f"{problem}; install it, such as by `pip install uv`") from error
        except ValueError as error:
            problem = f"MediaPipe cannot be started: {self.close()}"
            raise StudyError(f"{problem}; uv needs Python 3.9 to 3.12, and mediapipe from the package index") from error

    def see(self, image: np.ndarray, first: bool = False) -> np.ndarray:
        """Find the joints in the next frame, uint8 (height, width, 3) RGB: float32 (VALUES,), see `parts_of`.

        `first`: it begins another clip, so where joints were before says nothing. Raises StudyError as `start` does,
        or when the process crashes; the next frame starts another.
        """
        self.start()
        watchdog = Timer(HANGS, self._process.kill)
        watchdog.daemon = True  # nobody waits for it after Ctrl-C
        watchdog.start()
        with suppress(OSError):  # after a crash, which also ends the answers
            self._process.stdin.write(struct.pack("<III", *image.shape[:2], first) + image.tobytes())
            self._process.stdin.flush()
        answer = self._process.stdout.read(4 * VALUES)
        watchdog.cancel()
        if len(answer) < 4 * VALUES:
            raise StudyError(f"MediaPipe crashed ({self.close()}); try again, or convert the video")
        return np.frombuffer(answer, "<f4")

    def close(self) -> str:
        """End the process, if it runs. Returns what it said last, but for MediaPipe's log, or its exit code."""
        process, self._process = self._process, None
        if not process:
            return ""
        try:
            process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with self._said as file:
            file.seek(0)
            lines = [line for line in file.read().decode(errors="replace").splitlines() if not LOG.match(line)]
        return " ".join(" ".join(lines).split())[-LONGEST:] or f"exit code {process.returncode}"


@contextmanager
def finders(count: int, face: bool = False) -> Iterator[Callable[[Path], dict[str, Any]]]:
    """A function that finds poses in a video (see `find_poses`), for up to `count` threads, a process for each.

    Raises StudyError when MediaPipe cannot be had.
    """
    idle: SimpleQueue[Holistic] = SimpleQueue()
    with ExitStack() as stack:
        for number in range(count):
            stack.callback((holistic := Holistic(face)).close)
            idle.put(holistic)
            if not number:
                holistic.start()  # says whether it can be had

        def find(video: Path) -> dict[str, Any]:
            """Find poses with the next idle process."""
            holistic = idle.get()
            try:
                return find_poses(video, holistic)
            finally:
                idle.put(holistic)

        yield find


def find_poses(video: Path, holistic: Holistic) -> dict[str, Any]:
    """Find the joints in every frame of a video: what its file holds (see above).

    Raises StudyError as `probe` does for a video that cannot be read, and as `Holistic.see` does.
    """
    info = probe(video)
    # Long videos show on a terminal how far they are.
    bar = tqdm(frames(video), desc=video.name, total=info.frames, delay=LONG, leave=False, disable=None)
    found = parts_of(np.stack([holistic.see(image, not number) for number, image in enumerate(bar)]))
    if not holistic.face:
        del found["face"]
    with video.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    made_from = {"video": video.name, "bytes": video.stat().st_size, "sha256": digest, "mediapipe": holistic.version}
    return {**found, **info._asdict(), "fps": info.fps or np.nan, **made_from}


def parts_of(values: np.ndarray) -> dict[str, np.ndarray]:
    """Body, hands, lips and face, from what `Holistic.see` found in each frame, (frames, VALUES)."""
    body, hands, face = (part.reshape(len(values), -1, 3) for part in np.split(values, [132, 258], axis=1))
    return {"body": body.reshape(-1, 33, 4), "hands": hands.reshape(-1, 2, 21, 3), "lips": face[:, LIPS], "face": face}


def read_found(path: Path) -> dict[str, np.ndarray]:
    """Read a file of poses. Raises StudyError when it is missing, damaged or something else."""
    try:
        with PARSING, np.load(path) as file:
            found = dict(file)
        number, shapes = len(found["body"]), {part: found[part].shape for part in FORM}
        if not number or shapes != {part: (number, *shape) for part, shape in FORM.items()} or ABOUT - found.keys():
            raise ValueError(f"{', '.join(found)}; arrays of shapes {list(shapes.values())}")
    except Exception as error:  # those of zip, zlib, numpy and the parser of its headers share no class
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise StudyError(f"{path}: holds no poses ({reason}); run `make poses` again") from error
    return found


def to_layout(found: Mapping[str, Any], layout: Layout) -> np.ndarray:
    """The joints of a layout: float32 (frames, joints, 3) of x, y, present; x = y = 0 where a joint is missing.

    The neck is the middle of the shoulders. A layout with a body is in pixels, as OpenPose's keypoints are, so that
    both axes have the same unit. Hands alone are in units of the image's width and height and in the order that
    `order_hands` gives them, as in WLASL's archives of hands, whose clips tell neither size nor side: a model trained
    on either reads the other. (Of 39 real clips, a model trained on an archive names 37 with the hands in this order,
    and 35 with the sides that MediaPipe gives them.)
    """
    body, hands = found["body"], found["hands"]
    if "body" not in layout.parts:
        return order_hands(np.nan_to_num(hands, nan=MISSING))
    neck = np.concatenate([body[:, SHOULDERS, :3].mean(1), body[:, SHOULDERS, 3:].min(1)], axis=1)
    body = np.concatenate([body, neck[:, None]], axis=1)[:, BODY]
    body = np.where(body[..., 3:] >= VISIBLE, body, np.nan)
    parts = {"body": body, "left": hands[:, 0], "right": hands[:, 1], "lips": found["lips"]}
    xy = np.concatenate([parts[part][..., :2] for part in layout.parts], axis=1)
    xy = xy * np.array([found["width"], found["height"]], np.float32)
    seen = np.isfinite(xy).all(-1, keepdims=True)
    return np.concatenate([np.where(seen, xy, 0), seen], -1, dtype=np.float32)
