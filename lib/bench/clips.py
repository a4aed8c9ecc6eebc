"""Clips: batches from the clip store against OpenCV on the original videos

Ours: batches of 20 frames × 224² from the clip store, unvaried, and as the recipe `s3d` trains on them: cropped,
turned, mirrored and recoloured at random. Peer: what the published code does, which varies nothing: cv2.VideoCapture,
from a random start frame the next 20 frames, each scaled to fit 224², padded with black, BGR to RGB, divided by 255.
(Frames further apart would cost it more.) Both give float32 in [0, 1]; one thread each; the files are in memory.

A dozen made-up videos of lib.data.sample: as the sample draws them, 256², and enlarged to the sizes that WLASL's have
(of the real clips at hand a quarter has up to 320 × 240, 42 % up to 740 × 480, 31 % 1280 × 720 or 1920 × 1080), with
as much noise of a camera as makes the peer need as long as for the real ones: 63 ms of processor time a clip on the
machine below, on all 55 at hand.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from lib.bench.report import compare, machine, versions, write
from lib.bench.sides import Side, alternate
from lib.data.sample import SIZE, draw, encode, joints_of, plan_clips

CLIPS, FRAMES, SIDE, BATCH, CLASSES = 12, 20, 224, 4, 100
DRAWN = [(SIZE, SIZE)]
WLASL = [(1920, 1080), (288, 192), (720, 400), (1280, 720), (640, 480), (720, 400)]
WLASL += [(1920, 1080), (288, 192), (656, 370), (1280, 720), (640, 480), (320, 240)]
NOISE = 6  # standard deviation of each pixel, of 255
ROOM = 64  # pixels by which the field of noise is larger than a picture
PASSES = 2  # over the videos in a round
RECIPE = "s3d"  # whose variations are used


def main(name: str = "clips", rounds: int = 5, clips: int = CLIPS) -> Path:
    """Measure, and write the report."""
    where = machine()
    rows = [*measure("of WLASL's sizes", WLASL, NOISE, rounds, clips), *measure("as drawn", DRAWN, 0, rounds, clips)]
    return write(name, __doc__, rows, versions("opencv-python-headless", "av", "numpy", "keras"), where)


def measure(label: str, sizes: list[tuple[int, int]], noise: float, rounds: int, clips: int) -> list[dict]:
    """The rows of videos of these sizes."""
    with tempfile.TemporaryDirectory() as folder:
        make_videos(Path(folder), sizes, noise, clips)
        with (
            Side("lib.bench.clips:ours", folder=folder) as varied,
            Side("lib.bench.clips:ours", folder=folder, vary=False) as unvaried,
            Side("lib.bench.clips:published", folder=folder) as peer,
        ):
            taken = alternate({"training": varied, "unvaried": unvaried, "peer": peer}, "read", rounds)
    return [
        compare(f"videos {label}, {way}", taken[way], taken["peer"], "≥ 5", clips=PASSES * clips)
        for way in ("training", "unvaried")
    ]


def make_videos(folder: Path, sizes: list[tuple[int, int]], noise: float, clips: int) -> None:
    """Draw made-up clips as <folder>/<video_id>.mp4, each of the next of `sizes` (width, height) in pixels.

    noise: standard deviation of each pixel, of 255.
    """
    for clip, size in zip(plan_clips(0, 2)[:clips], cycle(sizes), strict=False):
        body, hands = joints_of(clip, 0)
        pictures = (enlarge(draw(b, h, clip.signer), size) for b, h in zip(body, hands, strict=True))
        encode(folder / f"{clip.video_id}.mp4", film(pictures, noise) if noise else pictures, clip.fps, size)


def enlarge(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A square picture as high as `size` (width, height) says, and at both sides its edge as far as that is wide."""
    width, height = size
    square = cv2.resize(picture, (height, height))
    left = (width - height) // 2
    return cv2.copyMakeBorder(square, 0, 0, left, width - height - left, cv2.BORDER_REPLICATE)


def film(pictures: Iterable[np.ndarray], noise: float) -> Iterator[np.ndarray]:
    """Pictures uint8 (height, width, 3) with noise that differs from one to the next: another part of one field."""
    rng = np.random.default_rng(0)
    field = None
    for picture in pictures:
        height, width = picture.shape[:2]
        if field is None:
            field = rng.normal(0, noise, (height + ROOM, width + ROOM, 3)).astype(np.int16)
        y, x = rng.integers(ROOM, size=2)
        yield cv2.add(picture, field[y : y + height, x : x + width], dtype=cv2.CV_8U)


def ours(folder: str, vary: bool = True) -> dict[str, Callable[[], None]]:
    """Our side: the clips are stored first, unless they are, which is no part of what is timed."""
    from lib.data.loaders import ClipBatches
    from lib.recipes import read_recipe

    cv2.setNumThreads(1)
    paths = store(Path(folder)) * PASSES
    labels = np.arange(len(paths)) % CLASSES
    how = read_recipe(RECIPE).augment if vary else None
    batches = ClipBatches(paths, labels, CLASSES, BATCH, frames=FRAMES, size=SIDE, vary=how, threads=1)

    def read() -> None:
        for number in range(len(batches)):
            batches[number]
        batches.on_epoch_end()

    return {"read": read}


def store(folder: Path) -> list[Path]:
    """Store every video of the folder in it. Returns the paths of the stored clips."""
    from lib.data.clip_store import build_clips, clip_path

    videos = sorted(folder.glob("*.mp4"))
    index = pd.DataFrame({"video_id": [video.stem for video in videos], "path": [str(video) for video in videos]})
    build_clips(index.assign(status="present", frame_start=0, frame_end=-1), folder, workers=1)
    return [clip_path(folder, video.stem) for video in videos]


def published(folder: str) -> dict[str, Callable[[], None]]:
    """The peer's side."""
    cv2.setNumThreads(1)
    videos = sorted(Path(folder).glob("*.mp4"))
    rng = np.random.default_rng(0)

    def read() -> None:
        for video in islice(cycle(videos), PASSES * len(videos)):
            read_published(video, FRAMES, SIDE, rng)

    return {"read": read}


def read_published(path: Path, frames: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Frames from a random one on, float32 (frames, size, size, 3) RGB in [0, 1]; black where the video has ended."""
    video = cv2.VideoCapture(str(path))
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    video.set(cv2.CAP_PROP_POS_FRAMES, int(rng.integers(max(1, count - frames + 1))))
    clip = np.zeros((frames, size, size, 3), np.float32)
    for image in clip:
        there, picture = video.read()
        if not there:
            break
        image[:] = letterbox(picture, size)
    video.release()
    return clip


def letterbox(picture: np.ndarray, size: int) -> np.ndarray:
    """uint8 (height, width, 3) BGR, scaled to fit and padded with black: float32 (size, size, 3) RGB in [0, 1]."""
    height, width = (max(1, round(side * size / max(picture.shape[:2]))) for side in picture.shape[:2])
    top, left = (size - height) // 2, (size - width) // 2
    padded = np.zeros((size, size, 3), np.uint8)
    padded[top : top + height, left : left + width] = cv2.resize(picture, (width, height))
    return cv2.cvtColor(padded, cv2.COLOR_BGR2RGB) / np.float32(255)
