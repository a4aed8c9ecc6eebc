"""Hyperparameter search: trials are trainings of the study, proposed by Keras Tuner's oracles.

    python -m lib.tuning <study> <data root, or ""> <search>

is one worker of a search: it runs trials until none is left. Any number of workers share a search, on one machine or
on several that see the same files. When one is killed, only the epoch that it was training is lost.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import sys
import time
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
from lib.oracles import Results, Shelf, hyperband_plan, make_oracle, working
from lib.paths import replacing
from lib.recipes import Recipe, changed, find_recipe, read_recipe, with_defaults
from lib.runs import Run, open_run
from lib.settings import StudyError, explain
from lib.study import RunSpec, Study, load_study, read_space
from lib.training import read_history

FAILURES = 3  # in a row end the search; Keras Tuner's default
ATTEMPTS = 3  # at one epoch; a trial that has killed its process as often has failed
PAUSE = 2.0  # seconds that an idle worker waits before it asks again
FACTS = ["tuner", "trial", "status", "val_accuracy", "val_loss", "best_epoch", "until", "epochs", "seconds"]
TREES, FOLDS, SHUFFLES, ENOUGH = 100, 5, 10, 10  # of `importance`; ENOUGH trials per setting make it reliable


class Search:
    """A search of a study: its space, its settings, and the saved state of each of its tuners."""

    def __init__(self, study: Study, name: str) -> None:
        """Read and check the files. Raises StudyError if one is invalid or has changed since the search began."""
        self.study, self.spec = study, study.find_search(name)
        self.folder = study.paths.search(name)
        self.space = read_space(self.spec).dimensions(count_stages(self.spec.model()))
        self.fixed = {**self.spec.set, **self.spec.trial}
        for key, dimension in self.space.items():
            self._check(key, *dimension.ends())
        self.run = self.open_run({}, self.folder)
        self.epochs = self.run.config.train.epochs  # the most of a trial
        plan = hyperband_plan(self.epochs)
        cost = int((plan["trials"] * (plan["until"] - plan["start"])).sum())
        self.trials = self.spec.trials or -(-cost // self.epochs)
        self.shelves = {tuner: self._open_shelf(tuner) for tuner in self.spec.tuners}

    def _check(self, key: str, *values: Any) -> None:
        """Raise StudyError if the recipe or the model does not know a setting or does not allow a value."""
        for value in values:
            where = f"search {self.spec.name}, space '{self.spec.space}', {key} = {value!r}"
            try:
                config = read_recipe(self.spec.recipe, {**self.fixed, key: value})
                configure(config.model, config.options)
            except StudyError as error:
                raise StudyError(f"{where}: {error}") from None
            except ValidationError as error:
                raise StudyError(f"{where}: options: {explain(error, config_of(config.model))}") from None

    def open_run(self, values: dict[str, Any], folder: Path) -> Run:
        """Open the training of a trial: a run of the recipe with these settings, with all its files in `folder`."""
        spec = RunSpec(recipe=self.spec.recipe, seeds=[self.spec.seed], set={**self.fixed, **values})
        study = self.study.model_copy(update={"runs": [spec]})
        run = open_run(study, *study.run_names())
        run.folder = run.report = folder
        return run

    def _open_shelf(self, tuner: str) -> Shelf:
        clips = json.dumps([self.run.content(), self.run.clips("val")["video_id"].tolist()])
        identity = {
            "space": {key: dimension.model_dump(exclude_none=True) for key, dimension in self.space.items()},
            "recipe": self.run.config.model_dump(mode="json"),
            "trials": None if tuner == "hyperband" else self.trials,
            "seed": self.spec.seed,
            "clips": hashlib.sha256(clips.encode()).hexdigest()[:16],
        }
        _refuse_change(self.folder / tuner / "search.json", identity, self.spec.name, self.run.config)
        arguments = tuner, self.space, self.trials, self.epochs, self.spec.seed
        return Shelf(self.folder / tuner, lambda: make_oracle(*arguments))

    def results(self, tuner: str) -> Results:
        """Results of a tuner's trials by trial number, in the order in which they ended."""
        return self.shelves[tuner].read()[1]

    def work(self) -> None:
        """Run trials until every tuner is done, resuming those of killed workers.

        Raises StudyError when FAILURES trials in a row have failed. Started again, the search continues.
        """
        with working(self.folder / "workers") as worker:
            waiting = list(self.shelves)
            while waiting:
                for tuner in list(waiting):
                    trial, ended = self.shelves[tuner].claim(worker)
                    if trial is not None:
                        self._run_trial(tuner, trial)
                        break
                    if ended:
                        _drop_weights(self.folder / tuner)
                        waiting.remove(tuner)
                else:
                    time.sleep(PAUSE if waiting else 0)

    def _run_trial(self, tuner: str, trial: Trial) -> None:
        start = time.perf_counter()
        result = self._attempt(tuner, trial)
        failures = self.shelves[tuner].finish(trial.trial_id, result)
        if tuner != "hyperband":  # which may promote the trial
            _drop_weights(self.folder / tuner / trial.trial_id)
        outcome = f"failed: {result['message']}" if failures else f"{result['val_accuracy']:.1%} on validation"
        print(f"{tuner} {trial.trial_id}: {outcome} ({time.perf_counter() - start:.0f} s)", flush=True)
        if failures >= FAILURES:
            last = result["message"]
            raise StudyError(f"search {self.spec.name}, {tuner}: {failures} trials failed in a row, the last: {last}")

    def _attempt(self, tuner: str, trial: Trial) -> dict[str, Any]:
        """Train a trial and return its result; an error of the training, such as out of memory, is a failed one.

        A trial promoted by Hyperband resumes in the folder of its predecessor and costs only what it adds.
        """
        chosen = trial.hyperparameters.values
        past = self.results(tuner).get(chosen.get("tuner/trial_id"), {})
        result = {
            "values": {key: dimension.inside(chosen[key]) for key, dimension in self.space.items()},
            "folder": past.get("folder", trial.trial_id),
            "until": chosen.get("tuner/epochs", self.epochs),
        }
        folder = self.folder / tuner / result["folder"]
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with (folder / "log.txt").open("a") as log, contextlib.redirect_stdout(log):
                count_attempt(folder, result["until"])
                outcome = {"status": "COMPLETED", **train(self.open_run(result["values"], folder), result["until"])}
        except StudyError:
            raise
        except Exception as error:  # each framework has its own for out of memory
            outcome = {"status": "FAILED", "message": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
        epochs, seconds = _costs(folder)
        added = {"epochs": epochs - past.get("epochs_total", 0), "seconds": seconds - past.get("seconds_total", 0)}
        return {**result, **outcome, "epochs_total": epochs, "seconds_total": seconds, **added}

    def baseline(self) -> dict[str, Any]:
        """Train the recipe's own settings as the longest trial is trained. Returns what `train` does.

        It is what the trials compare with: a run of the study trains for longer, and perhaps on larger clips.
        """
        folder = self.folder / "baseline"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log.txt").open("a") as log, contextlib.redirect_stdout(log):
            return train(self.open_run({}, folder), self.epochs)

    def write_recipe(self, best: pd.Series) -> Path:
        """Write a trial of `read_trials` as a recipe of the study, named after the search. Returns its path."""
        values = {key: self.results(best["tuner"])[best["trial"]]["values"][key] for key in self.space}
        content = changed(find_recipe(self.spec.recipe), {**self.spec.set, **values})
        comment = (
            f"# Found by search {self.spec.name} of study {self.study.name} in the space {self.spec.space}: "
            f"{best['tuner']}, trial {best['trial']},\n#   {best['val_accuracy']:.2%} validation top-1 within "
            f"{best['until']} epochs. Written by notebook 09; the next search overwrites it.\n"
        )
        with replacing(path := self.study.recipe_path(self.spec.name)) as partial:
            partial.write_text(comment + yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return path


def train(run: Run, until: int) -> dict[str, Any]:
    """Train a run as its notebook does, up to epoch `until`. Returns val_accuracy, val_loss, best_epoch."""
    keras.backend.clear_session()
    gc.collect()
    model = run.build()
    run.pretrain(model)
    run.train(model, until)
    history = pd.read_csv(run.report / "history.csv")
    best = history.sort_values(["val_accuracy", "val_loss"], ascending=[False, True]).iloc[0]
    return {**best[["val_accuracy", "val_loss"]].to_dict(), "best_epoch": int(best["epoch"])}


def _costs(folder: Path) -> tuple[int, float]:
    """Epochs and seconds of all trainings in a folder."""
    histories = [read_history(path) for path in folder.glob("*/history.csv")]
    return sum(map(len, histories)), sum(float(history["seconds"].sum()) for history in histories if len(history))


def count_attempt(folder: Path, until: int) -> None:
    """Count the attempts at a trial since its last finished epoch. Raises RuntimeError when there are too many.

    The system kills a process that needs too much memory. Without a limit, its trial would be resumed for ever.
    """
    path = folder / "attempts.json"
    state = {"epochs": _costs(folder)[0], "until": until}
    before = json.loads(path.read_text()) if path.exists() else {}
    count = before.pop("count", 0) + 1 if before.items() >= state.items() else 1
    with replacing(path) as partial:
        partial.write_text(json.dumps({**state, "count": count}))
    if count > ATTEMPTS:
        raise RuntimeError(f"its process was killed {ATTEMPTS} times within one epoch, perhaps out of memory")


def _refuse_change(path: Path, identity: dict[str, Any], name: str, recipe: Recipe) -> None:
    """Write the identity of a search, or raise StudyError, naming the first difference from the written one."""
    now = json.loads(json.dumps(identity))
    if not path.exists():
        with replacing(path) as partial:
            partial.write_text(json.dumps(now, indent=1))
        return
    then = json.loads(path.read_text())
    then["recipe"] = with_defaults(then["recipe"], recipe)
    then, now = (pd.json_normalize(content).iloc[0].to_dict() for content in (then, now))
    for key in dict.fromkeys([*now, *then]):
        if (was := then.get(key)) != (value := now.get(key)):
            raise StudyError(
                f"search {name} was begun with {key} = {was}, not {value}; its trials and new ones are not "
                f"comparable: undo the change, rename the search, or delete {path.parents[1]} to start again"
            )


def _drop_weights(folder: Path) -> None:
    """Delete the checkpoints of finished trials; the best one is trained again, for longer."""
    for path in folder.rglob("*.weights.h5"):
        path.unlink(missing_ok=True)


def read_trials(search: Search) -> pd.DataFrame:
    """The finished trials, one row each, by tuner and then in the order in which they ended.

    Columns: tuner, trial, status (COMPLETED or FAILED), val_accuracy in [0, 1] and val_loss of the best_epoch, until
    (its last epoch), epochs and seconds (its cost), spent (epochs of the tuner so far), best (val_accuracy of the tuner
    so far), one column per setting of the space, message (of a failure).
    """
    rows = [
        {"tuner": tuner, "trial": trial, **result, **result["values"]}
        for tuner in search.shelves
        for trial, result in search.results(tuner).items()
    ]
    table = pd.DataFrame(rows, columns=[*FACTS, *search.space, "message"])
    table = table.astype({"val_accuracy": float, "val_loss": float, "best_epoch": "Int64"})
    by_tuner = table.groupby("tuner", sort=False)
    table.insert(len(FACTS), "spent", by_tuner["epochs"].cumsum())
    table.insert(len(FACTS) + 1, "best", by_tuner["val_accuracy"].cummax().groupby(table["tuner"]).ffill())
    return table


def best_trial(trials: pd.DataFrame) -> pd.Series:
    """The trial of the highest validation accuracy; of several, the one of the lowest validation loss.

    Raises StudyError when no trial has succeeded.
    """
    done = trials[trials["status"] == "COMPLETED"]
    if done.empty:
        raise StudyError("no trial of the search has succeeded; see the messages in its table")
    return done.sort_values(["val_accuracy", "val_loss"], ascending=[False, True], kind="stable").iloc[0]


def compare_tuners(trials: pd.DataFrame) -> pd.DataFrame:
    """What each tuner found and at what cost, one row per tuner.

    Columns: tuner, trials, failed, epochs, minutes (training and validation), best (val_accuracy), equal_epochs (the
    epochs that every tuner has spent) and best_at_equal (the best val_accuracy within them).
    """
    columns = {"trials": ("trial", "size"), "failed": ("failed", "sum"), "epochs": ("epochs", "sum")}
    columns |= {"minutes": ("seconds", "sum"), "best": ("val_accuracy", "max")}
    table = trials.assign(failed=trials["status"] == "FAILED").groupby("tuner", sort=False).agg(**columns)
    table["minutes"] /= 60
    table["equal_epochs"] = table["epochs"].min()
    within = trials[trials["spent"] <= table["epochs"].min()]
    table["best_at_equal"] = within.groupby("tuner")["val_accuracy"].max()
    return table.reset_index()


def importance(trials: pd.DataFrame, search: Search) -> pd.DataFrame:
    """How much each setting matters: permutation importance (Breiman 2001, §10) of a random forest.

    The forest predicts, from its settings, the rank of a trial among those of as many epochs (the number of epochs
    would explain more than any setting). It is trained on four fifths of the configurations; on the others one setting
    at a time is shuffled. Columns: setting, importance (the increase of the squared error, as a share of the variance
    of the ranks), sd (its standard deviation over folds and shuffles); most important first. `attrs`: trials, their
    number; r2, the held-out share of the variance explained; reliable, whether there are ENOUGH trials per setting
    and r2 > 0.
    Raises StudyError when fewer than four configurations have succeeded.
    """
    done = trials[trials["status"] == "COMPLETED"]
    if len(done.drop_duplicates([*search.space])) < 4:
        raise StudyError(f"search {search.spec.name}: too few configurations have succeeded to say what matters")
    x = pd.DataFrame({key: done[key].map(dimension.place) for key, dimension in search.space.items()})
    ranks, counts = (done.groupby("until")["val_accuracy"].transform(name) for name in ("rank", "size"))
    y = ((ranks - (counts + 1) / 2) / counts).to_numpy()  # centred, equal values share one
    configuration = done.groupby([*search.space], sort=False).ngroup()  # Hyperband trains one several times
    folds = GroupKFold(min(FOLDS, configuration.nunique()), shuffle=True, random_state=0)
    guesses, increases = np.zeros(len(y)), []
    for train, test in folds.split(x, groups=configuration):
        forest = RandomForestRegressor(TREES, random_state=0).fit(x.iloc[train], y[train])
        guesses[test] = forest.predict(x.iloc[test])
        shuffled = permutation_importance(
            forest, x.iloc[test], y[test], scoring="neg_mean_squared_error", n_repeats=SHUFFLES, random_state=0
        )
        increases.append(shuffled.importances)
    shares = np.concatenate(increases, axis=1) / (y.var() or 1.0)
    table = pd.DataFrame({"setting": x.columns, "importance": shares.mean(1), "sd": shares.std(1)})
    table = table.sort_values("importance", ascending=False, kind="stable", ignore_index=True)
    r2 = r2_score(y, guesses) if y.var() else 0.0
    reliable = len(done) >= ENOUGH * len(search.space) and r2 > 0
    table.attrs.update(trials=len(done), r2=float(r2), reliable=bool(reliable))
    return table


if __name__ == "__main__":
    try:
        Search(load_study(sys.argv[1], sys.argv[2], require_data=False), sys.argv[3]).work()
    except StudyError as error:
        sys.exit(f"error: {error}")
