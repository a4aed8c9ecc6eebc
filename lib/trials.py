"""What the trials of a search say: which was best, at what cost, and which settings mattered."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold

from lib.files import replacing
from lib.study import Study, StudyError
from lib.tuning import Search

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
    with replacing(study.report_dir / "tables" / f"trials-{name}.csv") as path:
        trials.to_csv(path, index=False, float_format="%.6g")
