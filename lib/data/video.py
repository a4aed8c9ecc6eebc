"""Decoding video files with PyAV: what a file holds, its frames, and clips: trimmed, cropped square, scaled.

Frames are numbered from 0 as they decode. Images are upright: a rotation that the file asks for has been applied.
Pixels are taken to be square, as OpenCV and WLASL's boxes take them.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from lib.settings import StudyError

SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".swf")
# The header of a file without a frame count promises only a duration, which may include a longer sound track.
DURATION_TOLERANCE = 0.9
# A damaged packet costs a frame or two and the clip stays usable; real WLASL files end with one.
BAD_PACKETS_TOLERANCE = 0.05
# Of a box's longer side, on each side: room for a hand that leaves the box.
MARGIN = 0.1
# area averages where it shrinks; without the other two FFmpeg's quick conversion darkens by up to two levels.
SCALING = "area+accurate_rnd+full_chroma_int"


@dataclass(frozen=True)
class VideoInfo:
    """What decoding a file to its end found: frames per second, number of decodable frames, size in
    pixels."""

    fps: float
    frames: int
    width: int
    height: int


@dataclass
class _Tally:
    """What has been read of a stream so far."""

    packets: int = 0
    bad_packets: int = 0
    frames: int = 0


def probe(path: Path) -> VideoInfo:
    """Decode the whole file at `path` and say what it holds.

    `frames` counts the frames that `frames(path)` yields. It may be a few less than the header's count: a
    stream may begin before its first key frame (8 of the 55 real WLASL clips at hand do).
    Raises StudyError ("<path>: reason") when the file is absent, not a video, cut short, or largely
    undecodable.
    """
    with _open(path) as container:
        stream = container.streams.video[0]
        count, size = 0, (0, 0)
        for frame in _decode(path, container):
            count, size = count + 1, _upright_size(frame)
        rate = stream.average_rate or stream.guessed_rate
        if not rate:
            raise StudyError(f"{path}: the file names no frame rate; re-encode it or remove it")
        return VideoInfo(float(rate), count, *size)


def frames(path: Path) -> Iterator[np.ndarray]:
    """Yield the frames of the file at `path` in display order, each uint8 (height, width, 3) RGB.

    Raises StudyError as `probe` does; a file cut short raises after its last decodable frame.
    """
    with _open(path) as container:
        for frame in _decode(path, container):
            yield np.rot90(frame.to_ndarray(format="rgb24"), _turns(frame))


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
    bbox: Sequence[float] | None = None,
    margin: float = MARGIN,
) -> np.ndarray:
    """Read the middle frames of `frames` equal spans of [start, end), cropped square and scaled to `size` pixels.

    `start` and `end` are 0-based and half-open, in frames of the file, as in the index; an `end` of None or -1, or
    past the file's, is the file's. `bbox`: xmin, ymin, xmax, ymax in pixels of the upright image; see `square`.
    Without it the crop is the largest square in the middle. Decoding stops after the last frame needed.
    Returns uint8 (frames, size, size, 3) RGB.
    Raises StudyError ("<path>: reason") when the file cannot be read (see `probe`), the segment begins after its
    last frame or the box holds nothing of the image; ValueError when frames < 1, size < 1, start < 0 or end <= start.
    """
    path = Path(path)
    whole = end is None or end == -1
    if start < 0 or size < 1:
        raise ValueError(f"need start >= 0 and size >= 1, got start={start}, size={size}")
    stop = max(_count_packets(path), start + 1) if whole else end
    chosen = sample_frames(start, stop, frames)
    images = dict(square_frames(path, chosen, size, bbox=bbox, margin=margin))
    if not images.keys() >= set(chosen):  # the file ends earlier than it, or the caller, says
        stop = min(stop, segment_end(path, start))
        chosen = sample_frames(start, stop, frames)
        images = dict(square_frames(path, chosen, size, bbox=bbox, margin=margin))
    return np.stack([images[number] for number in chosen])


def segment_end(path: Path, start: int) -> int:
    """The number of decodable frames. Raises StudyError as `probe` does, or when `start` lies behind them."""
    total = probe(path).frames
    if start >= total:
        raise StudyError(f"{path}: the segment begins at frame {start}, the file has {total}; correct the annotation")
    return total


def square_frames(
    path: Path,
    numbers: Iterable[int],
    size: int,
    *,
    bbox: Sequence[float] | None = None,
    margin: float = MARGIN,
    threads: int = 0,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (number, image) of those of the frames `numbers` that the file has, in ascending order.

    An image is uint8 (size, size, 3) RGB, cropped to `square` of the box. FFmpeg crops, then scales by area, before
    any colour is computed. Decoding uses `threads` threads (0: as many as there are cores) and stops after the last
    frame wanted. Raises StudyError as `read_clip` does, but not when frames are absent.
    """
    scale = _Scaler(path, size, bbox, margin)
    for number, frame in frames_at(path, numbers, threads):
        yield number, scale(frame)


def frames_at(path: Path, numbers: Iterable[int], threads: int = 0) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield (number, frame) of those of the frames `numbers` that the file has, in ascending order.

    Frames are as they are stored, not turned upright. Decoding uses `threads` threads (0: as many as there are cores)
    and stops after the last frame wanted. Raises StudyError as `probe` does; ValueError when `numbers` is empty.
    """
    wanted = frozenset(int(number) for number in numbers)
    last = max(wanted)
    with _open(path) as container:
        container.streams.video[0].codec_context.thread_count = threads
        for number, frame in enumerate(_decode(path, container)):
            if number in wanted:
                yield number, frame
            if number >= last:
                return


def square(bbox: Sequence[float], width: int, height: int, margin: float = MARGIN) -> tuple[int, int, int]:
    """The square about a box: x and y of its upper left corner and its side, in pixels, inside the image.

    Its side is the box's longer one and `margin` of it on each side, at most the image's shorter side; it has the
    box's middle, moved as little as keeps it inside the image. So nothing is ever padded, and a box wider than the
    image is high loses as much at both ends.
    Raises ValueError unless xmin < xmax and ymin < ymax within the image of `width` × `height` pixels.
    """
    low = np.clip(np.asarray(bbox[:2], float), 0, (width, height))
    high = np.clip(np.asarray(bbox[2:], float), 0, (width, height))
    if len(bbox) != 4 or not (low < high).all():
        raise ValueError(f"box {[float(v) for v in bbox]} holds nothing of the {width} × {height} image")
    side = max(1, min(round((high - low).max() * (1 + 2 * margin)), width, height))
    corner = np.clip(np.round((low + high - side) / 2), 0, (width - side, height - side))
    return int(corner[0]), int(corner[1]), side


class _Scaler:
    """Crops frames of one file square and scales them, in FFmpeg; made anew where the file changes its image size."""

    def __init__(self, path: Path, size: int, bbox: Sequence[float] | None, margin: float) -> None:
        self.path, self.size, self.bbox, self.margin = path, size, bbox, margin
        self.form: tuple[str, int, int] | None = None

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """The frame as uint8 (size, size, 3) RGB, upright."""
        form = (frame.format.name, frame.width, frame.height)
        try:
            if form != self.form:
                self.form, self.graph = form, _crop_and_scale(frame, self._crop(frame), self.size)
            self.graph.vpush(frame)
            image = self.graph.vpull().to_ndarray()
        except (av.FFmpegError, ValueError) as error:
            raise StudyError(
                f"{self.path}: cannot be cropped ({error}); correct the box or leave the clip out"
            ) from error
        return np.rot90(image, _turns(frame))

    def _crop(self, frame: av.VideoFrame) -> tuple[int, int, int]:
        """The square in the frame as it is stored, before it is turned upright."""
        width, height = _upright_size(frame)
        box, margin = ((0, 0, width, height), 0.0) if self.bbox is None else (self.bbox, self.margin)
        x, y, side = square(box, width, height, margin)
        for _ in range(_turns(frame)):  # back by one quarter turn clockwise
            x, y, width, height = height - y - side, x, height, width
        return x, y, side


def _crop_and_scale(frame: av.VideoFrame, crop: tuple[int, int, int], size: int) -> av.filter.Graph:
    x, y, side = crop
    graph = av.filter.Graph()
    graph.threads = 1  # one small image does not repay the threads
    steps = [
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)),
        graph.add("crop", f"w={side}:h={side}:x={x}:y={y}:exact=1"),
        graph.add("scale", f"w={size}:h={size}:flags={SCALING}"),
        graph.add("format", "pix_fmts=rgb24"),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*steps).configure()
    return graph


def _turns(frame: av.VideoFrame) -> int:
    """Quarter turns, anticlockwise, that bring the frame upright, as the file's display matrix says."""
    return round(frame.rotation / 90) % 4


def _upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    return (frame.height, frame.width) if _turns(frame) % 2 else (frame.width, frame.height)


def _count_packets(path: Path) -> int:
    """How many frames a whole file seems to have by its packets, without decoding any; at least 1."""
    with _open(path) as container:
        stream = container.streams.video[0]
        shown = [not packet.is_discard for packet in _packets(path, container, stream) if packet.size]
        _check_not_cut(path, container, stream, len(shown))
        return max(1, sum(shown))


def _open(path: Path) -> av.container.InputContainer:
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise StudyError(f"{path}: cannot be opened as a video ({error.strerror}); download it again") from error
    if not container.streams.video:
        container.close()
        raise StudyError(f"{path}: holds no video stream; download it again")
    if container.streams.video[0].codec_context is None:
        container.close()
        raise StudyError(
            f"{path}: holds a video stream that FFmpeg has no decoder for; convert it or download it again"
        )
    return container


def _decode(path: Path, container: av.container.InputContainer) -> Iterator[av.VideoFrame]:
    """Every decodable frame of the first video stream, then the check that the file was whole."""
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    tally = _Tally()
    for packet in _packets(path, container, stream):
        tally.packets += bool(packet.size)
        try:
            decoded = packet.decode()
        except av.FFmpegError:
            tally.bad_packets += 1
            continue
        tally.frames += len(decoded)
        yield from decoded
    _check_whole(path, container, stream, tally)


def _packets(path: Path, container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    try:
        yield from container.demux(stream)
    except av.FFmpegError as error:
        raise StudyError(f"{path}: cannot be read to its end ({error.strerror}); download it again") from error


def _check_whole(path: Path, container: av.container.InputContainer, stream: av.VideoStream, tally: _Tally) -> None:
    _check_not_cut(path, container, stream, tally.packets)
    if tally.frames == 0 or tally.bad_packets > max(1, BAD_PACKETS_TOLERANCE * tally.packets):
        raise StudyError(
            f"{path}: damaged, {tally.bad_packets} of {tally.packets} packets cannot be decoded; download it again"
        )


def _check_not_cut(path: Path, container: av.container.InputContainer, stream: av.VideoStream, packets: int) -> None:
    promised = stream.frames or _frames_by_duration(container, stream)
    if packets < promised:
        raise StudyError(f"{path}: cut short, {packets} of {promised} frames are in the file; download it again")


def _frames_by_duration(container: av.container.InputContainer, stream: av.VideoStream) -> int:
    """The least number of frames that a header with a duration but no frame count (mkv, webm) promises."""
    if not container.duration or not stream.average_rate:
        return 0
    seconds = container.duration / av.time_base
    return math.floor(DURATION_TOLERANCE * seconds * stream.average_rate)
