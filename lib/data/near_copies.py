"""Near-copies: clips of one recording at another frame rate, size, crop or trim, found by their hand landmarks.

Copies of a video that were encoded, cut or scaled anew have other bytes and landmarks that differ a little. A copy
nevertheless shows the same shapes of the hands in the same order, at times and places that one straight line each maps
to those of the original; another performance of the sign, even by the same person, does not.

1. Candidates: QUERIES frames of every clip are looked up among the shapes of all hands of all clips (a k-d tree over
   DIMENSIONS principal components). A pair is a candidate when a third of the frames of one of them find the other.
2. Time: the line t' = rate t + offset that most of the nearest frames agree on; rates are ratios of usual frame rates.
3. Distance: the median over the frames that both have of the distance between joints, in sizes of a hand (the root mean
   square of its joints' distance from their mean). It is measured twice: as the hands lie in the picture, and after
   scale and place of each axis have been fitted, which brings crops together, but other performances, too.

The limits were found on the 10,679 different clips of hands of WLASL2000. Copies can be told without the distance, by
time and place that fit as if nothing had been done (rate 1, offset mostly 0, scale within 1 %). 71 pairs were looked
at, drawn on top of each other: all between .1 and .35, and samples below and above. 37 were copies, with distances of
at most .256 and at least .488 of the frames on the line of time; 34 were other performances, with less than .458 on the
line or distances from .352 on. The limits err on the strict side: two of these performances, and one of 19,994 random
pairs of clips of one gloss, pass for copies. Of 400 clips with every 1.25th frame left, 15 % trimmed and joints
displaced by .002, .005 and .01 of the image's width, 100, 97 and 52 % were found again (median distances .06, .15 and
.30); displaced by .002 and stretched by a third in one direction, 79 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from lib.data.hands import MISSING
from lib.machine import cores

AS_IT_LIES, FITTED = 0.3, 0.1  # the largest distances of copies; other performances begin at .35 and .127
QUERIES = 16  # frames of each clip that are looked up
NEIGHBOURS, RADIUS = 60, 0.15  # at most so many hands are found for each, at most so far away, in sizes of a hand
BLOCK = 500  # clips that are looked up at a time, which bounds the memory
DIMENSIONS = 12  # principal components of a hand's 42 numbers: they hold 98 % of the variance
SHARE = 0.4  # of the frames that are looked up which must find the other clip
AGREED = 0.4  # of the nearest frames which must lie on the line of time; copies begin at .488
CLEAREST = 0.7  # of the frames that are looked up, by which the line is found
TOLERANCE = 4  # frames from that line, at which a frame no longer counts
COMPARED = 48  # frames of a pair that are compared, evenly spread over those that both have
FEWEST = 8  # frames with hands, below which a clip has too little to be told from another
OVERLAP = 0.6  # of the frames with hands of either clip, which the other must have
FRAME_RATES = (12, 15, 24, 25, 30, 50, 60)
RATES = np.unique([a / b for a in FRAME_RATES for b in FRAME_RATES if 0.5 <= a / b <= 2])
SHIFTS = (-2, -1, 0, 1, 2)  # frames by which a frame may lie beside the line of time
FITS = 2  # rounds of fitting scale and place
CLOSEST = 0.6  # of the frames, which scale and place are fitted to
LARGEST_SCALE = 2.0  # that a crop is looked for at, and 1 / it the smallest


@dataclass(frozen=True)
class _Clip:
    """The hands of one clip."""

    xy: np.ndarray  # float32 (frames, 2 slots, 21 joints, 2), NaN where a hand is missing
    frame: np.ndarray  # int (hands,): the frame of each hand
    shape: np.ndarray  # float32 (hands, 42): its joints about their mean, scaled to length 1
    size: float  # the median size of its hands, in image widths

    @property
    def seen(self) -> np.ndarray:
        """The frames with a hand, ascending."""
        return np.unique(self.frame)


def near_copies(clips: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Find the pairs of near-copies among clips, which are also found when they are identical.

    clips: landmarks (frames, 2 hands, 21 joints, x y z) as in `read_landmarks`. The order of the slots does not matter.
    Returns pairs (i, j) of positions in `clips`, i < j, sorted. Clips with few frames with hands are in none.
    """
    hands = [_hands(clip) for clip in clips]
    return sorted(pair for pair in _candidates(hands) if _is_copy(hands[pair[0]], hands[pair[1]]))


def distances(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """The distance of two clips of landmarks as they lie in the picture, and after scale and place have been fitted.

    In sizes of a hand; infinite where the clips do not have a common line of time or too few frames in common.
    """
    return _distances(_hands(first), _hands(second))


def _is_copy(first: _Clip, second: _Clip) -> bool:
    as_it_lies, fitted = _distances(first, second)
    return as_it_lies <= AS_IT_LIES or fitted <= FITTED


def _hands(landmarks: np.ndarray) -> _Clip:
    xy = np.asarray(landmarks, np.float32)[..., :2]
    there = np.isfinite(xy).all((2, 3)) & (xy != MISSING).all((2, 3))
    frame, slot = np.nonzero(there)
    centred = xy[frame, slot] - xy[frame, slot].mean(1, keepdims=True)
    size = np.sqrt((centred**2).sum(2).mean(1)) + 1e-6
    shape = (centred / (size[:, None, None] * 21**0.5)).reshape(len(frame), 42)
    clip = np.where(there[..., None, None], xy, np.float32(np.nan))
    return _Clip(clip, frame, shape, float(np.median(size)) if len(size) else 1.0)


def _candidates(hands: list[_Clip]) -> set[tuple[int, int]]:
    """Pairs (i, j), i < j, of which one has enough frames with a hand shaped like one of the other clip."""
    sizes = [len(clip.frame) for clip in hands]
    owner, starts = np.repeat(np.arange(len(hands)), sizes), np.cumsum([0, *sizes])
    enough = [number for number, clip in enumerate(hands) if len(clip.seen) >= FEWEST]
    if not enough:
        return set()
    shapes = np.concatenate([clip.shape for clip in hands])
    _, axes = np.linalg.eigh(np.cov(shapes[:: 1 + len(shapes) // 100_000].T))
    shapes = (shapes @ axes[:, -DIMENSIONS:]).astype(np.float32)
    tree = cKDTree(shapes, leafsize=32, balanced_tree=False, compact_nodes=False)
    pairs: set[tuple[int, int]] = set()
    for block in np.array_split(enough, -(-len(enough) // BLOCK)):
        asked = [_asked(hands[number]) for number in block]
        rows = np.concatenate([starts[number] + hand for number, (hand, _) in zip(block, asked, strict=True)])
        moments = np.concatenate([moment for _, moment in asked])
        distance, found = tree.query(shapes[rows], k=NEIGHBOURS, distance_upper_bound=RADIUS, workers=cores())
        row, column = np.nonzero(np.isfinite(distance))
        votes = np.stack([owner[rows[row]], owner[found[row, column]], moments[row]], 1)
        votes = np.unique(votes[votes[:, 0] != votes[:, 1]], axis=0)  # a frame has one vote for a clip
        pair, count = np.unique(votes[:, :2], axis=0, return_counts=True)
        moments_of = {number: min(QUERIES, len(hands[number].seen)) for number in block}
        needed = SHARE * np.array([moments_of[number] for number in pair[:, 0]])
        pairs.update((min(i, j), max(i, j)) for i, j in pair[count >= needed].tolist())
    return pairs


def _asked(clip: _Clip) -> tuple[np.ndarray, np.ndarray]:
    """The hands of QUERIES evenly spread frames of a clip that has some: their numbers in the clip, and the frames."""
    moments = clip.seen[np.linspace(0, len(clip.seen) - 1, min(QUERIES, len(clip.seen))).round().astype(int)]
    hand = np.flatnonzero(np.isin(clip.frame, moments))
    return hand, clip.frame[hand]


def _distances(first: _Clip, second: _Clip) -> tuple[float, float]:
    nothing = (np.inf, np.inf)
    if len(first.seen) > len(second.seen):
        first, second = second, first
    if len(first.seen) < FEWEST:
        return nothing
    rate, offset, agreed = _line(first, second)
    if agreed < AGREED:
        return nothing
    time = np.rint(rate * first.seen + offset).astype(int)
    common = (time >= 0) & (time < len(second.xy))
    covered = (second.seen >= time[0]) & (second.seen <= time[-1])
    if common.sum() < FEWEST or min(common.mean(), covered.mean()) < OVERLAP:
        return nothing
    chosen = np.unique(np.linspace(0, common.sum() - 1, COMPARED).round().astype(int))
    ours, choices = first.xy[first.seen[common][chosen]], _choices(second, time[common][chosen])
    as_it_lies = _compare(ours, choices)
    fitted = _compare(_centred(ours), _centred(choices))
    for _ in range(FITS):
        fitted = _compare(ours, _fit(ours, choices, fitted))
    return tuple(float(np.median(apart.min(0))) / first.size for apart in (as_it_lies, fitted))


def _line(first: _Clip, second: _Clip) -> tuple[float, float, float]:
    """The line of time from the frames of one clip to those of another, by the nearest shapes of hands.

    Returns rate and offset, and the share of the nearest frames in [0, 1] that agree on them.
    """
    hand, frame = _asked(first)
    alike = first.shape[hand] @ second.shape.T
    nearest = second.frame[alike.argmax(1)]
    clear = alike.max(1) >= np.quantile(alike.max(1), 1 - CLEAREST)  # frames in motion match no frame well
    beside = nearest[clear] - RATES[:, None] * frame[clear]
    offset = np.median(beside, axis=1)
    agreed = np.clip(1 - np.abs(beside - offset[:, None]) / TOLERANCE, 0, None).mean(1)
    best = int(agreed.argmax())
    return float(RATES[best]), float(offset[best]), float(agreed[best])


def _choices(clip: _Clip, time: np.ndarray) -> np.ndarray:
    """What frames (n,) may be compared with: (choices, n, 2, 21, 2), frames nearby in both orders of the slots."""
    nearby = np.stack([clip.xy[np.clip(time + shift, 0, len(clip.xy) - 1)] for shift in SHIFTS])
    return np.concatenate([nearby, nearby[:, :, ::-1]])


def _centred(xy: np.ndarray) -> np.ndarray:
    """Each hand about its own mean."""
    return xy - xy.mean(-2, keepdims=True)


def _compare(ours: np.ndarray, choices: np.ndarray) -> np.ndarray:
    """The distance of the joints of the hands that both have, in image widths: (choices, n), infinite without any."""
    apart = np.sqrt(((ours - choices) ** 2).sum(-1).mean(-1))  # (choices, n, 2 slots), NaN where either is missing
    both = np.isfinite(apart)
    total = np.where(both, apart, 0).sum(-1)
    return np.where(both.any(-1), total / np.maximum(both.sum(-1), 1), np.inf)


def _fit(ours: np.ndarray, choices: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """The choices after their scale and place, of each axis, have been fitted to ours on the closest frames."""
    best = choices[apart.argmin(0), np.arange(len(ours))]
    closest = np.argsort(apart.min(0))[: max(1, round(CLOSEST * len(ours)))]
    theirs, target = best[closest].reshape(-1, 2), ours[closest].reshape(-1, 2)
    both = np.isfinite(theirs).all(1) & np.isfinite(target).all(1)
    if not both.any():
        return choices
    theirs, target = theirs[both], target[both]
    from_mean, to_mean = theirs - theirs.mean(0), target - target.mean(0)
    scale = (from_mean * to_mean).sum(0) / ((from_mean**2).sum(0) + 1e-12)
    scale = np.clip(scale, 1 / LARGEST_SCALE, LARGEST_SCALE)
    return (choices - theirs.mean(0)) * scale + target.mean(0)
