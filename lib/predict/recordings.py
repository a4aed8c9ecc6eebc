"""What people have, as a model reads it: videos, OpenPose folders, and .npz files of landmarks."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple
from uuid import uuid4
from zipfile import BadZipFile

import numpy as np

from lib.data.augment import resize
from lib.data.clip_store import read_layers, store_clip
from lib.data.find import Place, walk
from lib.data.holistic import finders, read_found, to_layout
from lib.data.layouts import SIDES
from lib.data.poses import read_place, shorten, trim
from lib.data.video import SUFFIXES, Box, probe, sample_frames
from lib.machine import cores
from lib.predict.model import Model
from lib.settings import StudyError
from lib.study import HELD

KEYPOINTS = "_keypoints.json"  # how the names of OpenPose's files end
SMALLEST = 32  # pixels; no hand can be told in less
LEAST = 2  # frames; one is a picture
TINY = 32  # pixels on a side of the images in which movement is looked for
MOVES = 1.0  # mean change of a pixel from one frame to the next, of 255, from which on something moves


class Input(NamedTuple):
    """A clip that is to be named. `path` is how answers call it."""

    path: str
    form: Literal["videos", "keypoints", "hands", "poses"]  # sources of a study
    place: Place


@dataclass(frozen=True)
class Recording:
    """A clip, or a longer video, as a model reads it.

    read: function (start, end) that returns the frames [start, end) as one clip, float32 (frames', …).
    moving: bool (frames,), in which frames somebody may sign: a hand is seen or, in a video model's, something moves.
    fps: None where unknown. poses: of a pose model, (frames, joints, 3), before they are trimmed.
    """

    frames: int
    fps: float | None
    read: Callable[[int, int], np.ndarray]
    moving: np.ndarray
    poses: np.ndarray | None = None

    def clip(self) -> np.ndarray:
        """All of it as one clip."""
        return self.read(0, self.frames)


def find_inputs(path: str) -> list[Input]:
    """The clips in a file or a folder, sorted. Raises StudyError when there is none, or the path cannot be read."""
    place = Path(path)
    try:
        if not place.is_dir():
            place.open("rb").close()
            return _in_file(place, path)
        next(os.scandir(place), None)
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror})") from error
    files = list(walk(place))
    folders = {file.parent for file in files if file.name.endswith(KEYPOINTS)}
    named = {folder: os.path.join(path, folder) if folder.parts else path for folder in folders}
    found = [Input(name, "keypoints", Place(folder.name, place / folder)) for folder, name in named.items()]
    for file in files:
        if file.suffix.lower() in (*SUFFIXES, ".npz"):
            found += _in_file(place / file, os.path.join(path, file))
    if not found:
        raise StudyError(f"{path}: holds no video, no OpenPose keypoints (*{KEYPOINTS}) and no landmarks (*.npz)")
    return sorted(found)


def _in_file(file: Path, path: str) -> list[Input]:
    """The clips in a file: one, or those of an archive of hands."""
    if file.suffix.lower() != ".npz":
        return [Input(path, "videos", Place(file.stem, file))]
    try:
        archive = np.load(file)
        names = [] if "body" in archive.files else archive.files
    except (OSError, ValueError, EOFError, BadZipFile, AttributeError):  # AttributeError: one bare array
        names = []  # reading it as poses says what is wrong
    hands = [Input(f"{path}:{name}", "hands", Place(name, file, archive)) for name in names]
    return hands or [Input(path, "poses", Place(file.stem, file))]


@contextmanager
def recorder(model: Model, videos: int) -> Iterator[Callable[..., Recording]]:
    """A function that opens clips for a model; see `_open`. Threads may share it.

    videos: about how many of the clips are videos. MediaPipe finds the poses in those, and raises StudyError where it
    cannot be had. What the function returned may be read until the block ends.
    """
    workers = min(cores(), videos) if model.layout else 0
    with finders(workers) as find, TemporaryDirectory() as folder:
        yield lambda clip, **segment: _open(clip, model, find, Path(folder), **segment)


def _open(
    clip: Input,
    model: Model,
    find: Callable[[Path], dict[str, Any]],
    folder: Path,
    start: int = 0,
    end: int | None = None,
    bbox: Box | None = None,
) -> Recording:
    """Open a clip, of which only the frames [start, end) are looked at; bbox: the signer's box in a video.

    Raises StudyError when it cannot be read, the model reads something else, or there is nothing to name.
    """
    segment = slice(start, end)
    if clip.form == "videos":
        info = probe(clip.place.path)
        if info.frames < LEAST:
            raise StudyError(f"{clip.path}: holds one frame, and a sign takes more")
        if min(info.width, info.height) < SMALLEST:
            raise StudyError(f"{clip.path}: {info.width} × {info.height} pixels are too few to tell a hand")
        if not model.layout:
            end = info.frames if end is None else end
            return _video_recording(clip.place.path, model, folder, start, end, bbox, info.fps)
        return pose_recording(to_layout(find(clip.place.path), model.layout)[segment], info.fps, clip.path, model)
    if not model.layout:
        raise StudyError(f"{clip.path}: holds landmarks, and {model.name} reads videos")
    if model.layout.name not in HELD[clip.form]:
        raise StudyError(f"{clip.path}: holds {clip.form} only, and {model.name} reads {model.layout.name}")
    fps = float(read_found(clip.place.path)["fps"]) if clip.form == "poses" else np.nan
    poses = read_place(clip.place, clip.form, model.layout)[segment]
    return pose_recording(poses, fps if fps > 0 else None, clip.path, model)


def pose_recording(poses: np.ndarray, fps: float | None, path: str, model: Model) -> Recording:
    """A recording of poses (frames, joints, 3) in the layout of the model.

    Raises StudyError, naming `path`, when no joint is seen in any frame.
    """
    if not poses[..., 2].any():
        raise StudyError(f"{path}: nobody's hands are seen in it")
    hands = np.any([poses[:, model.layout.parts[side], 2].any(1) for side in SIDES], axis=0)

    def read(start: int, end: int) -> np.ndarray:
        """Without empty frames at the ends, and no longer than the model reads; drawn if it reads drawings."""
        clip = trim(poses[start:end])
        if model.pen:
            return model.pen.draw(shorten(clip, model.frames, least=model.frames), model.size)
        return shorten(clip, model.frames)

    return Recording(len(poses), fps, read, hands, poses)


def _video_recording(
    video: Path, model: Model, folder: Path, start: int, end: int, bbox: Box | None, fps: float | None
) -> Recording:
    """A recording of a video, stored as a study stores it, so that a model sees what it was trained on."""
    stored = folder / f"{uuid4()}.mjpeg"
    numbers = store_clip(video, stored, start, end, bbox, model.store) - start
    tiny = np.stack(list(resize(read_layers(stored, range, TINY), TINY))).astype(np.float32)
    change = np.abs(np.diff(tiny, axis=0)).mean((1, 2, 3))
    moving = np.zeros(end - start, bool)
    moving[numbers[1:]] = change >= MOVES

    def read(start: int, end: int) -> np.ndarray:
        """The middle frames of even spans of what is stored of [start, end)."""
        first, last = np.searchsorted(numbers, [start, end])
        first = min(first, len(numbers) - 1)  # black to the end: the last one that is not
        chosen = sample_frames(first, max(last, first + 1), model.frames)
        images = resize(read_layers(stored, lambda _: chosen, model.size), model.size)
        return np.stack([np.multiply(image, np.float32(1 / 255)) for image in images])

    return Recording(end - start, fps, read, moving)
