"""Finding the person in a video: who moves."""

from pathlib import Path

import av
import cv2
import numpy as np

from lib.data.video import _turns, frames_at, sample_frames

# Finding who moves: pixels on the longer side of the thumbnails, their number and blur in pixels, deviations of noise
# that are no movement, deviations that movement has somewhere, side of the box over that of the movement and, at least,
# over the image's shorter side.
# Chosen on the 38 real WLASL clips at hand with a box in which somebody is found, where the square of what moves and
# that of the box have a mean intersection over union of 0.94 (least 0.68), and by eye on 360 gestures, 1, 4 and 6 m
# away: 356 hold head and arms. There gestures have 9.8 deviations and more, people who stand still mostly 3 to 8.
MOVER_SIDE, MOVER_FRAMES, MOVER_BLUR, MOVER_NOISE, MOVER_CLEAR = 160, 64, 1.5, 4, 9
MOVER_GROWTH, MOVER_LEAST = 1.35, 0.3
MOVER = (MOVER_SIDE, MOVER_FRAMES, MOVER_BLUR, MOVER_NOISE, MOVER_CLEAR, MOVER_GROWTH, MOVER_LEAST)


def find_mover(path: Path, start: int, end: int, *, threads: int = 0) -> tuple[float, float, float, float] | None:
    """Find who moves in the frames [start, end): xmin, ymin, xmax, ymax in pixels of the upright image, square.

    What changes between frames a sixteenth of the clip apart, against the noise of the clip itself; of several moving
    things the one that moves most. The box is larger than the movement, as a head or hand that moves has
    a body that does not, and may reach beyond the image. None when nothing moves, or hardly more than the noise.
    Raises StudyError as `probe` does.
    """
    chosen = sample_frames(start, end, min(end - start, MOVER_FRAMES))
    small = [_thumbnail(frame) for _, frame in frames_at(path, chosen, threads)]
    if len(small) < 2 or len({image.shape for image, _ in small}) > 1:
        return None
    images, scale = np.stack([image for image, _ in small]), small[0][1]
    box = _most_moving(_motion(images))
    if box is None:
        return None
    middle = (box[:2] + box[2:]) / 2
    half = max(MOVER_GROWTH * (box[2:] - box[:2]).max(), MOVER_LEAST * min(images.shape[1:])) / 2
    return tuple(float(value) for value in scale * np.concatenate([middle - half, middle + half]))


def _thumbnail(frame: av.VideoFrame) -> tuple[np.ndarray, float]:
    """The frame in grey and upright, float32, MOVER_SIDE pixels on its longer side; how many pixels one stands for."""
    scale = max(frame.width, frame.height) / MOVER_SIDE
    width, height = (max(1, round(length / scale)) for length in (frame.width, frame.height))
    small = frame.reformat(width=width, height=height, format="gray", interpolation="AREA")
    image = np.rot90(small.to_ndarray(), _turns(frame)).astype(np.float32)
    return cv2.GaussianBlur(image, (0, 0), MOVER_BLUR), scale


def _motion(images: np.ndarray) -> np.ndarray:
    """How much each place changes when it changes most: (frames, height, width) -> (height, width), noise = 0."""
    step = min(max(1, round(len(images) / 16)), len(images) - 1)
    change = np.abs(images[step:] - images[:-step])
    change -= np.median(change, axis=(1, 2), keepdims=True)  # the light as a whole
    motion = np.sort(change, axis=0)[-max(1, len(change) // 8) :].mean(0)
    middle, highest = np.median(motion), np.percentile(motion, 99.8)
    deviation = 1.4826 * np.median(np.abs(motion - middle))  # 1.4826: that of a normal distribution
    if highest <= middle + MOVER_CLEAR * deviation:
        return np.zeros_like(motion)
    return np.where(motion > max(middle + MOVER_NOISE * deviation, 1.0, 0.05 * highest), motion, 0)


def _most_moving(motion: np.ndarray) -> np.ndarray | None:
    """The box (x, y, x, y) of the neighbouring places that together move most, without the outer 0.5 % of it."""
    reach = max(3, round(0.12 * motion.shape[0]))  # a hand and its shoulder are one thing
    near = cv2.dilate((motion > 0).astype(np.uint8), np.ones((reach, reach), np.uint8))
    _, things = cv2.connectedComponents(near)
    amounts = np.bincount(things.ravel(), motion.ravel())
    if not amounts.any():
        return None
    motion = np.where(things == amounts.argmax(), motion, 0)
    shares = [np.cumsum(motion.sum(axis)) / motion.sum() for axis in (0, 1)]
    low, high = ([np.searchsorted(share, at) for share in shares] for at in (0.005, 0.995))
    return np.array([*low, high[0] + 1, high[1] + 1], float)
