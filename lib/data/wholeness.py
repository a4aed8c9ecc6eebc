"""What a video file says of its own size and length, which shows whether it was cut off."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import av

ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")


def stated_size(path: Path) -> int:
    """Bytes that a file has by its outermost structure, 0 where it states none.

    Known are AVI (RIFF), Matroska and WebM (EBML), WMV (ASF) and uncompressed SWF.
    """
    with path.open("rb") as file:
        head = file.read(16)
        try:
            return next((read(file) for magic, read in READERS.items() if head.startswith(magic)), 0)
        except (OSError, OverflowError, ValueError, IndexError):  # a senseless number, or no more bytes
            return 0


def own_length(stream: av.VideoStream, is_cut: bool) -> list[float]:
    """When the picture ends, in seconds, by what a file says of this stream alone: one number, or none.

    Known are a tag of Matroska files and the index of AVI files, which lists dropped frames as empty ones. It stands
    at the end, so a file that is cut does not have it, and FFmpeg lists what it has read instead.
    """
    if stream.container.format.name == "avi":
        listed = [] if is_cut else [entry.timestamp for entry in stream.index_entries if entry.size]
        return [float(listed[-1] * stream.time_base)] if listed else []
    tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
    return [3600 * int(tag[1]) + 60 * int(tag[2]) + float(tag[3])] if tag else []


def _riff(file: BinaryIO) -> int:
    """AVI: a chunk, or one for each gigabyte."""
    end = 0
    file.seek(0)
    while len(head := file.read(8)) == 8 and head[:4] == b"RIFF":
        size = int.from_bytes(head[4:], "little")
        end = file.seek(end + 8 + size)
    return end


def _ebml(file: BinaryIO) -> int:
    """Matroska: a header and one segment, whose size is unknown where it was streamed."""
    file.seek(4)
    file.seek(_vint(file), 1)
    if file.read(4) != b"\x18\x53\x80\x67":
        return 0
    size = _vint(file)
    return file.tell() + size if size else 0


def _vint(file: BinaryIO) -> int:
    """An EBML number, whose leading zeros count its further bytes; 0 for the one that means unknown."""
    first = file.read(1)[0]
    length = 8 - first.bit_length()
    bits = 7 * (length + 1)
    value = int.from_bytes(bytes([first]) + file.read(length), "big") & ((1 << bits) - 1)
    return value if value != (1 << bits) - 1 else 0


def _asf(file: BinaryIO) -> int:
    """WMV: the header and the data; an index may follow."""
    end = 0
    for _ in range(2):
        file.seek(end + 16)
        end += int.from_bytes(file.read(8), "little")
    return end


def _swf(file: BinaryIO) -> int:
    file.seek(4)
    return int.from_bytes(file.read(4), "little")


READERS: dict[bytes, Callable[[BinaryIO], int]] = {
    b"RIFF": _riff, b"\x1a\x45\xdf\xa3": _ebml, ASF_HEADER: _asf, b"FWS": _swf,
}  # fmt: skip
