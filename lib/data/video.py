"""Video files, decoded with PyAV: probe a file, read its frames, or read a clip: trimmed, cropped to a square, scaled.

Frames are numbered from 0 in display order, as a player or `ffmpeg -fps_mode passthrough` shows them: without those
that an edit list hides, and without those that need a missing first key frame. Images are as shown, too (see
`lib.data.picture`): turned and mirrored by the file's display matrix, HDR in the usual range. Pixels are assumed to be
square, as OpenCV and WLASL's boxes assume.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from lib.data.picture import as_shown, oddities, orientation, upright_size
from lib.settings import StudyError

Box = Sequence[float]  # xmin, ymin, xmax, ymax in pixels of the upright image

# What FFmpeg reads; of several files for one clip, the first in this order counts.
SUFFIXES = (
    ".mp4", ".mkv", ".webm", ".mov", ".avi", ".swf", ".m4v", ".mpg", ".mpeg", ".wmv", ".asf", ".3gp", ".3g2", ".gif",
    ".flv", ".f4v", ".ts", ".mts", ".m2ts", ".vob", ".ogv", ".mxf", ".dv", ".mjpeg", ".m1v", ".m2v", ".nut", ".qt",
)  # fmt: skip
# Share of a file's bytes and its length that has to be there: lengths are rounded, and the last frames matter little.
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
        fps, note = _rate(stream, count, first.pts, frame.pts)
        return VideoInfo(fps, count, *upright_size(first), "; ".join([*reading.notes, *note]))


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
    transposed, mirror_x, mirror_y = orientation(frame)
    x, y = width - side - x if mirror_x else x, height - side - y if mirror_y else y
    x, y = (y, x) if transposed else (x, y)  # in the stored image
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


def _rate(stream: av.VideoStream, count: int, first: int | None, last: int | None) -> tuple[float | None, list[str]]:
    """Frames a second as stated, unless the times of the first and the last frame say otherwise; and a note on that."""
    stated = float(stream.average_rate or stream.guessed_rate or 0) or None
    span = 0 if None in (first, last) else float((last - first) * stream.time_base)  # seconds
    timed = (count - 1) / span if count > 2 and span > 0 else stated
    if not stated or not timed or abs(timed / stated - 1) < RATE_TOLERANCE:
        return stated or timed, []
    return timed, [f"{timed:.4g} frames a second by their times, not {stated:.4g}"]


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
    """One pass over the packets of a video stream, and the notes on what it finds."""

    def __init__(self, path: Path | str, stream: av.VideoStream, threads: int = 0) -> None:
        self.path, self.stream, self.threads = Path(path), stream, threads  # 0: one for each core
        self.notes: list[str] = []
        # Packets in all; that no edit list hides; before the first key frame; incomplete. When the last ends, seconds.
        self.packets, self.shown, self.early, self.partial, self.end = 0, 0, 0, 0, 0.0

    def demux(self) -> Iterator[av.Packet]:
        """Yield all packets, then check that the file is whole."""
        keyed, times, longest = False, [], 0
        try:
            for packet in self.stream.container.demux(self.stream):
                if packet.size:  # an empty one would end the decoding
                    self.packets += 1
                    self.shown += not packet.is_discard
                    self.partial += packet.is_corrupt
                    keyed = keyed or packet.is_keyframe
                    self.early += not keyed
                    times.append(packet.pts if packet.pts is not None else packet.dts or 0)
                    longest = max(longest, packet.duration or 0)
                    yield packet
        except av.FFmpegError as error:
            raise StudyError(f"{self.path}: cannot be read to its end ({error.strerror}); download it again") from error
        self.early *= keyed  # a stream without key frames begins anywhere
        if times:  # a last packet that states no duration lasts as long as the others
            longest = max(longest, (max(times) - min(times)) / max(1, len(times) - 1))
            self.end = float((max(times) + longest) * (self.stream.time_base or 0))
        if self.packets < (expected := self._expected()):
            found = f"{self.packets} of {expected} frames are in the file"
            raise StudyError(f"{self.path}: cut short, {found}; download it again")

    def decode(self) -> Iterator[av.VideoFrame]:
        """Yield every decodable frame, then check that enough of them were."""
        self.stream.thread_type, self.stream.codec_context.thread_count = "AUTO", self.threads
        first, bad, spoilt, found = None, 0, 0, 0
        for packet in chain(self.demux(), [None]):  # None: the frames that the decoder still holds
            try:
                decoded = self.stream.decode(packet)
            except av.FFmpegError:
                bad += 1
                if self.threads != 1:
                    break
                continue
            first = first or next(iter(decoded), None)
            found += len(decoded)
            spoilt += sum(frame.is_corrupt for frame in decoded)
            yield from decoded
        if self.threads != 1 and (bad or found < self.shown - self.early):
            # Several threads lose intact frames with a damaged packet, more or fewer of them on different machines.
            with _opened(self.path) as stream:
                again = _Reading(self.path, stream, threads=1)
                yield from islice(again.decode(), found, None)
            self.notes = again.notes
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
        if damaged := max(bad + spoilt, self.partial):
            self.notes.append(f"{damaged} of {self.packets} packets are damaged, {found} frames are left")

    def _expected(self) -> int:
        """Frames that a file ought to have by its own list of frames, times and size, 0 if nothing says it lacks any.

        The container's length, which may be that of a longer sound track, counts only where the file is cut off.
        """
        size, container, listed = self.path.stat().st_size, self.stream.container, self.stream.index_entries
        if "mp4" in container.format.name:
            return sum(entry.size > 0 for entry in listed) if self.packets < len(listed) else 0
        stated, there = _stated_size(self.path), 1.0
        if size < stated:
            self.notes.append(f"cut off near its end, {size} of {stated} bytes are there")
            listed = []  # an AVI's list stands at its end; this one is of what has been read
        tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", self.stream.metadata.get("DURATION", ""))  # of Matroska
        own = [3600 * int(tag[1]) + 60 * int(tag[2]) + float(tag[3])] if tag else []
        if container.format.name == "avi":  # lists its frames, but for those dropped
            own = [float(entry.timestamp * self.stream.time_base) for entry in listed[-1:]]
        if size < stated or own:
            length = min(filter(None, [*own, (container.duration or 0) / av.time_base]), default=0)
            by_time = self.end / length if self.end and length else None  # None: a single frame without a duration
            there = by_time if by_time is not None and own else min(by_time or 1, size / stated if stated else 1)
        return round(self.packets / max(there, 0.01)) if there < CUT_TOLERANCE else 0


def _stated_size(path: Path) -> int:
    """Bytes that a file has by its header, 0 where that states none: AVI, Matroska and WebM, WMV, uncompressed SWF."""
    with path.open("rb") as file:
        head = file.read(1 << 14)
    if head.startswith((b"RIFF", b"FWS")):
        return int.from_bytes(head[4:8], "little") + 8 * head.startswith(b"RIFF")
    if head.startswith(b"\x30\x26\xb2\x75") and (at := head.find(b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11")) > 0:
        return int.from_bytes(head[at + 40 : at + 48], "little")  # in the object with the file's properties
    if head.startswith(b"\x1a\x45\xdf\xa3") and 4 < (at := head.find(b"\x18\x53\x80\x67") + 4) < len(head):  # a segment
        more = 8 - head[at].bit_length()  # further bytes of its size, which is all ones where it was streamed
        value = int.from_bytes(head[at : at + 1 + more], "big") & (ones := (1 << 7 * (more + 1)) - 1)
        return at + 1 + more + value if value < ones else 0
    return 0
