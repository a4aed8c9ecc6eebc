"""Everything that is said about a run's accuracy, computed from its predictions file and nothing else."""

import json
import math
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, TypedDict, Unpack
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import log_softmax, ndtri, softmax
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from lib.paths import replacing
from lib.settings import StudyError

TOP = (1, 2, 5, 10)
ARRAYS = ("video_id", "label", "logits", "glosses")


class RunFacts(TypedDict):
    """What metrics.json says about a run besides its accuracy. None: not known or not applicable."""

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


# ---- the predictions file ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Predictions:
    """The logits of one run for every present clip of one split, in index order.

    video_id str (n,), unique · label int32 (n,), each in [0, classes) · logits float32 (n, classes), finite ·
    glosses str (classes,), unique, in label order. Any integer labels, float logits and sequences of str are
    taken and converted to these types.

    Raises StudyError, naming the array or the clip, when one of these does not hold or there is no clip.
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
        _check_shapes(self)
        _check_values(self)

    def save(self, path: str | Path) -> None:
        """Write the npz at `path` in one step: a reader sees the old file or the whole new one."""
        with replacing(Path(path)) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **{name: getattr(self, name) for name in ARRAYS})

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


def _check_shapes(predictions: Predictions) -> None:
    rows, classes = len(predictions.video_id), len(predictions.glosses)
    if rows == 0 or classes == 0:
        raise StudyError(f"predictions hold {rows} clips and {classes} glosses, need at least one of each")
    if predictions.label.shape != (rows,):
        raise StudyError(f"label has {len(predictions.label)} rows for {rows} clips in video_id")
    if predictions.logits.shape != (rows, classes):
        raise StudyError(f"logits are {predictions.logits.shape} for {rows} clips and {classes} glosses")


def _check_values(predictions: Predictions) -> None:
    classes = len(predictions.glosses)
    outside = (predictions.label < 0) | (predictions.label >= classes)
    if outside.any():
        row = int(outside.argmax())
        clip, label = predictions.video_id[row], predictions.label[row]
        raise StudyError(f"clip {clip} has label {label}, need 0 to {classes - 1}, one of the glosses")
    broken = ~np.isfinite(predictions.logits).all(axis=1)
    if broken.any():
        clip = predictions.video_id[broken.argmax()]
        raise StudyError(
            f"clip {clip} has logits that are not finite ({broken.sum()} such clips): did training diverge?"
        )


# ---- metrics -------------------------------------------------------------------------------------------


def evaluate(predictions: Predictions | str | Path, n_missing: int = 0) -> dict[str, Any]:
    """Score predictions, or the predictions file at a path.

    `top1 top2 top5 top10`: share of the clips whose gloss is among the k highest logits, in [0, 1]; see
    `top_k_credit` for ties. With k glosses or fewer, top-k is 1 by definition.
    `top<k>_per_class`: the same as a mean over the glosses that occur, each weighing the same.
    `loss`: mean cross entropy in nats. `top1_ci95`: Wilson 95 % interval [low, high] of top1 for n clips.
    `top1_full`: top1 with the `n_missing` absent clips of the split counted as wrong.

    Raises StudyError for invalid predictions, ValueError when n_missing < 0.
    """
    if n_missing < 0:
        raise ValueError(f"need n_missing >= 0, got {n_missing}")
    if not isinstance(predictions, Predictions):
        predictions = Predictions.load(predictions)
    credit = {k: top_k_credit(predictions, k) for k in TOP}
    n, right = len(predictions.label), float(credit[1].sum())
    return {
        **{f"top{k}": float(credit[k].mean()) for k in TOP},
        **{f"top{k}_per_class": _per_class_mean(credit[k], predictions.label) for k in TOP},
        "loss": cross_entropy(predictions),
        "n": n,
        "n_missing": int(n_missing),
        "top1_full": right / (n + n_missing),
        "top1_ci95": list(wilson(right, n)),
    }


def top_k_credit(predictions: Predictions, k: int) -> np.ndarray:
    """Chance, clip by clip, that its gloss is among the k highest logits, equal logits ranked at random.

    With m logits above the true one and t equal to it (itself included) that is (k - m) / t within [0, 1]:
    0 or 1 without ties, and k / classes for constant logits, whichever class the clip has.

    Returns float64 (n,), each in [0, 1].
    """
    true = np.take_along_axis(predictions.logits, predictions.label[:, None], axis=1)
    above = (predictions.logits > true).sum(axis=1)
    tied = (predictions.logits == true).sum(axis=1)
    return np.clip((k - above) / tied, 0.0, 1.0)


def cross_entropy(predictions: Predictions) -> float:
    """Mean over the clips of -ln softmax(logits)[label], in nats; ln(classes) for constant logits."""
    log_probability = log_softmax(predictions.logits.astype(np.float64), axis=1)
    return -float(np.take_along_axis(log_probability, predictions.label[:, None], axis=1).mean())


def wilson(k: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval (Wilson 1927) of the proportion k / n.

    k may be fractional, as the credit of tied logits is; for whole k it equals
    scipy.stats.binomtest(k, n).proportion_ci(method="wilson"), which takes no others.

    Returns (low, high) in [0, 1]. Raises ValueError unless 0 <= k <= n and n >= 1.
    """
    if n < 1 or not 0 <= k <= n:
        raise ValueError(f"need n >= 1 and 0 <= k <= n, got k={k}, n={n}")
    z, share = ndtri(0.5 + confidence / 2), k / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def _per_class_mean(credit: np.ndarray, label: np.ndarray) -> float:
    return float(pd.Series(credit).groupby(label).mean().mean())


def missing_count(index: pd.DataFrame, split: str) -> int:
    """Number of clips that the index lists in `split` with a status other than present.

    Raises StudyError when the index has no clip of that split at all.
    """
    status = index.loc[index["split"] == split, "status"]
    if status.empty:
        raise StudyError(f"the index has no clip of split {split!r}, only {sorted(index['split'].unique())}")
    return int((status != "present").sum())


def write_metrics(
    path: str | Path, predictions: Predictions | str | Path, n_missing: int, **facts: Unpack[RunFacts]
) -> dict[str, Any]:
    """Write metrics.json: `evaluate(predictions, n_missing)`, then the facts of the run, and return them.

    Keys in this order always, floats rounded to 6 digits, the file replaced in one step.
    Raises StudyError naming the facts that are unknown or left out.
    """
    expected = RunFacts.__annotations__.keys()
    if wrong := sorted(expected ^ facts.keys()):
        raise StudyError(f"{path}: facts of a run unknown or left out: {', '.join(wrong)}")
    metrics = evaluate(predictions, n_missing) | {name: facts[name] for name in expected}
    metrics = {name: _rounded(value) for name, value in metrics.items()}
    with replacing(Path(path)) as partial:
        partial.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    return metrics


def _rounded(value: object) -> object:
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


# ---- where a run errs ----------------------------------------------------------------------------------


def per_gloss(predictions: Predictions) -> pd.DataFrame:
    """Accuracy of each gloss that occurs: columns gloss, n (clips), top1, top5 in [0, 1]; worst first."""
    scores = {"top1": top_k_credit(predictions, 1), "top5": top_k_credit(predictions, 5)}
    clips = pd.DataFrame({"gloss": predictions.glosses[predictions.label], **scores})
    table = clips.groupby("gloss", as_index=False).agg(n=("top1", "size"), top1=("top1", "mean"), top5=("top5", "mean"))
    return table.sort_values(["top1", "top5", "gloss"], ignore_index=True)


def confusion(predictions: Predictions) -> pd.DataFrame:
    """Counts of clips (classes, classes): row = true gloss, column = predicted gloss, in label order.

    The predicted gloss is the highest logit; the first one of several equal ones.
    """
    labels = np.arange(len(predictions.glosses))
    counts = confusion_matrix(predictions.label, predictions.logits.argmax(axis=1), labels=labels)
    return pd.DataFrame(
        counts,
        index=pd.Index(predictions.glosses, name="gloss"),
        columns=pd.Index(predictions.glosses, name="predicted"),
    )


def most_confused(predictions: Predictions, count: int = 10) -> pd.DataFrame:
    """The `count` most frequent errors: columns gloss, predicted, clips, share (of the gloss's clips)."""
    counts = confusion(predictions)
    pairs = counts.reset_index().melt(id_vars="gloss", var_name="predicted", value_name="clips")
    pairs["share"] = pairs["clips"] / pairs["gloss"].map(counts.sum(axis=1))
    errors = pairs[(pairs["clips"] > 0) & (pairs["gloss"] != pairs["predicted"])]
    order = {"clips": False, "share": False, "gloss": True, "predicted": True}
    ranked = errors.sort_values(list(order), ascending=list(order.values()))
    return ranked.head(count).reset_index(drop=True)


def calibration(predictions: Predictions, bins: int = 10) -> pd.DataFrame:
    """Confidence (highest softmax probability) against accuracy, in `bins` equal spans of confidence.

    Columns low, high (a span is (low, high]), n (clips), confidence, accuracy (means over these clips); spans
    without a clip are left out.
    """
    confidence = softmax(predictions.logits.astype(np.float64), axis=1).max(axis=1)
    span = np.clip(np.ceil(confidence * bins), 1, bins).astype(int)
    clips = pd.DataFrame({"high": span / bins, "confidence": confidence, "accuracy": top_k_credit(predictions, 1)})
    table = clips.groupby("high", as_index=False).agg(
        n=("accuracy", "size"), confidence=("confidence", "mean"), accuracy=("accuracy", "mean")
    )
    table.insert(0, "low", table["high"] - 1 / bins)
    return table


def expected_calibration_error(predictions: Predictions, bins: int = 10) -> float:
    """Mean gap between confidence and accuracy over the clips, span by span (Guo et al. 2017), in [0, 1]."""
    table = calibration(predictions, bins)
    return float(np.average((table["confidence"] - table["accuracy"]).abs(), weights=table["n"]))


# ---- is one run better than another? -------------------------------------------------------------------


def paired_test(a: Predictions, b: Predictions) -> dict[str, Any]:
    """Exact McNemar test (McNemar 1947) of two runs on the same clips.

    A clip is right when its gloss alone has the highest logit. Under the null hypothesis the clips that
    only one run gets right fall to either run with probability 1/2; `p_value` is the two-sided binomial
    one, 1 when there are none.

    Returns n, both_right, only_a, only_b, both_wrong (clips), difference (share right of a minus b), p_value.
    Raises StudyError when the two do not hold the same clips with the same labels.
    """
    b_right, a_right = _right_in_order(b, a), _right(a)
    only_a, only_b = int((a_right & ~b_right).sum()), int((b_right & ~a_right).sum())
    discordant = only_a + only_b
    return {
        "n": len(a_right),
        "both_right": int((a_right & b_right).sum()),
        "only_a": only_a,
        "only_b": only_b,
        "both_wrong": int((~a_right & ~b_right).sum()),
        "difference": (only_a - only_b) / len(a_right),
        "p_value": float(binomtest(only_a, discordant).pvalue) if discordant else 1.0,
    }


def paired_tests(runs: dict[str, Predictions]) -> pd.DataFrame:
    """`paired_test` of every two of the named runs; p_holm is p_value corrected for their number (Holm 1979).

    Columns a, b, those of `paired_test`, p_holm; smallest p_value first. Empty for fewer than two runs.
    """
    counts = ["n", "both_right", "only_a", "only_b", "both_wrong"]
    columns = ["a", "b", *counts, "difference", "p_value", "p_holm"]
    rows = [{"a": a, "b": b, **paired_test(runs[a], runs[b])} for a, b in combinations(runs, 2)]
    table = pd.DataFrame(rows, columns=columns).sort_values("p_value", kind="stable", ignore_index=True)
    remaining = len(table) - np.arange(len(table))
    table["p_holm"] = (table["p_value"] * remaining).clip(upper=1).cummax()
    return table


def _right(predictions: Predictions) -> np.ndarray:
    return top_k_credit(predictions, 1) == 1.0


def _right_in_order(predictions: Predictions, reference: Predictions) -> np.ndarray:
    """`_right` of the predictions, clip by clip in the order of `reference`."""
    rows = pd.Index(predictions.video_id).get_indexer(pd.Index(reference.video_id))
    if len(predictions.video_id) != len(rows) or (rows < 0).any():
        raise StudyError("a paired test needs two runs on the same clips: evaluate both on one index")
    if not np.array_equal(predictions.label[rows], reference.label):
        raise StudyError("a paired test needs two runs with the same labels: evaluate both on one index")
    return _right(predictions)[rows]
