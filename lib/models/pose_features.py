"""The first layer of every pose model: normalisation and features, inside the model so that they are exported with it.

Input: float32 (batch, frames, joints, 3): x, y in any unit, present in {0, 1}. Below, coordinates `xy` are
(batch, frames, joints, 2) and `present` is (batch, frames, joints, 1). A frame without any present joint (padding, or
the detector found nobody) is masked.
"""

from typing import Any

from keras import layers, ops

from lib.data.layouts import LAYOUTS, SIDES, Layout

EPSILON = 1e-6  # keeps the gradient of a square root finite; far below any length in pixels or image widths
SHAPE_SCALE, MOVEMENT_SCALE = 2.0, 4.0  # bring fingers and movements to about the magnitude of places


class PoseFeatures(layers.Layer):
    """Poses (batch, frames, joints, 3) to features (batch, frames, values) and mask (batch, frames) of 0 and 1.

    The values are the normalised x, y of every joint; with `motion` also each joint's place in the clip, its movement
    since the previous frame, and whether each hand is present.
    """

    def __init__(self, layout: str, normalisation: str, motion: bool, **kwargs: Any) -> None:
        # Coordinates in pixels lose too much in bfloat16: features are always computed in float32.
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.layout = LAYOUTS[layout]
        self.normalise = NORMALISATIONS[normalisation]
        self.motion = motion

    def call(self, poses: Any) -> tuple[Any, Any]:
        xy, present = poses[..., :2], poses[..., 2:]
        parts = [self.normalise(xy, present, self.layout)]
        if self.motion:
            places = _place(xy, present)
            parts += [places, MOVEMENT_SCALE * movement(places, present)]
        batch, frames = ops.shape(xy)[0], ops.shape(xy)[1]
        flat = [ops.reshape(part, (batch, frames, 2 * len(self.layout.joints))) for part in parts]
        if self.motion:
            flat += [ops.max(present[:, :, self.layout.parts[side], 0], -1, keepdims=True) for side in SIDES]
        return ops.concatenate(flat, -1), ops.max(present[..., 0], axis=-1)


def _place(xy: Any, present: Any) -> Any:
    """Coordinates relative to the centroid of the clip's present joints, in units of their RMS distance from it."""
    centroid = _masked_mean(xy, present)
    distance = ops.sqrt(_masked_mean(ops.sum((xy - centroid) ** 2, -1, keepdims=True), present) + EPSILON**2)
    return (xy - centroid) / distance * present


def _masked_mean(values: Any, weights: Any) -> Any:
    """Mean over frames and joints where `weights` is 1, or zero if there are none; (batch, 1, 1, values)."""
    total = ops.sum(values * weights, axis=(1, 2), keepdims=True)
    return total / ops.maximum(ops.sum(weights, axis=(1, 2), keepdims=True), 1.0)


def movement(places: Any, present: Any) -> Any:
    """How far each joint moved since the previous frame; zero where it is missing in either."""
    both = present[:, 1:] * present[:, :-1]
    return ops.pad((places[:, 1:] - places[:, :-1]) * both, ((0, 0), (1, 0), (0, 0), (0, 0)))


def published_normalisation(xy: Any, present: Any, layout: Layout) -> Any:
    """Normalise as SPOBET does (process_data.py of the published code): frame by frame, in units of the head.

    The size of the head is the distance from nose to neck. Body joints are relative to the neck, in units of three
    heads; hand joints are relative to the wrist of the arm, in units of one head. Joints whose nose, neck or wrist is
    missing become zero (the published code divides by zero there and loses the frame).
    """
    nose, neck = layout.joints.index("nose"), layout.joints.index("neck")
    neck_to_nose = xy[:, :, nose : nose + 1] - xy[:, :, neck : neck + 1]
    head = ops.sqrt(ops.sum(neck_to_nose**2, -1, keepdims=True) + EPSILON**2)
    head_seen = present[:, :, nose : nose + 1] * present[:, :, neck : neck + 1]
    out = []
    for name, part in layout.parts.items():
        origin, heads = (neck, 3.0) if name == "body" else (layout.joints.index(f"{name}_wrist"), 1.0)
        seen = present[:, :, part] * head_seen * present[:, :, origin : origin + 1]
        out.append((xy[:, :, part] - xy[:, :, origin : origin + 1]) / (heads * head) * seen)
    return ops.concatenate(out, axis=2)


def robust_normalisation(xy: Any, present: Any, layout: Layout) -> Any:
    """Normalise by the whole clip, for data that may lack the body, and either hand in most frames.

    Body joints and the wrist of each hand become their place in the clip (see `_place`). The other joints of a hand
    are relative to its wrist in the same frame, in the same unit.
    """
    places = _place(xy, present)
    out = [places[:, :, layout.parts["body"]]] if "body" in layout.parts else []
    for side in SIDES:
        hand, seen = places[:, :, layout.parts[side]], present[:, :, layout.parts[side]]
        fingers = (hand - hand[:, :, :1]) * seen * seen[:, :, :1]
        out += [hand[:, :, :1], SHAPE_SCALE * fingers[:, :, 1:]]
    return ops.concatenate(out, axis=2)


NORMALISATIONS = {"published": published_normalisation, "robust": robust_normalisation}
