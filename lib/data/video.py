"""Video files, decoded with PyAV: probe a file, read its frames, or read a clip: trimmed, cropped to a square, scaled.

Frames are numbered from 0 in display order, as a player or `ffmpeg -fps_mode passthrough` shows them: without those
that an edit list hides, and without those that need a missing first key frame. Images are as shown, too (see
`lib.data.picture`): turned and mirrored by the file's display matrix, HDR in the usual range. Pixels are assumed to be
square, as OpenCV and WLASL's boxes assume.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from lib.data.picture import as_shown, oddities, orientation, stored_corner, upright_size
from lib.data.wholeness import own_length, stated_size
from lib.settings import StudyError

Box = Sequence[float]  # xmin, ymin, xmax, ymax in pixels of the upright image

# What FFmpeg reads; of several files for one clip, the first in this order counts.
SUFFIXES = (
    ".mp4", ".mkv", ".webm", ".mov", ".avi", ".swf", ".m4v", ".mpg", ".mpeg", ".wmv", ".asf", ".3gp", ".3g2", ".gif",
    ".flv", ".f4v", ".ts", ".mts", ".m2ts", ".vob", ".ogv", ".mxf", ".dv", ".mjpeg", ".m1v", ".m2v", ".y4m", ".nut",
    ".rm", ".rmvb", ".divx", ".qt",
)  # fmt: skip
# Share of a file's bytes and of its picture's length that has to be there: lengths are rounded, and a clip that lacks
# only its last frames is usable.
CUT_TOLERANCE = 0.9
# Rates that differ by less are those of the same video: 23.976 and 24, 59.94 and 60.
RATE_TOLERANCE = 0.1
# A damaged packet costs a frame or two and the clip stays usable; real WLASL files end with one.
BAD_PACKETS_TOLERANCE = 0.05
# Share of the box's longer side, added on each side: room for a hand that leaves the box.
MARGIN = 0.1
# area averages when shrinking; without the other flags FFmpeg's fast conversion darkens by up to two levels.
SCALING = "area+accurate_rnd+full_chroma_int"


class VideoInfo(NamedTuple):
    """What decoding a whole file found."""

    fps: float | None  # on average; None where the file does not tell
    frames: int  # decodable ones
    width: int  # pixels, upright
    height: int
    notes: str = ""  # what is odd in the file, for people, joined by "; "


def probe(path: Path) -> VideoInfo:
    """Decode a whole file and describe it.

    The number of frames is that of `frames(path)`, which may be less than the header says. `notes` tell what is lost
    or was put right in a file that is readable all the same.
    Raises StudyError ("<path>: reason") when the file is missing, not a video, truncated, or largely undecodable.
    """
    with _opened(path) as stream:
        reading, count, first = _Reading(path, stream), 0, None
        for frame in reading.decode():
            first, count = first or frame, count + 1
        fps = _rate(stream, count, first, frame, reading.notes)
        return VideoInfo(fps, count, *upright_size(first), "; ".join(reading.notes))


def frames(path: Path) -> Iterator[np.ndarray]:
    """Yield the frames of a file, each uint8 (height, width, 3) RGB.

    Raises StudyError as `probe` does; a truncated file raises after its last decodable frame.
    """
    with _opened(path) as stream:
        for frame in _Reading(path, stream).decode():
            try:
                image = frame.to_ndarray(format="rgb24")
            except (av.FFmpegError, ValueError) as error:
                raise StudyError(f"{path}: cannot be converted to RGB ({error}); convert the video") from error
            yield as_shown(image, frame)


def sample_frames(start: int, end: int, count: int, *, jitter: np.random.Generator | None = None) -> np.ndarray:
    """Choose `count` frame numbers spread evenly over [start, end).

    Without `jitter`: the middle of each of `count` equal spans, so the choice is deterministic (evaluation).
    With it: one uniform draw inside each span (training), the segment sampling of TSN (Wang et al. 2016, §3.1).
    A segment shorter than `count` repeats frames and never pads with black.

    Returns int64 (count,), sorted, each in [start, end).
    Raises ValueError when end <= start or count < 1.
    """
    if end <= start or count < 1:
        raise ValueError(f"need end > start and count >= 1, got start={start}, end={end}, count={count}")
    edges = np.linspace(start, end, count + 1)
    position = 0.5 if jitter is None else jitter.random(count)
    return np.clip(edges[:-1] + position * np.diff(edges), start, end - 1).astype(np.int64)


def read_clip(
    path: Path | str,
    frames: int = 20,
    size: int = 224,
    *,
    start: int = 0,
    end: int | None = None,
    bbox: Box | None = None,
    margin: float = MARGIN,
) -> np.ndarray:
    """Read the middle frames of `frames` equal spans of [start, end), cropped to a square of `size` pixels.

    `start` and `end` are 0-based and half-open, in frames of the file, as in the index. An `end` of None or -1, or
    beyond the file, means the end of the file. The crop is the `square` of the box, or without one the largest centred
    square. Decoding stops after the last frame needed.
    Returns uint8 (frames, size, size, 3) RGB.
    Raises StudyError ("<path>: reason") when the file cannot be read (see `probe`), the segment starts after the last
    frame or the box lies outside the image; ValueError when frames < 1, size < 1, start < 0 or end <= start.
    """
    path = Path(path)
    if start < 0 or size < 1:
        raise ValueError(f"need start >= 0 and size >= 1, got start={start}, size={size}")
    if end in (None, -1):
        with _opened(path) as stream:  # counts packets, which takes no decoding
            reading = _Reading(path, stream)
            deque(reading.demux(), maxlen=0)
        end = segment_end(path, start) if reading.early else max(reading.shown, start + 1)
    chosen = sample_frames(start, end, frames)
    images = dict(square_frames(path, chosen, size, bbox, margin))
    if not images.keys() >= set(chosen):  # the file ends earlier
        chosen = sample_frames(start, min(end, segment_end(path, start)), frames)
        images = dict(square_frames(path, chosen, size, bbox, margin))
    return np.stack([images[number] for number in chosen])


def segment_end(path: Path, start: int) -> int:
    """Count the decodable frames. Raises StudyError as `probe` does, or when frame `start` does not exist."""
    total = probe(path).frames
    if start >= total:
        raise StudyError(f"{path}: the segment starts at frame {start}, the file has {total}; correct the annotation")
    return total


def square_frames(
    path: Path, numbers: Iterable[int], size: int, bbox: Box | None = None, margin: float = MARGIN, threads: int = 0
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (number, image) as `frames_at` does; images are uint8 (size, size, 3) RGB, cropped as by `read_clip`.

    Raises StudyError as `probe` does, or when the box lies outside the image.
    """
    form = graph = None
    for number, frame in frames_at(path, numbers, threads):
        try:
            current = frame.format.name, frame.width, frame.height, orientation(frame)
            if form != current:  # some files change it midway
                form, graph = current, _crop_and_scale(frame, bbox, margin, size)
            graph.vpush(frame)
            image = graph.vpull().to_ndarray()
        except (av.FFmpegError, ValueError) as error:
            raise StudyError(f"{path}: cannot be cropped ({error}); correct the box or leave the clip out") from error
        yield number, as_shown(image, frame)


def frames_at(path: Path, numbers: Iterable[int], threads: int = 0) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield (number, frame) for those of the frames `numbers` that the file has, in ascending order, not yet upright.

    Decoding uses `threads` threads (0: one for each core) and stops after the last frame wanted.
    Raises StudyError as `probe` does; ValueError when `numbers` is empty.
    """
    wanted = frozenset(int(number) for number in numbers)
    last = max(wanted)
    with _opened(path) as stream:
        for number, frame in enumerate(_Reading(path, stream, threads).decode()):
            if number in wanted:
                yield number, frame
            if number >= last:
                return


def square(bbox: Box, width: int, height: int, margin: float = MARGIN) -> tuple[int, int, int]:
    """Find the square around a box: x and y of its upper left corner and its side, in pixels, inside the image.

    The side is the box's longer side plus `margin` of it at both ends, at most the image's shorter side. The square is
    centred on the box, but shifted to stay inside the image, so nothing is ever padded.
    Raises ValueError unless xmin < xmax and ymin < ymax within the image of `width` × `height` pixels.
    """
    low = np.clip(np.asarray(bbox[:2], float), 0, (width, height))
    high = np.clip(np.asarray(bbox[2:], float), 0, (width, height))
    if len(bbox) != 4 or not (low < high).all():
        raise ValueError(f"box {[float(v) for v in bbox]} lies outside the {width} × {height} image")
    side = max(1, min(round((high - low).max() * (1 + 2 * margin)), width, height))
    corner = np.clip(np.round((low + high - side) / 2), 0, (width - side, height - side))
    return int(corner[0]), int(corner[1]), side


def _crop_and_scale(frame: av.VideoFrame, bbox: Box | None, margin: float, size: int) -> av.filter.Graph:
    """FFmpeg's filters for frames like this one: crop, then scale by area, then convert the colours."""
    width, height = upright_size(frame)
    box, margin = ((0, 0, width, height), 0.0) if bbox is None else (bbox, margin)
    x, y, side = square(box, width, height, margin)
    x, y = stored_corner(frame, x, y, side)
    graph = av.filter.Graph()
    graph.threads = 1  # threads do not pay off for one small image
    steps = [
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)),
        graph.add("crop", f"w={side}:h={side}:x={x}:y={y}:exact=1"),
        graph.add("scale", f"w={size}:h={size}:flags={SCALING}"),
        graph.add("format", "pix_fmts=rgb24"),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*steps).configure()
    return graph


def _rate(
    stream: av.VideoStream, count: int, first: av.VideoFrame, last: av.VideoFrame, notes: list[str]
) -> float | None:
    """Frames a second: as stated, unless the times of the frames say otherwise."""
    stated = float(stream.average_rate or stream.guessed_rate or 0) or None
    if count < 3 or first.pts is None or last.pts is None or last.pts <= first.pts:
        return stated
    timed = float((count - 1) / ((last.pts - first.pts) * (stream.time_base or 1)))
    if stated and abs(timed / stated - 1) < RATE_TOLERANCE:
        return stated
    if stated:
        notes.append(f"{timed:.4g} frames a second by their times, not {stated:.4g}")
    return timed


@contextmanager
def _opened(path: Path) -> Iterator[av.VideoStream]:
    """Open the first video stream of a file."""
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise StudyError(f"{path}: cannot be opened as a video ({error.strerror}); download it again") from error
    with container:
        if not container.streams.video:
            raise StudyError(f"{path}: contains no video stream; download it again")
        cover = av.stream.Disposition.attached_pic  # a still image, which may come first
        stream = min(container.streams.video, key=lambda stream: bool(stream.disposition & cover))
        if stream.codec_context is None:
            raise StudyError(f"{path}: FFmpeg has no decoder for the video stream; convert it or download it again")
        yield stream


class _Reading:
    """One pass over the packets of a video stream, and what it finds."""

    def __init__(self, path: Path, stream: av.VideoStream, threads: int = 0) -> None:
        self.path, self.stream, self.threads = Path(path), stream, threads  # 0: one for each core
        self.notes: list[str] = []
        self.packets = 0
        self.shown = 0  # packets that no edit list hides
        self.early = 0  # packets before the first key frame
        self.end = 0.0  # of the last packet, in seconds

    def demux(self) -> Iterator[av.Packet]:
        """Yield all packets, then check that the file is whole."""
        keyed, end = False, 0
        try:
            for packet in self.stream.container.demux(self.stream):
                if packet.size:  # an empty one would end the decoding
                    self.packets += 1
                    self.shown += not packet.is_discard
                    keyed = keyed or packet.is_keyframe
                    self.early += not keyed
                    end = max(end, (packet.pts if packet.pts is not None else packet.dts or 0) + (packet.duration or 0))
                    yield packet
        except av.FFmpegError as error:
            raise StudyError(f"{self.path}: cannot be read to its end ({error.strerror}); download it again") from error
        self.early *= keyed  # a stream without key frames begins anywhere
        self.end = float(end * (self.stream.time_base or 0))
        self._check_whole()

    def decode(self) -> Iterator[av.VideoFrame]:
        """Yield every decodable frame, then check that enough of them were."""
        self.stream.thread_type, self.stream.codec_context.thread_count = "AUTO", self.threads
        bad = found = spoilt = 0
        first = None
        for packet in chain(self.demux(), [None]):  # None: the frames that the decoder still holds
            try:
                decoded = self.stream.decode(packet)
            except av.FFmpegError:
                if self.threads != 1:
                    yield from self._decode_again(found)
                    return
                bad += 1
                continue
            if decoded:
                first = first or decoded[0]
                found += len(decoded)
                spoilt += sum(frame.is_corrupt for frame in decoded)
                yield from decoded
        if self.threads != 1 and found < self.shown - self.early:
            yield from self._decode_again(found)
            return
        bad, spoilt = max(0, bad - self.early), max(0, spoilt - self.early)
        if found == 0 or bad > max(1, BAD_PACKETS_TOLERANCE * self.packets):
            problem = f"damaged, {bad if found else self.packets} of {self.packets} packets cannot be decoded"
            raise StudyError(f"{self.path}: {problem}; download it again")
        self.notes += oddities(first)
        if lost := min(self.early, self.shown - found):
            self.notes.append(f"read from its first key frame: {lost} packets before it are lost")
        elif self.early:
            self.notes.append(f"its first {self.early} frames need a key frame that is missing")
        if bad + spoilt:
            self.notes.append(f"{bad + spoilt} of {self.packets} packets are damaged, {found} frames are left")

    def _decode_again(self, found: int) -> Iterator[av.VideoFrame]:
        """Start anew with one thread, and yield the frames after the first `found`.

        With several threads, intact frames are lost with a damaged packet, how many depends on the number of threads.
        """
        with _opened(self.path) as stream:
            again = _Reading(self.path, stream, threads=1)
            again.notes = self.notes
            again.notes.clear()
            yield from islice(again.decode(), found, None)

    def _check_whole(self) -> None:
        """Refuse a file whose picture ends early, by its own list of frames, times and size, never by a nominal rate.

        The container's length, which may be that of a longer sound track, counts only where the file is cut off.
        """
        size, container = self.path.stat().st_size, self.stream.container
        if "mp4" in container.format.name:
            if self.packets < len(self.stream.index_entries):
                self._check_listed(size)
            return
        promised = stated_size(self.path)
        own = own_length(self.stream, size < promised)
        if size < promised or own:
            length = min(filter(None, [*own, (container.duration or 0) / av.time_base]), default=0)
            there = min(self.end / length if length else 1, 1 if own else size / promised)
            if there < CUT_TOLERANCE:
                raise self._cut_short(round(self.packets / max(there, 0.01)))
        if size < promised:
            self.notes.append(f"cut off near its end, {size} of {promised} bytes are there")

    def _check_listed(self, size: int) -> None:
        """The same by the list of frames of an mp4, which has fewer packets than that."""
        entries = [entry for entry in self.stream.index_entries if entry.size]
        if self.packets < len(entries):
            if any(entry.pos + entry.size > size for entry in entries):
                raise self._cut_short(len(entries))
            self.notes.append(f"{self.packets} of {len(entries)} frames are in the file")

    def _cut_short(self, frames: int) -> StudyError:
        found = f"{self.packets} of {frames} frames are in the file"
        return StudyError(f"{self.path}: cut short, {found}; download it again")
