"""Which signs a longer video shows, and when.

The model was trained on clips of single signs. So every stretch of the video of one of LENGTHS, a STEP apart, is read
as if it were such a clip, and each step gets the mean of what the model says of the stretches over it. Then the most
probable sequence of glosses is found (Viterbi), in which a change costs CHANGE, and "no sign" is as probable as
NO_SIGN, or as NOBODY where nothing moves. A sign whose stretches mostly score below what the model knows is unknown.

On 30 made videos of five clips of WLASL100's hands each, the F1 of such sequences is .65 on validation and .66 on test,
that of a plain threshold on the same means .64 and .62 (tables/timeline.csv of the study's report). The constants were
chosen on videos of validation with an earlier training of the model, where half or twice of one cost up to .09.
Sets of stretches that do not overlap and are worth most together, each its length times its probability above a bar,
reached .53 there, and sequences .66: such sets cut signs into pieces, each of which the model is sure of.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from lib.predict.model import Model, probabilities, score
from lib.predict.recordings import Recording

LENGTHS = (1.1, 1.5, 2.0)  # seconds
STEP = 0.12  # seconds
CHANGE = 8.0  # nats
NO_SIGN, NOBODY = 0.05, 0.9  # probabilities
LEAST = 1e-6  # probability of any gloss
BRIEF = 0.6  # seconds; what moves for less is no unknown sign
FPS = 25.0  # of recordings that do not tell
COLUMNS = ["start", "end", "gloss", "confidence"]


@dataclass(frozen=True)
class Steps:
    """A recording in short steps, and what a model says of each: the mean over all stretches that hold it.

    shares: probabilities (steps, glosses), 0 where no stretch was read. scores: (steps,), see `score`. moving: bool
    (steps,). step: seconds. seconds: the length of the recording, whose last step may be a part of one.
    """

    shares: np.ndarray
    scores: np.ndarray
    moving: np.ndarray
    step: float
    seconds: float


def read_steps(model: Model, recording: Recording) -> Steps:
    """Read all stretches in which something moves for at least half of the time."""
    fps = recording.fps or FPS
    frames = max(1, round(STEP * fps))
    steps = -(-recording.frames // frames)
    edges = np.minimum(np.arange(steps + 1) * frames, recording.frames)
    moved = np.concatenate([[0], np.cumsum(recording.moving)])[edges]
    lengths = sorted({min(steps, max(1, round(length * fps / frames))) for length in LENGTHS})
    spans = [(start, start + length) for length in lengths for start in range(steps - length + 1)]
    spans = [(a, b) for a, b in spans if 2 * (moved[b] - moved[a]) >= edges[b] - edges[a]]
    logits = model.logits(recording.read(edges[a], edges[b]) for a, b in spans)
    shares, scores, count = np.zeros((steps, len(model.glosses))), np.zeros(steps), np.zeros(steps)
    for (a, b), share, sure in zip(spans, probabilities(logits), score(logits), strict=True):
        shares[a:b] += share
        scores[a:b] += sure
        count[a:b] += 1
    count = np.maximum(count, 1)
    moving = 2 * np.diff(moved) >= np.diff(edges)
    return Steps(shares / count[:, None], scores / count, moving, frames / fps, recording.frames / fps)


def find_signs(
    steps: Steps, glosses: list[str], known_from: float = -np.inf, *, no_sign: float = NO_SIGN, change: float = CHANGE
) -> pd.DataFrame:
    """The signs of a recording in order: start and end in seconds, gloss ("" = unknown), confidence in [0, 1].

    known_from: the least mean score of a sign that the model knows. What moves without being such a sign is unknown if
    it lasts for BRIEF or longer; its confidence is NaN. Elsewhere nobody signs.
    """
    none = np.where(steps.moving, no_sign, NOBODY)
    states = _likeliest(np.log(np.column_stack([steps.shares, none]) + LEAST), change)
    runs = _runs(np.where(states < len(glosses), states, -1), steps)
    return _table([run for run in runs if steps.scores[slice(*run[:2])].mean() >= known_from], glosses, steps)


def _likeliest(logs: np.ndarray, change: float) -> np.ndarray:
    """The most probable sequence of states, int (steps,), where each change costs `change`; logs: (steps, states)."""
    best, origins, states = logs[0], [], np.arange(logs.shape[1])
    for now in logs[1:]:
        other = best.argmax()
        changes = best[other] - change > best
        origins.append(np.where(changes, other, states))
        best = np.where(changes, best[other] - change, best) + now
    path = [best.argmax()]
    for origin in reversed(origins):
        path.append(origin[path[-1]])
    return np.array(path[::-1])


def threshold_signs(steps: Steps, glosses: list[str], bar: float) -> pd.DataFrame:
    """What a plain threshold finds: runs of steps with one likeliest gloss, of a probability of at least `bar`.

    Columns: as of `find_signs`.
    """
    named = np.where(steps.shares.max(1) >= bar, steps.shares.argmax(1), -1)
    return _table(_runs(named, steps), glosses, steps)


def _runs(named: np.ndarray, steps: Steps) -> list[tuple[int, int, int]]:
    """First step, step after the last, and gloss, of each run of steps of one gloss (-1: none), while it moves."""
    bounds = [0, *(np.flatnonzero(np.diff(named)) + 1), len(named)]
    runs = []
    for start, end in pairwise(bounds):
        moving = start + np.flatnonzero(steps.moving[start:end])
        if named[start] >= 0 and len(moving):
            runs.append((moving[0], moving[-1] + 1, named[start]))
    return runs


def _table(runs: list[tuple[int, int, int]], glosses: list[str], steps: Steps) -> pd.DataFrame:
    """The signs in seconds, with the unknown ones between them."""
    free = steps.moving.copy()
    rows = []
    for start, end, label in runs:
        free[start:end] = False
        rows.append((start, end, glosses[label], steps.shares[start:end, label].mean()))
    bounds = np.flatnonzero(np.diff(free, prepend=False, append=False)).reshape(-1, 2)
    rows += [(start, end, "", np.nan) for start, end in bounds if (end - start) * steps.step >= BRIEF]
    table = pd.DataFrame(sorted(rows, key=lambda row: row[0]), columns=COLUMNS)
    seconds = (table[["start", "end"]].astype(float) * steps.step).clip(upper=steps.seconds).round(3)
    return table.assign(**seconds).astype({"confidence": float})


def f1(found: list[pd.DataFrame], true: list[pd.DataFrame], overlap: float = 0.5) -> float:
    """F1 of found signs, over all recordings: a sign counts once, if it has the gloss of a true one and overlaps it.

    overlap: least intersection over union of the two. Unknown signs ("") are not counted.
    """
    hits = total = 0
    for signs, truth in zip(found, true, strict=True):
        signs = signs[signs["gloss"] != ""]
        total += len(signs) + len(truth)
        left = list(truth.itertuples())
        for sign in signs.itertuples():
            for other in [other for other in left if other.gloss == sign.gloss]:
                both = min(sign.end, other.end) - max(sign.start, other.start)
                if both >= overlap * (max(sign.end, other.end) - min(sign.start, other.start)):
                    hits += 1
                    left.remove(other)
                    break
    return 2 * hits / total if total else 1.0


def webvtt(signs: pd.DataFrame) -> str:
    """Subtitles for players, https://www.w3.org/TR/webvtt1/."""
    cues = [f"{clock(s.start)} --> {clock(s.end)}\n{_escape(said(s))}\n" for s in signs.itertuples()]
    return "\n".join(["WEBVTT\n", *cues])


def elan_csv(signs: pd.DataFrame) -> str:
    """A table that ELAN imports (File, Import, CSV / tab-delimited text): tier, begin, end, annotation, confidence."""
    table = pd.DataFrame({
        "tier": "signs",
        "begin": signs["start"].map(clock),
        "end": signs["end"].map(clock),
        "annotation": signs["gloss"].replace("", "unknown"),
        "confidence": signs["confidence"].round(4),
    })  # fmt: skip
    return table.to_csv(index=False)


def clock(seconds: float) -> str:
    """hh:mm:ss.mmm."""
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}.{rest % 1000:03d}"


def said(sign: "pd.core.frame.Pandas") -> str:
    """A sign in words, such as "book (87%)"."""
    return f"{sign.gloss} ({sign.confidence:.0%})" if sign.gloss else "unknown"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
