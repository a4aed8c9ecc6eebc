"""Metrics, confusion, calibration and paired tests, all computed from predictions and nothing else."""

import json
import math
from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import numpy as np
import pandas as pd
from scipy.special import log_softmax, ndtri, softmax
from scipy.stats import binomtest, permutation_test
from sklearn.metrics import confusion_matrix

from lib.paths import replacing
from lib.predictions import Predictions, RunFacts
from lib.settings import StudyError

if TYPE_CHECKING:
    import keras

    from lib.runs import Run

FLIPS = 9_999  # draws of a randomisation test: its smallest p-value is .0002

# ---- metrics -------------------------------------------------------------------------------------------


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


def top_k(predictions: Predictions, k: int) -> float:
    """Share of the clips whose gloss is among the k highest logits, in [0, 1]; 1 with k glosses or fewer."""
    return float(top_k_credit(predictions, k).mean())


def top_k_per_class(predictions: Predictions, k: int) -> float:
    """`top_k` as a mean over the glosses that occur, so that every gloss weighs the same."""
    return float(pd.Series(top_k_credit(predictions, k)).groupby(predictions.label).mean().mean())


def cross_entropy(predictions: Predictions) -> float:
    """Mean over the clips of -ln softmax(logits)[label], in nats; ln(classes) for constant logits."""
    log_probability = log_softmax(predictions.logits.astype(np.float64), axis=1)
    return -float(np.take_along_axis(log_probability, predictions.label[:, None], axis=1).mean())


class Metric(NamedTuple):
    """A score of predictions.

    title: its column in the comparison page, in percent; "" leaves it out there. It is in comparison.csv all the same.
    """

    score: Callable[[Predictions], float]
    title: str = ""


# A metric of one's own is a function of the predictions and a name here; notebook 11 computes it for old runs, too.
METRICS: dict[str, Metric] = {
    **{f"top{k}": Metric(partial(top_k, k=k), f"top-{k}") for k in (1, 2, 5, 10)},
    "top1_per_class": Metric(partial(top_k_per_class, k=1), "top-1 per class"),
    **{f"top{k}_per_class": Metric(partial(top_k_per_class, k=k)) for k in (2, 5, 10)},
    "loss": Metric(cross_entropy),
}


def evaluate(predictions: Predictions | str | Path, n_missing: int = 0) -> dict[str, Any]:
    """Score predictions, or the predictions file at a path.

    Returns METRICS by name, all in [0, 1] but `loss` (nats); `n`, the number of clips; `n_missing`; `top1_full`, top-1
    with the `n_missing` absent clips of the split counted as wrong; `top1_ci95`, Wilson's 95 % interval [low, high].

    Raises StudyError for invalid predictions, ValueError when n_missing < 0.
    """
    if n_missing < 0:
        raise ValueError(f"need n_missing >= 0, got {n_missing}")
    if not isinstance(predictions, Predictions):
        predictions = Predictions.load(predictions)
    correct, n = float(top_k_credit(predictions, 1).sum()), len(predictions.label)
    return {
        **{name: metric.score(predictions) for name, metric in METRICS.items()},
        "n": n,
        "n_missing": int(n_missing),
        "top1_full": correct / (n + n_missing),
        "top1_ci95": list(wilson(correct, n)),
    }


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


def rounded(scores: dict[str, Any]) -> dict[str, Any]:
    """The scores of `evaluate` rounded to 6 digits, as every report has them."""
    return {name: np.round(score, 6).tolist() for name, score in scores.items()}


def write_metrics(
    path: str | Path, predictions: Predictions | str | Path, n_missing: int, **facts: Unpack[RunFacts]
) -> dict[str, Any]:
    """Write metrics.json: the facts of the run and `evaluate(predictions, n_missing)`; return what was written.

    The scores are for people and other tools: every table of the study computes them anew from the predictions.
    Raises StudyError naming the facts that are unknown or left out.
    """
    expected = RunFacts.__annotations__.keys()
    if wrong := sorted(expected ^ facts.keys()):
        raise StudyError(f"{path}: facts of a run unknown or left out: {', '.join(wrong)}")
    metrics = rounded(evaluate(predictions, n_missing))
    for name in expected:
        metrics[name] = round(facts[name], 6) if isinstance(facts[name], float) else facts[name]
    with replacing(Path(path)) as partial:
        partial.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    return metrics


def score_run(run: "Run", model: "keras.Model") -> tuple[dict[str, Predictions], pd.DataFrame]:
    """Predict validation and test with a trained model of a run; write predictions and metrics to its report.

    Returns the predictions by split, and their most important scores as a table, a column for each split.
    """
    predictions = {split: run.predict(model, split) for split in ("val", "test")}
    metrics = {
        split: write_metrics(run.study.paths.metrics(run.name, split), predictions[split], **run.facts(model, split))
        for split in predictions
    }
    shown = ["n", "n_missing", "top1", "top1_ci95", "top2", "top5", "top10", "top1_per_class", "top1_full", "loss"]
    return predictions, pd.DataFrame(metrics).loc[shown]


# ---- clips that are the same recording -----------------------------------------------------------------


def without_twins(predictions: Predictions, twins: pd.DataFrame) -> np.ndarray:
    """Which clips have no twin in the training split of all the data, whatever the twin's gloss: bool (n,).

    twins: a row for a clip and another that is the same recording, columns video_id, gloss, split, twin, twin_gloss,
    twin_split, kind (`identical`, byte by byte, or `near`).
    """
    return ~np.isin(predictions.video_id, twins.loc[twins["twin_split"] == "train", "video_id"])


def other_glosses(predictions: Predictions, twins: pd.DataFrame) -> np.ndarray:
    """The glosses, beside its own, of the clips that are identical to a clip: bool (n, classes).

    Twins of glosses that are not in the predictions are left out; twins: as for `without_twins`.
    """
    rows = pd.Index(predictions.video_id).get_indexer(twins["video_id"])
    columns = pd.Index(predictions.glosses).get_indexer(twins["twin_gloss"])
    known = (rows >= 0) & (columns >= 0) & (twins["kind"] == "identical").to_numpy()
    others = np.zeros(predictions.logits.shape, bool)
    others[rows[known], columns[known]] = True
    others[np.arange(len(others)), predictions.label] = False
    return others


def top1_either(predictions: Predictions, others: np.ndarray) -> float:
    """Top-1 where the glosses of `other_glosses` are right, too, in [0, 1]; equal logits are ranked at random."""
    accepted = others.copy()
    accepted[np.arange(len(accepted)), predictions.label] = True
    highest = predictions.logits == predictions.logits.max(axis=1, keepdims=True)
    return float(((highest & accepted).sum(axis=1) / highest.sum(axis=1)).mean())


# ---- which glosses are confused, and is the model sure of it? ------------------------------------------


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


def accuracy_per_gloss(predictions: Predictions) -> pd.DataFrame:
    """Top-1 of each gloss that has clips: columns gloss, clips, accuracy in [0, 1].

    The hardest gloss is first, of equally hard ones that with the most clips, as it is the surest.
    """
    clips = pd.DataFrame({"label": predictions.label, "right": top_k_credit(predictions, 1)})
    table = clips.groupby("label")["right"].agg(clips="size", accuracy="mean").reset_index()
    table.insert(0, "gloss", predictions.glosses[table.pop("label")])
    return table.sort_values(["accuracy", "clips"], ascending=[True, False], kind="stable", ignore_index=True)


def most_confused(predictions: Predictions, count: int = 10) -> pd.DataFrame:
    """The `count` most frequent errors, if any: columns gloss, predicted, clips, share (of the gloss's clips)."""
    glosses = predictions.glosses
    clips = pd.DataFrame({"gloss": glosses[predictions.label], "predicted": glosses[predictions.logits.argmax(axis=1)]})
    errors = clips[clips["gloss"] != clips["predicted"]].value_counts().reset_index(name="clips")
    errors["share"] = errors["clips"] / errors["gloss"].map(clips["gloss"].value_counts()).astype(float)
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
    return _mcnemar(_correct(a), _correct(b)[_rows_of(a, b)])


def _mcnemar(a_right: np.ndarray, b_right: np.ndarray) -> dict[str, Any]:
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
    right = {run: _correct(predictions) for run, predictions in runs.items()}
    rows = [
        {"a": a, "b": b, **_mcnemar(right[a], right[b][_rows_of(runs[a], runs[b])])} for a, b in combinations(runs, 2)
    ]
    return _with_holm(pd.DataFrame(rows, columns=columns))


def paired_recipe_tests(recipes: dict[str, list[Predictions]]) -> pd.DataFrame:
    """Compare every two of the named recipes, each by the predictions of its seeds, on the same clips.

    A clip counts with the share of the seeds that get it right. Fisher's randomisation test (1935): if two recipes were
    equally good, the difference of a clip's shares would have either sign with probability 1/2. The two-sided p_value
    is exact for up to 13 clips that differ, beyond that from FLIPS draws of signs, always the same. With one seed each
    it is that of `paired_test`. It knows of chance in the clips, not in the seeds.
    Columns a, b, n (clips), difference (of the mean shares, a minus b), p_value, p_holm; smallest p_value first.
    Raises StudyError as `paired_test`.
    """
    rows = []
    for a, b in combinations(recipes, 2):
        first = recipes[a][0]
        shares = [np.mean([_correct(one)[_rows_of(first, one)] for one in recipes[name]], axis=0) for name in (a, b)]
        change = shares[0] - shares[1]
        signed = change[change != 0]
        flips = {"permutation_type": "samples", "n_resamples": FLIPS, "rng": 0}
        p_value = float(permutation_test((signed,), np.sum, **flips).pvalue) if len(signed) else 1.0
        rows.append({"a": a, "b": b, "n": len(change), "difference": change.mean(), "p_value": p_value})
    return _with_holm(pd.DataFrame(rows, columns=["a", "b", "n", "difference", "p_value"]))


def _with_holm(tests: pd.DataFrame) -> pd.DataFrame:
    """Tests, smallest p_value first, with p_holm: corrected for their number (Holm 1979)."""
    table = tests.sort_values("p_value", kind="stable", ignore_index=True)
    remaining = len(table) - np.arange(len(table))
    table["p_holm"] = (table["p_value"] * remaining).clip(upper=1).cummax()
    return table


def _correct(predictions: Predictions) -> np.ndarray:
    """Which clips have their gloss alone at the highest logit."""
    return top_k_credit(predictions, 1) == 1.0


def _rows_of(reference: Predictions, predictions: Predictions) -> np.ndarray:
    """The rows of `predictions` in the order of the clips of `reference`."""
    rows = pd.Index(predictions.video_id).get_indexer(pd.Index(reference.video_id))
    if len(predictions.video_id) != len(rows) or (rows < 0).any():
        raise StudyError("a paired test needs two runs on the same clips: evaluate both on one index")
    if not np.array_equal(predictions.label[rows], reference.label):
        raise StudyError("a paired test needs two runs with the same labels: evaluate both on one index")
    return rows
