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
# The rings of the lips, outer and inner, from the right corner over the upper lip to the left corner, and back below.
LIPS = (
    ("right_lip_1", "right_lip_2", "right_lip_3", "upper_lip", "left_lip_3", "left_lip_2", "left_lip_1",
     "left_lip_4", "left_lip_5", "lower_lip", "right_lip_5", "right_lip_4"),
    ("right_inner_lip_1", "right_inner_lip_2", "upper_inner_lip", "left_inner_lip_2", "left_inner_lip_1",
     "left_inner_lip_3", "lower_inner_lip", "right_inner_lip_3"),
)  # fmt: skip
ARM_BONES = (("right_wrist", "right_hand_wrist"), ("left_wrist", "left_hand_wrist"))


@dataclass(frozen=True)
class Layout:
    """One set of joints; left and right are the signer's own.

    joints: names, in the order of the second axis of poses.
    edges: bones, as pairs of joint numbers.
    pairs: (left, right) joint numbers that a mirror swaps; each joint of a side is in one pair.
    parts: the slice of the joint axis of each part: "left" and "right" hand, and "body" and "lips" if there are.
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


# A hand has 21 joints in the order of OpenPose and of MediaPipe: wrist, then finger by finger, each a chain.
_CHAINS = {
    side: [[f"{side}_hand_wrist", *(f"{side}_{finger}_{n}" for n in range(1, 5))] for finger in FINGERS]
    for side in SIDES
}
_HANDS = {side: (chains[0][0], *(joint for chain in chains for joint in chain[1:])) for side, chains in _CHAINS.items()}
_HAND_BONES = [bone for chains in _CHAINS.values() for chain in chains for bone in pairwise(chain)]

_BODY_BONES = [*BODY_BONES, *ARM_BONES, *_HAND_BONES]
_LIP_BONES = [bone for ring in LIPS for bone in pairwise([*ring, ring[0]])]

LAYOUTS: dict[str, Layout] = {
    "openpose-54": _layout("openpose-54", {"body": BODY, **_HANDS}, _BODY_BONES),
    "hands-42": _layout("hands-42", _HANDS, _HAND_BONES),
    "body-hands": _layout(
        "body-hands", {"body": BODY, **_HANDS, "lips": (*LIPS[0], *LIPS[1])}, [*_BODY_BONES, *_LIP_BONES]
    ),
}
