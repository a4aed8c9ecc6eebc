"""Who says what to try next: the same after a kill, for any number of workers, and never the same trial twice."""

import json
import threading
from contextlib import contextmanager

import pytest

from lib.oracles import TUNERS, Shelf, hyperband_plan, hyperparameters, is_alive, make_oracle, working
from lib.paths import locked
from lib.recipes import Dimension

SPACE = {
    "options.dropout": Dimension(min=0, max=0.5, step=0.1),
    "options.freeze": Dimension(min=0, max=17),
    "train.learning_rate": Dimension(min=0.0001, max=0.01, log=True),
}
EPOCHS, TRIALS = 9, 7


def open_shelf(folder, tuner, seed=0, trials=TRIALS, epochs=EPOCHS):
    return Shelf(folder, lambda: make_oracle(tuner, SPACE, trials, epochs, seed))


@contextmanager
def worker_named(folder, name):
    """A worker as if in a process of its own."""
    path = folder / "workers" / name
    with locked(path):
        yield path
        path.unlink()


def accuracy(values):
    """Highest, 1, where the rate is .003 and nothing is frozen."""
    rate = SPACE["train.learning_rate"].place(values["train.learning_rate"])
    return 1 - (rate - 0.74) ** 2 - 0.5 * (values["options.freeze"] / 17) ** 2


def succeed(shelf, trial):
    value = accuracy(trial.hyperparameters.values)
    return shelf.finish(trial.trial_id, {"status": "COMPLETED", "val_accuracy": value, "best_epoch": 1})


def run_all(shelf, worker, *, fail=()):
    """Run what is left of a search. Returns the values of its trials by their number."""
    while True:
        trial, ended = shelf.claim(worker)
        if ended:
            return {name: t.hyperparameters.values for name, t in shelf.read()[0].trials.items()}
        if trial.trial_id in fail:
            shelf.finish(trial.trial_id, {"status": "FAILED", "message": "no memory"})
        else:
            succeed(shelf, trial)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Trials of a search by each tuner that nothing interrupted."""
    found = {}
    for tuner in TUNERS:
        folder = tmp_path_factory.mktemp(tuner)
        with worker_named(folder, "one") as worker:
            found[tuner] = run_all(open_shelf(folder, tuner), worker)
    return found


@pytest.mark.parametrize("tuner", TUNERS)
def test_a_search_goes_through_its_whole_budget_within_its_space(unbroken, tuner):
    trials = unbroken[tuner]
    assert len(trials) == (hyperband_plan(EPOCHS)["trials"].sum() if tuner == "hyperband" else TRIALS)
    for values in trials.values():
        assert values["options.dropout"] in [0, 0.1, 0.2, 0.3, 0.4, 0.5]
        assert values["options.freeze"] in range(18)
        assert 0.0001 <= values["train.learning_rate"] <= 0.01


def test_both_ends_of_a_range_with_steps_can_be_drawn():
    space = hyperparameters(SPACE).space
    drawn = [{hp.random_sample(seed) for seed in range(200)} for hp in space]
    assert drawn[0] == {0, 0.1, 0.2, 0.3, 0.4, 0.5}
    assert drawn[1] == set(range(18))
    assert 0.0001 <= min(drawn[2]) < 0.00012
    assert 0.0085 < max(drawn[2]) <= 0.01
    assert 0.0006 < sorted(drawn[2])[100] < 0.0017  # half of the draws lie below the middle of the scale, .001


@pytest.mark.parametrize("tuner", TUNERS)
def test_a_search_whose_worker_was_killed_in_a_trial_goes_on_as_if_nothing_had_been(tmp_path, unbroken, tuner):
    for _ in range(3):
        with worker_named(tmp_path, "one") as one:
            trial, _ = open_shelf(tmp_path, tuner).claim(one)
            killed = trial.trial_id, trial.hyperparameters.values
        with worker_named(tmp_path, "two") as two:
            trial, _ = open_shelf(tmp_path, tuner).claim(two)
            assert (trial.trial_id, trial.hyperparameters.values) == killed
            succeed(open_shelf(tmp_path, tuner), trial)
    with worker_named(tmp_path, "three") as three:
        assert run_all(open_shelf(tmp_path, tuner), three) == unbroken[tuner]


@pytest.mark.parametrize("tuner", TUNERS)
def test_another_seed_tries_other_settings_and_seed_0_is_one(tmp_path, unbroken, tuner):
    with worker_named(tmp_path, "one") as worker:
        other = run_all(open_shelf(tmp_path / "1", tuner, seed=1), worker)
    rates = [{values["train.learning_rate"] for values in trials.values()} for trials in (other, unbroken[tuner])]
    assert not rates[0] & rates[1]


def test_tuners_do_not_begin_with_the_same_trial(unbroken):
    first = [next(iter(trials.values()))["train.learning_rate"] for trials in unbroken.values()]
    assert len(set(first)) == len(TUNERS)


def test_a_trial_is_taken_over_only_from_a_worker_that_is_no_more(tmp_path):
    shelf = open_shelf(tmp_path, "random")
    with worker_named(tmp_path, "two") as two:
        with worker_named(tmp_path, "one") as one:
            first, _ = shelf.claim(one)
            second, _ = shelf.claim(two)
            succeed(shelf, second)
            third, _ = shelf.claim(two)
            succeed(shelf, third)
        assert len({first.trial_id, second.trial_id, third.trial_id}) == 3
        again, _ = shelf.claim(two)
        assert again.trial_id == first.trial_id


def test_a_search_has_not_ended_while_another_worker_has_a_trial(tmp_path):
    shelf = open_shelf(tmp_path, "random", trials=2)
    with worker_named(tmp_path, "one") as one, worker_named(tmp_path, "two") as two:
        mine, _ = shelf.claim(one)
        succeed(shelf, shelf.claim(two)[0])
        assert shelf.claim(two) == (None, False)
        succeed(shelf, mine)
        assert shelf.claim(two) == (None, True)


@pytest.mark.parametrize("tuner", TUNERS)
def test_two_workers_run_as_many_trials_as_one_and_none_twice(tmp_path, unbroken, tuner):
    shelf, claimed = open_shelf(tmp_path, tuner), []
    with worker_named(tmp_path, "one") as one, worker_named(tmp_path, "two") as two:
        running, waiting = {}, {one.name, two.name}
        while waiting:
            for worker in (one, two, two):  # the second is faster
                trial, ended = shelf.claim(worker) if worker.name not in running else (None, False)
                if ended:
                    waiting.discard(worker.name)
                elif trial is not None:
                    claimed.append(trial.trial_id)
                    running[worker.name] = trial
                elif worker.name in running:
                    succeed(shelf, running.pop(worker.name))
    assert len(claimed) == len(set(claimed)) == len(unbroken[tuner])


def planned(epochs):
    """Trials and epochs that the plan of Hyperband asks for."""
    plan = hyperband_plan(epochs)
    return plan["trials"].sum(), (plan["trials"] * (plan["until"] - plan["start"])).sum()


def test_hyperband_takes_the_best_third_further_and_costs_what_is_said_beforehand(unbroken):
    trials = unbroken["hyperband"]
    cost = sum(values["tuner/epochs"] - values["tuner/initial_epoch"] for values in trials.values())
    assert (len(trials), cost) == planned(EPOCHS) == (23, 75)
    bracket = [name for name, values in trials.items() if values["tuner/epochs"] == 1]
    further = [values["tuner/trial_id"] for values in trials.values() if values.get("tuner/trial_id") in bracket]
    best = sorted(bracket, key=lambda name: -accuracy(trials[name]))[: len(further)]
    assert (len(bracket), len(further)) == (9, 3)
    assert sorted(further) == sorted(best)


def test_hyperbands_plan_is_the_published_one_up_to_rounding():
    plan = hyperband_plan(81).groupby("bracket", sort=False)  # table 1 of Li et al. 2018, which rounds down
    assert [rounds["until"].tolist() for _, rounds in plan] == [
        [1, 3, 9, 27, 81], [3, 9, 27, 81], [9, 27, 81], [27, 81], [81]
    ]  # fmt: skip
    assert [rounds["trials"].tolist() for _, rounds in plan] == [
        [81, 27, 9, 3, 1], [34, 12, 4, 2], [15, 5, 2], [8, 3], [5]
    ]  # fmt: skip


def test_hyperbands_cost_at_the_published_epochs():
    assert planned(50) == (90, 922)
    assert planned(1) == (1, 1)


def test_a_failure_is_the_worst_result_and_keeps_no_bracket_from_going_on(tmp_path, unbroken):
    shelf = open_shelf(tmp_path, "hyperband")
    with worker_named(tmp_path, "one") as worker:
        failing = {f"{number:04d}" for number in range(4)}
        trials = run_all(shelf, worker, fail=failing)
    assert len(trials) == len(unbroken["hyperband"])
    assert not failing & {values.get("tuner/trial_id") for values in trials.values()}
    assert shelf.read()[1]["0003"] == {"status": "FAILED", "message": "no memory"}


def test_failures_are_counted_since_the_last_success(tmp_path):
    shelf, counted = open_shelf(tmp_path, "random"), []
    with worker_named(tmp_path, "one") as worker:
        for status in ("FAILED", "FAILED", "COMPLETED", "FAILED"):
            trial, _ = shelf.claim(worker)
            result = {"status": status, "val_accuracy": 0.5, "best_epoch": 1}
            counted.append(shelf.finish(trial.trial_id, result))
    assert counted == [1, 2, 0, 1]


def test_bayesian_search_avoids_what_failed_and_finds_more_than_chance(tmp_path, unbroken):
    with worker_named(tmp_path, "one") as worker:
        bayesian = run_all(open_shelf(tmp_path / "b", "bayesian", trials=12), worker)
        drawn = run_all(open_shelf(tmp_path / "r", "random", trials=12), worker)
    late = list(bayesian.values())[6:]
    assert max(map(accuracy, late)) > 0.99
    assert sum(map(accuracy, late)) > sum(map(accuracy, list(drawn.values())[6:])) + 0.5


def test_a_turn_that_fails_leaves_what_was_known_as_it_was(tmp_path):
    shelf = open_shelf(tmp_path, "random")
    with worker_named(tmp_path, "one") as worker:
        shelf.claim(worker)
    before = (tmp_path / "state.json").read_text()
    with pytest.raises(KeyError):
        shelf.finish("9", {"status": "COMPLETED", "val_accuracy": 1, "best_epoch": 1})
    assert (tmp_path / "state.json").read_text() == before
    assert json.loads(before)["results"] == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.json", "turn.lock", "workers"]


def test_a_turn_waits_for_the_one_before(tmp_path):
    shelf, order = open_shelf(tmp_path, "random"), []

    def claim():
        with worker_named(tmp_path, "two") as worker:
            shelf.claim(worker)
            order.append("claimed")

    with locked(tmp_path / "turn.lock"):
        thread = threading.Thread(target=claim)
        thread.start()
        thread.join(0.5)
        order.append("unlocked")
    thread.join()
    assert order == ["unlocked", "claimed"]


def test_a_worker_is_alive_as_long_as_its_process_holds_its_lock(tmp_path):
    with working(tmp_path) as worker:
        assert is_alive(worker)
    assert not is_alive(worker)
    assert not worker.exists()
    worker.touch()  # a process that is killed leaves its file
    assert not is_alive(worker)
