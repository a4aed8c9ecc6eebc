"""Augmentation: of poses in space, time and what the detector loses; of RGB clips in view and colour.

Poses are float32 (frames, joints, 3): x, y, present in {0, 1}, with x = y = 0 where a joint is missing. No function
changes its input; all randomness comes from the generator passed in.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import islice

import cv2
import numpy as np
from pydantic import Field

from lib.data.layouts import SIDES, Layout
from lib.settings import Settings

NO_SPREAD = 1e-5  # relative to another clip's spread: float32 has seven digits
# An image as it was decoded: (Y, U, V), each uint8 (side, side), U and V perhaps smaller; or (RGB,), (side, side, 3).
Layers = Sequence[np.ndarray]
# Affine maps of colours, as cv2.transform takes them: red, green and blue from Y, U, V and a constant, as in every JPEG
# file (BT.601 in full range, JFIF 1.02), and Y, U, V and a constant from those of an image with so many layers.
RGB_OF_YUV = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]]) @ np.eye(3, 4)
RGB_OF_YUV[:, 3] = RGB_OF_YUV[:, 1:3] @ [-128, -128]
YUV_OF = {3: np.eye(4), 1: np.linalg.inv(np.vstack([RGB_OF_YUV, np.eye(4)[3]]))}
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


def augment_clip(
    frames: Iterable[Layers], size: int, how: ClipAugment, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Augment one RGB clip, given as layers, all frames alike -> images, each uint8 (size, size, 3) RGB.

    The next image takes the place of the one before. What a rotation brings in from outside is the image mirrored at
    its edge, never black.
    """
    matrix = _view_matrix(1, size, how, rng)
    # Saturation scales what U and V add, so that one affine map does all.
    saturation, contrast = 1 + rng.uniform(-1, 1, 2) * (how.saturation, how.contrast)
    tint = 1 + rng.uniform(-how.tint, how.tint, 3)
    colours = contrast * tint[:, None] * RGB_OF_YUV * (1, saturation, saturation, saturation)
    colours[:, 3] += GREY * (1 - contrast) + 255 * rng.uniform(-how.brightness, how.brightness)
    merged, image = np.empty((2, size, size, 3), np.uint8)  # new ones for each image would take as long as its colours
    for layers in _viewed(frames, size, matrix):
        yield cv2.transform(cv2.merge(layers, merged), colours @ YUV_OF[len(layers)], image)  # saturates at 0 and 255


def _viewed(frames: Iterable[Layers], size: int, matrix: np.ndarray) -> Iterator[Layers]:
    """The frames as `matrix`, from `_view_matrix` of side 1, shows them; the next four take the place of four."""
    across, down = matrix[:, :2].T[..., None] * np.arange(size)  # (2, size) each
    places = (down[..., None] + across[:, None] + matrix[:, 2:, None] + 0.5).astype(np.float32)  # 0 and 1 are the edges
    seen, apart = np.empty((size, size, 4), np.uint8), np.empty((3, 4, size, size), np.uint8)

    @cache
    def warp(side: int) -> tuple[np.ndarray, ...]:
        """Room for four planes of this side, and their map in the form that cv2.remap is fastest with."""
        return np.empty((side, side, 4), np.uint8), *cv2.convertMaps(*(side * places - np.float32(0.5)), cv2.CV_16SC2)

    def view(layers: Layers) -> np.ndarray:
        """Warp RGB, or up to four planes as the channels of one image."""
        room, *maps = warp(len(layers[0]))
        image = layers[0] if len(layers) == 1 else cv2.merge(layers, room)
        return cv2.remap(image, *maps, cv2.INTER_LINEAR, seen, cv2.BORDER_REFLECT_101)

    frames = iter(frames)
    while four := list(islice(frames, 4)):
        if len(four[0]) == 1:  # RGB
            yield from ([view(layers)] for layers in four)
        else:  # a warp of four planes, as the channels of one image, takes no longer than that of one
            planes = zip(zip(*four, strict=True), apart, strict=True)
            yield from zip(*(cv2.split(view(of_four), list(to[: len(four)])) for of_four, to in planes), strict=True)


def resize(frames: Iterable[Layers], size: int) -> Iterator[np.ndarray]:
    """Scale whole images, given as layers, without augmentation -> images, each uint8 (size, size, 3) RGB."""
    for layers in frames:
        scaled = cv2.merge([cv2.resize(layer, (size, size)) for layer in layers])
        yield cv2.transform(scaled, RGB_OF_YUV @ YUV_OF[len(layers)])


def _splice(clip: np.ndarray, other: np.ndarray, layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """Take one hand, or all joints before or after a moment, from another performance of the sign."""
    # Bring the other clip to this one's number of frames, centre and spread.
    other = resample(other, np.linspace(0, len(other) - 1, len(clip)))
    there, here = _spread(other), _spread(clip)
    ratio = here / there if there > NO_SPREAD * here else 1.0  # a single joint has no spread but rounding errors
    other = _with_xy(other, (other[..., :2] - _centre(other)) * ratio + _centre(clip))
    if rng.random() < 0.5:
        part = layout.parts[SIDES[rng.integers(2)]]
        mixed = clip.copy()
        mixed[:, part] = other[:, part]
        return mixed
    first, second = (clip, other) if rng.random() < 0.5 else (other, clip)
    cut = rng.integers(0, len(clip) + 1)
    return np.concatenate([first[:cut], second[cut:]])


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
    """Transform the whole clip, then each hand about its wrist where that is present; shift hands; add noise."""
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
    """Mean position of the present joints over the whole clip (2,); zero when there are none."""
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
    """Draw a crop, rotation and flip: the map (2, 3) from pixels of the result, `size` wide, to those of the image."""
    share = 1 - rng.uniform(0, how.crop)
    middle = side * (0.5 + rng.uniform(-0.5, 0.5, 2) * (1 - share))
    turn = _rotation(how.rotation, rng)
    mirror = np.diag([-1.0 if rng.random() < how.flip else 1.0, 1.0])
    matrix = share * side / size * turn @ mirror
    # Pixel i covers [i, i + 1) and its centre is i + 1/2, in the image as in the result.
    return np.column_stack([matrix, middle - 0.5 - matrix @ np.full(2, (size - 1) / 2)])
