"""What is said of the trials of a search: the best, the cost, what mattered; and what its figures show."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lib.figures import runs as figures
from lib.settings import StudyError
from lib.spaces import Dimension
from lib.tuning import best_trial, compare_tuners, importance, read_trials

SPACE = {
    "options.dropout": Dimension(min=0, max=0.5, step=0.1),
    "options.norm": Dimension(choices=["layer", "batch", "none"]),
    "train.learning_rate": Dimension(min=0.0001, max=0.01, log=True),
}


def result(value, epochs=2, until=2, loss=1.0, **values):
    settings = {"options.dropout": 0.1, "options.norm": "layer", "train.learning_rate": 0.001, **values}
    known = {"status": "COMPLETED", "val_accuracy": value, "val_loss": loss, "best_epoch": 1}
    failed = {"status": "FAILED", "message": "no memory"}
    return {
        **(failed if value is None else known),
        "values": settings,
        "until": until,
        "epochs": epochs,
        "seconds": 30.0,
    }


RESULTS = {
    "hyperband": {
        "0000": result(0.3, 1, 1),
        "0001": result(None, 0, 1),
        "0002": result(0.5, 2, 3, loss=0.9),
        "0003": result(0.4, 3, 3),
    },
    "random": {"0": result(0.2, 3), "1": result(0.5, 3, loss=0.8), "2": result(0.6, 3, loss=0.7)},
}


def search_of(results):
    """A search that is over, without its files."""
    return SimpleNamespace(
        shelves=dict.fromkeys(results),
        results=lambda tuner: results[tuner],
        space=SPACE,
        spec=SimpleNamespace(name="s"),
    )


@pytest.fixture
def trials():
    return read_trials(search_of(RESULTS))


def test_trials_are_a_row_each_with_what_was_spent_and_the_best_so_far(trials):
    assert trials["trial"].tolist() == ["0000", "0001", "0002", "0003", "0", "1", "2"]
    assert trials["spent"].tolist() == [1, 1, 3, 6, 3, 6, 9]
    assert trials["best"].tolist() == [0.3, 0.3, 0.5, 0.5, 0.2, 0.5, 0.6]
    assert trials["options.norm"].tolist() == ["layer"] * 7
    assert trials["message"].dropna().tolist() == ["no memory"]


def test_tuners_are_compared_at_what_each_of_them_has_spent(trials):
    table = compare_tuners(trials).set_index("tuner")
    assert table["epochs"].to_dict() == {"hyperband": 6, "random": 9}
    assert table["equal_epochs"].tolist() == [6, 6]
    assert table["best"].tolist() == [0.5, 0.6]
    assert table["best_at_equal"].tolist() == [0.5, 0.5]
    assert table[["trials", "failed"]].to_numpy().tolist() == [[4, 1], [3, 0]]
    assert table["minutes"].tolist() == [2.0, 1.5]


def test_the_best_trial_is_that_of_the_highest_accuracy_then_of_the_lowest_loss(trials):
    assert best_trial(trials)["trial"] == "2"
    assert best_trial(trials.drop(6))["trial"] == "1"
    with pytest.raises(StudyError, match="no trial of the search has succeeded"):
        best_trial(trials[trials["status"] == "FAILED"])


def trials_where_only_the_rate_matters(count, noise=0.02, seed=0):
    rng = np.random.default_rng(seed)
    rows = {}
    for number in range(count):
        values = {
            "options.dropout": SPACE["options.dropout"].values()[rng.integers(6)],
            "options.norm": SPACE["options.norm"].values()[rng.integers(3)],
            "train.learning_rate": float(10 ** rng.uniform(-4, -2)),
        }
        place = SPACE["train.learning_rate"].place(values["train.learning_rate"])
        rows[str(number)] = result(0.8 - (place - 0.6) ** 2 + noise * rng.normal(), **values)
    search = search_of({"random": rows})
    return read_trials(search), search


def test_the_setting_that_alone_decides_is_the_one_of_importance():
    table = importance(*trials_where_only_the_rate_matters(60))
    assert table["setting"][0] == "train.learning_rate"
    assert table["importance"][0] > 1
    assert table["importance"][1:].abs().max() < 0.2
    assert set(table["setting"]) == {*SPACE}
    assert table.attrs["trials"] == 60
    assert table.attrs["r2"] > 0.7
    assert table.attrs["reliable"]


def test_more_epochs_do_not_hide_what_a_setting_does():
    trials, search = trials_where_only_the_rate_matters(60)
    until = np.where(np.arange(60) % 3, 1, 9)
    longer = trials.assign(until=until, val_accuracy=0.1 * (trials["val_accuracy"] + until))
    expected, found = importance(trials, search), importance(longer, search)
    assert found["setting"][0] == "train.learning_rate"
    assert found["importance"][0] == pytest.approx(expected["importance"][0], rel=0.3)
    assert found.attrs["r2"] > 0.5


def test_importance_of_noise_is_not_called_reliable():
    trials, search = trials_where_only_the_rate_matters(60)
    shuffled = trials.assign(val_accuracy=np.random.default_rng(0).permutation(trials["val_accuracy"]))
    table = importance(shuffled, search)
    assert table.attrs["r2"] < 0
    assert not table.attrs["reliable"]
    assert not importance(*trials_where_only_the_rate_matters(12)).attrs["reliable"]


def test_importance_does_not_learn_from_another_trial_of_the_same_configuration():
    trials, search = trials_where_only_the_rate_matters(20)
    noise = np.random.default_rng(1).random(20)
    twice = pd.concat([trials.assign(val_accuracy=noise)] * 3, ignore_index=True)
    assert importance(twice, search).attrs["r2"] < 0.2


def test_importance_of_equal_trials_is_zero_and_too_few_are_refused():
    trials, search = trials_where_only_the_rate_matters(8)
    table = importance(trials.assign(val_accuracy=0.5), search)
    assert table["importance"].tolist() == [0] * 3
    assert not table.attrs["reliable"]
    with pytest.raises(StudyError, match="search s: too few configurations have succeeded"):
        importance(trials[:3], search)


# ---- figures -------------------------------------------------------------------------------------------


def test_progress_is_a_step_curve_of_each_tuner_over_its_epochs(trials):
    (ax,) = figures.best_so_far(trials, 6, 0.1).axes
    lines = {line.get_label(): line for line in ax.lines}
    assert lines["hyperband"].get_xdata().tolist() == [1, 1, 3, 6]
    assert lines["hyperband"].get_ydata().tolist() == [0.3, 0.3, 0.5, 0.5]
    assert lines["random"].get_ydata().tolist() == [0.2, 0.5, 0.6]
    assert lines["random"].get_drawstyle() == "steps-post"
    assert list(lines["equal cost"].get_xdata()) == [6, 6]
    assert list(lines["chance"].get_ydata()) == [0.1, 0.1]


def test_parallel_coordinates_draw_each_success_at_its_places_and_the_best_last():
    values = {"options.dropout": 0.5, "options.norm": "batch", "train.learning_rate": 0.0001}
    rows = {"0": result(0.9, **values), "1": result(None), "2": result(0.2)}
    figure = figures.parallel_coordinates(read_trials(search_of({"random": rows})), SPACE)
    lines = [line.get_ydata() for line in figure.axes[0].lines]
    np.testing.assert_allclose(lines, [[0.2, 0, 0.5], [1, 0.5, 0]], atol=1e-9)
    assert [text.get_text() for text in figure.axes[0].texts] == ["0", "0.5", "layer", "none", "0.0001", "0.01"]
    colours = [line.get_color() for line in figure.axes[0].lines]
    assert colours[0] != colours[1]


def test_importance_figure_says_how_far_to_trust_it():
    table = importance(*trials_where_only_the_rate_matters(12))
    (ax,) = figures.importances(table, "A search").axes
    assert [bar.get_width() for bar in ax.patches] == pytest.approx(table["importance"].tolist())
    assert "12 trials" in ax.get_title(loc="left")
    assert "too little to rank by" in ax.get_title(loc="left")


def test_cost_figure_has_epochs_and_minutes_of_each_tuner(trials):
    epochs, minutes = figures.cost(compare_tuners(trials)).axes
    assert [bar.get_width() for bar in epochs.patches] == [6, 9]
    assert [bar.get_width() for bar in minutes.patches] == [2.0, 1.5]
    assert [label.get_text() for label in epochs.get_yticklabels()] == ["hyperband", "random"]
