"""Augmentation of RGB clips: where the camera looks and what it sees as colours, the same for all frames of a clip."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

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


def augment(images: Sequence[np.ndarray], size: int, how: ClipAugment, rng: np.random.Generator) -> np.ndarray:
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
