"""Keras Tuner's oracles, which propose trials, shared by any number of workers through one file.

Only the oracles of Keras Tuner are used. Its distributed search needs a server that every worker can reach and that
waits for ever for a killed worker, and its many state files can contradict one another after a kill. Here a worker
locks the state file, asks or updates the oracle, and replaces the file in one step.
"""

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import keras_tuner
import numpy as np
import pandas as pd
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.oracles import BayesianOptimizationOracle, HyperbandOracle, RandomSearchOracle

from lib.paths import locked, replacing
from lib.recipes import Dimension
from lib.study import Tuner

OBJECTIVE = keras_tuner.Objective("val_accuracy", "max")
TUNERS = get_args(Tuner)
FACTOR = 3  # Hyperband keeps a third each time (Li et al. 2018, §3.6, recommend 3 or 4; Keras Tuner's default)
Results = dict[str, dict[str, Any]]  # by trial number, in the order in which the trials ended


class _Bayesian(BayesianOptimizationOracle):
    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Propose as Keras Tuner does, but with a random state that depends on the trial only.

        Keras Tuner does not save its own, so that a resumed search would propose something else. The Gaussian process
        is fitted to the completed trials; Keras Tuner guesses the results of the running ones from it.
        """
        self._random_state = np.random.RandomState([self.seed, int(trial_id)])
        everything = self.trials
        self.trials = {name: trial for name, trial in everything.items() if trial.status == TrialStatus.COMPLETED}
        if self.trials:
            self.gpr.fit(*self._vectorize_trials())
        self.trials = everything
        return super().populate_space(trial_id)


def make_oracle(
    tuner: str, dimensions: dict[str, Dimension], trials: int, epochs: int, seed: int
) -> keras_tuner.Oracle:
    """Make the oracle of a tuner before its first trial.

    trials: number of trials of "bayesian" and "random". epochs: the most that "hyperband" gives a trial.
    """
    common = {"objective": OBJECTIVE, "hyperparameters": hyperparameters(dimensions)}
    # Keras Tuner counts up from its seed, so that close seeds would draw the same trials, and takes 0 for no seed.
    own = int(np.random.SeedSequence([seed, TUNERS.index(tuner)]).generate_state(1)[0])
    common |= {"seed": own, "max_consecutive_failed_trials": None}
    if tuner == "hyperband":
        oracle = HyperbandOracle(max_epochs=epochs, factor=FACTOR, **common)
    elif tuner == "random":
        oracle = RandomSearchOracle(max_trials=trials, **common)
    else:
        # Keras Tuner starts with three random trials per dimension, which would be all of a small search.
        first = min(3 * len(dimensions), max(2, trials // 2))
        oracle = _Bayesian(max_trials=trials, num_initial_points=first, **common)
    oracle.verbose = 0
    oracle.save = oracle._save_trial = lambda *_: None  # its own files: Shelf saves it
    return oracle


def hyperparameters(dimensions: dict[str, Dimension]) -> keras_tuner.HyperParameters:
    """A space in Keras Tuner's terms. Steps become choices, because its own lose the last one (0.5 // 0.1 is 4)."""
    space = keras_tuner.HyperParameters()
    for name, dimension in dimensions.items():
        if values := dimension.values():
            space.Choice(name, values, ordered=not isinstance(values[0], str))
        else:
            add = space.Int if dimension.whole else space.Float
            add(name, dimension.min, dimension.max, sampling="log" if dimension.log else "linear")
    return space


def hyperband_plan(epochs: int) -> pd.DataFrame:
    """The rounds of a whole Hyperband of at most `epochs` (>= 1) per trial, without early stopping.

    One row per round, the bracket with the most trials first. Columns: bracket (the number of its promotions), trials,
    start and until. A promoted trial resumes from its checkpoint, so that a round costs trials * (until - start).
    """
    oracle = HyperbandOracle(objective=OBJECTIVE, max_epochs=epochs, factor=FACTOR, seed=1)
    rows = []
    for bracket in reversed(range(oracle._get_num_brackets())):
        start = 0
        for number in range(oracle._get_num_rounds(bracket)):
            trials, until = oracle._get_size(bracket, number), oracle._get_epochs(bracket, number)
            rows.append({"bracket": bracket, "trials": trials, "start": start, "until": until})
            start = until
    return pd.DataFrame(rows)


def hyperband_cost(epochs: int) -> tuple[int, int]:
    """Trials and epochs of the rounds of `hyperband_plan`."""
    plan = hyperband_plan(epochs)
    return int(plan["trials"].sum()), int((plan["trials"] * (plan["until"] - plan["start"])).sum())


@contextmanager
def working(folder: Path) -> Iterator[Path]:
    """Register this process as a worker. Yields its lock file in `folder`, which it holds while it is alive."""
    path = folder / f"{socket.gethostname()}-{os.getpid()}"
    with locked(path):
        try:
            yield path
        finally:
            path.unlink()


def is_alive(worker: Path) -> bool:
    """Whether the process of a worker still holds its lock file."""
    if not worker.exists():
        return False
    try:
        with locked(worker, wait=False):
            return False
    except BlockingIOError:
        return True


class Shelf:
    """The saved state of one tuner's oracle: state.json with all trials and their results."""

    def __init__(self, folder: Path, make: Callable[[], keras_tuner.Oracle]) -> None:
        """make: returns the oracle before the first trial."""
        self.folder, self.make = folder, make

    @contextmanager
    def _turn(self) -> Iterator[tuple[keras_tuner.Oracle, Results]]:
        """The oracle and the results, for this worker alone; changes are saved unless an error is raised."""
        with locked(self.folder / "turn.lock"):
            oracle, results = self.read()
            yield oracle, results
            trials = [trial.get_state() for trial in oracle.trials.values()]
            state = {"oracle": oracle.get_state(), "trials": trials, "results": results}
            with replacing(self.folder / "state.json") as partial:
                partial.write_text(json.dumps(state, indent=1))

    def read(self) -> tuple[keras_tuner.Oracle, Results]:
        """The oracle and the results as they were last saved."""
        oracle, path = self.make(), self.folder / "state.json"
        if not path.exists():
            return oracle, {}
        state = json.loads(path.read_text())
        oracle.trials = {trial["trial_id"]: Trial.from_state(trial) for trial in state["trials"]}
        oracle.set_state(state["oracle"])
        return oracle, state["results"]

    def claim(self, worker: Path) -> tuple[Trial | None, bool]:
        """Claim a trial for a worker. Returns the trial, or None if there is none to run now, and whether all are done.

        A trial whose worker was killed comes first and resumes from its checkpoint. None without the end means that
        the next proposal depends on trials that other workers are running.
        """
        with self._turn() as (oracle, _):
            for name, trial in list(oracle.ongoing_trials.items()):
                if name != worker.name and not is_alive(worker.with_name(name)):
                    oracle.ongoing_trials.pop(name)
                    oracle._retry_queue.append(trial.trial_id)
            trial = oracle.create_trial(worker.name)
            if trial.status == TrialStatus.RUNNING:
                return trial, False
            return None, trial.status == TrialStatus.STOPPED and not oracle.ongoing_trials

    def finish(self, trial_id: str, result: dict[str, Any]) -> int:
        """Record the result of a trial. Returns how many trials in a row have failed.

        result: `status`, "COMPLETED" or "FAILED"; of a completed one `val_accuracy` and `best_epoch`; anything else
        that is to be kept.
        For the oracle a failed trial has an accuracy of 0. Keras Tuner would ignore it: the Gaussian process goes on
        proposing what fails, and a Hyperband bracket with one failure too many promotes no trial.
        """
        with self._turn() as (oracle, results):
            results[trial_id] = result
            metrics = {OBJECTIVE.name: result.get("val_accuracy", 0.0)}
            oracle.update_trial(trial_id, metrics, result.get("best_epoch", 0))
            trial = oracle.trials[trial_id]
            trial.status = TrialStatus.COMPLETED
            oracle.end_trial(trial)
            failed = [results[name]["status"] == TrialStatus.FAILED for name in oracle.end_order]
            return failed[::-1].index(False) if False in failed else len(failed)
