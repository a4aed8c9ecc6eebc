"""A search: trials that are trainings of the study and survive a kill, its recipe, its tables and their figures."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
import yaml

import lib.paths
import lib.tuning
from lib.data.poses import PoseStore
from lib.figures import runs as figures
from lib.recipes import Dimension, read_recipe
from lib.runs import PoseRun, open_run
from lib.settings import StudyError
from lib.study import SearchSpec, load_study, read_space
from lib.tuning import Search, best_trial, compare_tuners, importance, read_trials

RECIPE = {
    "model": "spobet",
    "options": {"normalisation": "robust", "width": 8, "depth": 1, "heads": 2, "feed_forward": 16},
    "max_frames": 8,
    "train": {"epochs": 5, "batch_size": 4, "learning_rate": 0.01},
    "augment": {"rotation": 10},
}
SPACE = {
    "families": ["spobet"],
    "space": {
        "options.width": {"choices": [8, 12, 16]},
        "options.dropout": {"min": 0, "max": 0.5, "step": 0.1},
        "train.learning_rate": {"min": 0.001, "max": 0.1, "log": True},
    },
}
SEARCH = {"name": "small-tuned", "recipe": "small", "space": "small", "trial": {"train.epochs": 3}}
STUDY = {
    "title": "Three glosses", "subset": 3, "sources": ["hands"], "split": "official", "layout": "hands-42",
    "runs": [{"recipe": "small-tuned", "set": {"train.epochs": 2}}],
}  # fmt: skip
SPLITS = ["train"] * 12 + ["val"] * 6 + ["test"] * 3


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A recipe, a space, the root of an empty data set; all that is written goes to tmp_path/home."""
    for name, content in (("recipes", RECIPE), ("spaces", SPACE)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "small.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(lib.paths, "RECIPES", tmp_path / "recipes")
    monkeypatch.setattr(lib.paths, "SPACES", tmp_path / "spaces")
    monkeypatch.setattr(lib.tuning, "PAUSE", 0.1)
    return tmp_path


def clip_of(number, label):
    """Joints at random, those of one hand where the gloss says."""
    rng = np.random.default_rng(number)
    clip = rng.random((5 + number % 3, 42, 3), np.float32)
    clip[..., 2] = 1
    clip[:, :21, label % 2] += label
    return clip


@pytest.fixture
def open_study(folders, monkeypatch):
    """Open the study of 21 clips, with these keys in its search, in a home of this name."""

    def open_study(home="home", **keys):
        monkeypatch.setenv("STUDY_HOME", str(folders / home))
        content = STUDY | {"searches": [SEARCH | keys]}
        (folders / "three.yaml").write_text(yaml.safe_dump(content))
        study = load_study(str(folders / "three.yaml"), folders)
        if not study.paths.index.exists():
            labels = [number % 3 for number in range(len(SPLITS))]
            ids = [f"{number:05d}" for number in range(len(SPLITS))]
            index = pd.DataFrame({"video_id": ids, "split": SPLITS, "label": labels, "status": "present"})
            index["gloss"] = [["book", "drink", "computer"][label] for label in labels]
            study.paths.data.mkdir(parents=True)
            index.to_parquet(study.paths.index)
            PoseStore(np.array(ids), [clip_of(n, label) for n, label in enumerate(labels)]).save(study.paths.poses)
        return study

    return open_study


# What a worker process does in place of `python -m lib.tuning`: the same, with the folders of the test, until epoch
# `kill` of all its trials together is over but for its checkpoint.
WORKER = """
import os, signal, sys, time
from pathlib import Path
import lib.paths, lib.training, lib.tuning
root, kill, others = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
lib.paths.RECIPES = root / "recipes"
lib.paths.SPACES = root / "spaces"
lib.tuning.PAUSE = 0.1
save, epochs = lib.training._save_weights, []
def save_or_die(model, path):
    if path.name == lib.training.LAST:
        epochs.append(path)
        if len(epochs) == kill:
            os.kill(os.getpid(), signal.SIGKILL)
    save(model, path)
lib.training._save_weights = save_or_die
(root / f"ready-{os.getpid()}").touch()
while len(list(root.glob("ready-*"))) <= others:
    time.sleep(0.02)
lib.tuning.Search(lib.study.load_study(str(root / "three.yaml"), root), "small-tuned").work()
"""


def start_worker(root, kill=0, others=0):
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(root), str(kill), str(others)],
        env=os.environ | {"STUDY_HOME": str(root / "home")},
        stdout=subprocess.PIPE,
        text=True,
    )


def facts(search):
    """What came of each trial, but for how long it took."""
    return {
        (tuner, trial): {key: value for key, value in result.items() if not key.startswith("seconds")}
        for tuner in search.shelves
        for trial, result in search.results(tuner).items()
    }


def test_a_killed_search_keeps_its_trials_and_ends_as_one_that_was_not_killed(open_study, folders, capsys):
    tuners = ["hyperband", "bayesian"]
    whole = Search(open_study("whole", tuners=tuners), "small-tuned")
    whole.work()
    expected = facts(whole)

    study = open_study(tuners=tuners)
    worker = start_worker(folders, kill=7)  # Hyperband: 3 trials of 1 epoch, then 2 more of the best, then 3
    assert worker.wait() == -9
    search = Search(study, "small-tuned")
    kept = facts(search)
    assert kept
    assert kept.items() <= expected.items()
    capsys.readouterr()
    search.work()
    assert facts(search) == expected
    said = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert said == [" ".join(trial) for trial in expected if trial not in kept]
    assert [len(search.results(tuner)) for tuner in tuners] == [6, 4]
    best, same = (best_trial(read_trials(one)) for one in (search, whole))
    assert (best["tuner"], best["trial"], best["val_accuracy"]) == (same["tuner"], same["trial"], same["val_accuracy"])


def test_two_workers_run_what_one_does_and_one_of_them_may_be_killed(open_study, folders):
    study = open_study(tuners=["random"], trials=8)
    killed, other = start_worker(folders, kill=2, others=1), start_worker(folders, others=1)
    output = [process.communicate()[0] for process in (killed, other)]
    assert (killed.returncode, other.returncode) == (-9, 0)
    said = [line.split(":")[0] for text in output for line in text.splitlines()]
    assert sorted(said) == [f"random {number}" for number in range(8)]
    search = Search(study, "small-tuned")
    trials = read_trials(search)
    assert trials["epochs"].tolist() == [3] * 8
    alone = Search(open_study("alone", tuners=["random"], trials=8), "small-tuned")
    alone.work()
    both = [one.set_index("trial")["val_accuracy"].to_dict() for one in (trials, read_trials(alone))]
    assert both[0] == both[1]


def test_a_trial_is_the_training_of_the_recipe_with_its_settings_and_another_folder(open_study):
    study = open_study(tuners=["random"], trials=2, set={"train.batch_size": 3})
    search = Search(study, "small-tuned")
    search.work()
    for trial, result in search.results("random").items():
        folder = search.folder / "random" / trial
        written = json.loads((folder / "train" / "run.json").read_text())
        config = read_recipe("small", {"train.batch_size": 3, "train.epochs": 3, **result["values"]})
        assert {key: written[key] for key in config.model_dump(mode="json")} == config.model_dump(mode="json")
        history = pd.read_csv(folder / "history.csv")
        assert result["val_accuracy"] == history["val_accuracy"].max()
        assert (result["epochs"], result["until"], len(history)) == (3, 3, 3)
        assert not list(folder.rglob("*.h5"))
    assert not study.paths.report.exists()


def test_the_baseline_is_the_recipe_itself_under_the_budget_of_a_trial(open_study, capsys):
    search = Search(open_study(set={"train.batch_size": 3}), "small-tuned")
    result = search.baseline()
    written = json.loads((search.folder / "baseline" / "train" / "run.json").read_text())
    config = read_recipe("small", {"train.batch_size": 3, "train.epochs": 3}).model_dump(mode="json")
    assert {key: written[key] for key in config} == config
    history = pd.read_csv(search.folder / "baseline" / "history.csv")
    assert (len(history), history["val_accuracy"].max()) == (3, result["val_accuracy"])
    assert search.baseline() == result  # trained once
    assert pd.read_csv(search.folder / "baseline" / "history.csv").equals(history)
    assert not search.study.paths.report.exists()
    assert capsys.readouterr().out == ""


def test_hyperband_goes_on_in_the_trial_that_it_takes_further_and_pays_only_for_more(open_study):
    search = Search(open_study(tuners=["hyperband"]), "small-tuned")
    search.work()
    results = list(search.results("hyperband").values())
    assert [(result["until"], result["epochs"], result["epochs_total"]) for result in results] == [
        (1, 1, 1), (1, 1, 1), (1, 1, 1), (3, 2, 3), (3, 3, 3), (3, 3, 3),
    ]  # fmt: skip
    best = max(results[:3], key=lambda result: result["val_accuracy"])
    assert results[3]["folder"] in {r["folder"] for r in results[:3] if r["val_accuracy"] == best["val_accuracy"]}
    at_once = search.open_run(results[3]["values"], search.folder / "at-once")
    at_once.train(at_once.build())
    columns = ["loss", "val_loss", "learning_rate"]
    paused = pd.read_csv(search.folder / "hyperband" / results[3]["folder"] / "history.csv")
    pd.testing.assert_frame_equal(pd.read_csv(at_once.report / "history.csv")[columns], paused[columns])


def test_the_best_settings_become_a_recipe_that_a_run_of_the_study_trains(open_study):
    study = open_study(tuners=["random"], trials=3, set={"train.batch_size": 3})
    assert study.origin(study.runs[0]).model() == "spobet"
    with pytest.raises(StudyError, match=r"small-tuned\.yaml is not there yet: the search"):
        PoseRun(study, "small-tuned")
    search = Search(study, "small-tuned")
    search.work()
    best = best_trial(read_trials(search))
    path = search.write_recipe(best)
    assert path == study.paths.report / "recipes" / "small-tuned.yaml"
    assert path.read_text().startswith("# Found by search small-tuned of study three in the space small: random, trial")
    run = open_run(study, "small-tuned")
    assert run.config.train.learning_rate == best["train.learning_rate"]
    assert run.config.options == {
        **RECIPE["options"],
        "width": best["options.width"],
        "dropout": best["options.dropout"],
    }
    assert (run.config.train.batch_size, run.config.train.epochs) == (3, 2)  # the trial's epochs are not in the recipe
    assert run.folder == study.paths.training("small-tuned")


def test_test_is_not_touched(open_study):
    study = open_study(tuners=["random"], trials=2)
    index = pd.read_parquet(study.paths.index)
    index[index["split"] != "test"].to_parquet(study.paths.index)
    search = Search(study, "small-tuned")
    search.work()
    assert len(read_trials(search)) == 2


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"space": "wider"}, "space.options.dropout.max = 0.5, not 0.6;"),
        ({"trial": {"train.epochs": 2}}, "recipe.train.epochs = 3, not 2;"),
        ({"set": {"max_frames": 7}}, "recipe.max_frames = 8, not 7;"),
        ({"trials": 3}, "trials = 2, not 3;"),
        ({"seed": 1}, "seed = 0, not 1;"),
    ],
)
def test_a_search_that_began_as_another_is_refused_in_one_line(open_study, folders, change, part):
    wider = yaml.safe_load(yaml.safe_dump(SPACE))
    wider["space"]["options.dropout"]["max"] = 0.6
    (folders / "spaces" / "wider.yaml").write_text(yaml.safe_dump(wider))
    keys = {"tuners": ["random"], "trials": 2}
    Search(open_study(**keys), "small-tuned")
    Search(open_study(**keys), "small-tuned")
    with pytest.raises(StudyError) as error:
        Search(open_study(**{**keys, **change}), "small-tuned")
    assert f"search small-tuned was begun with {part}" in str(error.value)
    assert "or delete " in str(error.value)
    assert "\n" not in str(error.value)


def test_a_search_on_other_clips_is_refused(open_study):
    study = open_study(tuners=["random"], trials=2)
    Search(study, "small-tuned")
    index = pd.read_parquet(study.paths.index)
    index.drop(index=13).to_parquet(study.paths.index)
    with pytest.raises(StudyError, match="small-tuned was begun with clips = "):
        Search(study, "small-tuned")


@pytest.mark.parametrize(
    ("setting", "values", "part"),
    [
        ("options.drpout", {"min": 0, "max": 0.5}, "options: unknown key 'drpout' (did you mean 'dropout'?)"),
        ("options.dropout", {"min": 0.0, "max": 1.0}, "options.dropout = 1.0: options: key 'dropout'"),
        ("train.learning_rat", {"min": 0.1, "max": 0.5}, "unknown key 'learning_rat' in train"),
        ("train.momentum", {"min": 0.1, "max": 0.5}, "momentum needs the optimizer rmsprop"),
        ("options.freeze", {"min": 0, "max": "all"}, "options: unknown key 'freeze'"),
    ],
)
def test_a_setting_that_the_model_or_the_training_has_not_is_refused_before_any_work(
    open_study, folders, setting, values, part
):
    (folders / "spaces" / "small.yaml").write_text(yaml.safe_dump({**SPACE, "space": {setting: values}}))
    study = open_study()
    with pytest.raises(StudyError) as error:
        Search(study, "small-tuned")
    assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert not (study.paths.data / "searches").exists()


def test_failed_trials_are_recorded_and_three_in_a_row_stop_the_search_until_it_is_started_again(
    open_study, monkeypatch, capsys
):
    search = Search(open_study(tuners=["random"], trials=6), "small-tuned")
    train, outcomes = lib.tuning.train, ["not a number", None, "no memory", "no memory", "no memory", None]

    def fail_sometimes(run, until):
        if (message := outcomes.pop(0)) is not None:
            raise MemoryError(message)
        return train(run, until)

    monkeypatch.setattr(lib.tuning, "train", fail_sometimes)
    stopped = "small-tuned, random: 3 trials failed in a row, the last: MemoryError: no memory"
    with pytest.raises(StudyError, match=stopped):
        search.work()
    assert "random 0: failed: MemoryError: not a number" in capsys.readouterr().out
    search.work()
    trials = read_trials(search)
    assert trials["status"].tolist() == ["FAILED", "COMPLETED", *["FAILED"] * 3, "COMPLETED"]
    assert trials["message"][2] == "MemoryError: no memory"
    assert best_trial(trials)["status"] == "COMPLETED"


def test_a_loss_that_is_not_a_number_is_a_failure(open_study, monkeypatch):
    search = Search(open_study(tuners=["random"], trials=1), "small-tuned")
    train = lib.tuning.train

    def train_on_nothing(run, until):
        run.poses = {name: np.full_like(clip, np.nan) for name, clip in run.poses.items()}
        return train(run, until)

    monkeypatch.setattr(lib.tuning, "train", train_on_nothing)
    search.work()
    trials = read_trials(search)
    assert trials["status"].tolist() == ["FAILED"]
    assert "nan" in trials["message"][0].lower()


def test_a_trial_that_ends_its_process_again_and_again_has_failed(open_study):
    search = Search(open_study(tuners=["random"], trials=1), "small-tuned")
    folder = search.folder / "random" / "0"
    folder.mkdir(parents=True)
    for _ in range(lib.tuning.ATTEMPTS):
        lib.tuning.count_attempt(folder, 3)
    search.work()
    assert "its process was killed 3 times within one epoch" in read_trials(search)["message"][0]


def test_a_trial_that_gets_further_each_time_may_be_killed_as_often_as_it_likes(tmp_path):
    (tmp_path / "train").mkdir()
    for epochs in range(1, 10):
        rows = pd.DataFrame({"epoch": range(1, epochs + 1), "val_accuracy": 0.5, "val_loss": 1, "seconds": 1.0})
        rows.to_csv(tmp_path / "train" / "history.csv", index=False)
        lib.tuning.count_attempt(tmp_path, 10)
    for _ in range(lib.tuning.ATTEMPTS - 1):
        lib.tuning.count_attempt(tmp_path, 10)
    with pytest.raises(RuntimeError, match="its process was killed 3 times"):
        lib.tuning.count_attempt(tmp_path, 10)


def test_random_and_bayesian_search_may_spend_as_many_epochs_as_hyperband(open_study):
    search = Search(open_study(trial={"train.epochs": 9}), "small-tuned")
    assert search.trials == 9  # 75 epochs of Hyperband, 9 a trial
    assert Search(open_study("other", trials=50), "small-tuned").trials == 50


def test_unknown_search_is_refused_with_those_there_are(open_study):
    with pytest.raises(StudyError, match="study three has no search 'smal'; its searches: small-tuned"):
        Search(open_study(), "smal")


# ---- the tables of a search -----------------------------------------------------------------------------

TABLE_SPACE = {
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
        space=TABLE_SPACE,
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
            "options.dropout": TABLE_SPACE["options.dropout"].values()[rng.integers(6)],
            "options.norm": TABLE_SPACE["options.norm"].values()[rng.integers(3)],
            "train.learning_rate": float(10 ** rng.uniform(-4, -2)),
        }
        place = TABLE_SPACE["train.learning_rate"].place(values["train.learning_rate"])
        rows[str(number)] = result(0.8 - (place - 0.6) ** 2 + noise * rng.normal(), **values)
    search = search_of({"random": rows})
    return read_trials(search), search


def test_the_setting_that_alone_decides_is_the_one_of_importance():
    table = importance(*trials_where_only_the_rate_matters(60))
    assert table["setting"][0] == "train.learning_rate"
    assert table["importance"][0] > 1
    assert table["importance"][1:].abs().max() < 0.2
    assert set(table["setting"]) == {*TABLE_SPACE}
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
    (ax,) = figures.best_so_far(trials, 6, 0.1, own=0.4).axes
    lines = {line.get_label(): line for line in ax.lines}
    assert lines["hyperband"].get_xdata().tolist() == [1, 1, 3, 6]
    assert lines["hyperband"].get_ydata().tolist() == [0.3, 0.3, 0.5, 0.5]
    assert lines["random"].get_ydata().tolist() == [0.2, 0.5, 0.6]
    assert lines["random"].get_drawstyle() == "steps-post"
    assert list(lines["equal cost"].get_xdata()) == [6, 6]
    assert list(lines["chance"].get_ydata()) == [0.1, 0.1]
    assert list(lines["own settings"].get_ydata()) == [0.4, 0.4]


def test_parallel_coordinates_draw_each_success_at_its_places_and_the_best_last():
    values = {"options.dropout": 0.5, "options.norm": "batch", "train.learning_rate": 0.0001}
    rows = {"0": result(0.9, **values), "1": result(None), "2": result(0.2)}
    figure = figures.parallel_coordinates(read_trials(search_of({"random": rows})), TABLE_SPACE)
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


# ---- the published spaces ------------------------------------------------------------------------------

CLIPS = np.random.default_rng(0).random((8, 4, 32, 32, 3), np.float32)
TARGETS = np.eye(4, dtype=np.float32)[np.arange(8) % 4]


def kernels(model):
    """The weights, without the state of the random numbers of dropout."""
    return [weight for weight in model.variables if "seed_generator" not in weight.path]


def train_two_steps(recipe, changes, start=None):
    """Train a model of tiny clips from `start`. Returns its weights before and after, and how many trained."""
    config = read_recipe(recipe, {"train.batch_size": 4, "train.clip_norm": 1.0, **changes})
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    model = lib.models.build(config.model, 4, clip=CLIPS.shape[1:4], **config.options)
    for weight, value in zip(kernels(model), start or kernels(model), strict=True):
        weight.assign(value)
    start = [keras.ops.convert_to_numpy(weight).copy() for weight in kernels(model)]
    model.compile(lib.training.make_optimizer(config.train, 2), keras.losses.CategoricalCrossentropy(from_logits=True))
    model.fit(CLIPS, TARGETS, batch_size=4, epochs=1, shuffle=False, verbose=0)
    return start, [keras.ops.convert_to_numpy(weight) for weight in kernels(model)], len(model.trainable_variables)


@pytest.mark.parametrize(("recipe", "space"), [("movinet-a0", "movinet-published"), ("i3d", "i3d-published")])
def test_each_published_setting_visibly_changes_the_trained_model(recipe, space):
    stages = lib.models.count_stages(read_recipe(recipe).model)
    dimensions = read_space(SearchSpec(name="x", recipe=recipe, space=space)).dimensions(stages)
    ends = {key: dimension.ends() for key, dimension in dimensions.items()}
    # From the highest rate, and from residuals of half their strength: with the published 0 two steps do not reach
    # what lies behind them.
    base = {key: low for key, (low, _) in ends.items()} | {"train.learning_rate": ends["train.learning_rate"][1]}
    base |= {"options.residual": 0.5} if recipe.startswith("movinet") else {}
    start, plain, trained = train_two_steps(recipe, base)
    again = train_two_steps(recipe, base, start)[1]
    assert all(np.array_equal(a, b) for a, b in zip(plain, again, strict=True))
    for key, (low, high) in ends.items():
        other = low if base[key] == high else high
        _, changed, still_trained = train_two_steps(recipe, {**base, key: other}, start)
        assert max(np.abs(a - b).max() for a, b in zip(plain, changed, strict=True)) > 1e-4, key
        assert (still_trained < trained) == (key == "options.freeze")
