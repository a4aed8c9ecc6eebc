"""Generated videos of every form: each codec in each container, read as Debian's `ffmpeg`, a second reader, reads them.

A clip is one number: it chooses codec, container, size, length, rate, orientation, and whether the file is cut. The
suite takes some of them; `VIDEO_FORMS=1000 pytest tests/test_video_forms.py -s` takes a thousand, and says how they
ended.
"""

import collections
import itertools
import math
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lib.data.video import SCALING, SUFFIXES, frames, probe, read_clip
from lib.settings import StudyError

COUNT = int(os.environ.get("VIDEO_FORMS", "60"))
CONTAINERS = (*SUFFIXES, ".ivf", ".ogg", ".apng", ".wtv")
SIZES = [(64, 48), (65, 49), (33, 80), (16, 16), (128, 96), (177, 145)]
FIXED = {"dvvideo": (720, 576), "dnxhd": (1920, 1080)}
TOLERANCE = 2  # levels
CUT = 1 / 3  # share of the files that are cut at a random byte
COMMON = {
    "libx264",
    "libx265",
    "libvpx",
    "libvpx-vp9",
    "mpeg4",
    "mpeg2video",
    "mjpeg",
    "wmv2",
    "flv",
    "gif",
    "h263p",
    "ffv1",
}
RATES = [30, 25, 1000, Fraction(24000, 1001), 1, Fraction(25, 2)]
ONE = 1 << 16  # of a display matrix
MATRICES = [
    None, (ONE, 0, 0, ONE), (-ONE, 0, 0, ONE), (ONE, 0, 0, -ONE), (-ONE, 0, 0, -ONE),
    (0, ONE, ONE, 0), (0, -ONE, ONE, 0), (0, ONE, -ONE, 0), (0, -ONE, -ONE, 0),
]  # fmt: skip


def image(number, width, height):
    """A smooth image without any symmetry, which says its number."""
    y, x = np.mgrid[:height, :width] / max(width, height, 128)
    planes = 40 + 150 * x, 60 + 100 * y + 60 * x * x, np.full_like(x, 30 + 20 * (number % 10))
    return np.stack(planes, axis=-1).astype(np.uint8)


def write(path, codec, pix_fmt, count, size, rate, matrix):
    """Write a video. Raises av.FFmpegError or ValueError when FFmpeg does not write this form."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.qmin, stream.codec_context.qmax = 1, 4
        stream.codec_context.bit_rate = 4_000_000
        if matrix:
            a, b, c, d = matrix
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(image(number, *size), format="rgb24")
            frame = frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = number, 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def encoders():
    """Name -> pixel formats of the video encoders that need no hardware.

    Left out are VC-2, whose decoder is not deterministic with several threads, DXV, whose decoders differ at odd sizes,
    grey formats, on whose range versions of FFmpeg do not agree (and of which x264 damages the memory), and those with
    fewer than 8 bits, whose steps exceed the tolerance.
    """
    found = {}
    for name in sorted(av.codec.codecs_available - {"vc2", "dxv"}):
        with suppress(ValueError):
            codec = av.Codec(name, "w")
            if codec.type == "video" and codec.name == name and not re.search("_(amf|nvenc|qsv|vaapi|v4l2m2m)$", name):
                fine = [form for form in codec.video_formats or () if min(part.bits for part in form.components) >= 8]
                found[name] = [form.name for form in fine if "gray" not in form.name]
    return {name: formats for name, formats in found.items() if formats}


def write_forms(folder, first, count):
    """Write `count` videos from number `first` on. Each pair of codec and container comes before one repeats."""
    formats = encoders()
    pairs = [(codec, suffix) for codec in formats for suffix in CONTAINERS]
    pairs = [pairs[row] for row in np.random.default_rng(0).permutation(len(pairs))]
    pairs.sort(key=lambda pair: pair[0] not in COMMON)
    for number in itertools.count(first):
        print(f"\n{number}", flush=True)
        rng = np.random.default_rng(number)
        codec, suffix = pairs[number % len(pairs)]
        pix_fmt, rate = rng.choice(formats[codec]), RATES[rng.integers(len(RATES))]
        length, matrix = int(rng.choice([1, 2, 5, 9])), MATRICES[rng.integers(len(MATRICES))]
        path = folder / f"{number:05d}-{codec}{suffix}"
        for size in (SIZES[rng.integers(len(SIZES))], FIXED.get(codec, (176, 144))):
            with suppress(av.FFmpegError, ValueError, OverflowError, TypeError):
                write(path, codec, pix_fmt, length, size, rate, matrix)
                if path.is_file() and path.stat().st_size:
                    content = path.read_bytes()
                    if rng.random() < CUT:
                        path.rename(path.with_stem(path.stem + "-cut")).write_bytes(
                            content[: rng.integers(1, len(content))]
                        )
                    count -= 1
                    break
            path.unlink(missing_ok=True)
        if not count:
            return


def forms(folder, count):
    """Write videos in a process of their own, because some encoders damage the memory. Returns their paths."""
    first = 0
    while (missing := count - len(list(folder.iterdir()))) > 0:
        command = [sys.executable, __file__, folder, str(first), str(missing)]
        tried = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        first = max(int(line) for line in tried.splitlines() if line.isdecimal()) + 1
    return sorted(folder.iterdir())


def of_ffmpeg(path, shape, scaling):
    """The frames that the command `ffmpeg` shows, uint8 (frames, *shape), converted to RGB with flags of its scaler."""
    command = ["ffmpeg", "-v", "error", "-i", path, "-map", "0:v:0", "-fps_mode", "passthrough"]
    command += ["-vf", f"scale=flags={scaling}", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    pixels = np.frombuffer(subprocess.run(command, capture_output=True, check=False).stdout, np.uint8)
    return pixels[: len(pixels) // math.prod(shape) * math.prod(shape)].reshape(-1, *shape)


def difference(ours, theirs):
    """Largest mean difference of two frames of the same number, in levels."""
    return max((np.abs(our.astype(int) - their).mean() for our, their in zip(ours, theirs, strict=True)), default=0)


def outcome(path):
    """How a file is read, in a word, and in more."""
    try:
        info, images = probe(path), list(frames(path))
    except StudyError as error:
        reason = re.sub(r"\d[\d.]*", "n", str(error).removeprefix(f"{path}: ").partition(";")[0])
        return ("refused though ffmpeg reads it" if len(of_ffmpeg(path, (1,), "bicubic")) else "refused"), reason
    assert images[0].shape == (info.height, info.width, 3)
    assert len(images) == info.frames
    theirs = of_ffmpeg(path, images[0].shape, "bicubic")
    if len(theirs) == 0:
        return "read though ffmpeg does not", ""
    if len(theirs) != len(images):
        return "of another length", f"{len(images)} frames, of ffmpeg {len(theirs)} ({info.notes})"
    side = min(info.width, info.height)
    x, y = (info.width - side) // 2, (info.height - side) // 2
    clip = read_clip(path, frames=info.frames, size=side)
    # Of the last packet of a cut file each version makes something else; and U and V are enlarged in different ways.
    intact = max(0, len(images) - 2 * path.stem.endswith("-cut"))  # its frame may be shown before another
    inside = np.s_[:intact, y : y + side, x : x + side]
    whole = difference(images[:intact], theirs[:intact])
    both = theirs, of_ffmpeg(path, images[0].shape, SCALING)
    cropped = min(difference(clip[:intact], their[inside]) for their in both)
    return "equal" if max(whole, cropped) <= TOLERANCE else "different", f"by {whole:.1f}, cropped by {cropped:.1f}"


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="the command ffmpeg is not here")
def test_frames_of_every_form_are_those_of_ffmpeg_and_nothing_whole_is_refused(tmp_path):
    ends = collections.Counter()
    wrong = []
    for path in forms(tmp_path, COUNT):
        cut = "cut" if path.stem.endswith("-cut") else "whole"
        end, detail = outcome(path)
        ends[cut, end] += 1
        if end in ("different", "of another length") or (cut, end) == ("whole", "refused though ffmpeg reads it"):
            wrong.append(f"{path.name}: {end}, {detail}")
        print(path.name, end, detail)
    print(*(f"{count:5} {cut}, {end}" for (cut, end), count in sorted(ends.items())), sep="\n")
    assert wrong == []


if __name__ == "__main__":
    write_forms(Path(sys.argv[1]), *map(int, sys.argv[2:]))
