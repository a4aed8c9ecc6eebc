"""Decoding video files with PyAV: what a file holds, and its frames."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from lib.study import StudyError

SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".swf")
# The header of a file without a frame count promises only a duration, which may include a longer sound track.
DURATION_TOLERANCE = 0.9
# A damaged packet costs a frame or two and the clip stays usable; real WLASL files end with one.
BAD_PACKETS_TOLERANCE = 0.05


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
            count, size = count + 1, (frame.width, frame.height)
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
            yield frame.to_ndarray(format="rgb24")


def _open(path: Path) -> av.container.InputContainer:
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise StudyError(f"{path}: cannot be opened as a video ({error.strerror}); download it again") from error
    if not container.streams.video:
        container.close()
        raise StudyError(f"{path}: holds no video stream; download it again")
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
    promised = stream.frames or _frames_by_duration(container, stream)
    if tally.packets < promised:
        raise StudyError(f"{path}: cut short, {tally.packets} of {promised} frames are in the file; download it again")
    if tally.frames == 0 or tally.bad_packets > max(1, BAD_PACKETS_TOLERANCE * tally.packets):
        raise StudyError(
            f"{path}: damaged, {tally.bad_packets} of {tally.packets} packets cannot be decoded; download it again"
        )


def _frames_by_duration(container: av.container.InputContainer, stream: av.VideoStream) -> int:
    """The least number of frames that a header with a duration but no frame count (mkv, webm) promises."""
    if not container.duration or not stream.average_rate:
        return 0
    seconds = container.duration / av.time_base
    return math.floor(DURATION_TOLERANCE * seconds * stream.average_rate)
