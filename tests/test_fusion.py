"""Fusion: temperatures, weights and mixes, from predictions alone."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from lib.evaluation import cross_entropy, top_k
from lib.fusion import HOTTEST, WEIGHTS, best_weight, calibrated, joined, mix, weight_curve
from lib.predictions import Predictions
from lib.settings import StudyError

CLIPS, CLASSES = 400, 6


def calibrated_run(seed, sharpness):
    """A run whose softmax is the true chance of each gloss, as the labels are drawn from it."""
    random = np.random.default_rng(seed)
    logits = sharpness * random.normal(size=(CLIPS, CLASSES))
    label = np.array([random.choice(CLASSES, p=row) for row in softmax(logits, axis=1)])
    return of(logits, label)


def of(logits, label):
    names, glosses = [f"{number:05d}" for number in range(len(label))], [f"gloss {number}" for number in range(CLASSES)]
    return Predictions(np.array(names), label, logits, np.array(glosses))


@pytest.fixture
def halves():
    """Two runs that each know one half of the evidence: the labels are drawn from the sum of their logits."""
    random = np.random.default_rng(3)
    first, second = (2 * random.normal(size=(CLIPS, CLASSES)) for _ in range(2))
    label = np.array([random.choice(CLASSES, p=row) for row in softmax(first + second, axis=1)])
    return {"first": of(first, label), "second": of(second, label)}


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_by_which_logits_were_scaled_is_found_again(temperature):
    true = calibrated_run(0, sharpness=2)
    scaled = replace(true, logits=temperature * true.logits)
    found = 1 / calibrated({"run": scaled}, {"run": 1.0})["run"]
    assert found == pytest.approx(temperature * (1 / calibrated({"run": true}, {"run": 1.0})["run"]), rel=1e-3)
    assert found == pytest.approx(temperature, rel=0.15)


def test_no_temperature_near_the_one_found_has_a_lower_loss():
    runs = {"run": replace(calibrated_run(1, 2), logits=5 * calibrated_run(1, 2).logits)}
    scale = calibrated(runs, {"run": 1.0})["run"]
    losses = [cross_entropy(mix(runs, {"run": scale * factor})) for factor in (0.98, 1.0, 1.02)]
    assert min(losses) == losses[1] < min(losses[0], losses[2])


def test_the_temperature_of_a_run_without_errors_ends_at_the_limit():
    sure = of(3 * np.eye(CLASSES)[np.arange(CLIPS) % CLASSES], np.arange(CLIPS) % CLASSES)
    assert calibrated({"run": sure}, {"run": 1.0})["run"] == pytest.approx(HOTTEST, rel=1e-3)


def test_a_mix_is_the_weighted_mean_of_log_probabilities_at_their_temperatures(halves):
    weighed = joined([{"first": 1 / 2.5}, {"second": 1 / 0.5}], [0.3, 0.7])
    by_hand = 0.3 * log_softmax(halves["first"].logits / 2.5, axis=1)
    by_hand += 0.7 * log_softmax(halves["second"].logits / 0.5, axis=1)
    mixed = mix(halves, weighed)
    assert np.exp(mixed.logits) == pytest.approx(softmax(by_hand, axis=1), abs=1e-6)
    assert np.exp(mixed.logits).sum(axis=1) == pytest.approx(1)
    assert mixed.video_id.tolist() == halves["first"].video_id.tolist()


def test_calibration_keeps_the_order_of_the_glosses_and_the_shares_of_the_runs(halves):
    scales = {"first": 0.6, "second": 0.2}
    found = calibrated(halves, scales)
    assert found["first"] / found["second"] == pytest.approx(3)
    order = [mix(halves, one).logits.argsort(axis=1) for one in (scales, found)]
    assert np.array_equal(*order)


def test_two_halves_of_the_evidence_weigh_the_same_and_are_better_than_either(halves):
    own = [{name: 1.0} for name in halves]
    curve = weight_curve(halves, *own)
    assert best_weight(curve) == pytest.approx(0.5, abs=0.1)
    fused = calibrated(halves, joined(own, [0.5, 0.5]))
    assert list(fused.values()) == pytest.approx([1, 1], rel=0.15)  # the sum of the evidence, not its mean
    assert top_k(mix(halves, fused), 1) > max(top_k(run, 1) for run in halves.values()) + 0.05


def test_a_run_that_knows_nothing_gets_no_weight():
    true = calibrated_run(2, sharpness=2)
    noise = of(np.random.default_rng(9).normal(size=(CLIPS, CLASSES)), true.label)
    runs = {"noise": noise, "true": true}
    curve = weight_curve(runs, calibrated(runs, {"noise": 1.0}), calibrated(runs, {"true": 1.0}))
    assert best_weight(curve) <= 0.05


def test_the_curve_ends_in_the_runs_alone_and_its_lowest_loss_is_chosen(halves):
    curve = weight_curve(halves, {"first": 1.0}, {"second": 1.0})
    assert curve["weight"].tolist() == WEIGHTS.tolist()
    for row, name in ((0, "second"), (-1, "first")):
        assert curve["top1"].iloc[row] == top_k(halves[name], 1)
        assert curve["loss"].iloc[row] == pytest.approx(cross_entropy(halves[name]), rel=1e-5)
    chosen = curve["weight"] == best_weight(curve)
    assert curve.loc[chosen, "loss"].item() == curve["loss"].min()
    assert best_weight(curve.assign(top1=curve["weight"])) == best_weight(curve)  # top-1 has no say


def test_seeds_are_averaged_with_equal_parts(halves):
    parts = [{"first": 2.0}, {"second": 4.0}]
    assert joined(parts, [1 / 2] * 2) == {"first": 1.0, "second": 2.0}
    with pytest.raises(ValueError, match="zip"):
        joined(parts, [1.0])


@pytest.mark.parametrize("what", ["clips", "labels", "glosses"])
def test_runs_on_different_clips_labels_or_glosses_are_refused_by_name(halves, what):
    one = halves["second"]
    other = {
        "clips": replace(one, video_id=one.video_id[::-1]),
        "labels": replace(one, label=(one.label + 1) % CLASSES),
        "glosses": replace(one, glosses=one.glosses[::-1]),
    }[what]
    with pytest.raises(StudyError, match=f"first and second were not scored on the same {what}: train both on one"):
        mix(halves | {"second": other}, {"first": 1.0, "second": 1.0})
    assert mix(halves | {"second": other}, {"first": 1.0}) is not None  # it does not take part


def test_runs_of_different_numbers_of_clips_are_refused(halves):
    fewer = halves["second"].of(np.arange(CLIPS - 1))
    with pytest.raises(StudyError, match="not scored on the same clips"):
        mix(halves | {"second": fewer}, {"first": 1.0, "second": 1.0})
