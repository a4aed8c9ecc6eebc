"""Poses drawn as clips of images, for models that read videos: hands alone, without people, clothes and rooms.

PoseConv3D (Duan et al. 2022, https://arxiv.org/abs/2104.13586) reads joints as heat maps; here bones are lines, so that
it shows which joint follows which.
"""

from typing import Literal

import cv2
import numpy as np
from pydantic import Field

from lib.data.layouts import FINGERS, SIDES, Layout
from lib.settings import Settings

SHIFT = 4  # binary digits after the point in coordinates of OpenCV's lines
WHITE = 255
TINY = np.finfo(np.float32).tiny
PALM = (0, 5, 9, 13, 17)  # of a hand's joints: the wrist and where four fingers begin
REACH = 0.9  # of the frames show a hand that is drawn close as a whole; one that was misjudged does not shrink the rest
FAR = 4  # sides of the image; where a line ends that leaves it, as OpenCV's coordinates are bounded


class Drawing(Settings):
    """How poses are drawn: the bones of the left hand in the first channel, of the right hand in the second.

    A model that moves its input to a mean of 0 needs a background that becomes 0: convolutions pad with 0, and on any
    other background the edges of the image are the strongest thing in it.
    """

    thickness: int = Field(1, ge=1, description="of the lines: 1 is one pixel with soft edges, 2 three, 3 five")
    close: bool = Field(False, description="each hand fills its channel and stays in the middle of it")
    margin: float = Field(0.1, ge=0, description="around where the joints go, as a share of the longer side")
    background: float = Field(0.0, ge=0, lt=1, description="grey of the background; lines are white")
    third: Literal["none", "movement", "hands"] = Field(
        "none",
        description="in the third channel: where wrists and finger tips came from, or the bones of both hands in place",
    )


class Pen:
    """Draws poses in a layout; the bones of a body and lips, if there are any, in the third channel."""

    def __init__(self, how: Drawing, layout: Layout) -> None:
        """Note which bones are drawn in which channel; see `Drawing`."""
        self.how = how
        edges = np.array(layout.edges)
        self.hands = [layout.parts[side] for side in SIDES]
        of_hand = [np.isin(edges, np.arange(part.start, part.stop)).all(1) for part in self.hands]
        third = np.ones(len(edges), bool) if how.third == "hands" else ~np.any(of_hand, axis=0)
        self.strokes = [edges[here] for here in (*of_hand, third)]  # of each channel, pairs of joints (n, 2)
        chains = [edges[here].reshape(len(FINGERS), -1, 2) for here in of_hand]
        ends = [[part.start, *chain[:, -1, 1]] for part, chain in zip(self.hands, chains, strict=True)]
        self.ends = np.concatenate(ends) if how.third == "movement" else np.zeros(0, int)

    def draw(self, poses: np.ndarray, size: int, images: np.ndarray | None = None) -> np.ndarray:
        """Draw a clip of poses (frames, joints, 3), cropped to the square around all places where a joint is seen.

        A bone is drawn where both of its joints are seen, so a missing hand leaves nothing behind, and a clip without
        joints is all background. Returns float32 (frames, size, size, 3) in [0, 1]: `images`, where it is given.
        """
        seen = poses[..., 2] > 0
        points = self._to_pixels(poses[..., :2], seen, size)
        near = self._near(poses[..., :2], seen, size) if self.how.close else points
        planes = np.zeros((len(poses), 3, size, size), np.uint8)
        for channel, (bones, places) in enumerate(zip(self.strokes, (near, near, points), strict=True)):
            _draw_lines(planes[:, channel], places[:, bones], seen[:, bones].all(2), self.how.thickness)
        if len(self.ends):
            trails = np.stack([points[:-1, self.ends], points[1:, self.ends]], 2)
            moved = seen[:-1, self.ends] & seen[1:, self.ends]
            _draw_lines(planes[1:, 2], trails, moved, self.how.thickness)
        images = np.empty((len(poses), size, size, 3), np.float32) if images is None else images
        for image, channels in zip(images, planes, strict=True):  # twice as fast as numpy on a transposed array
            np.multiply(cv2.merge(list(channels)), np.float32((1 - self.how.background) / WHITE), out=image)
            if self.how.background:
                image += np.float32(self.how.background)
        return images

    def _near(self, xy: np.ndarray, seen: np.ndarray, size: int) -> np.ndarray:
        """Where joints of hands are in the image when each hand fills it, as `_to_pixels` returns them.

        Its middle is that of the palm in each frame; its scale is the same in the whole clip, so that a fist stays
        smaller than an open hand.
        """
        pixels = np.zeros(xy.shape, np.int32)
        for hand in self.hands:
            weights = seen[:, hand, None]
            palm = weights[:, PALM].sum(1, keepdims=True).clip(1)
            points = xy[:, hand] - (xy[:, hand] * weights)[:, PALM].sum(1, keepdims=True) / palm
            reach = (abs(points) * weights).max((1, 2))
            if reach.any():
                side = 2 * max(np.quantile(reach[reach > 0], REACH), TINY)
                pixels[:, hand] = _round(points / side + 0.5, size)
        return pixels

    def _to_pixels(self, xy: np.ndarray, seen: np.ndarray, size: int) -> np.ndarray:
        """Where joints are in the image, as `_draw_lines` takes them, int32 (frames, joints, 2)."""
        if not seen.any():
            return np.zeros(xy.shape, np.int32)
        low, high = xy[seen].min(0), xy[seen].max(0)
        side = max((high - low).max() * (1 + 2 * self.how.margin), TINY)
        return _round((xy - (low + high) / 2) / side + 0.5, size)


def _round(xy: np.ndarray, size: int) -> np.ndarray:
    """Places as shares of an image's side, as OpenCV takes them: in sixteenths of a pixel, the first one's centre 0."""
    pixels = xy * size - 0.5
    return np.round(pixels.clip(-FAR * size, FAR * size) * 2**SHIFT).astype(np.int32)


def _draw_lines(planes: np.ndarray, lines: np.ndarray, drawn: np.ndarray, thickness: int) -> None:
    """Draw lines (frames, n, 2 ends, 2) on planes (frames, size, size), smoothly; drawn: which of them, (frames, n)."""
    for plane, here, which in zip(planes, lines, drawn, strict=True):
        if which.any():
            cv2.polylines(plane, list(here[which]), False, WHITE, thickness, cv2.LINE_AA, SHIFT)
