"""Which hand is which: MediaPipe's two slots carry no handedness and may swap from frame to frame.

Each frame with hands is in one of two states, as found or swapped. The best sequence of states (Viterbi) moves each
hand as little as possible, lets as few hands as possible appear and vanish, and agrees with two cues for a right hand:
it lies towards the left of the image, and its fingers curl towards a right hand's palm. A nearest-neighbour classifier
(24 frames, no training, leave-one-out on the 913 train and val clips of WLASL100) is right for 28 % of the clips as
found, 33 % with hands ordered by position in each frame, 35 % with this method.

The first frames of a clip may show the hands of the preceding video. They are kept, as nothing gives them away: jumps
between successive frames are hardly more frequent there (2.1 % of steps, 1.4 % elsewhere).
"""

import numpy as np

MISSING = -1.0
TWIN = 0.1  # two hands whose joints are closer, on average, than this share of their size are one hand found twice
JUMP = 0.3  # a movement between two frames costs at most this (in image widths)
APPEAR = 0.2  # cost of a hand that appears or vanishes
POSITION, CURL = 0.3, 0.1  # weights of the two cues for a right hand, per frame

WRIST, INDEX, MIDDLE, LITTLE = 0, 5, 9, 17
KNUCKLES, TIPS = [5, 9, 13, 17], [8, 12, 16, 20]


def order_hands(landmarks: np.ndarray) -> np.ndarray:
    """Put the two hands of every frame in the order left, right (the signer's own).

    landmarks: float (frames, 2, 21, 3): x, y in [0, 1] of the image, z; -1 = missing. The result does not depend on the
    order of the slots in any frame. Where both slots contain the same hand, one is kept. A hand with a joint whose x or
    y is not finite is missing.
    Returns float32 (frames, 42, 3): x, y, present; x = y = 0 where missing.
    """
    hands = np.array(landmarks, np.float32)
    if not np.isfinite(hands).all():
        hands[~np.isfinite(hands[..., :2]).all((2, 3))] = MISSING
        hands[..., 2] = np.nan_to_num(hands[..., 2], nan=0, posinf=0, neginf=0)
    hands = _drop_twins(_sorted(hands))
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
    """Mark the second slot missing where both contain the same hand: in 1 of 60 two-handed frames of WLASL."""
    hands, both = hands.copy(), np.flatnonzero(_present(hands).all(1))
    pair = hands[both, ..., :2]
    apart = np.linalg.norm(pair[:, 0] - pair[:, 1], axis=-1).mean(-1)
    size = np.linalg.norm(np.ptp(pair, axis=2), axis=-1).mean(-1)
    hands[both[apart <= TWIN * size], 1] = MISSING
    return hands


def _best_states(hands: np.ndarray, present: np.ndarray) -> np.ndarray:
    """The cheapest sequence of states (Viterbi) of the frames with hands; bool (frames,): swap or not."""
    if not len(hands):
        return np.zeros(0, bool)
    rightness = POSITION * (0.5 - hands[..., 0].mean(-1)) + CURL * _right_handed(hands)
    rightness = np.where(present, rightness, 0)
    as_found = rightness[:, 0] - rightness[:, 1]  # slot 0 is taken for left, slot 1 for right
    cost, origin = (float(as_found[0]), -float(as_found[0])), []  # of the best sequence that ends in each state
    keeping, changing = (costs.tolist() for costs in _moving_costs(hands, present))
    for here, keep, change in zip(as_found[1:].tolist(), keeping, changing, strict=True):
        ways = (cost[0] + keep, cost[1] + change), (cost[0] + change, cost[1] + keep)  # from each state, to each state
        origin.append([found > swapped for found, swapped in ways])
        cost = min(ways[0]) + here, min(ways[1]) - here
    states = [cost[0] > cost[1]]
    for back in reversed(origin):
        states.append(back[states[-1]])
    return np.array(states[::-1], bool)


def _right_handed(hands: np.ndarray) -> np.ndarray:
    """How far the fingers curl towards a right hand's palm: (..., 21, 3) -> (...) in [-1, 1], in lengths of the palm.

    The normal of wrist, index and little knuckle points out of a right hand's palm and out of a left hand's back. In
    WLASL frames with two hands side by side the sign agrees with their positions for 4 of 5 hands: a cue, not a rule.
    """
    index, little = (hands[..., joint, :] - hands[..., WRIST, :] for joint in (INDEX, LITTLE))
    normal = np.cross(index, little)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-6
    curl = (hands[..., TIPS, :] - hands[..., KNUCKLES, :]).mean(-2)
    palm = np.linalg.norm(hands[..., MIDDLE, :] - hands[..., WRIST, :], axis=-1) + 1e-6
    return np.clip((curl * normal).sum(-1) / palm, -1, 1)


def _moving_costs(hands: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cost of keeping the state in the next frame, and of changing it: float (frames - 1,) each."""
    before, now = slice(None, -1), slice(1, None)
    place = hands[..., :2].mean(2)
    step = np.linalg.norm(place[before, :, None] - place[now, None, :], axis=-1)  # (frames - 1, slot, slot)
    both = present[before, :, None] & present[now, None, :]
    one = present[before, :, None] ^ present[now, None, :]
    cost = np.where(both, np.minimum(step, JUMP), np.where(one, APPEAR, 0))
    return cost[:, 0, 0] + cost[:, 1, 1], cost[:, 0, 1] + cost[:, 1, 0]
