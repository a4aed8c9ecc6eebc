"""The clip store: one small file for each clip.

A stored clip is the signed segment, cropped to a square and scaled once, as consecutive JPEG images: a Motion JPEG
file, which video players open. A comment in the first image records what the clip was made from and how.

The measurements behind this choice are in notebooks/02_clips.ipynb.
"""

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

from lib.data.index import present
from lib.data.person import MOVER, find_mover
from lib.data.video import MARGIN, segment_end, square_frames
from lib.paths import replacing
from lib.settings import StudyError
from lib.study import Study

COLUMNS = ["status", "reason", "frames", "bytes"]
Row = tuple[str, str, int, int]  # of these columns

STORE_SIZE = 256  # pixels; leaves a random crop of 7/8 at the usual 224
QUALITY = 90  # of JPEG: 43 dB PSNR
BLACK = 24  # a frame without a brighter pixel shows nothing (video black is 16)
# JPEG markers: start of image, end of image, comment.
START, END, COMMENT = b"\xff\xd8", b"\xff\xd9", b"\xff\xfe"
# OpenCV's flags for decoding in colour at a reduced size imply BGR; combined with IMREAD_COLOR_RGB, the grey ones set
# the size alone.
REDUCED = {8: cv2.IMREAD_REDUCED_GRAYSCALE_8, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2}


@dataclass(frozen=True)
class _Job:
    """One clip to store, and everything that determines its content."""

    video: str
    start: int
    end: int
    bbox: tuple[float, ...] | None
    find_person: bool
    size: int
    margin: float

    def made_of(self) -> bytes:
        """The comment in the stored clip; a clip with another comment is stored again."""
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
    """Store every `present` clip of an index of videos as <folder>/<video_id>.mjpeg.

    Frames [frame_start, frame_end) are cropped to the `square` of the box and scaled to `size` × `size` pixels. Without
    a box they are cropped to the person who moves (`find_person`) or to the largest centred square. Black frames are
    skipped. `workers` processes share the work (default: one for each core). A clip that was already made from the same
    file in the same way is kept, so an interrupted build resumes. Files are written atomically.
    Returns one row per clip in index order: video_id, status (present | unreadable), reason ("" when present), frames,
    bytes.
    """
    rows = present(index).to_dict("records")
    work = [(_job(row, find_person, size, margin), clip_path(folder, row["video_id"])) for row in rows]
    table = pd.DataFrame(_attempt_all(work, workers or os.cpu_count()), columns=COLUMNS)
    table.insert(0, "video_id", [row["video_id"] for row in rows])
    return table


def stored_frames(study: Study) -> dict[str, int]:
    """Number of frames of each stored clip, by video_id. Raises StudyError when notebook 02 has not been run."""
    path = study.paths.clips_table
    if not path.is_file():
        raise StudyError(f"{path} is missing; run notebooks/02_clips.ipynb, or `make study STUDY={study.name}`")
    return pd.read_parquet(path).set_index("video_id")["frames"].to_dict()


def clip_path(folder: Path, video_id: str) -> Path:
    """The file of a stored clip."""
    return Path(folder) / f"{video_id}.mjpeg"


def _job(row: dict, find_person: bool, size: int, margin: float) -> _Job:
    box = row.get("bbox")
    bbox = tuple(map(float, box)) if np.ndim(box) else None
    return _Job(row["path"], int(row["frame_start"]), int(row["frame_end"]), bbox, find_person, size, margin)


def _attempt_all(work: list[tuple[_Job, Path]], workers: int) -> list[Row]:
    """Store all clips. A video that crashes FFmpeg takes its process down, but no other clip."""
    results: dict[int, Row] = {}
    with tqdm(total=len(work), desc="clips") as bar:
        while left := [number for number in range(len(work)) if number not in results]:
            _run(work, left, workers, results, bar)
            # After a crash the culprit is one of the clips started first: give each a process of its own.
            for number in [number for number in left if number not in results][:workers]:
                _run(work, [number], 1, results, bar)
                results.setdefault(number, ("unreadable", "decoding it crashed the process; convert the video", 0, 0))
    return [results[number] for number in range(len(work))]


def _run(work: list[tuple[_Job, Path]], numbers: list[int], workers: int, results: dict[int, Row], bar: tqdm) -> None:
    """Store these clips in a pool of processes and collect the results until a process dies."""
    with suppress(BrokenProcessPool), ProcessPoolExecutor(workers) as pool:
        futures = {number: pool.submit(_attempt, *work[number]) for number in numbers}
        for number, future in futures.items():
            results[number] = future.result()
            bar.update()


def _attempt(job: _Job, target: Path) -> Row:
    try:
        if not _is_stored(job, target):
            _store(job, target)
        with _opened(target) as data:
            return "present", "", len(_bounds(data, target)), len(data)
    except StudyError as error:
        return "unreadable", str(error).removeprefix(f"{job.video}: "), 0, 0


def _is_stored(job: _Job, target: Path) -> bool:
    try:
        with _opened(target) as data:
            return bool(_bounds(data, target)) and _comment(data) == job.made_of()
    except StudyError:
        return False


def _store(job: _Job, target: Path) -> None:
    comment = job.made_of()
    head = START + COMMENT + (len(comment) + 2).to_bytes(2, "big") + comment  # the length counts its own two bytes
    with replacing(target) as partial, partial.open("wb") as file:
        for number, image in enumerate(_images(job)):
            bgr = np.ascontiguousarray(image[..., ::-1])  # OpenCV's order
            jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
            file.write(jpeg if number else head + jpeg[len(START) :])


def _images(job: _Job) -> Iterator[np.ndarray]:
    """The frames of the segment, cropped and scaled, without black ones."""
    video = Path(job.video)
    end = segment_end(video, job.start) if job.end == -1 else job.end
    box = job.bbox
    if box is None and job.find_person:
        box = find_mover(video, job.start, end, threads=1)
    decoded = shown = 0
    segment = range(job.start, end)
    for _, image in square_frames(video, segment, job.size, box, job.margin, threads=1):
        decoded += 1
        if image.max() > BLACK:  # 12 of 39 clips of WLASL300 end in a black frame
            shown += 1
            yield image
    if not decoded:
        segment_end(video, job.start)  # raises: the segment starts after the last frame
    if not shown:
        raise StudyError(f"{video}: frames {job.start} to {end} are black throughout; leave the clip out")


def read_stored(path: Path, choose: Callable[[int], Sequence[int]], least: int = STORE_SIZE) -> list[np.ndarray]:
    """Read the frames of a stored clip that `choose` picks, given the number of frames.

    Images at least twice `least` pixels wide are decoded at a half, a quarter or an eighth of their size, which saves
    most of the work. Returns a list of uint8 (side, side, 3) RGB, side >= min(least, stored side).
    Raises StudyError when the file is missing or damaged.
    """
    with _opened(path) as data:
        bounds = _bounds(data, path)
        try:
            side = json.loads(_comment(data))["size"]
            reduction = next((flag for times, flag in REDUCED.items() if side >= times * least), 0)
        except (ValueError, KeyError, TypeError) as error:
            raise StudyError(f"{path}: is not a stored clip; delete it and run the notebook 02_clips") from error
        chosen = [int(number) for number in choose(len(bounds))]
        images = {}
        for number in set(chosen):
            jpeg = np.frombuffer(data[slice(*bounds[number])], np.uint8)
            images[number] = cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB | reduction)
            if images[number] is None:
                raise StudyError(f"{path}: contains a damaged image; delete it and run the notebook 02_clips")
    return [images[number] for number in chosen]


def _opened(path: Path) -> mmap.mmap:
    """Map a stored clip into memory, so that only the images that are used are read."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise StudyError(f"{path}: cannot be read ({error}); run the notebook 02_clips") from error


def _bounds(data: mmap.mmap, path: Path) -> list[tuple[int, int]]:
    """Where each image starts and ends. Compressed data never contains an end marker followed by a start marker."""
    if data[:2] != START or data[-2:] != END:
        raise StudyError(f"{path}: is incomplete; delete it and run the notebook 02_clips")
    starts = [0]
    while (at := data.find(END + START, starts[-1])) >= 0:
        starts.append(at + len(END))
    return list(zip(starts, [*starts[1:], len(data)], strict=True))


def _comment(data: mmap.mmap) -> bytes:
    """The comment of a stored clip, b"" if there is none."""
    head = len(START + COMMENT)
    if data[:head] != START + COMMENT:
        return b""
    return data[head + 2 : head + int.from_bytes(data[head : head + 2], "big")]
