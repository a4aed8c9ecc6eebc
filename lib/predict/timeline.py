"""Which signs a longer video shows, and when.

The model was trained on clips of single signs. So every stretch of the video of one of LENGTHS, a STEP apart, is read
as if it were such a clip; the stretches that are taken for signs are those that, without overlapping, are worth most.
A stretch is worth its length times by how much its likeliest gloss is more probable than BAR: one that begins or ends
too early or too late names its sign less surely, and two signs in one stretch even less. Notebook 12 compares this with
a plain threshold on windows of one length, and chose the constants on validation clips in a row.
"""

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from lib.predict.model import Model, probabilities, score
from lib.predict.recordings import Recording

LENGTHS = (0.6, 0.8, 1.1, 1.5, 2.0, 2.7)  # seconds
STEP = 0.12  # seconds
BAR = 0.3  # probability
USUAL = 1.5  # seconds: the length of a sign where only one is tried
BRIEF = 0.6  # seconds; what moves for less is no unknown sign
FPS = 25.0  # of recordings that do not tell
COLUMNS = ["start", "end", "gloss", "confidence"]


@dataclass(frozen=True)
class Windows:
    """Stretches of a recording, and what a model says of each.

    start, end: steps (n,). shares: probabilities (n, glosses), smoothed over the neighbours in time. known: bool (n,),
    whether the model knows the sign. moving: bool (steps,), for each step of the recording. step: seconds. seconds: the
    length of the recording, whose last step may be a part of one.
    """

    start: np.ndarray
    end: np.ndarray
    shares: np.ndarray
    known: np.ndarray
    moving: np.ndarray
    step: float
    seconds: float = np.inf


def read_windows(model: Model, recording: Recording) -> Windows:
    """Read all stretches in which something moves for at least half of the time."""
    fps = recording.fps or FPS
    frames = max(1, round(STEP * fps))
    steps = -(-recording.frames // frames)
    edges = np.minimum(np.arange(steps + 1) * frames, recording.frames)
    moved = np.concatenate([[0], np.cumsum(recording.moving)])[edges]
    lengths = sorted({min(steps, max(1, round(length * fps / frames))) for length in LENGTHS})
    spans = np.array([(start, start + length) for length in lengths for start in range(steps - length + 1)])
    spans = spans[(moved[spans[:, 1]] - moved[spans[:, 0]]) * 2 >= edges[spans[:, 1]] - edges[spans[:, 0]]]
    logits = model.logits(recording.read(*edges[span]) for span in spans)
    return Windows(
        *spans.reshape(-1, 2).T,
        shares=_smooth(spans, probabilities(logits)),
        known=score(logits) >= model.known_from,
        moving=np.diff(moved) * 2 >= np.diff(edges),
        step=frames / fps,
        seconds=recording.frames / fps,
    )


def _smooth(spans: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The mean of each window and those of its length a step before and after."""
    row = {(start, end): number for number, (start, end) in enumerate(spans.tolist())}
    near = [[row.get((start + by, end + by), number) for by in (-1, 0, 1)] for (start, end), number in row.items()]
    return shares[near].mean(1) if near else shares


def find_signs(windows: Windows, glosses: list[str], bar: float = BAR) -> pd.DataFrame:
    """The signs of a recording in order: start and end in seconds, gloss ("" = unknown), confidence in [0, 1].

    What moves without being a sign that the model knows is unknown if it lasts for BRIEF or longer; its confidence is
    NaN. Elsewhere nobody signs.
    """
    at = np.append(np.flatnonzero(windows.moving), len(windows.moving))
    first, last = np.searchsorted(at, windows.start), np.searchsorted(at, windows.end) - 1
    starts, ends = at[first], at[last] + 1  # a sign begins and ends where something moves, though its window may not
    confidence = windows.shares.max(1, initial=0)
    worth = np.where(windows.known & (first <= last), (ends - starts) * (confidence - bar), 0)
    ending = defaultdict(list)
    for number in np.flatnonzero(worth > 0):
        ending[ends[number]].append(number)
    best, chosen = [0.0], []  # the most that the steps so far are worth, and the window that ends there (-1: none)
    for step in range(1, len(windows.moving) + 1):
        most, number = max([(best[-1], -1), *((best[starts[n]] + worth[n], n) for n in ending[step])])
        best.append(most)
        chosen.append(number)
    rows, step = [], len(chosen)
    while step:
        number = chosen[step - 1]
        if number >= 0:
            gloss = glosses[windows.shares[number].argmax()]
            rows.append((starts[number], step, gloss, confidence[number]))
        step = step - 1 if number < 0 else starts[number]
    return _table(rows[::-1], windows)


def threshold_signs(windows: Windows, glosses: list[str], bar: float) -> pd.DataFrame:
    """What a plain threshold finds: runs of steps with one likeliest gloss, of a probability of at least `bar`.

    Windows of the length USUAL only; a step has the mean of those over it. Columns: as of `find_signs`.
    """
    steps = len(windows.moving)
    total, count = np.zeros((steps, len(glosses))), np.zeros(steps)
    length = (windows.end - windows.start) * windows.step
    for number in np.flatnonzero(np.abs(length - USUAL) == np.abs(length - USUAL).min(initial=np.inf)):
        total[windows.start[number] : windows.end[number]] += windows.shares[number]
        count[windows.start[number] : windows.end[number]] += 1
    shares = total / np.maximum(count, 1)[:, None]
    named = np.where(shares.max(1) >= bar, shares.argmax(1), -1)
    bounds = [0, *(np.flatnonzero(np.diff(named)) + 1), steps]
    runs = [(start, end) for start, end in pairwise(bounds) if named[start] >= 0]
    rows = [(start, end, glosses[named[start]], shares[start:end].max()) for start, end in runs]
    return _table(rows, windows)


def _table(rows: list[tuple[int, int, str, float]], windows: Windows) -> pd.DataFrame:
    """The signs in seconds, with the unknown ones between them."""
    free = windows.moving.copy()
    for start, end, *_ in rows:
        free[start:end] = False
    bounds = np.flatnonzero(np.diff(free, prepend=False, append=False)).reshape(-1, 2)
    unknown = [(start, end, "", np.nan) for start, end in bounds if (end - start) * windows.step >= BRIEF]
    table = pd.DataFrame(sorted([*rows, *unknown], key=lambda row: row[0]), columns=COLUMNS)
    seconds = table[["start", "end"]].astype(float) * windows.step
    return table.assign(**seconds.clip(upper=windows.seconds).round(3)).astype({"confidence": float})


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
