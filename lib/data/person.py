"""Finding the signer in a video without a box: the person who moves."""

from pathlib import Path

import av
import cv2
import numpy as np

from lib.data.picture import upright
from lib.data.video import frames_at, sample_frames

# Tuned on the 38 real WLASL clips at hand with a box and a mover: the squares around both have a mean intersection over
# union of 0.94 (minimum 0.68). Checked by eye on 360 gestures filmed from 1, 4 and 6 m: 356 crops hold head and arms.
# The largest change of a gesture is at least 9.8 standard deviations of the noise; of people standing still, mostly 3
# to 8.
SIDE = 160  # pixels on the longer side of the thumbnails
FRAMES = 64  # thumbnails at most
BLUR = 1.5  # standard deviation of the blur, pixels of a thumbnail
NOISE = 4  # standard deviations of the noise up to which a change is none
CLEAR = 9  # standard deviations that the largest change must exceed
GROWTH = 1.35  # side of the box over that of the movement
LEAST = 0.3  # side of the box over the shorter side of the image, at least
MOVER = (SIDE, FRAMES, BLUR, NOISE, CLEAR, GROWTH, LEAST)


def find_mover(path: Path, start: int, end: int, *, threads: int = 0) -> tuple[float, float, float, float] | None:
    """Find who moves in the frames [start, end): xmin, ymin, xmax, ymax in pixels of the upright image, a square.

    Compares frames a sixteenth of the clip apart, and takes the region that moves most. The box is larger than the
    movement, because a moving head or hand belongs to a body that is still, and may extend beyond the image.
    Returns None when nothing moves clearly more than the noise of the clip. Raises StudyError as `probe` does.
    """
    chosen = sample_frames(start, end, min(end - start, FRAMES))
    small = [_thumbnail(frame) for _, frame in frames_at(path, chosen, threads)]
    if len(small) < 2 or len({image.shape for image, _ in small}) > 1:
        return None
    images, scale = np.stack([image for image, _ in small]), small[0][1]
    box = _most_moving(_motion(images))
    if box is None:
        return None
    middle = (box[:2] + box[2:]) / 2
    half = max(GROWTH * (box[2:] - box[:2]).max(), LEAST * min(images.shape[1:])) / 2
    return tuple(float(value) for value in scale * np.concatenate([middle - half, middle + half]))


def _thumbnail(frame: av.VideoFrame) -> tuple[np.ndarray, float]:
    """A small grey float32 image of the frame, upright and blurred, and how many pixels each of its pixels covers."""
    scale = max(frame.width, frame.height) / SIDE
    width, height = (max(1, round(length / scale)) for length in (frame.width, frame.height))
    small = frame.reformat(width=width, height=height, format="gray", interpolation="AREA")
    image = upright(small.to_ndarray(), frame).astype(np.float32)
    return cv2.GaussianBlur(image, (0, 0), BLUR), scale


def _motion(images: np.ndarray) -> np.ndarray:
    """How much each pixel changes when it changes most, 0 for noise: (frames, height, width) -> (height, width)."""
    step = min(max(1, round(len(images) / 16)), len(images) - 1)
    change = np.abs(images[step:] - images[:-step])
    change -= np.median(change, axis=(1, 2), keepdims=True)  # changes of the overall brightness
    motion = np.sort(change, axis=0)[-max(1, len(change) // 8) :].mean(0)
    middle, highest = np.median(motion), np.percentile(motion, 99.8)
    deviation = 1.4826 * np.median(np.abs(motion - middle))  # standard deviation of a normal distribution, from the MAD
    if highest <= middle + CLEAR * deviation:
        return np.zeros_like(motion)
    return np.where(motion > max(middle + NOISE * deviation, 1.0, 0.05 * highest), motion, 0)


def _most_moving(motion: np.ndarray) -> np.ndarray | None:
    """The box (x, y, x, y) of the connected region with the most motion, without the outermost 0.5 % on each side."""
    reach = max(3, round(0.12 * motion.shape[0]))  # connects a hand to its shoulder
    near = cv2.dilate((motion > 0).astype(np.uint8), np.ones((reach, reach), np.uint8))
    _, regions = cv2.connectedComponents(near)
    amounts = np.bincount(regions.ravel(), motion.ravel())
    if not amounts.any():
        return None
    motion = np.where(regions == amounts.argmax(), motion, 0)
    shares = [np.cumsum(motion.sum(axis)) / motion.sum() for axis in (0, 1)]
    low, high = ([np.searchsorted(share, at) for share in shares] for at in (0.005, 0.995))
    return np.array([*low, high[0] + 1, high[1] + 1], float)
