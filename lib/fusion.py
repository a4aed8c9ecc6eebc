"""Fusion: several runs mixed into one opinion, with what validation chooses, from predictions alone.

A fusion is a scale for each run, and its logits are the sum of scale × logits. That is the weighted mean of the runs'
log-probabilities at their temperatures (a logarithmic opinion pool), up to a number for each clip, which softmax
ignores: weight × log softmax(logits / temperature) has the scale weight / temperature. A mean of the probabilities
themselves could not be written so, and had the higher validation loss in every pair of runs that was tried.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from lib.evaluation import cross_entropy, top_k_credit
from lib.predictions import Predictions
from lib.settings import StudyError

HOTTEST = 10.0  # temperatures are sought from its reciprocal up to it: nearly perfect validations have none
WEIGHTS = np.linspace(0, 1, 21)  # of the first of two, coarser than 165 clips could tell apart
FOLDS = 10


def mix(predictions: Mapping[str, Predictions], scales: Mapping[str, float]) -> Predictions:
    """Mix the runs named in `scales`; the logits are log-probabilities, log softmax of the sum of scale × logits.

    Raises StudyError, naming two runs, unless all have the same clips, labels and glosses in the same order.
    """
    first, *others = scales
    one = predictions[first]
    for run in others:
        for name, what in (("video_id", "clips"), ("label", "labels"), ("glosses", "glosses")):
            if not np.array_equal(getattr(one, name), getattr(predictions[run], name)):
                raise StudyError(f"{first} and {run} were not scored on the same {what}: train both on one index")
    total = sum(scale * predictions[run].logits.astype(np.float64) for run, scale in scales.items())
    return replace(one, logits=log_softmax(total, axis=1))


def calibrated(validation: Mapping[str, Predictions], scales: Mapping[str, float]) -> dict[str, float]:
    """Divide scales by the temperature at which their mix has the least cross-entropy (Guo et al. 2017).

    The temperature is in [1 / HOTTEST, HOTTEST]. Which gloss is the likeliest does not change. Raises StudyError as
    `mix` does.
    """
    mixed = mix(validation, scales)

    def loss(log_temperature: float) -> float:
        return cross_entropy(replace(mixed, logits=mixed.logits / np.exp(log_temperature)))

    most = np.log(HOTTEST)
    temperature = float(np.exp(minimize_scalar(loss, bounds=(-most, most), method="bounded").x))
    return {run: scale / temperature for run, scale in scales.items()}


def joined(parts: Sequence[Mapping[str, float]], weights: Sequence[float]) -> dict[str, float]:
    """The scales of several fusions of different runs in one, each times the weight of its fusion."""
    return {run: weight * scale for part, weight in zip(parts, weights, strict=True) for run, scale in part.items()}


def weight_curve(
    validation: Mapping[str, Predictions], first: Mapping[str, float], second: Mapping[str, float]
) -> pd.DataFrame:
    """Validation of two fusions by the weight of the first: columns weight (WEIGHTS), top1 in [0, 1], loss in nats."""
    right, loss = _by_weight(validation, first, second)
    return pd.DataFrame({"weight": WEIGHTS, "top1": right.mean(axis=1), "loss": loss.mean(axis=1)})


def best_weight(curve: pd.DataFrame) -> float:
    """The weight of the highest top-1 of `weight_curve`; of several, that of the lowest loss."""
    return float(curve["weight"].iloc[_best(curve["top1"], curve["loss"])])


def cross_validated(
    validation: Mapping[str, Predictions], first: Mapping[str, float], second: Mapping[str, float]
) -> float:
    """Validation top-1 where the other nine tenths of the clips choose the weight for each tenth, in [0, 1].

    The top-1 of the weight that all clips choose is never below that of either fusion, as weights 0 and 1 are among
    the choices; this one may be. Every tenth clip, in index order, is of one fold.
    """
    right, loss = _by_weight(validation, first, second)
    fold, total = np.arange(right.shape[1]) % FOLDS, 0.0
    for number in range(FOLDS):
        others = fold != number
        total += right[_best(right[:, others].mean(axis=1), loss[:, others].mean(axis=1)), ~others].sum()
    return total / len(fold)


def _best(top1: ArrayLike, loss: ArrayLike) -> int:
    return int(np.lexsort((np.asarray(loss), -np.asarray(top1)))[0])


def _by_weight(
    validation: Mapping[str, Predictions], first: Mapping[str, float], second: Mapping[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Credit for top-1 and cross-entropy of each clip at each weight of the first fusion, each (WEIGHTS, clips)."""
    right, loss = [], []
    for weight in WEIGHTS:
        mixed = mix(validation, joined([first, second], [weight, 1 - weight]))
        right.append(top_k_credit(mixed, 1))
        loss.append(-np.take_along_axis(mixed.logits, mixed.label[:, None], axis=1)[:, 0])
    return np.stack(right), np.stack(loss)
