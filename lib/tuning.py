"""Searches for the settings of a recipe: trials are trainings of the study, chosen by Keras Tuner's oracles.

    python -m lib.tuning <study> <data root, or ""> <search>

is one worker of a search: it runs trials until nothing is left to do. Any number of them share the work, on one
machine or on all that see the same files; of one that is killed only the epoch it was in has to be trained again.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import keras
import pandas as pd
import yaml
from keras_tuner.engine.trial import Trial
from pydantic import ValidationError

from lib.files import replacing
from lib.models import config_of, count_stages
from lib.oracles import Shelf, Worker, hyperband_cost, make_oracle
from lib.recipes import changed, find_recipe, read_config
from lib.runs import ClipRun, PoseRun, Run
from lib.spaces import read_space
from lib.study import RunSpec, Study, StudyError, explain, load_study
from lib.training import read_history

FAILURES = 3  # one after the other end the search; Keras Tuner's default
ATTEMPTS = 3  # at one more epoch; a trial that has ended its process as often has failed
PAUSE = 2.0  # seconds until a worker that has nothing to do asks again


class Search:
    """A search of a study: its space, its settings, and what each of its tuners knows."""

    def __init__(self, study: Study, name: str) -> None:
        """Read all files. Raises StudyError, in one line, for what is wrong in them or is not as the search began."""
        self.study, self.spec = study, study.find_search(name)
        self.folder = study.data_dir / "searches" / name
        self.space = read_space(self.spec).dimensions(count_stages(self.spec.model()))
        self.fixed = {**self.spec.set, **self.spec.trial}
        for key, dimension in self.space.items():
            for value in dimension.ends():
                self.check(key, value)
        self.run = self.open_run({}, self.folder)
        self.epochs = self.run.config.train.epochs  # the most of a trial
        self.trials = self.spec.trials or -(-hyperband_cost(self.epochs)[1] // self.epochs)
        self.shelves = {tuner: self.open_shelf(tuner) for tuner in self.spec.tuners}

    def check(self, key: str, value: Any) -> None:
        """Raise StudyError when a setting of the space is unknown, or may not have this value."""
        where = f"search {self.spec.name}, space '{self.spec.space}', {key} = {value!r}"
        try:
            config = read_config(self.spec.recipe, {**self.fixed, key: value})
            config_of(config.model).model_validate(config.options)
        except StudyError as error:
            raise StudyError(f"{where}: {error}") from None
        except ValidationError as error:
            raise StudyError(f"{where}: options: {explain(error, config_of(config.model))}") from None

    def open_run(self, values: dict[str, Any], folder: Path) -> Run:
        """The training of a trial: a run like any other, but that all its files lie in `folder`."""
        spec = RunSpec(recipe=self.spec.recipe, seeds=[self.spec.seed], set={**self.fixed, **values})
        study = self.study.model_copy(update={"runs": [spec]})
        run = (PoseRun if spec.reads_poses() else ClipRun)(study, *study.run_names())
        run.folder = run.report = folder
        return run

    def open_shelf(self, tuner: str) -> Shelf:
        """Where a tuner's trials are kept. Raises StudyError when they are of another space, recipe or clips."""
        clips = json.dumps([self.run.content(), self.run.clips("val")["video_id"].tolist()])
        identity = {
            "space": {key: dimension.model_dump(exclude_none=True) for key, dimension in self.space.items()},
            "recipe": self.run.config.model_dump(mode="json"),
            "trials": None if tuner == "hyperband" else self.trials,
            "seed": self.spec.seed,
            "clips": hashlib.sha256(clips.encode()).hexdigest()[:16],
        }
        refuse_change(self.folder / tuner / "search.json", identity, self.spec.name)
        make = partial(make_oracle, tuner, self.space, self.trials, self.epochs, self.spec.seed)
        return Shelf(self.folder / tuner, make)

    def work(self) -> None:
        """Run trials until every tuner has ended, taking over those of workers that were killed.

        Raises StudyError when several trials one after the other have failed; started again, the search goes on.
        """
        with Worker(self.folder / "workers") as worker:
            waiting = list(self.shelves)
            while waiting:
                tuner, trial = self.next_trial(worker, waiting)
                if trial is not None:
                    self.run_trial(tuner, trial)
                elif waiting:
                    time.sleep(PAUSE)

    def next_trial(self, worker: Worker, waiting: list[str]) -> tuple[str, Trial | None]:
        """The first tuner that has a trial to run now, and the trial; tuners that have ended leave `waiting`."""
        for tuner in list(waiting):
            trial, ended = self.shelves[tuner].claim(worker)
            if trial is not None:
                return tuner, trial
            if ended:
                drop_weights(self.folder / tuner)
                waiting.remove(tuner)
        return "", None

    def run_trial(self, tuner: str, trial: Trial) -> None:
        """Train a trial and say what came of it. Raises StudyError when too many in a row have failed."""
        start = time.perf_counter()
        result = self.attempt(tuner, trial)
        failures = self.shelves[tuner].finish(trial.trial_id, result)
        if tuner != "hyperband":  # which may take a trial further
            drop_weights(self.folder / tuner / trial.trial_id)
        said = f"failed: {result['message']}" if failures else f"{result['val_accuracy']:.1%} on validation"
        print(f"{tuner} {trial.trial_id}: {said} ({time.perf_counter() - start:.0f} s)", flush=True)
        if failures >= FAILURES:
            last = result["message"]
            raise StudyError(f"search {self.spec.name}, {tuner}: {failures} trials failed in a row, the last: {last}")

    def attempt(self, tuner: str, trial: Trial) -> dict[str, Any]:
        """Train a trial. Returns its result; a failure of the training (out of memory, not a number) is one, too.

        A trial that Hyperband takes further goes on in the folder of the one before it, and is charged what it adds.
        """
        chosen = trial.hyperparameters.values
        past = self.shelves[tuner].read()[1].get(chosen.get("tuner/trial_id"), {})
        result = {
            "values": {key: dimension.inside(chosen[key]) for key, dimension in self.space.items()},
            "folder": past.get("folder", trial.trial_id),
            "until": chosen.get("tuner/epochs", self.epochs),
        }
        folder = self.folder / tuner / result["folder"]
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with (folder / "log.txt").open("a") as log, contextlib.redirect_stdout(log):
                refuse_hopeless(folder, result["until"])
                outcome = {"status": "COMPLETED", **train(self.open_run(result["values"], folder), result["until"])}
        except StudyError:
            raise
        except Exception as error:  # of any framework: each has its own for want of memory
            outcome = {"status": "FAILED", "message": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
        return {**result, **outcome, **costs(folder, past)}

    def write_recipe(self, best: pd.Series) -> Path:
        """Write a trial of `lib.trials.read_trials` as a recipe of the study, by the name of the search."""
        values = {key: self.results(best["tuner"])[best["trial"]]["values"][key] for key in self.space}
        content = changed(find_recipe(self.spec.recipe), {**self.spec.set, **values})
        said = (
            f"# Found by search {self.spec.name} of study {self.study.name} in the space {self.spec.space}: "
            f"{best['tuner']}, trial {best['trial']},\n#   {best['val_accuracy']:.2%} validation top-1 within "
            f"{best['until']} epochs. Written by notebook 09; the next search writes it anew.\n"
        )
        path = self.study.recipe_path(self.spec.name)
        with replacing(path) as partial:
            partial.write_text(said + yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return path

    def results(self, tuner: str) -> dict[str, dict[str, Any]]:
        """What came of a tuner's trials, by their number, in the order in which they ended."""
        return self.shelves[tuner].read()[1]


def train(run: Run, until: int) -> dict[str, Any]:
    """Train a run as its notebook does, pausing after `until` epochs. Returns what its best epoch was."""
    keras.backend.clear_session()
    gc.collect()
    model = run.build()
    if isinstance(run, PoseRun):
        run.pretrain(model)
    run.train(model, until)
    history = pd.read_csv(run.report / "history.csv")
    best = history.sort_values(["val_accuracy", "val_loss"], ascending=[False, True]).iloc[0]
    return {**best[["val_accuracy", "val_loss"]].to_dict(), "best_epoch": int(best["epoch"])}


def costs(folder: Path, past: dict[str, Any]) -> dict[str, Any]:
    """Epochs and seconds of all trainings in a folder, in all and without those of a past trial there."""
    histories = [read_history(path) for path in folder.glob("*/history.csv")]
    epochs = sum(map(len, histories))
    seconds = sum(float(history["seconds"].sum()) for history in histories if len(history))
    added = {"epochs": epochs - past.get("epochs_total", 0), "seconds": seconds - past.get("seconds_total", 0)}
    return {"epochs_total": epochs, "seconds_total": seconds, **added}


def refuse_hopeless(folder: Path, until: int) -> None:
    """Count the attempts at a trial since it last finished an epoch. Raises RuntimeError when there were too many.

    The system ends a process that takes too much memory; the trial that did would else be taken over for ever.
    """
    path = folder / "attempts.json"
    stand = {"epochs": costs(folder, {})["epochs"], "until": until}
    before = json.loads(path.read_text()) if path.exists() else {}
    count = before.pop("count", 0) + 1 if before.items() >= stand.items() else 1
    with replacing(path) as partial:
        partial.write_text(json.dumps({**stand, "count": count}))
    if count > ATTEMPTS:
        raise RuntimeError(f"its process was ended {ATTEMPTS} times within one epoch, perhaps for want of memory")


def refuse_change(path: Path, identity: dict[str, Any], name: str) -> None:
    """Write what a search is, or raise StudyError, naming a difference, when it began as another."""
    now = json.loads(json.dumps(identity))
    if not path.exists():
        with replacing(path) as partial:
            partial.write_text(json.dumps(now, indent=1))
        return
    then, now = (pd.json_normalize(content).iloc[0].to_dict() for content in (json.loads(path.read_text()), now))
    for key in dict.fromkeys([*now, *then]):
        if (was := then.get(key)) != (value := now.get(key)):
            raise StudyError(
                f"search {name} was begun with {key} = {was}, not {value}; its trials and new ones would not compare: "
                f"put it back, name the search anew, or delete {path.parents[1]} to begin again"
            )


def drop_weights(folder: Path) -> None:
    """Delete the checkpoints of trials that have ended; the best one is trained anew, for longer."""
    for path in folder.rglob("*.weights.h5"):
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    try:
        Search(load_study(sys.argv[1], sys.argv[2], require_data=False), sys.argv[3]).work()
    except StudyError as error:
        sys.exit(f"error: {error}")
