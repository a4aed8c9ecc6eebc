"""The clip store, one file for each clip, and the batches that models read from it.

A stored clip is the signed segment, cropped square and scaled once, as JPEG images one after the other: a Motion JPEG
file, which players open. A comment in the first image says what the clip was made of and how.

Why JPEG, measured on every third of the 55 real WLASL clips (mean 57 frames of 256 × 256, one core of two busy ones,
20 frames read at 224 × 224, files in memory):

| form                               | kB a clip | written, clips/s | read, clips/s | PSNR, dB |
| H.264, one group of pictures       |        66 |                4 |            44 |       39 |
| H.264, groups of 8, fast to decode |       116 |                4 |            54 |       39 |
| H.264, only key frames             |       245 |                5 |            66 |       38 |
| JPEG by FFmpeg in Matroska, q 2    |       493 |               13 |            84 |       41 |
| **JPEG, quality 90**               |       567 |               26 |           146 |       43 |
| JPEG, quality 95                   |       811 |               25 |           128 |       44 |
| arrays                             |    10 900 |               24 |           350 |        – |

Arrays would fill 230 GB for WLASL2000, JPEG 12 GB, and reading is cheap beside training: 7 ms a clip, against the 330
ms that the official MoViNet-A0 trains on one here.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from lib.data.person import MOVER, find_mover
from lib.data.video import MARGIN, segment_end, square_frames
from lib.paths import replacing
from lib.settings import StudyError
from lib.study import Study

Row = tuple[str, str, int, int]  # status, reason, frames, bytes

STORE_SIZE = 256  # pixels; leaves a random crop of 7/8 at the usual 224
QUALITY = 90  # see the table above
SUFFIX = ".mjpeg"
TABLE = "clips.parquet"
BLACK = 24  # no pixel brighter than this in a frame: nothing was recorded (video black is 16)
FRAME_END = b"\xff\xd9"  # the markers that end and begin a JPEG image
FRAME_START = b"\xff\xd8"
COMMENT = b"\xff\xfe"
# OpenCV's flags for colour at a smaller size are BGR; with RGB the grey ones stand for the size alone.
REDUCED = {
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
}


@dataclass(frozen=True)
class _Job:
    """One clip to store, and all that decides its content."""

    video: str
    start: int
    end: int
    bbox: tuple[float, ...] | None
    find_person: bool
    size: int
    margin: float

    def made_of(self) -> bytes:
        """What goes into the file as its comment: the job, the size of the video file, the quality."""
        video = Path(self.video)
        size = video.stat().st_size if video.exists() else 0
        found = {"mover": MOVER} if self.find_person and self.bbox is None else {}
        return json.dumps(asdict(self) | found | {"video": video.name, "bytes": size, "quality": QUALITY}).encode()


def build_clips(
    index: pd.DataFrame,
    folder: Path,
    *,
    size: int = STORE_SIZE,
    margin: float = MARGIN,
    find_person: bool = False,
    workers: int | None = None,
) -> pd.DataFrame:
    """Store every `present` clip of the index, whose paths are videos, as <folder>/<video_id>.mjpeg.

    Frames [frame_start, frame_end) are cropped to `square` of the box and scaled to `size` × `size` pixels. Without a
    box they are cropped to what moves (`find_person`) or to the largest square in the middle. Clips are made in
    `workers` processes (all cores). A clip that is there, made of the same file in the same way, stays; so an
    interrupted building goes on where it stopped. A file is written whole or not at all; videos are only read.
    Returns one row a clip in index order: video_id, status (present | unreadable), reason ("" where present), frames,
    bytes.
    """
    rows = index[index["status"] == "present"].to_dict("records")
    work = [(_job(row, find_person, size, margin), clip_path(folder, row["video_id"])) for row in rows]
    table = pd.DataFrame(_attempt_all(work, workers or os.cpu_count()), columns=["status", "reason", "frames", "bytes"])
    table.insert(0, "video_id", [row["video_id"] for row in rows])
    return table


def write_clips_table(table: pd.DataFrame, study: Study) -> None:
    """Write what `build_clips` returned beside the clips."""
    with replacing(study.paths.clips_table) as path:
        table.to_parquet(path, index=False)


def read_clips_table(study: Study) -> pd.DataFrame:
    """Read what `build_clips` returned. Raises StudyError when notebook 02 has not written it."""
    path = study.paths.clips_table
    if not path.is_file():
        raise StudyError(f"{path} is missing; run notebooks/02_clips.ipynb, or `make study STUDY={study.name}`")
    return pd.read_parquet(path)


def clip_path(folder: Path, video_id: str) -> Path:
    """Where the stored clip of a video lies."""
    return Path(folder) / f"{video_id}{SUFFIX}"


def _job(row: dict, find_person: bool, size: int, margin: float) -> _Job:
    box = row.get("bbox")
    bbox = None if box is None or np.ndim(box) == 0 else tuple(float(value) for value in box)
    return _Job(row["path"], int(row["frame_start"]), int(row["frame_end"]), bbox, find_person, size, margin)


def _attempt_all(work: list[tuple[_Job, Path]], workers: int) -> list[Row]:
    """Store all clips; one whose video makes FFmpeg crash costs its process and no other clip."""
    results: dict[int, Row] = {}
    with tqdm(total=len(work), desc="clips") as bar:
        while len(results) < len(work):
            left = [number for number in range(len(work)) if number not in results]
            _run(work, left, workers, results, bar)
            # Where a process ended it had one of the clips begun first: these get a process each.
            for number in [number for number in left if number not in results][:workers]:
                _run(work, [number], 1, results, bar)
                results.setdefault(number, ("unreadable", "the process that decoded it ended; convert it anew", 0, 0))
    return [results[number] for number in range(len(work))]


def _run(work: list[tuple[_Job, Path]], numbers: list[int], workers: int, results: dict[int, Row], bar: tqdm) -> None:
    """Store these clips in processes and note the results, as far as the processes live."""
    with suppress(BrokenProcessPool), ProcessPoolExecutor(workers) as pool:
        futures = {number: pool.submit(_attempt, *work[number]) for number in numbers}
        for number, future in futures.items():
            results[number] = future.result()
            bar.update()


def _attempt(job: _Job, target: Path) -> Row:
    """Store one clip unless it is there; status, reason, frames, bytes."""
    try:
        if not _is_stored(job, target):
            _store(job, target)
        with _opened(target) as data:
            return "present", "", len(_bounds(data, target)), len(data)
    except StudyError as error:
        return "unreadable", str(error).removeprefix(f"{job.video}: "), 0, 0


def _is_stored(job: _Job, target: Path) -> bool:
    """Whether the target is there, whole, and made of the job's video in the job's way."""
    try:
        with _opened(target) as data:
            return bool(_bounds(data, target)) and _comment(data) == job.made_of()
    except StudyError:
        return False


def _store(job: _Job, target: Path) -> None:
    with replacing(target) as partial, partial.open("wb") as file:
        for number, image in enumerate(_images(job)):
            jpeg = _encode(image)
            file.write(jpeg if number else _with_comment(jpeg, job.made_of()))


def _images(job: _Job) -> Iterator[np.ndarray]:
    """The frames of the segment, square and scaled, without those that are black."""
    video = Path(job.video)
    end = segment_end(video, job.start) if job.end == -1 else job.end
    box = job.bbox
    if box is None and job.find_person:
        box = find_mover(video, job.start, end, threads=1)
    decoded = shown = 0
    segment = range(job.start, end)
    for _, image in square_frames(video, segment, job.size, bbox=box, margin=job.margin, threads=1):
        decoded += 1
        if image.max() > BLACK:  # else it shows nothing: 12 of 39 clips of WLASL300 end in such a frame
            shown += 1
            yield image
    if not decoded:
        segment_end(video, job.start)
    if not shown:
        raise StudyError(f"{video}: frames {job.start} to {end} are black throughout; leave the clip out")


def _encode(image: np.ndarray) -> bytes:
    bgr = np.ascontiguousarray(image[..., ::-1])  # OpenCV's order
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def _with_comment(jpeg: bytes, text: bytes) -> bytes:
    """The image with a comment segment after its first marker; the length counts its own two bytes."""
    return FRAME_START + COMMENT + (len(text) + 2).to_bytes(2, "big") + text + jpeg[len(FRAME_START) :]


def _comment(data: mmap.mmap) -> bytes:
    """The comment of a stored clip, b"" where there is none."""
    head = len(FRAME_START + COMMENT)
    if data[:head] != FRAME_START + COMMENT:
        return b""
    return data[head + 2 : head + int.from_bytes(data[head : head + 2], "big")]


def _opened(path: Path) -> mmap.mmap:
    """The bytes of a stored clip, of which only the part that is used is read."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise StudyError(f"{path}: cannot be read ({error}); run the notebook 02_clips") from error


def _bounds(data: mmap.mmap, path: Path) -> list[tuple[int, int]]:
    """Where each image of a stored clip begins and ends. Compressed data never holds an end beside a start marker."""
    if data[:2] != FRAME_START or data[-2:] != FRAME_END:
        raise StudyError(f"{path}: is no whole clip; delete it and run the notebook 02_clips")
    starts = [0]
    while (at := data.find(FRAME_END + FRAME_START, starts[-1])) >= 0:
        starts.append(at + len(FRAME_END))
    return list(zip(starts, [*starts[1:], len(data)], strict=True))


def read_stored(path: Path, choose: Callable[[int], Sequence[int]], least: int = STORE_SIZE) -> list[np.ndarray]:
    """Read the frames of a stored clip that `choose` picks, given how many there are.

    Images of at least twice `least` pixels come at a half, a quarter or an eighth of their size, which saves most of
    the decoding. Returns a list of uint8 (side, side, 3) RGB, side >= min(least, stored side).
    Raises StudyError when the file is absent or damaged.
    """
    with _opened(path) as data:
        bounds = _bounds(data, path)
        flags = _reduction(data, path, least)
        chosen = [int(number) for number in choose(len(bounds))]
        images = {number: _decode(data, bounds[number], flags, path) for number in set(chosen)}
    return [images[number] for number in chosen]


def _reduction(data: mmap.mmap, path: Path, least: int) -> int:
    """How OpenCV is to decode images: in RGB, and how much smaller than they are stored."""
    try:
        side = json.loads(_comment(data))["size"]
    except (ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{path}: is no clip of this study; delete it and run the notebook 02_clips") from error
    return cv2.IMREAD_COLOR_RGB | next((flag for times, flag in REDUCED.items() if side >= times * least), 0)


def _decode(data: mmap.mmap, bounds: tuple[int, int], flags: int, path: Path) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data[slice(*bounds)], np.uint8), flags)
    if image is None:
        raise StudyError(f"{path}: holds a damaged image; delete it and run the notebook 02_clips")
    return image
