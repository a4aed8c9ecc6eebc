"""Keypoint layouts as data: the joints, the bones between them, and which joints mirror each other."""

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
    """One set of joints; left and right are the signer's own.

    joints: names, in the order of the second axis of poses.
    edges: bones, as pairs of joint numbers.
    pairs: (left, right) joint numbers that a mirror swaps; each joint of a side is in one pair.
    parts: the slice of the joint axis of each part: "left" and "right" hand, and "body" if there is one.
    """

    name: str
    joints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    pairs: tuple[tuple[int, int], ...]
    parts: dict[str, slice]


def _layout(name: str, parts: dict[str, tuple[str, ...]], bones: list[tuple[str, str]]) -> Layout:
    joints = tuple(joint for names in parts.values() for joint in names)
    number = {joint: i for i, joint in enumerate(joints)}
    return Layout(
        name=name,
        joints=joints,
        edges=tuple((number[a], number[b]) for a, b in bones),
        pairs=tuple((number[j], number[j.replace("left_", "right_", 1)]) for j in joints if j.startswith("left_")),
        parts={part: slice(number[names[0]], number[names[-1]] + 1) for part, names in parts.items()},
    )


# Each finger is a chain from the wrist. A hand has 21 joints in the order of OpenPose and of MediaPipe: wrist, then
# finger by finger.
_CHAINS = {
    side: [[f"{side}_hand_wrist", *(f"{side}_{finger}_{n}" for n in range(1, 5))] for finger in FINGERS]
    for side in SIDES
}
_HANDS = {side: (chains[0][0], *(joint for chain in chains for joint in chain[1:])) for side, chains in _CHAINS.items()}
_HAND_BONES = [bone for chains in _CHAINS.values() for chain in chains for bone in pairwise(chain)]

LAYOUTS: dict[str, Layout] = {
    "openpose-54": _layout("openpose-54", {"body": BODY, **_HANDS}, [*BODY_BONES, *ARM_BONES, *_HAND_BONES]),
    "hands-42": _layout("hands-42", _HANDS, _HAND_BONES),
}
