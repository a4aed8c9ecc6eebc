"""Keras Tuner's oracles, which say what to try next, shared by any number of workers through one file.

Of Keras Tuner only the oracles are used. Its own way to spread a search is a server that every worker must reach; it
waits for ever for a worker that was killed, and its files, written one after the other, can contradict one another
after a kill. Here a worker takes the file, asks or tells the oracle, and puts the file back in one step.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TextIO, get_args

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.oracles import BayesianOptimizationOracle, HyperbandOracle, RandomSearchOracle

from lib.paths import replacing
from lib.spaces import Dimension
from lib.study import Tuner

OBJECTIVE = keras_tuner.Objective("val_accuracy", "max")
TUNERS = get_args(Tuner)
FACTOR = 3  # Hyperband keeps a third each time (Li et al. 2018, §3.6, recommend 3 or 4; Keras Tuner's default)


class InOneFile:
    """An oracle whose Shelf writes down what it knows, instead of Keras Tuner file by file."""

    def save(self) -> None:
        """Nothing."""

    def _save_trial(self, _trial: Trial) -> None:
        """Nothing."""


class Random(InOneFile, RandomSearchOracle):
    """Independent draws."""


class Hyperband(InOneFile, HyperbandOracle):
    """Many configurations for few epochs, the best third of them for three times as many, and so on."""


class Bayesian(InOneFile, BayesianOptimizationOracle):
    """A Gaussian process of what was found so far, and the configuration of the highest upper confidence bound."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Keras Tuner's, but drawing by the number of the trial.

        Its generator is not among what an oracle saves: after a resume it would propose something else.
        """
        self._random_state = np.random.RandomState([self.seed, int(trial_id)])
        self._learn()
        return super().populate_space(trial_id)

    def _learn(self) -> None:
        """Fit the process to the trials that have ended: those still running are guessed from it, pessimistically."""
        everything = self.trials
        self.trials = {name: trial for name, trial in everything.items() if trial.status == TrialStatus.COMPLETED}
        if self.trials:
            self.gpr.fit(*self._vectorize_trials())
        self.trials = everything


def make_oracle(
    tuner: str, dimensions: dict[str, Dimension], trials: int, epochs: int, seed: int
) -> keras_tuner.Oracle:
    """Make the oracle of a tuner that knows nothing yet.

    trials: how many `bayesian` and `random` try; epochs: the most that `hyperband` gives a trial.
    """
    common = {"objective": OBJECTIVE, "hyperparameters": hyperparameters(dimensions)}
    # Far from every other seed: Keras Tuner counts up from it, so that near ones would draw the same trials (and 0 is
    # to it no seed at all).
    own = int(np.random.SeedSequence([seed, TUNERS.index(tuner)]).generate_state(1)[0])
    common |= {"seed": own, "max_consecutive_failed_trials": None}
    if tuner == "hyperband":
        oracle = Hyperband(max_epochs=epochs, factor=FACTOR, **common)
    elif tuner == "random":
        oracle = Random(max_trials=trials, **common)
    else:
        # Keras Tuner begins with three random trials for each dimension; a small search would be nothing else.
        first = min(3 * len(dimensions), max(2, trials // 2))
        oracle = Bayesian(max_trials=trials, num_initial_points=first, **common)
    oracle.verbose = 0
    return oracle


def hyperparameters(dimensions: dict[str, Dimension]) -> keras_tuner.HyperParameters:
    """A space in Keras Tuner's terms. Steps become choices: its own of floats lose the last (0.5 // 0.1 is 4)."""
    space = keras_tuner.HyperParameters()
    for name, dimension in dimensions.items():
        values = dimension.values()
        scale = "log" if dimension.log else "linear"
        if values:
            space.Choice(name, values, ordered=not isinstance(values[0], str))
        elif dimension.whole:
            space.Int(name, dimension.min, dimension.max, sampling=scale)
        else:
            space.Float(name, dimension.min, dimension.max, sampling=scale)
    return space


def hyperband_cost(epochs: int) -> tuple[int, int]:
    """Trials and epochs of one whole Hyperband of at most `epochs` (>= 1) a trial, were none to stop early.

    A trial that is taken further goes on from where it stopped, and costs the epochs that are added.
    """
    oracle = Hyperband(objective=OBJECTIVE, max_epochs=epochs, factor=FACTOR, seed=1)
    trials = cost = 0
    for bracket in range(oracle._get_num_brackets()):
        done = 0
        for number in range(oracle._get_num_rounds(bracket)):
            size, until = oracle._get_size(bracket, number), oracle._get_epochs(bracket, number)
            trials, cost, done = trials + size, cost + size * (until - done), until
    return trials, cost


class Worker:
    """A process that runs trials: known by a lock, which ends with the process, however that ends."""

    def __init__(self, folder: Path) -> None:
        """folder: where the locks of all workers lie; on a file system that has flock (local, NFS 4)."""
        self.folder, self.name = folder, f"{socket.gethostname()}-{os.getpid()}"

    def __enter__(self) -> Self:
        """Begin to live."""
        self.lock = open_lock(self.folder / self.name)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        """Live no more."""
        (self.folder / self.name).unlink()
        self.lock.close()

    def lives(self, name: str) -> bool:
        """Whether the worker of a name is still there."""
        if not (self.folder / name).exists():
            return False
        with open_lock(self.folder / name) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


def open_lock(path: Path) -> TextIO:
    """Open a file to lock, making it where it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a")


class Shelf:
    """Where an oracle lies between two questions: state.json, with all trials and what came of them."""

    def __init__(self, folder: Path, make: Callable[[], keras_tuner.Oracle]) -> None:
        """make: the oracle before the first trial."""
        self.folder, self.make = folder, make

    @contextmanager
    def turn(self) -> Iterator[tuple[keras_tuner.Oracle, dict[str, dict[str, Any]]]]:
        """The oracle and the results by trial, for this worker alone; what is changed is kept, unless it raises."""
        with open_lock(self.folder / "turn.lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            oracle, results = self.read()
            yield oracle, results
            trials = [trial.get_state() for trial in oracle.trials.values()]
            state = {"oracle": oracle.get_state(), "trials": trials, "results": results}
            with replacing(self.folder / "state.json") as partial:
                partial.write_text(json.dumps(state, indent=1))

    def read(self) -> tuple[keras_tuner.Oracle, dict[str, dict[str, Any]]]:
        """The oracle and the results by trial, as they were last put back."""
        oracle, path = self.make(), self.folder / "state.json"
        if not path.exists():
            return oracle, {}
        state = json.loads(path.read_text())
        oracle.trials = {trial["trial_id"]: Trial.from_state(trial) for trial in state["trials"]}
        oracle.set_state(state["oracle"])
        return oracle, state["results"]

    def claim(self, worker: Worker) -> tuple[Trial | None, bool]:
        """A trial for a worker, if there is one to run now, and whether the search has ended.

        A trial whose worker is no more comes first; its training goes on from its checkpoint. None does not mean the
        end: what others are running may have to be known first, or to be taken over.
        """
        with self.turn() as (oracle, _):
            for name, trial in list(oracle.ongoing_trials.items()):
                if name != worker.name and not worker.lives(name):
                    oracle.ongoing_trials.pop(name)
                    oracle._retry_queue.append(trial.trial_id)
            trial = oracle.create_trial(worker.name)
            if trial.status == TrialStatus.RUNNING:
                return trial, False
            return None, trial.status == TrialStatus.STOPPED and not oracle.ongoing_trials

    def finish(self, trial_id: str, result: dict[str, Any]) -> int:
        """Tell what came of a trial. Returns how many trials have failed since one last succeeded.

        result: `status`, "COMPLETED" or "FAILED"; of the first `val_accuracy` and `best_epoch`; whatever is to be kept.
        The oracle takes a failure for an accuracy of 0. Keras Tuner leaves failures out: its Gaussian process goes on
        proposing what fails, and a bracket of Hyperband with one failure too many takes nobody further.
        """
        with self.turn() as (oracle, results):
            results[trial_id] = result
            oracle.update_trial(
                trial_id, {OBJECTIVE.name: result.get("val_accuracy", 0.0)}, result.get("best_epoch", 0)
            )
            trial = oracle.trials[trial_id]
            trial.status = TrialStatus.COMPLETED
            oracle.end_trial(trial)
            failed = [results[name]["status"] == TrialStatus.FAILED for name in oracle.end_order]
            return failed[::-1].index(False) if False in failed else len(failed)
