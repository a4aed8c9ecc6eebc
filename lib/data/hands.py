"""Which hand is which: MediaPipe's two slots carry no handedness and may swap from frame to frame.

Each frame with hands is in one of two states, as found or swapped. The best sequence of states (Viterbi) moves each
hand as little as possible, lets as few hands as possible appear and vanish, and agrees with two cues for a right hand:
it lies towards the left of the image, and its fingers curl towards a right hand's palm.

Measured with a nearest-neighbour classifier (24 frames, no training, each of the 913 train and val clips of WLASL100
against the others): 28 % as found, 33 % ordered by position in each frame, 35 % with this method.

The first frames of a clip may show the hands of the preceding video. Nothing gives them away: jumps between successive
frames are hardly more frequent there (2.1 % of steps, 1.4 % elsewhere). They are kept.
"""

import numpy as np

MISSING = -1.0
TWIN = 0.1  # two hands closer than this share of their size are one hand found twice
JUMP = 0.3  # a movement between two frames costs at most this (in image widths)
APPEAR = 0.2  # cost of a hand that appears or vanishes
POSITION, CURL = 0.3, 0.1  # weights of the two cues for a right hand, per frame

WRIST, INDEX, MIDDLE, LITTLE = 0, 5, 9, 17
KNUCKLES, TIPS = [5, 9, 13, 17], [8, 12, 16, 20]


def order_hands(landmarks: np.ndarray) -> np.ndarray:
    """Put the two hands of every frame in the order left, right (the signer's own).

    landmarks: float (frames, 2, 21, 3): x, y in [0, 1] of the image, z; -1 = missing. The result does not depend on the
    order of the slots in any frame. Where both slots contain the same hand, one is kept.
    Returns float32 (frames, 42, 3): x, y, present; x = y = 0 where missing.
    """
    hands = _drop_twins(_sorted(np.asarray(landmarks, np.float32)))
    present = _present(hands)
    seen = np.flatnonzero(present.any(1))
    swap = seen[_best_states(hands[seen], present[seen])]
    hands[swap] = hands[swap, ::-1]
    present[swap] = present[swap, ::-1]
    hands[..., 2] = 1
    hands[~present] = 0
    return hands.reshape(len(hands), 42, 3)


def _present(hands: np.ndarray) -> np.ndarray:
    """Which hands are there: (frames, 2, 21, 3) -> bool (frames, 2)."""
    return (hands[..., :2] != MISSING).all((2, 3))


def _sorted(hands: np.ndarray) -> np.ndarray:
    """Sort the slots by content alone: by the first value that differs."""
    difference = (hands[:, 0] - hands[:, 1]).reshape(len(hands), -1)
    first = (difference != 0).argmax(1)
    larger = np.take_along_axis(difference, first[:, None], 1)[:, 0] > 0
    return np.where(larger[:, None, None, None], hands[:, ::-1], hands)


def _drop_twins(hands: np.ndarray) -> np.ndarray:
    """Mark the second slot (frames, 2, 21, 3) missing where both contain the same hand.

    That is, where the mean distance between corresponding joints is below a tenth of the hands' size: in 1 of 60 frames
    with two hands in the WLASL archive.
    """
    apart = np.linalg.norm(hands[:, 0, :, :2] - hands[:, 1, :, :2], axis=-1).mean(-1)
    size = np.linalg.norm(np.ptp(hands[..., :2], axis=2), axis=-1).mean(-1)
    hands = hands.copy()
    hands[(apart <= TWIN * size) & _present(hands).all(1), 1] = MISSING
    return hands


def _best_states(hands: np.ndarray, present: np.ndarray) -> np.ndarray:
    """The cheapest sequence of states (Viterbi) of the frames with hands; bool (frames,): swap or not."""
    if not len(hands):
        return np.zeros(0, bool)
    static = _static_costs(hands, present)
    cost, origin = static[0], []
    for here, between in zip(static[1:], _moving_costs(hands, present), strict=True):
        total = cost[:, None] + between  # (state before, state now)
        origin.append(total.argmin(0))
        cost = total.min(0) + here
    states = [int(cost.argmin())]
    for back in reversed(origin):
        states.append(int(back[states[-1]]))
    return np.array(states[::-1], bool)


def _static_costs(hands: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Cost of each state of a frame by itself: float (frames, 2 states)."""
    x = hands[..., 0].mean(-1)
    rightness = np.where(present, POSITION * (0.5 - x) + CURL * _right_handed(hands), 0)
    as_found = rightness[:, 0] - rightness[:, 1]  # slot 0 is taken for left, slot 1 for right
    return np.stack([as_found, -as_found], 1)


def _right_handed(hands: np.ndarray) -> np.ndarray:
    """How far the fingers curl towards a right hand's palm: (..., 21, 3) -> (...) in [-1, 1], in lengths of the palm.

    The normal of wrist, index and little knuckle points out of the palm of one hand and out of the back of the other;
    fingers bend towards the palm. Positive = right. In WLASL frames with two hands side by side it agrees with their
    positions for 4 of 5 hands: a cue, not a rule.
    """
    index, little = (hands[..., joint, :] - hands[..., WRIST, :] for joint in (INDEX, LITTLE))
    normal = np.cross(index, little)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-6
    curl = (hands[..., TIPS, :] - hands[..., KNUCKLES, :]).mean(-2)
    palm = np.linalg.norm(hands[..., MIDDLE, :] - hands[..., WRIST, :], axis=-1) + 1e-6
    return np.clip((curl * normal).sum(-1) / palm, -1, 1)


def _moving_costs(hands: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Cost of going from each state to each state of the next frame: float (frames - 1, 2 before, 2 now)."""
    before, now = slice(None, -1), slice(1, None)
    place = hands[..., :2].mean(2)
    step = np.linalg.norm(place[before, :, None] - place[now, None, :], axis=-1)  # (frames - 1, slot, slot)
    both = present[before, :, None] & present[now, None, :]
    one = present[before, :, None] ^ present[now, None, :]
    cost = np.where(both, np.minimum(step, JUMP), np.where(one, APPEAR, 0))
    keep, change = cost[:, 0, 0] + cost[:, 1, 1], cost[:, 0, 1] + cost[:, 1, 0]
    return np.stack([keep, change, change, keep], 1).reshape(-1, 2, 2)
