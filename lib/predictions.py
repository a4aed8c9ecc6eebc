"""The predictions file: the one currency of evaluation, written alike by every run, framework and exported file."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike

from lib.paths import replacing
from lib.settings import StudyError

ARRAYS = ("video_id", "label", "logits", "glosses")
MOST_IN_FLOAT32 = 300  # glosses; logits of more are rounded to float16, or the files of a report would be too large


class RunFacts(TypedDict):
    """What metrics.json says about a run besides its scores. None: not known or not applicable."""

    model: str
    variant: str
    recipe: str
    input: str
    frames: int | None
    size: int | None
    weights: str | None
    seed: int
    backend: str
    split: str
    params_m: float
    gflops: float | None
    train_seconds: float
    epochs: int


@dataclass(frozen=True, eq=False)
class Predictions:
    """The logits of one run for every present clip of one split, in index order.

    video_id str (n,), unique · label int32 (n,), each in [0, classes) · logits float32 (n, classes), finite ·
    glosses str (classes,), unique, in label order. Any integer labels, float logits and sequences of str are
    taken and converted to these types.

    With more than MOST_IN_FLOAT32 glosses, logits are rounded to the nearest float16 here, not only in the file, so
    that a score is the same before and after. It costs half a step at most: .004 for logits from 8 to 16, .002 from 4
    to 8. The runs of wlasl300-hands, rounded so, kept every top-k, and their loss changed by .0001 at most. Logits that
    rounding makes equal are ranked at random, as all equal ones are.

    Raises StudyError, naming the array or the clip, when one of these does not hold or there is no clip; logits beyond
    65,504, which float16 cannot hold, are not finite.
    """

    video_id: np.ndarray
    label: np.ndarray
    logits: np.ndarray
    glosses: np.ndarray

    def __post_init__(self) -> None:
        arrays = {
            "video_id": _strings("video_id", self.video_id),
            "label": _numbers("label", self.label, kinds="iu", ndim=1).astype(np.int32),
            "logits": _numbers("logits", self.logits, kinds="f", ndim=2).astype(np.float32),
            "glosses": _strings("glosses", self.glosses),
        }
        for name, array in arrays.items():
            object.__setattr__(self, name, array)
        self._check_shapes()
        if self.rounded:
            with np.errstate(over="ignore"):  # infinite ones are refused below
                object.__setattr__(self, "logits", self.logits.astype(np.float16).astype(np.float32))
        self._check_values()

    @property
    def rounded(self) -> bool:
        """Whether the logits are those that float16 can hold."""
        return len(self.glosses) > MOST_IN_FLOAT32

    def save(self, path: str | Path) -> None:
        """Write the npz at `path` in one step: a reader sees the old file or the whole new one.

        Rounded logits are float16 in the file, without further loss.
        """
        arrays = {name: getattr(self, name) for name in ARRAYS}
        if self.rounded:
            arrays["logits"] = self.logits.astype(np.float16)
        with replacing(Path(path)) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> "Predictions":
        """Read a predictions npz. Raises StudyError, naming the file, when it is absent, broken or wrong."""
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(*(file[name] for name in ARRAYS))
        except FileNotFoundError:
            raise StudyError(f"{path}: no such predictions file; train the run first") from None
        except KeyError as error:
            raise StudyError(f"{path}: not a predictions file, {error.args[0]}") from None
        except (ValueError, OSError, EOFError, BadZipFile) as error:
            raise StudyError(f"{path}: not a valid predictions file: {error}") from None

    def agreement(self, other: "Predictions") -> float:
        """Share of the clips that both assign to the same gloss. Raises StudyError when they are of different clips."""
        if not np.array_equal(self.video_id, other.video_id):
            raise StudyError("the exported file and the run predict different clips: train and export the run again")
        return float((self.logits.argmax(1) == other.logits.argmax(1)).mean())

    def largest_difference(self, other: "Predictions") -> float:
        """Largest difference of a logit. Rounded ones that are neighbours in float16 may have been the same before."""
        apart = np.abs(self.logits - other.logits)
        if self.rounded:
            step = np.spacing(np.maximum(np.abs(self.logits), np.abs(other.logits)).astype(np.float16))
            apart[apart <= step] = 0
        return float(apart.max())

    def of(self, rows: np.ndarray) -> "Predictions":
        """The predictions of some clips, at least one: rows bool (n,), or the numbers of the rows."""
        return Predictions(self.video_id[rows], self.label[rows], self.logits[rows], self.glosses)

    def _check_shapes(self) -> None:
        rows, classes = len(self.video_id), len(self.glosses)
        if rows == 0 or classes == 0:
            raise StudyError(f"predictions hold {rows} clips and {classes} glosses, need at least one of each")
        if self.label.shape != (rows,):
            raise StudyError(f"label has {len(self.label)} rows for {rows} clips in video_id")
        if self.logits.shape != (rows, classes):
            raise StudyError(f"logits are {self.logits.shape} for {rows} clips and {classes} glosses")

    def _check_values(self) -> None:
        classes = len(self.glosses)
        outside = (self.label < 0) | (self.label >= classes)
        if outside.any():
            row = int(outside.argmax())
            clip, label = self.video_id[row], self.label[row]
            raise StudyError(f"clip {clip} has label {label}, need 0 to {classes - 1}, one of the glosses")
        broken = ~np.isfinite(self.logits).all(axis=1)
        if broken.any():
            clip = self.video_id[broken.argmax()]
            raise StudyError(
                f"clip {clip} has logits that are not finite ({broken.sum()} such clips): did training diverge?"
            )


def _strings(name: str, values: ArrayLike) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind == "O" and all(isinstance(value, str) for value in array.flat):
        array = array.astype(str)
    if array.dtype.kind != "U" or array.ndim != 1:
        raise StudyError(f"{name} is {array.dtype} {array.shape}, need one row of str")
    if len(np.unique(array)) < len(array):
        values, counts = np.unique(array, return_counts=True)
        raise StudyError(f"{name} holds {str(values[counts.argmax()])!r} {counts.max()} times, need it once")
    return array


def _numbers(name: str, values: ArrayLike, kinds: str, ndim: int) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in kinds or array.ndim != ndim:
        kind = "float" if kinds == "f" else "integer"
        raise StudyError(f"{name} is {array.dtype} {array.shape}, need {kind} of {ndim} dimension(s)")
    return array
