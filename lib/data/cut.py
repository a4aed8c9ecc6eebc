"""Cutting one sign out of a video that holds many, as WLASL's own preprocess.py does."""

from fractions import Fraction
from pathlib import Path

import av

from lib.data.sources import ROUNDING_OVERSHOOT, to_file_frames
from lib.data.video import frames_at
from lib.settings import StudyError

QUALITY = "18"  # of x264, at which a copy can hardly be told from what it was made of


def cut_out(source: Path, target: Path, *, start: int, end: int, fps: float) -> None:
    """Write the frames start to end of the video `source` to `target` (H.264 in mp4, no sound), at the source's rate.

    `start` and `end` are as annotated: 1-based and inclusive, counted at `fps` frames per second.
    Raises StudyError ("<source>: reason") when the source cannot be read or ends well before the last of them.
    """
    rate = _rate(source)
    first, stop = to_file_frames(start, end, fps=fps, file_fps=float(rate), n_frames=None)
    with av.open(str(target), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": QUALITY})
        written = 0
        for number, frame in frames_at(source, range(first, stop)):
            if not written:
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
            container.mux(stream.encode(_renumbered(frame, number - first, rate)))
            written += 1
        if stop - first > ROUNDING_OVERSHOOT * written:
            raise StudyError(f"{source}: has {written} of the frames {first} to {stop} that are annotated")
        container.mux(stream.encode())


def _rate(path: Path) -> Fraction:
    """Frames per second as the file names them."""
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
    if not rate:
        raise StudyError(f"{path}: the file names no frame rate, so the sign cannot be found in it")
    return rate


def _renumbered(frame: av.VideoFrame, number: int, rate: Fraction) -> av.VideoFrame:
    frame.pts, frame.time_base = number, 1 / rate
    frame.pict_type = av.video.frame.PictureType.NONE  # else the source's key frames would be forced upon the copy
    return frame
