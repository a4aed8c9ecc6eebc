"""The clip store: one small file for each clip.

A stored clip is the signed segment, cropped to a square and scaled once, as consecutive JPEG images: a Motion JPEG
file, which video players open. Notebook 02 has the measurements behind this choice. A comment in the first image
records what the clip was made from and how.
"""

import json
import mmap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from lib.data.augment import Layers, resize
from lib.data.index import present
from lib.data.person import MOVER, find_mover
from lib.data.video import MARGIN, Box, segment_end, square_frames
from lib.machine import cores, processes
from lib.paths import replacing
from lib.settings import StudyError
from lib.study import ClipStore, Study

Row = tuple[str, str, int, int]  # status, reason, frames, bytes

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
    notes: str = ""  # of an odd file; clips without any are stored as they were before there were notes

    def made_of(self) -> bytes:
        """The comment in the stored clip; a clip with another comment is stored again."""
        video = Path(self.video)
        size = video.stat().st_size if video.exists() else 0
        made = {key: value for key, value in asdict(self).items() if key != "notes" or value}
        found = {"mover": MOVER} if self.find_person and self.bbox is None else {}
        return json.dumps(made | found | {"video": video.name, "bytes": size, "quality": QUALITY}).encode()


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

    Frames [frame_start, frame_end), except black ones, are cropped to the `square` of the box and scaled to `size`.
    Without a box they are cropped to the person who moves (`find_person`) or to the largest centred square. `workers`
    processes share the work (default: `cores()`). A clip that was already made from the same file in the same way is
    kept, so an interrupted build resumes. Files are written atomically. Returns one row per clip in index order:
    video_id, status (present | unreadable), reason ("" when present), frames, bytes.
    """
    rows = present(index).to_dict("records")
    work = [(_job(row, find_person, size, margin), clip_path(folder, row["video_id"])) for row in rows]
    table = pd.DataFrame(_attempt_all(work, workers or cores()), columns=["status", "reason", "frames", "bytes"])
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
    segment = int(row["frame_start"]), int(row["frame_end"])
    return _Job(row["path"], *segment, bbox, find_person, size, margin, row.get("notes", ""))


def _attempt_all(work: list[tuple[_Job, Path]], workers: int) -> list[Row]:
    """Store all clips. A video that crashes FFmpeg takes its process down, but no other clip."""
    results: dict[int, Row] = {}
    bar = tqdm(total=len(work), desc="clips")

    def run(numbers: list[int]) -> None:
        """Store these clips in processes of one pool; a crash leaves the rest without a result."""
        with suppress(BrokenProcessPool), processes(min(workers, len(numbers)), __name__) as pool:
            futures = {number: pool.submit(_attempt, *work[number]) for number in numbers}
            for number, future in futures.items():
                results[number] = future.result()
                bar.update()

    while left := [number for number in range(len(work)) if number not in results]:
        run(left)
        # After a crash the culprit is one of the clips started first: give each a process of its own.
        for number in [number for number in left if number not in results][:workers]:
            run([number])
            results.setdefault(number, ("unreadable", "decoding it crashed the process; convert the video", 0, 0))
    bar.close()
    return [results[number] for number in range(len(work))]


def _attempt(job: _Job, target: Path) -> Row:
    """Store one clip unless it is there."""
    try:
        if not _is_stored(job, target):
            _store(job, target)
        data, bounds, _ = _opened(target)
        return "present", "", len(bounds), len(data)
    except StudyError as error:
        return "unreadable", str(error).removeprefix(f"{job.video}: "), 0, 0


def _is_stored(job: _Job, target: Path) -> bool:
    try:
        return _opened(target)[2] == job.made_of()
    except StudyError:
        return False


def store_clip(video: Path, target: Path, start: int, end: int, bbox: Box | None, how: ClipStore) -> np.ndarray:
    """Store the frames [start, end) of a video as `build_clips` does. Returns the numbers of the frames stored, (n,).

    Raises StudyError as `probe` does, or when the frames are black throughout.
    """
    box = None if bbox is None else tuple(map(float, bbox))
    segment = int(start), int(end)  # as of a row of the index
    return np.array(_store(_Job(str(video), *segment, box, how.find_person, how.size, how.margin), target))


def _store(job: _Job, target: Path) -> list[int]:
    """Write the frames of the segment, cropped and scaled, without black ones; return their numbers."""
    video, comment = Path(job.video), job.made_of()
    head = START + COMMENT + (len(comment) + 2).to_bytes(2, "big") + comment  # the length counts its own two bytes
    end = segment_end(video, job.start) if job.end == -1 else job.end
    box = find_mover(video, job.start, end, threads=1) if job.find_person and job.bbox is None else job.bbox
    decoded, shown = 0, []
    with replacing(target) as partial, partial.open("wb") as file:
        for number, image in square_frames(video, range(job.start, end), job.size, box, job.margin, threads=1):
            decoded += 1
            if image.max() > BLACK:  # 12 of 39 clips of WLASL300 end in a black frame
                bgr = np.ascontiguousarray(image[..., ::-1])  # OpenCV's order
                jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
                file.write(jpeg if shown else head + jpeg[len(START) :])
                shown.append(number)
        if not decoded:
            segment_end(video, job.start)  # raises: the segment starts after the last frame
        if not shown:
            raise StudyError(f"{video}: frames {job.start} to {end} are black throughout; leave the clip out")
    return shown


def read_stored(path: Path, choose: Callable[[int], Sequence[int]], least: int = STORE_SIZE) -> list[np.ndarray]:
    """Read frames of a stored clip as `read_layers` does, but as uint8 (side, side, 3) RGB."""
    frames = list(read_layers(path, choose, least))
    return list(resize(frames, len(frames[0][0])))


def read_layers(path: Path, choose: Callable[[int], Sequence[int]], least: int = STORE_SIZE) -> Iterator[Layers]:
    """Read the frames of a stored clip that `choose` picks, given the number of frames, one after another.

    Images at least twice `least` pixels wide are decoded at a half, a quarter or an eighth of their size, as RGB, which
    saves most of the work; others as Y, U and V. The side of the image is >= min(least, stored side).
    Raises StudyError when the file is missing or damaged.
    """
    data, bounds, comment = _opened(path)
    try:
        side = json.loads(comment)["size"]
        reduction = next((flag for times, flag in REDUCED.items() if side >= times * least), 0)
    except (ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{path}: is not a stored clip; delete it and run the notebook 02_clips") from error
    decoder, last, layers = None if reduction else av.CodecContext.create("mjpeg", "r"), None, None
    if decoder:
        decoder.thread_count, decoder.options = 1, {"err_detect": "explode"}
    for number in map(int, choose(len(bounds))):
        if number != last:
            jpeg, last = data[slice(*bounds[number])], number
            if decoder:
                layers = _decode(decoder, side, jpeg)
            else:
                layers = [cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB | reduction)]
        if layers is None or layers[0] is None:
            raise StudyError(f"{path}: contains a damaged image; delete it and run the notebook 02_clips")
        yield layers


def _decode(decoder: av.VideoCodecContext, side: int, jpeg: bytes) -> Layers | None:
    """The planes of an image, None if it is damaged. OpenCV takes twice as long: it enlarges U and V and makes RGB."""
    try:
        (frame,) = decoder.decode(av.Packet(jpeg))
    except (av.FFmpegError, ValueError):
        return None
    if (frame.format.name, frame.width, frame.height) != ("yuvj420p", side, side):
        return None
    return [np.frombuffer(p, np.uint8).reshape(-1, p.line_size)[: p.height, : p.width] for p in frame.planes]


def _opened(path: Path) -> tuple[mmap.mmap, list[tuple[int, int]], bytes]:
    """Map a stored clip into memory, so that only what is used is read: bytes, bounds of the images, comment."""
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise StudyError(f"{path}: cannot be read ({error}); run the notebook 02_clips") from error
    if data[:2] != START or data[-2:] != END:
        raise StudyError(f"{path}: is incomplete; delete it and run the notebook 02_clips")
    # Compressed data never contains the end of an image and the start of the next; `find` takes five times as long.
    byte = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(byte[1:-2] == END[1]) + 2
    ends = ends[(byte[ends - 2] == END[0]) & (byte[ends] == START[0]) & (byte[ends + 1] == START[1])]
    starts = [0, *ends.tolist()]
    comment = data[6 : 4 + int.from_bytes(data[4:6], "big")] if data[2:4] == COMMENT else b""
    return data, list(zip(starts, [*starts[1:], len(data)], strict=True)), comment
