"""Fusion: several runs mixed into one opinion, with what validation chooses, from predictions alone.

A fusion is a scale for each run, and its logits are the sum of scale × logits. That is the weighted mean of the runs'
log-probabilities at their temperatures (a logarithmic opinion pool), up to a number for each clip, which softmax
ignores: weight × log softmax(logits / temperature) has the scale weight / temperature. A mean of the probabilities
themselves cannot be written so. Of eight pairs of committed runs, its best weight had the higher validation loss for
seven, and for one both leave all to one run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from lib.evaluation import cross_entropy, top_k
from lib.predictions import Predictions
from lib.settings import StudyError

HOTTEST = 10.0  # temperatures are sought from its reciprocal up to it: nearly perfect validations have none
WEIGHTS = np.linspace(0, 1, 21)  # of the first of two; a few hundred clips tell no finer ones apart


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
    """Validation of two fusions as one, by the weight of the first.

    Columns weight (WEIGHTS), top1 in [0, 1], loss (cross-entropy, nats).
    """
    mixed = [mix(validation, joined([first, second], [weight, 1 - weight])) for weight in WEIGHTS]
    scores = {"top1": [top_k(one, 1) for one in mixed], "loss": [cross_entropy(one) for one in mixed]}
    return pd.DataFrame({"weight": WEIGHTS, **scores})


def best_weight(curve: pd.DataFrame) -> float:
    """The weight of the lowest loss of `weight_curve`.

    Not of the highest top-1, which moves by whole clips: in ten-fold cross-validation of ten pairs of committed runs
    on WLASL's hands, weights chosen by top-1 named 83.7 % of the validation clips on average, by loss 84.5 %.
    """
    return float(curve.loc[curve["loss"].idxmin(), "weight"])
