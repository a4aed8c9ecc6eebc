"""The drawn signer of the synthetic sample: jointed arms and fingers as keypoints, and their picture.

Lengths are in shoulder widths of the signer, y downwards, the origin at the neck; `place_on_image` makes pixels of
them. Left and right are the signer's own; the signer faces the camera, so the right hand is on the image's left.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

SIZE = 256  # width and height of a video, pixels
UPPER_ARM, FOREARM = 0.8, 0.75
SHOULDER = np.array([-0.5, 0.1])  # the right one
HIP = np.array([-0.35, 1.5])
HEAD = {"nose": (0.0, -0.55), "eyes": (0.13, -0.65), "ears": (0.27, -0.6)}
PALM, FINGER = 0.34, np.array([0.22, 0.33, 0.37, 0.34, 0.26])  # thumb first
SPREAD = np.radians([-62.0, -22.0, -5.0, 11.0, 27.0])
PHALANGES = np.array([0.45, 0.3, 0.25])
CURL = np.radians([75.0, 160.0, 215.0])  # of the three phalanges of a closed finger, seen from the front

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Signer:
    """Who signs: all that differs between signers and not between signs."""

    number: int
    shoulders: float  # pixels
    neck: tuple[float, float]  # pixels
    skin: Colour
    left_handed: bool
    speed: float  # 1 = usual
    reach: float  # size of movements, 1 = usual
    shirt: Colour = (80, 80, 80)
    background: Colour = (180, 180, 180)


@dataclass(frozen=True)
class Pose:
    """One frame: where the wrists are, where the fingers point, how far each finger is stretched.

    wrists (2, 2): right, left, relative to the neck in shoulder widths. directions (2,): radians, 0 = up, towards the
    signer's left positive. stretch (2, 5): 0 = closed to 1 = stretched, thumb first.
    """

    wrists: np.ndarray
    directions: np.ndarray
    stretch: np.ndarray


def skeleton(pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """Joints in shoulder widths: body (25, 2) in the order of BODY_25, hands (2, 21, 2) right, left.

    Legs and feet (joints 9 to 14, 19 to 24) are out of the picture: NaN.
    """
    body = np.full((25, 2), np.nan)
    mirror = np.array([-1.0, 1.0])
    for side, (shoulder, elbow, wrist) in enumerate([(2, 3, 4), (5, 6, 7)]):
        flip = mirror if side else np.ones(2)
        body[shoulder] = SHOULDER * flip
        body[elbow] = bend_elbow(body[shoulder], pose.wrists[side])
        body[wrist] = pose.wrists[side]
    body[0], body[1], body[8] = HEAD["nose"], (0.0, 0.0), (0.0, HIP[1])
    for right, left, name in [(15, 16, "eyes"), (17, 18, "ears")]:
        body[left] = HEAD[name]
        body[right] = np.array(HEAD[name]) * mirror
    hands = [hand(pose.wrists[i], pose.directions[i], pose.stretch[i], thumb=1 - 2 * i) for i in range(2)]
    return body, np.stack(hands)


def bend_elbow(shoulder: np.ndarray, wrist: np.ndarray) -> np.ndarray:
    """Where the elbow is, by the law of cosines, away from the body; too short an arm points straight at the wrist."""
    line = wrist - shoulder
    distance = np.clip(np.linalg.norm(line), 1e-6, UPPER_ARM + FOREARM - 1e-6)
    along = (UPPER_ARM**2 - FOREARM**2 + distance**2) / (2 * distance)
    aside = np.sqrt(max(UPPER_ARM**2 - along**2, 0.0))
    unit = line / max(np.linalg.norm(line), 1e-6)
    normal = np.array([-unit[1], unit[0]])
    elbows = [shoulder + along * unit + sign * aside * normal for sign in (-1, 1)]
    return max(elbows, key=lambda elbow: elbow[0] * np.sign(shoulder[0]))


def hand(wrist: np.ndarray, direction: float, stretch: np.ndarray, thumb: int) -> np.ndarray:
    """The 21 joints of a hand that shows its palm: wrist, then thumb to little finger, four joints each.

    `thumb` is 1 where the thumb lies towards positive x (the right hand), -1 where it lies towards negative x.
    A finger that closes gets shorter and folds back over the palm, as seen from the front.
    """
    joints = [np.zeros(2)]
    for finger in range(5):
        angle = direction - thumb * SPREAD[finger]
        way = np.array([np.sin(angle), -np.cos(angle)])
        knuckle = way * PALM * (0.55 if finger == 0 else 1.0)
        steps = FINGER[finger] * PHALANGES * np.cos((1 - stretch[finger]) * CURL)
        joints += [knuckle, *(knuckle + way * reach for reach in np.cumsum(steps))]
    return wrist + np.array(joints)


def place_on_image(joints: np.ndarray, signer: Signer) -> np.ndarray:
    """From shoulder widths to pixels."""
    return joints * signer.shoulders + np.array(signer.neck)


def draw(body: np.ndarray, hands: np.ndarray, signer: Signer, size: int = SIZE) -> np.ndarray:
    """Draw one frame, uint8 (size, size, 3) RGB, from joints in pixels: body (25, 2), hands (2, 21, 2)."""
    image = backdrop(signer.background, size)
    unit = signer.shoulders
    dark = tuple(int(0.72 * c) for c in signer.shirt)
    hip = np.array([HIP[0], 0]) * unit
    torso = np.array([body[2], body[5], body[8] - hip, body[8] + hip])
    fill(image, torso, signer.shirt)
    line(image, body[1], body[1] + (0, -0.3 * unit), signer.skin, 0.26 * unit)
    draw_head(image, body, signer)
    for shoulder, elbow, wrist in [(2, 3, 4), (5, 6, 7)]:
        line(image, body[shoulder], body[elbow], dark, 0.27 * unit)
        line(image, body[elbow], body[wrist], dark, 0.2 * unit)
    for joints in hands:
        draw_hand(image, joints, signer)
    return image


def draw_head(image: np.ndarray, body: np.ndarray, signer: Signer) -> None:
    """An oval face with two eyes."""
    unit = signer.shoulders
    axes = tuple(int(v * unit) for v in (0.27, 0.36))
    cv2.ellipse(image, point(body[0] - (0, 0.03 * unit)), axes, 0, 0, 360, signer.skin, -1, cv2.LINE_AA)
    for eye in body[15:17]:
        cv2.circle(image, point(eye), max(1, int(0.04 * unit)), (40, 30, 30), -1, cv2.LINE_AA)


def draw_hand(image: np.ndarray, joints: np.ndarray, signer: Signer) -> None:
    """A palm and five fingers, each with a darker outline, so that fingers show before the palm and the face."""
    unit = signer.shoulders
    edge = tuple(int(0.55 * c) for c in signer.skin)
    palm = joints[[0, 1, 5, 9, 13, 17]]
    for colour, extra in [(edge, 0.06), (signer.skin, 0.0)]:
        hull = cv2.convexHull(np.round(palm).astype(np.int32))
        cv2.fillConvexPoly(image, hull, colour, cv2.LINE_AA)
        cv2.polylines(image, [hull], True, colour, max(1, round((0.06 + extra) * unit)), cv2.LINE_AA)
    for finger in range(5):
        chain = joints[1 + 4 * finger : 5 + 4 * finger]
        for colour, width in [(edge, 0.145), (signer.skin, 0.095)]:
            for a, b in pairwise(chain):
                line(image, a, b, colour, width * unit)


def backdrop(colour: Colour, size: int) -> np.ndarray:
    """A wall that grows darker downwards."""
    shade = np.linspace(1.0, 0.8, size)[:, None, None]
    return np.ascontiguousarray(np.broadcast_to(shade * np.array(colour), (size, size, 3)).astype(np.uint8))


def fill(image: np.ndarray, corners: np.ndarray, colour: Colour) -> None:
    """Fill a convex polygon."""
    cv2.fillConvexPoly(image, np.round(corners).astype(np.int32), colour, cv2.LINE_AA)


def line(image: np.ndarray, a: np.ndarray, b: np.ndarray, colour: Colour, width: float) -> None:
    """Draw a thick line with round ends."""
    cv2.line(image, point(a), point(b), colour, max(1, round(width)), cv2.LINE_AA)


def point(xy: np.ndarray) -> tuple[int, int]:
    """Whole pixels."""
    return round(float(xy[0])), round(float(xy[1]))
