"""Augmentation: of poses in space, time and what the detector loses; of RGB clips in view and colour.

Poses are float32 (frames, joints, 3): x, y, present in {0, 1}, with x = y = 0 where a joint is missing. No function
changes its input; all randomness comes from the generator passed in.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from pydantic import Field

from lib.data.layouts import SIDES, Layout
from lib.settings import Settings

NO_SPREAD = 1e-5  # relative to the other clip's spread: float32 has seven digits
LUMA = np.array([0.299, 0.587, 0.114])  # weights of red, green and blue in the brightness of a pixel (ITU-R BT.601)
GREY = 127.5  # contrast leaves it unchanged


class PoseAugment(Settings):
    """How strongly poses are augmented in training; 0 switches an augmentation off.

    Lengths are in units of the clip's own spread: the root mean square distance of its joints from their centre.
    """

    rotation: float = Field(0.0, ge=0, le=180, description="degrees, uniform in ±")
    scale: float = Field(0.0, ge=0, lt=1, description="each axis times 1 ± scale")
    shear: float = Field(0.0, ge=0, lt=1, description="uniform in ±")
    shift: float = Field(0.0, ge=0, description="standard deviation of the offset of each hand")
    hand_rotation: float = Field(0.0, ge=0, le=180, description="each hand about its own wrist, like rotation")
    hand_scale: float = Field(0.0, ge=0, lt=1, description="each hand from its own wrist, like scale")
    hand_shear: float = Field(0.0, ge=0, lt=1, description="each hand from its own wrist, like shear")
    noise: float = Field(0.0, ge=0, description="standard deviation of every joint in every frame")
    mirror: float = Field(0.0, ge=0, le=1, description="probability")
    warp: float = Field(0.0, ge=0, lt=1, description="strength of the smooth change of speed within a clip")
    speed: float = Field(0.0, ge=0, lt=1, description="the whole clip 1 ± speed times as long")
    crop: float = Field(0.0, ge=0, lt=1, description="largest share of frames cut off at both ends together")
    frame_dropout: float = Field(0.0, ge=0, lt=1, description="largest share of frames lost")
    hand_dropout: float = Field(0.0, ge=0, le=1, description="probability that one hand is lost for a while")
    splice: float = Field(0.0, ge=0, le=1, description="probability that a part comes from another clip of the gloss")
    probability: float = Field(1.0, ge=0, le=1, description="share of clips that are augmented in space at all")


class ClipAugment(Settings):
    """How strongly RGB clips are augmented in training; 0 switches an augmentation off. Drawn once for each clip."""

    jitter: float = Field(0.0, ge=0, le=1, description="probability that frames are drawn anywhere in their spans")
    crop: float = Field(0.0, ge=0, lt=1, description="largest share of the side that is cut off")
    rotation: float = Field(0.0, ge=0, le=180, description="degrees, uniform in ±")
    flip: float = Field(0.0, ge=0, le=1, description="probability; 0 where left and right are different classes")
    brightness: float = Field(0.0, ge=0, le=1, description="added, uniform in ±, as a share of white")
    contrast: float = Field(0.0, ge=0, le=1, description="distance from mid-grey times 1 ± contrast")
    saturation: float = Field(0.0, ge=0, le=1, description="distance from the pixel's own grey times 1 ± saturation")
    tint: float = Field(0.0, ge=0, le=1, description="each of red, green and blue times 1 ± tint")


def augment_poses(
    clip: np.ndarray,
    how: PoseAugment,
    layout: Layout,
    rng: np.random.Generator,
    other: np.ndarray | None = None,
) -> np.ndarray:
    """Augment one clip of poses: splice it with `other` of the same gloss, vary time and space, lose hands and frames.

    Returns float32 (frames', joints, 3) with 1 <= frames' <= about frames * (1 + speed).
    """
    if other is not None and rng.random() < how.splice:
        clip = _splice(clip, other, layout, rng)
    if how.warp or how.speed or how.crop:
        clip = _vary_time(clip, how, rng)
    if rng.random() < how.mirror:
        clip = _mirror(clip, layout)
    if rng.random() < how.probability and clip[..., 2].any():
        clip = _vary_space(clip, how, layout, rng)
    if rng.random() < how.hand_dropout:  # for up to half of the frames
        span = rng.integers(1, max(2, len(clip) // 2 + 1))
        start = rng.integers(0, len(clip) - span + 1)
        clip = clip.copy()
        clip[start : start + span, layout.parts[SIDES[rng.integers(2)]]] = 0
    lost = rng.random(len(clip)) < rng.uniform(0, how.frame_dropout)
    return np.where(lost[:, None, None], np.float32(0), clip)


def resample(clip: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Sample a clip of poses at fractional frame numbers: linearly where both neighbouring frames have the joint.

    Where only one neighbour has it, the nearer one decides, so no joint is made up.
    positions: (count,) in [0, frames - 1]. Returns float32 (count, joints, 3).
    """
    low = np.floor(positions).astype(int)
    high = np.minimum(low + 1, len(clip) - 1)
    weight = (positions - low).astype(np.float32)[:, None, None]
    nearest = clip[np.round(positions).astype(int)]
    between = (1 - weight) * clip[low] + weight * clip[high]
    both = clip[low, :, 2:] * clip[high, :, 2:] > 0
    return np.where(both, between, nearest)


def augment_clip(images: Sequence[np.ndarray], size: int, how: ClipAugment, rng: np.random.Generator) -> np.ndarray:
    """Augment one RGB clip, all frames alike: images, each uint8 (side, side, 3) -> uint8 (frames, size, size, 3).

    What a rotation brings in from outside is the image mirrored at its edge, never black.
    """
    matrix = _view_matrix(len(images[0]), size, how, rng)
    # One map for all frames, in the form that cv2.remap is fastest with. cv2.warpAffine, which makes one for each,
    # takes half as long again.
    pixels = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1)
    places = (pixels @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    maps = cv2.convertMaps(places, None, cv2.CV_16SC2)
    clip = np.empty((len(images), size, size, 3), np.uint8)
    for image, varied in zip(images, clip, strict=True):
        cv2.remap(image, *maps, cv2.INTER_LINEAR, dst=varied, borderMode=cv2.BORDER_REFLECT_101)
    colours = _colour_matrix(how, rng)
    if np.array_equal(colours, np.eye(3, 4)):
        return clip
    return cv2.transform(clip.reshape(-1, size, 3), colours).reshape(clip.shape)  # saturates at 0 and 255


def resize(images: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Scale whole images, uint8 (side, side, 3) each, without augmentation -> uint8 (frames, size, size, 3)."""
    clip = np.empty((len(images), size, size, 3), np.uint8)
    for image, resized in zip(images, clip, strict=True):
        cv2.resize(image, (size, size), dst=resized, interpolation=cv2.INTER_LINEAR)
    return clip


def _splice(clip: np.ndarray, other: np.ndarray, layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """Take one hand, or all joints before or after a moment, from another clip, aligned with this one.

    Two clips of a gloss perform the same sign differently; parts of both make a third performance.
    """
    other = _align(other, clip)
    if rng.random() < 0.5:
        part = layout.parts[SIDES[rng.integers(2)]]
        mixed = clip.copy()
        mixed[:, part] = other[:, part]
        return mixed
    first, second = (clip, other) if rng.random() < 0.5 else (other, clip)
    cut = rng.integers(0, len(clip) + 1)
    return np.concatenate([first[:cut], second[cut:]])


def _align(clip: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Bring a clip to the number of frames, the centre and the spread of another."""
    clip = resample(clip, np.linspace(0, len(clip) - 1, len(to)))
    here, there = _spread(clip), _spread(to)
    ratio = there / here if here > NO_SPREAD * there else 1.0  # a single joint has no spread but rounding errors
    return _with_xy(clip, (clip[..., :2] - _centre(clip)) * ratio + _centre(to))


def _vary_time(clip: np.ndarray, how: PoseAugment, rng: np.random.Generator) -> np.ndarray:
    """Crop at both ends, change the overall speed and, smoothly, the speed within the clip."""
    frames = len(clip)
    cut = rng.uniform(0, how.crop) * (frames - 1)
    start = rng.uniform(0, cut)
    count = max(1, round((frames - cut) * (1 + rng.uniform(-how.speed, how.speed))))
    even = np.linspace(0, 1, count)
    bent = even + how.warp * rng.uniform(-1, 1) * np.sin(np.pi * even) / np.pi
    return resample(clip, start + bent * (frames - 1 - cut))


def _mirror(clip: np.ndarray, layout: Layout) -> np.ndarray:
    """Reflect about the vertical through the centre and swap left and right joints, as if of a left-handed signer."""
    flipped = _transform(clip, np.diag([-1.0, 1.0]))
    order = np.arange(clip.shape[1])
    left, right = np.array(layout.pairs).T
    order[left], order[right] = right, left
    return flipped[:, order]


def _vary_space(clip: np.ndarray, how: PoseAugment, layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """Transform the whole clip, then each hand about its wrist; shift each hand; add noise to each joint.

    Each is drawn once for the clip, except for noise. In frames without its wrist a hand is not transformed.
    """
    clip = _transform(clip, _affine_matrix(how.rotation, how.scale, how.shear, rng))
    if how.hand_rotation or how.hand_scale or how.hand_shear:
        xy = clip[..., :2].copy()
        for side in SIDES:
            part = layout.parts[side]
            matrix = _affine_matrix(how.hand_rotation, how.hand_scale, how.hand_shear, rng).astype(np.float32)
            wrist, seen = clip[:, part, :2][:, :1], clip[:, part, 2:][:, :1] > 0
            xy[:, part] = np.where(seen, (xy[:, part] - wrist) @ matrix.T + wrist, xy[:, part])
        clip = _with_xy(clip, xy)
    unit = _spread(clip)
    if how.shift:
        offsets = np.zeros((clip.shape[1], 2), np.float32)
        for side in SIDES:
            offsets[layout.parts[side]] = rng.normal(0, how.shift * unit, 2)
        clip = _with_xy(clip, clip[..., :2] + offsets)
    if how.noise:
        clip = _with_xy(clip, clip[..., :2] + rng.normal(0, how.noise * unit, clip[..., :2].shape))
    return clip


def _affine_matrix(rotation: float, scale: float, shear: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a linear map (2, 2): a shear, then a scale for each axis, then a rotation in degrees."""
    turn = _rotation(rotation, rng)
    stretch = np.diag(1 + rng.uniform(-scale, scale, 2))
    slant = np.array([[1, rng.uniform(-shear, shear)], [0, 1]])
    return turn @ stretch @ slant


def _rotation(degrees: float, rng: np.random.Generator) -> np.ndarray:
    angle = np.radians(rng.uniform(-degrees, degrees))
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _transform(clip: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    here = _centre(clip)
    return _with_xy(clip, (clip[..., :2] - here) @ matrix.T.astype(np.float32) + here)


def _centre(clip: np.ndarray) -> np.ndarray:
    """Mean position of the present joints over the whole clip, float32 (2,); zero when there are none."""
    present = clip[..., 2:]
    return (clip[..., :2] * present).sum((0, 1)) / max(present.sum(), 1)


def _spread(clip: np.ndarray) -> float:
    """Root mean square distance of the present joints from their centre."""
    present = clip[..., 2]
    squared = ((clip[..., :2] - _centre(clip)) ** 2).sum(-1)
    return float(np.sqrt((squared * present).sum() / max(present.sum(), 1)))


def _with_xy(clip: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """The clip with new coordinates; missing joints keep x = y = 0."""
    present = clip[..., 2:]
    return np.concatenate([xy * present, present], -1, dtype=np.float32)


def _view_matrix(side: int, size: int, how: ClipAugment, rng: np.random.Generator) -> np.ndarray:
    """Draw which part of images of `side` pixels fills `size` pixels: crop, rotation, flip.

    Returns float64 (2, 3), which maps a pixel of the result to its place in the image.
    """
    share = 1 - rng.uniform(0, how.crop)
    middle = side * (0.5 + rng.uniform(-0.5, 0.5, 2) * (1 - share))
    turn = _rotation(how.rotation, rng)
    mirror = np.diag([-1.0 if rng.random() < how.flip else 1.0, 1.0])
    matrix = share * side / size * turn @ mirror
    # Pixel i covers [i, i + 1) and its centre is i + 1/2, in the image as in the result.
    return np.column_stack([matrix, middle - 0.5 - matrix @ np.full(2, (size - 1) / 2)])


def _colour_matrix(how: ClipAugment, rng: np.random.Generator) -> np.ndarray:
    """Draw an affine map of colours in 0 to 255. Returns float64 (3, 4): red, green, blue and a constant."""
    saturation, contrast = 1 + rng.uniform(-1, 1, 2) * (how.saturation, how.contrast)
    tint = 1 + rng.uniform(-how.tint, how.tint, 3)
    mix = saturation * np.eye(3) + (1 - saturation) * LUMA
    constant = GREY * (1 - contrast) + 255 * rng.uniform(-how.brightness, how.brightness)
    return np.column_stack([contrast * tint[:, None] * mix, np.full(3, constant)])
