"""Keypoint layouts as data: the joints, the bones between them, and which joints mirror each other."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

FINGERS = ("thumb", "index", "middle", "ring", "little")
SIDES = ("left", "right")

# Neck and head, arms, face: joints 0-7 and 15-18 of OpenPose's BODY_25, in its order.
BODY = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist",
    "left_shoulder", "left_elbow", "left_wrist", "right_eye", "left_eye", "right_ear", "left_ear",
)  # fmt: skip
BODY_BONES = (
    ("nose", "neck"),
    ("neck", "right_shoulder"), ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist"),
    ("neck", "left_shoulder"), ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"),
    ("nose", "right_eye"), ("right_eye", "right_ear"), ("nose", "left_eye"), ("left_eye", "left_ear"),
)  # fmt: skip
ARM_BONES = (("right_wrist", "right_hand_wrist"), ("left_wrist", "left_hand_wrist"))


@dataclass(frozen=True)
class Layout:
    """One set of joints.

    joints: names, in the order of a pose array's second axis.
    edges: bones, as pairs of joint numbers.
    pairs: (left, right) joint numbers that change places in a mirror; each joint of a side is in one.
    parts: where each part lies on the joint axis: "left" and "right" hand, and "body" where there is one.
    Left and right are the signer's own.
    """

    name: str
    joints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    pairs: tuple[tuple[int, int], ...]
    parts: dict[str, slice]


def _hand(side: str) -> tuple[str, ...]:
    """The 21 joints of a hand in the order of OpenPose and of MediaPipe: wrist, then finger by finger."""
    return (f"{side}_hand_wrist", *(f"{side}_{finger}_{n}" for finger in FINGERS for n in range(1, 5)))


def _hand_bones(side: str) -> list[tuple[str, str]]:
    chains = [[f"{side}_hand_wrist", *(f"{side}_{finger}_{n}" for n in range(1, 5))] for finger in FINGERS]
    return [bone for chain in chains for bone in pairwise(chain)]


def _layout(name: str, parts: dict[str, tuple[str, ...]], bones: Iterable[tuple[str, str]]) -> Layout:
    joints = tuple(joint for names in parts.values() for joint in names)
    number = {joint: i for i, joint in enumerate(joints)}
    ends = [number[names[-1]] + 1 for names in parts.values()]
    slices = {part: slice(end - len(parts[part]), end) for part, end in zip(parts, ends, strict=True)}
    lefts = [joint for joint in joints if joint.startswith("left_")]
    return Layout(
        name=name,
        joints=joints,
        edges=tuple((number[a], number[b]) for a, b in bones),
        pairs=tuple((number[left], number[left.replace("left_", "right_", 1)]) for left in lefts),
        parts=slices,
    )


_HANDS = {side: _hand(side) for side in SIDES}
_HAND_BONES = [bone for side in SIDES for bone in _hand_bones(side)]

LAYOUTS: dict[str, Layout] = {
    "openpose-54": _layout("openpose-54", {"body": BODY, **_HANDS}, [*BODY_BONES, *ARM_BONES, *_HAND_BONES]),
    "hands-42": _layout("hands-42", _HANDS, _HAND_BONES),
}
