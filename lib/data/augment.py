"""Augmentation: how strong it is, of poses and of RGB clips; of RGB clips in view and colour.

Poses are float32 (frames, joints, 3): x, y, present in {0, 1}, with x = y = 0 where a joint is missing; they are
augmented in lib.data.pose_augment. No function changes its input; all randomness comes from the generator passed in.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import islice

import cv2
import numpy as np
from pydantic import Field

from lib.settings import Settings

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
    finger_rotation: float = Field(0.0, ge=0, le=180, description="each finger, half of them, about its knuckle")
    hand_scale: float = Field(0.0, ge=0, lt=1, description="each hand from its own wrist, like scale")
    hand_shear: float = Field(0.0, ge=0, lt=1, description="each hand from its own wrist, like shear")
    noise: float = Field(0.0, ge=0, description="standard deviation of every joint in every frame")
    mirror: float = Field(0.0, ge=0, le=1, description="probability")
    warp: float = Field(0.0, ge=0, lt=1, description="strength of the smooth change of speed within a clip")
    speed: float = Field(0.0, ge=0, lt=1, description="the whole clip 1 ± speed times as long")
    crop: float = Field(0.0, ge=0, lt=1, description="largest share of frames cut off at both ends together")
    frame_dropout: float = Field(0.0, ge=0, lt=1, description="largest share of frames lost")
    hand_dropout: float = Field(0.0, ge=0, le=1, description="probability that one hand is lost for a while")
    time_mask: float = Field(0.0, ge=0, le=1, description="probability that 20 to 40 % of the frames in a row are lost")
    box: float = Field(
        0.0, ge=0, le=1, description="probability that all joints in a box are lost, 20 to 40 % of the extent"
    )
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


def _rotation(degrees: float, rng: np.random.Generator) -> np.ndarray:
    angle = np.radians(rng.uniform(-degrees, degrees))
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _view_matrix(side: int, size: int, how: ClipAugment, rng: np.random.Generator) -> np.ndarray:
    """Draw a crop, rotation and flip: the map (2, 3) from pixels of the result, `size` wide, to those of the image."""
    share = 1 - rng.uniform(0, how.crop)
    middle = side * (0.5 + rng.uniform(-0.5, 0.5, 2) * (1 - share))
    turn = _rotation(how.rotation, rng)
    mirror = np.diag([-1.0 if rng.random() < how.flip else 1.0, 1.0])
    matrix = share * side / size * turn @ mirror
    # Pixel i covers [i, i + 1) and its centre is i + 1/2, in the image as in the result.
    return np.column_stack([matrix, middle - 0.5 - matrix @ np.full(2, (size - 1) / 2)])
