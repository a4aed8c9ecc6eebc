"""Clips: batches from the clip store against OpenCV on the original videos

Ours: batches of 20 frames × 224² from the clip store, unvaried, and as the recipe `s3d` trains on them, randomly
cropped, rotated, mirrored and recoloured. Peer: what the published code does, which varies nothing: cv2.VideoCapture,
20 consecutive frames from a random one on, each scaled to fit 224², padded with black, BGR to RGB, divided by 255.
(Frames further apart would take it longer.) Both give float32 in [0, 1]; one thread each; the files are in memory.

A dozen synthetic videos of data/sample.py: as the sample draws them, 256², and enlarged to the sizes of WLASL's (of
the available real clips a quarter has up to 320 × 240, 42 % up to 740 × 480, 31 % 1280 × 720 or 1920 × 1080), with as
much camera noise as makes the peer take as long as on the real ones: 63 ms of processor time per clip on the machine
below, on all 55 available.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from bench.report import compare, machine, versions, write
from bench.sides import Side, alternate
from sample import SIZE, draw, encode, joints_of, plan_clips

CLIPS, FRAMES, SIDE, BATCH, CLASSES = 12, 20, 224, 4, 100
DRAWN = [(SIZE, SIZE)]  # width × height, as are the next
WLASL = [(1920, 1080), (288, 192), (720, 400), (1280, 720), (640, 480), (720, 400)]
WLASL += [(1920, 1080), (288, 192), (656, 370), (1280, 720), (640, 480), (320, 240)]
NOISE = 6  # standard deviation of each pixel, of 255
ROOM = 64  # pixels by which the field of noise is larger than an image
PASSES = 2  # over the videos in a round
RECIPE = "s3d"  # whose augmentation is used


def main(name: str = "clips", rounds: int = 5) -> Path:
    """Measure, and write the report."""
    where = machine()
    rows = [*measure("of WLASL's sizes", WLASL, NOISE, rounds), *measure("as drawn", DRAWN, 0, rounds)]
    return write(name, __doc__, rows, versions("opencv-python-headless", "av", "numpy", "keras"), where)


def measure(
    label: str, sizes: list[tuple[int, int]], noise: float, rounds: int, clips: int = CLIPS
) -> list[dict[str, Any]]:
    """The rows of videos of these sizes."""
    with tempfile.TemporaryDirectory() as folder:
        make_videos(Path(folder), sizes, noise, clips)
        with (
            Side("bench.clips:ours", folder=folder) as varied,
            Side("bench.clips:ours", folder=folder, vary=False) as unvaried,
            Side("bench.clips:published", folder=folder) as peer,
        ):
            taken = alternate({"training": varied, "unvaried": unvaried, "peer": peer}, "read", rounds)
    return [
        compare(f"videos {label}, {way}", taken[way], taken["peer"], "≥ 6", clips=PASSES * clips)
        for way in ("training", "unvaried")
    ]


def make_videos(folder: Path, sizes: list[tuple[int, int]], noise: float, clips: int = CLIPS) -> None:
    """Draw synthetic clips as <folder>/<video_id>.mp4, taking turns at `sizes` (width, height).

    noise: standard deviation of each pixel, of 255.
    """
    for clip, size in zip(plan_clips(0, 2)[:clips], cycle(sizes), strict=False):
        body, hands = joints_of(clip, 0)
        images = (_enlarge(draw(b, h, clip.signer), size) for b, h in zip(body, hands, strict=True))
        encode(folder / f"{clip.video_id}.mp4", film(images, noise) if noise else images, clip.fps, size)


def _enlarge(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale a square image to the height of `size`, and repeat its edges at both sides to fill the width."""
    width, height = size
    left = (width - height) // 2
    square = cv2.resize(image, (height, height))
    return cv2.copyMakeBorder(square, 0, 0, left, width - height - left, cv2.BORDER_REPLICATE)


def film(images: Iterable[np.ndarray], noise: float) -> Iterator[np.ndarray]:
    """Add noise to images uint8 (height, width, 3), to each another part of one field."""
    rng = np.random.default_rng(0)
    field = None
    for image in images:
        height, width = image.shape[:2]
        if field is None:
            field = rng.normal(0, noise, (height + ROOM, width + ROOM, 3)).astype(np.int16)
        y, x = rng.integers(ROOM, size=2)
        yield cv2.add(image, field[y : y + height, x : x + width], dtype=cv2.CV_8U)


def ours(folder: str, vary: bool = True) -> dict[str, Callable[[], None]]:
    """Our side; storing the clips is not part of what is timed."""
    from lib.data.loaders import ClipBatches
    from lib.recipes import read_recipe
    from lib.training import keep_memory

    keep_memory()  # as in every training
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


def store(folder: Path, end: int = -1, **options: Any) -> list[Path]:
    """Store frames 0 to `end` of every video of the folder, next to it. Returns the paths of the stored clips.

    options: of lib.data.clip_store.build_clips.
    """
    from lib.data.clip_store import build_clips, clip_path

    videos = sorted(folder.glob("*.mp4"))
    index = pd.DataFrame({"video_id": [video.stem for video in videos], "path": [str(video) for video in videos]})
    build_clips(index.assign(status="present", frame_start=0, frame_end=end), folder, workers=1, **options)
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
    """Frames from a random one on, float32 (frames, size, size, 3) RGB in [0, 1]; black after the end of the video."""
    video = cv2.VideoCapture(str(path))
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    video.set(cv2.CAP_PROP_POS_FRAMES, int(rng.integers(max(1, count - frames + 1))))
    clip = np.zeros((frames, size, size, 3), np.float32)
    for frame in clip:
        there, image = video.read()
        if not there:
            break
        frame[:] = letterbox(image, size)
    video.release()
    return clip


def letterbox(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (height, width, 3) BGR, scaled to fit and padded with black: float32 (size, size, 3) RGB in [0, 1]."""
    height, width = (max(1, round(side * size / max(image.shape[:2]))) for side in image.shape[:2])
    top, left = (size - height) // 2, (size - width) // 2
    padded = np.zeros((size, size, 3), np.uint8)
    padded[top : top + height, left : left + width] = cv2.resize(image, (width, height))
    return cv2.cvtColor(padded, cv2.COLOR_BGR2RGB) / np.float32(255)
