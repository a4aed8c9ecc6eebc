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
import numpy as np
import pandas as pd
import yaml
from keras_tuner.engine.trial import Trial
from pydantic import ValidationError
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold

from lib.models import config_of, configure, count_stages
from lib.oracles import Shelf, Worker, hyperband_cost, make_oracle
from lib.paths import replacing
from lib.recipes import changed, find_recipe, read_recipe
from lib.runs import ClipRun, PoseRun, Run
from lib.settings import StudyError, explain
from lib.spaces import read_space
from lib.study import RunSpec, Study, load_study
from lib.training import read_history

FAILURES = 3  # one after the other end the search; Keras Tuner's default
ATTEMPTS = 3  # at one more epoch; a trial that has ended its process as often has failed
PAUSE = 2.0  # seconds until a worker that has nothing to do asks again


class Search:
    """A search of a study: its space, its settings, and what each of its tuners knows."""

    def __init__(self, study: Study, name: str) -> None:
        """Read all files. Raises StudyError, in one line, for what is wrong in them or is not as the search began."""
        self.study, self.spec = study, study.find_search(name)
        self.folder = study.paths.search(name)
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
            config = read_recipe(self.spec.recipe, {**self.fixed, key: value})
            configure(config.model, config.options)
        except StudyError as error:
            raise StudyError(f"{where}: {error}") from None
        except ValidationError as error:
            raise StudyError(f"{where}: options: {explain(error, config_of(config.model))}") from None

    def open_run(self, values: dict[str, Any], folder: Path) -> Run:
        """The training of a trial: a run like any other, but that all its files lie in `folder`."""
        spec = RunSpec(recipe=self.spec.recipe, seeds=[self.spec.seed], set={**self.fixed, **values})
        study = self.study.model_copy(update={"runs": [spec]})
        run = (PoseRun if spec.family().kind == "poses" else ClipRun)(study, *study.run_names())
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
        """Write a trial of `read_trials` as a recipe of the study, by the name of the search."""
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


FACTS = ["tuner", "trial", "status", "val_accuracy", "val_loss", "best_epoch", "until", "epochs", "seconds"]
TREES, FOLDS, SHUFFLES = 100, 5, 10
ENOUGH = 10  # trials for each setting, see `importance`


def read_trials(search: Search) -> pd.DataFrame:
    """One row per trial that has ended, by tuner and then in the order of their ends.

    tuner, trial, status (COMPLETED or FAILED), val_accuracy in [0, 1] and val_loss of the best_epoch, until (the epoch
    at which it was to end), epochs and seconds (what it cost), spent (epochs of this tuner so far), best (val_accuracy
    of this tuner so far), one column for each setting of the space, message (of a failure).
    """
    rows = [
        {"tuner": tuner, "trial": trial, **{key: result.get(key) for key in FACTS[2:]}, **result["values"],
         "message": result.get("message")}
        for tuner in search.shelves
        for trial, result in search.results(tuner).items()
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=[*FACTS, *search.space, "message"])
    table = table.astype({"val_accuracy": float, "val_loss": float, "best_epoch": "Int64"})
    by_tuner = table.groupby("tuner", sort=False)
    table.insert(len(FACTS), "spent", by_tuner["epochs"].cumsum())
    table.insert(len(FACTS) + 1, "best", by_tuner["val_accuracy"].cummax().groupby(table["tuner"]).ffill())
    return table


def best_trial(trials: pd.DataFrame) -> pd.Series:
    """The trial of the highest validation accuracy, of several that of the lowest loss.

    Raises StudyError when none has succeeded.
    """
    done = trials[trials["status"] == "COMPLETED"]
    if done.empty:
        raise StudyError("no trial of the search has succeeded; see the messages in its table")
    return done.sort_values(["val_accuracy", "val_loss"], ascending=[False, True], kind="stable").iloc[0]


def compare_tuners(trials: pd.DataFrame) -> pd.DataFrame:
    """What each tuner found and what that cost, one row per tuner.

    trials, failed, epochs, minutes; best, the highest val_accuracy of all; equal_epochs, what every tuner has spent,
    and best_at_equal, what each had found until then. Minutes include validation, not the building of models.
    """
    equal = int(trials.groupby("tuner")["epochs"].sum().min())
    rows = []
    for tuner, own in trials.groupby("tuner", sort=False):
        rows.append(
            {
                "tuner": tuner,
                "trials": len(own),
                "failed": int((own["status"] == "FAILED").sum()),
                "epochs": int(own["epochs"].sum()),
                "minutes": own["seconds"].sum() / 60,
                "best": own["val_accuracy"].max(),
                "equal_epochs": equal,
                "best_at_equal": own.loc[own["spent"] <= equal, "val_accuracy"].max(),
            }
        )
    return pd.DataFrame(rows)


def importance(trials: pd.DataFrame, search: Search) -> pd.DataFrame:
    """How much each setting tells of the accuracy: permutation importance (Breiman 2001, §10) of a random forest.

    The forest learns from the settings how a trial ranks among those of as many epochs (of all trials, the epochs tell
    more than any setting) on four fifths of the trials; on the others one setting at a time is shuffled. `importance`
    is by how much that raises the squared error, as a share of the variance of the ranks; `spread` its standard
    deviation over folds and shuffles. One row per setting, the most important first. `attrs`: `trials`, their number;
    `r2`, the share of the variance that the forest explains where it has not learned; `reliable`, whether there are
    ENOUGH trials for each setting and r2 is above 0.
    Raises StudyError when fewer than four configurations have succeeded.
    """
    done = trials[trials["status"] == "COMPLETED"]
    if len(done.drop_duplicates([*search.space])) < 4:
        raise StudyError(f"search {search.spec.name}: too few configurations have succeeded to say what matters")
    x = pd.DataFrame({key: done[key].map(dimension.place) for key, dimension in search.space.items()})
    y = done.groupby("until")["val_accuracy"].transform(centred_ranks).to_numpy()
    configuration = done.groupby([*search.space], sort=False).ngroup()  # which Hyperband tries several times
    folds = GroupKFold(min(FOLDS, configuration.nunique()), shuffle=True, random_state=0)
    guesses, drops = np.zeros(len(y)), []
    for train, test in folds.split(x, groups=configuration):
        forest = RandomForestRegressor(TREES, random_state=0).fit(x.iloc[train], y[train])
        guesses[test] = forest.predict(x.iloc[test])
        shuffled = permutation_importance(
            forest, x.iloc[test], y[test], scoring="neg_mean_squared_error", n_repeats=SHUFFLES, random_state=0
        )
        drops.append(shuffled.importances)
    shares = np.concatenate(drops, axis=1) / (y.var() or 1.0)
    table = pd.DataFrame({"setting": x.columns, "importance": shares.mean(1), "spread": shares.std(1)})
    table = table.sort_values("importance", ascending=False, kind="stable", ignore_index=True)
    r2 = r2_score(y, guesses) if y.var() else 0.0
    reliable = len(done) >= ENOUGH * len(search.space) and r2 > 0
    table.attrs.update(trials=len(done), r2=float(r2), reliable=bool(reliable))
    return table


def centred_ranks(values: pd.Series) -> pd.Series:
    """Ranks as shares of their number, 0 in the middle; equal values have the same."""
    return (values.rank() - (len(values) + 1) / 2) / len(values)


def write_trials(study: Study, name: str, trials: pd.DataFrame) -> None:
    """Write tables/trials-<search>.csv of the study's report."""
    with replacing(study.paths.table(f"trials-{name}.csv")) as path:
        trials.to_csv(path, index=False, float_format="%.6g")
