"""Augmentation of pose clips: space, time and what the detector loses.

A clip is float32 (frames, joints, 3): x, y, present in {0, 1}, with x = y = 0 where a joint is not present.
Every function returns a new clip of that form and draws from the generator that it is given.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from lib.data.layouts import Layout

HANDS = ("left", "right")
NO_SPREAD = 1e-5  # of another clip's spread: float32 has seven digits


class PoseAugment(BaseModel):
    """How strongly poses are varied in training; 0 switches a variation off.

    Lengths are in units of the clip's own spread (root mean square distance of its joints from their centre).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rotation: float = Field(0.0, ge=0, le=180, description="degrees, uniform in ±")
    scale: float = Field(0.0, ge=0, lt=1, description="each axis times 1 ± scale")
    shear: float = Field(0.0, ge=0, lt=1, description="uniform in ±")
    shift: float = Field(0.0, ge=0, description="each hand moves by a normal draw of this deviation")
    hand_rotation: float = Field(0.0, ge=0, le=180, description="each hand about its own wrist, like rotation")
    hand_scale: float = Field(0.0, ge=0, lt=1, description="each hand from its own wrist, like scale")
    hand_shear: float = Field(0.0, ge=0, lt=1, description="each hand from its own wrist, like shear")
    noise: float = Field(0.0, ge=0, description="standard deviation of every joint in every frame")
    mirror: float = Field(0.0, ge=0, le=1, description="probability")
    warp: float = Field(0.0, ge=0, lt=1, description="strength of the smooth change of speed inside a clip")
    speed: float = Field(0.0, ge=0, lt=1, description="the whole clip 1 ± speed times as long")
    crop: float = Field(0.0, ge=0, lt=1, description="largest share of frames cut off at both ends together")
    frame_dropout: float = Field(0.0, ge=0, lt=1, description="largest share of frames lost")
    hand_dropout: float = Field(0.0, ge=0, le=1, description="probability that one hand is lost for a while")
    splice: float = Field(0.0, ge=0, le=1, description="probability that a part is of another clip of the gloss")
    probability: float = Field(1.0, ge=0, le=1, description="share of clips that are varied in space at all")


def augment_poses(
    clip: np.ndarray,
    how: PoseAugment,
    layout: Layout,
    rng: np.random.Generator,
    other: np.ndarray | None = None,
) -> np.ndarray:
    """Vary one clip: splice it with another of the same gloss, vary it in time and space, lose hands and frames.

    Returns float32 (frames', joints, 3) with 1 <= frames' <= about frames * (1 + speed).
    """
    if other is not None and rng.random() < how.splice:
        clip = splice(clip, other, layout, rng)
    clip = vary_time(clip, how, rng)
    if rng.random() < how.mirror:
        clip = mirror(clip, layout)
    if rng.random() < how.probability:
        clip = vary_space(clip, how, layout, rng)
    if rng.random() < how.hand_dropout:
        clip = drop_hand(clip, layout, rng)
    return drop_frames(clip, how.frame_dropout, rng)


def splice(clip: np.ndarray, other: np.ndarray, layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """Take one hand, or all joints before or after a moment, from another clip, brought to this one's length and place.

    Two clips of a gloss say the same in other ways; parts of both say it in one more. Few clips become many.
    """
    other = align(other, clip)
    if rng.random() < 0.5:
        mixed = clip.copy()
        part = layout.parts[HANDS[rng.integers(2)]]
        mixed[:, part] = other[:, part]
        return mixed
    first, second = (clip, other) if rng.random() < 0.5 else (other, clip)
    cut = rng.integers(0, len(clip) + 1)
    return np.concatenate([first[:cut], second[cut:]])


def align(clip: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Bring a clip to the number of frames, the centre and the spread of another.

    A clip of one joint has no spread, or that of rounding errors: it keeps its size.
    """
    clip = resample(clip, np.linspace(0, len(clip) - 1, len(to)))
    here, there = spread(clip), spread(to)
    ratio = there / here if here > NO_SPREAD * there else 1.0
    return with_xy(clip, (clip[..., :2] - centre(clip)) * ratio + centre(to))


def vary_space(clip: np.ndarray, how: PoseAugment, layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """Rotate, scale and shear the whole clip, then each hand by itself, shift each hand, add noise to each joint."""
    if not clip[..., 2].any():
        return clip
    matrix = affine_matrix(how.rotation, how.scale, how.shear, rng)
    clip = transform(clip, matrix)
    if how.hand_rotation or how.hand_scale or how.hand_shear:
        clip = turn_hands(clip, how, layout, rng)
    unit = spread(clip)
    if how.shift:
        clip = shift_hands(clip, how.shift * unit, layout, rng)
    return jitter(clip, how.noise * unit, rng) if how.noise else clip


def affine_matrix(rotation: float, scale: float, shear: float, rng: np.random.Generator) -> np.ndarray:
    """Draw one linear map: shear, then a scale for each axis, then a rotation in degrees. Returns (2, 2)."""
    angle = np.radians(rng.uniform(-rotation, rotation))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.diag(1 + rng.uniform(-scale, scale, 2))
    slant = np.array([[1, rng.uniform(-shear, shear)], [0, 1]])
    return turn @ stretch @ slant


def transform(clip: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply a (2, 2) linear map about the centre of the present joints; what is missing stays missing."""
    here = centre(clip)
    return with_xy(clip, (clip[..., :2] - here) @ matrix.T.astype(np.float32) + here)


def turn_hands(clip: np.ndarray, how: PoseAugment, layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """Rotate, scale and shear each hand about its own wrist, by one linear map for the clip: the wrist's path stays.

    So do signers differ in how they turn a hand. A hand whose wrist is missing in a frame stays as it is there.
    """
    xy = clip[..., :2].copy()
    for hand in HANDS:
        part = layout.parts[hand]
        matrix = affine_matrix(how.hand_rotation, how.hand_scale, how.hand_shear, rng).astype(np.float32)
        wrist, seen = clip[:, part, :2][:, :1], clip[:, part, 2:][:, :1] > 0
        xy[:, part] = np.where(seen, (xy[:, part] - wrist) @ matrix.T + wrist, xy[:, part])
    return with_xy(clip, xy)


def shift_hands(clip: np.ndarray, deviation: float, layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """Move each hand as a whole, by one offset for the clip: the hand's own shape and movement stay."""
    offsets = np.zeros((clip.shape[1], 2), np.float32)
    for hand in HANDS:
        offsets[layout.parts[hand]] = rng.normal(0, deviation, 2)
    return with_xy(clip, clip[..., :2] + offsets)


def jitter(clip: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Add independent normal noise to every present joint, as a detector does."""
    return with_xy(clip, clip[..., :2] + rng.normal(0, deviation, clip[..., :2].shape))


def mirror(clip: np.ndarray, layout: Layout) -> np.ndarray:
    """Reflect about the vertical through the centre, and swap left with right joints: a left-handed signer."""
    flipped = transform(clip, np.diag([-1.0, 1.0]))
    order = np.arange(clip.shape[1])
    left, right = np.array(layout.pairs).T
    order[left], order[right] = right, left
    return flipped[:, order]


def vary_time(clip: np.ndarray, how: PoseAugment, rng: np.random.Generator) -> np.ndarray:
    """Crop at both ends, change the speed as a whole and, smoothly, inside the clip."""
    if not (how.warp or how.speed or how.crop):
        return clip
    frames = len(clip)
    cut = rng.uniform(0, how.crop) * (frames - 1)
    start = rng.uniform(0, cut)
    count = max(1, round((frames - cut) * (1 + rng.uniform(-how.speed, how.speed))))
    even = np.linspace(0, 1, count)
    bent = even + how.warp * rng.uniform(-1, 1) * np.sin(np.pi * even) / np.pi
    return resample(clip, start + bent * (frames - 1 - cut))


def resample(clip: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Read a clip at fractional frame numbers, linearly between two frames in which a joint is present.

    Where only one of the two neighbours has the joint, the nearer neighbour decides, so nothing is made up.
    positions: (count,) in [0, frames - 1]. Returns float32 (count, joints, 3).
    """
    low = np.floor(positions).astype(int)
    high = np.minimum(low + 1, len(clip) - 1)
    weight = (positions - low).astype(np.float32)[:, None, None]
    nearest = clip[np.round(positions).astype(int)]
    between = (1 - weight) * clip[low] + weight * clip[high]
    both = clip[low, :, 2:] * clip[high, :, 2:] > 0
    return np.where(both, between, nearest)


def drop_hand(clip: np.ndarray, layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """Lose one hand over a span of up to half of the frames, as a detector does; the rest is untouched."""
    span = rng.integers(1, max(2, len(clip) // 2 + 1))
    start = rng.integers(0, len(clip) - span + 1)
    clip = clip.copy()
    clip[start : start + span, layout.parts[HANDS[rng.integers(2)]]] = 0
    return clip


def drop_frames(clip: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Lose up to `share` of the frames (all joints missing there); the length and the timing stay."""
    lost = rng.random(len(clip)) < rng.uniform(0, share)
    return np.where(lost[:, None, None], np.float32(0), clip)


def centre(clip: np.ndarray) -> np.ndarray:
    """Mean position of the present joints over the whole clip, float32 (2,); zero when there are none."""
    present = clip[..., 2:]
    return (clip[..., :2] * present).sum((0, 1)) / max(present.sum(), 1)


def spread(clip: np.ndarray) -> float:
    """Root mean square distance of the present joints from their centre."""
    present = clip[..., 2]
    squared = ((clip[..., :2] - centre(clip)) ** 2).sum(-1)
    return float(np.sqrt((squared * present).sum() / max(present.sum(), 1)))


def with_xy(clip: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """The clip with new coordinates; a missing joint keeps x = y = 0."""
    present = clip[..., 2:]
    return np.concatenate([xy * present, present], -1, dtype=np.float32)


# Share of red, green and blue in the brightness of a pixel (ITU-R BT.601).
LUMA = np.array([0.299, 0.587, 0.114])
GREY = 127.5  # what contrast leaves as it is


class ClipAugment(BaseModel):
    """How strongly clips are varied in training; 0 switches a variation off. Each is drawn once for a clip."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    jitter: float = Field(0.0, ge=0, le=1, description="probability that frames are drawn anywhere in their spans")
    crop: float = Field(0.0, ge=0, lt=1, description="largest share of the side that is cut off")
    rotation: float = Field(0.0, ge=0, le=180, description="degrees, uniform in ±")
    flip: float = Field(0.0, ge=0, le=1, description="probability; 0 where left and right are different classes")
    brightness: float = Field(0.0, ge=0, le=1, description="added, uniform in ±, as a share of white")
    contrast: float = Field(0.0, ge=0, le=1, description="distance from mid-grey times 1 ± contrast")
    saturation: float = Field(0.0, ge=0, le=1, description="distance from the pixel's own grey times 1 ± saturation")
    tint: float = Field(0.0, ge=0, le=1, description="each of red, green and blue times 1 ± tint")


def augment_clip(images: Sequence[np.ndarray], size: int, how: ClipAugment, rng: np.random.Generator) -> np.ndarray:
    """Vary one clip: images, each uint8 (side, side, 3) RGB -> uint8 (frames, size, size, 3).

    What a rotation brings in from outside is the image mirrored at its edge, never black.
    """
    places = view_map(view_matrix(len(images[0]), size, how, rng), size)
    clip = np.empty((len(images), size, size, 3), np.uint8)
    for image, varied in zip(images, clip, strict=True):
        cv2.remap(image, *places, cv2.INTER_LINEAR, dst=varied, borderMode=cv2.BORDER_REFLECT_101)
    return recolour(clip, colour_matrix(how, rng))


def resize(images: Sequence[np.ndarray], size: int) -> np.ndarray:
    """The whole of each image, unvaried: uint8 (side, side, 3) each -> uint8 (frames, size, size, 3)."""
    clip = np.empty((len(images), size, size, 3), np.uint8)
    for image, resized in zip(images, clip, strict=True):
        cv2.resize(image, (size, size), dst=resized, interpolation=cv2.INTER_LINEAR)
    return clip


def view_matrix(side: int, size: int, how: ClipAugment, rng: np.random.Generator) -> np.ndarray:
    """Draw which part of images of `side` pixels fills `size` pixels: crop, rotation, flip.

    Returns float64 (2, 3): where a pixel of the result lies in the image, as cv2.WARP_INVERSE_MAP takes it.
    """
    share = 1 - rng.uniform(0, how.crop)
    middle = side * (0.5 + rng.uniform(-0.5, 0.5, 2) * (1 - share))
    angle = np.radians(rng.uniform(-how.rotation, how.rotation))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    mirror = np.diag([-1.0 if rng.random() < how.flip else 1.0, 1.0])
    matrix = share * side / size * turn @ mirror
    # Pixel i covers [i, i + 1), its middle is i + 1/2, on both sides.
    return np.column_stack([matrix, middle - 0.5 - matrix @ np.full(2, (size - 1) / 2)])


def view_map(matrix: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of the result lies, in the form that cv2.remap is quickest with.

    Made once for all frames; cv2.warpAffine, which makes it for each, takes half as long again.
    """
    pixels = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1)
    places = pixels @ matrix[:, :2].T + matrix[:, 2]
    return cv2.convertMaps(places.astype(np.float32), None, cv2.CV_16SC2)


def colour_matrix(how: ClipAugment, rng: np.random.Generator) -> np.ndarray:
    """Draw a linear map of colours with values 0 to 255. Returns float64 (3, 4): red, green, blue and a constant."""
    saturation, contrast = 1 + rng.uniform(-1, 1, 2) * (how.saturation, how.contrast)
    tint = 1 + rng.uniform(-how.tint, how.tint, 3)
    mix = saturation * np.eye(3) + (1 - saturation) * LUMA
    constant = GREY * (1 - contrast) + 255 * rng.uniform(-how.brightness, how.brightness)
    return np.column_stack([contrast * tint[:, None] * mix, np.full(3, constant)])


def recolour(clip: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply a (3, 4) map to every pixel of a uint8 (frames, height, width, 3) clip; what leaves 0 to 255 is cut."""
    if np.array_equal(matrix, np.eye(3, 4)):
        return clip
    frames, height, width, channels = clip.shape
    return cv2.transform(clip.reshape(frames * height, width, channels), matrix).reshape(clip.shape)
