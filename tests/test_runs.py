"""A run: its recipe file, its clips, its checkpoints, its predictions and its metrics."""

import json
from dataclasses import replace
from pathlib import Path

import av
import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lib.models
import lib.runs
from helpers import CLIPS, GLOSSES, RECIPE, clip_of
from lib.data.clip_store import build_clips
from lib.data.loaders import PoseBatches
from lib.data.poses import PoseStore
from lib.evaluation import write_metrics
from lib.figures.runs import attention_over_time
from lib.models import family_of
from lib.models.weights import WEIGHTS
from lib.paths import RECIPES
from lib.predictions import Predictions
from lib.recipes import read_recipe, shortened
from lib.runs import ClipRun, DrawnRun, PoseRun, open_run, predict
from lib.settings import StudyError
from lib.study import RunSpec
from lib.transfer import refuse_twins

CONTRACT = [
    "top1", "top2", "top5", "top10", "top1_per_class", "top5_per_class", "loss", "n", "n_missing", "top1_ci95",
    "params_m", "gflops", "train_seconds", "epochs", "weights", "seed", "backend", "split",
]  # fmt: skip


def score(run, model, split):
    """Predict a split and write its metrics, as the notebooks do."""
    path = run.study.paths.metrics(run.name, split)
    return write_metrics(path, run.predict(model, split), **run.facts(model, split))


def problem(*arguments):
    """The one line that the reading of a wrong recipe ends with."""
    with pytest.raises(StudyError) as error:
        read_recipe(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- the recipe file -----------------------------------------------------------------------------------


def test_recipe_file_becomes_typed_settings_with_defaults_for_the_rest(recipes):
    config = read_recipe("small")
    assert (config.model, config.variant, config.max_frames) == ("spobet", "small", 12)
    assert (config.train.epochs, config.train.schedule) == (3, "cosine")
    assert (config.pretrain.epochs, config.pretrain.hidden) == (2, 0.3)
    assert (config.augment.rotation, config.augment.mirror) == (10, 0)


@pytest.mark.parametrize("name", [path.stem for path in RECIPES.glob("*.yaml")])
def test_every_shipped_recipe_can_be_read_and_its_model_built(name):
    config = read_recipe(name)
    options = dict(config.options)
    if config.model == "spobet":
        options["layout"] = "openpose-54" if options.get("normalisation", "published") == "published" else "hands-42"
    else:
        options["clip"] = (8, 32, 32)
        assert config.weights is None or WEIGHTS[config.weights].model == config.model
    assert lib.runs.build(config.model, 5, **options).count_params() > 100_000


def test_published_recipes_have_the_published_frames_and_pixels():
    sizes = {name: read_recipe(name) for name in ("movinet-a0", "movinet-a5", "i3d", "s3d", "x3d-l")}
    assert [(c.frames, c.size) for c in sizes.values()] == [(20, 172), (20, 172), (20, 224), (20, 224), (16, 182)]
    train = sizes["movinet-a0"].train
    assert (train.optimizer, train.learning_rate, train.momentum, train.epsilon) == ("rmsprop", 0.01, 0.9, 1.0)


def test_a_study_changes_settings_by_their_dotted_name_and_leaves_the_others(recipes):
    config = read_recipe("small", {"train.epochs": 7, "options.width": 16, "max_frames": 9, "augment.noise": 0.5})
    assert (config.train.epochs, config.train.batch_size) == (7, 4)
    assert config.options == {**RECIPE["options"], "width": 16}
    assert (config.max_frames, config.augment.noise, config.augment.rotation) == (9, 0.5, 10)
    assert read_recipe("small").train.epochs == 3  # the file is as it was


def test_a_study_can_switch_off_pretraining_and_set_a_section_that_the_recipe_lacks(recipes):
    assert read_recipe("small", {"pretrain": None}).pretrain is None
    recipes("bare", {"model": "spobet", "train": {}})
    assert read_recipe("bare", {"augment.mirror": 0.5}).augment.mirror == 0.5


def test_unknown_recipe_is_an_error_that_names_those_there_are(recipes):
    recipes("large", RECIPE)
    message = problem("smal")
    assert message == "there is no recipe 'smal'; workflow/recipes/ has large, small"


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"train.epoch": 5}, ["unknown key 'epoch' in train", "did you mean 'epochs'?"]),
        ({"trian.epochs": 5}, ["unknown key 'trian'", "did you mean 'train'?"]),
        ({"augment.rotate": 5}, ["unknown key 'rotate' in augment"]),
        ({"pretrain.hiden": 0.2}, ["unknown key 'hiden' in pretrain", "did you mean 'hidden'?"]),
        ({"train.epochs": "many"}, ["key 'train.epochs'", "got 'many'"]),
        ({"train.optimizer": "sgd"}, ["key 'train.optimizer'", "got 'sgd'"]),
        ({"augment.mirror": 2}, ["key 'augment.mirror'", "got 2"]),
        ({"max_frames": 0}, ["key 'max_frames'", "got 0"]),
        ({"train": 5}, ["key 'train'", "got 5"]),
        ({"model.width": 5}, ["'model.width'", "'model' holds no settings"]),
        ({"train.epochs.first": 5}, ["'train.epochs.first'", "'epochs' holds no settings"]),
        ({"train.mixed_precision": True}, ["mixed_precision", "pretrain", "train"]),
        ({"train.momentum": 0.9}, ["momentum needs the optimizer rmsprop, not adamw"]),
    ],
)
def test_unknown_or_wrong_setting_is_one_line_that_names_the_file_and_the_key(recipes, changes, parts):
    message = problem("small", changes)
    assert "small.yaml" in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("content", ["", "- spobet\n", "model: [spobet\n", "model: spobet\n"])
def test_a_recipe_file_without_the_keys_it_needs_is_one_line_that_names_it(recipes, content):
    recipes("broken", content)
    assert "broken.yaml" in problem("broken")


KEYS = st.sampled_from(["model", "variant", "options", "train", "train.epochs", "augment", "frames", "x"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["spobet", "i3d", "", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=st.dictionaries(KEYS, VALUES, max_size=3), text=st.none() | st.binary(max_size=20), whole=st.booleans())
def test_any_file_and_any_change_are_a_recipe_or_a_one_line_error(recipes, tmp_path, change, text, whole):
    recipes("any", RECIPE | change if whole else RECIPE)
    if text is not None:
        (tmp_path / "any.yaml").write_bytes(text)
    message = "one line"
    try:
        read_recipe("any", {} if whole else change)
    except StudyError as error:
        message = str(error)
    assert len(message.splitlines()) == 1


# ---- a run ---------------------------------------------------------------------------------------------


def test_a_run_knows_its_recipe_seed_and_folders_and_takes_the_studys_changes(study, tmp_path):
    run = PoseRun(study, "small-s4")
    assert (run.recipe, run.seed, run.config.train.epochs) == ("small", 4, 2)
    assert run.folder == tmp_path / "home" / "data" / "three" / "runs" / "small-s4"
    assert run.report == tmp_path / "home" / "reports" / "three" / "runs" / "small-s4"
    assert run.glosses == GLOSSES
    with pytest.raises(StudyError, match="no run 'small'; its runs: small-s0, small-s4"):
        PoseRun(study, "small")


def test_where_a_study_is_only_tried_no_training_takes_more_epochs_than_are_asked_for(study, monkeypatch):
    monkeypatch.setenv("STUDY_EPOCHS", "1")
    assert PoseRun(study, "small-s0").config.train.epochs == 1


def test_only_trainings_of_more_epochs_are_shortened():
    config = read_recipe("movinet-a0-k600", {"train.epochs": 1})
    short = shortened(config, 2)
    assert config.head.epochs > 2
    assert (short.head.epochs, short.train.epochs) == (2, 1)
    assert short.train.learning_rate == config.train.learning_rate
    assert shortened(config, None) == config


def test_clips_of_a_run_are_the_present_ones_in_index_order_without_empty_ends(study):
    run = PoseRun(study, "small-s0")
    assert run.clips("test")["video_id"].tolist() == ["00000", "00006", "00009", "00013"]
    batches = run.batches("test", run.config.train, vary=False)
    assert [len(clip) for clip in batches.clips] == [3, 15, 21, 29]
    np.testing.assert_array_equal(batches.clips[1], clip_of(6)[1:-1])
    np.testing.assert_array_equal(batches[0][1].argmax(1), [1, 2, 0, 1])
    assert batches[0][0].shape == (4, 16, 42, 3)  # 12 frames at most, then to a multiple of 8


def test_a_run_tells_of_frames_as_the_model_reads_them(study):
    run = PoseRun(study, "small-s0")
    model = run.build()
    assert np.median(run.content()["frames"]) > 12
    assert run.facts(model, "test")["frames"] == run.example().shape[1] == 12


def test_the_clip_to_draw_is_the_first_with_enough_joints_then_that_with_most_then_one_of_another_split(study):
    run = PoseRun(study, "small-s0")
    of_test = run.clips("test")["video_id"].tolist()
    assert run.show("test")[0] == of_test[1]  # the first one has three frames
    run.poses[of_test[1]][:] = 0
    video_id, gloss, clip = run.show("test")
    assert video_id == of_test[2]
    assert gloss == run.clips("test")["gloss"].iloc[2]
    assert len(clip) == run.config.max_frames < len(run.poses[video_id])
    for number, video_id in enumerate(of_test):
        run.poses[video_id][:] = 0
        run.poses[video_id][:number, 0] = 1
    assert run.show("test")[0] == "00003"  # the first of any split with as many frames
    for video_id in run.poses.keys() - set(of_test):
        run.poses[video_id][:] = 0
    assert run.show("test")[0] == of_test[-1]


def test_clips_without_any_joint_are_scored_like_the_others(study):
    store = PoseStore.load(study.paths.poses)
    run = PoseRun(study, "small-s0")
    first = run.clips("test")["video_id"].iloc[0]
    for video_id, clip in zip(store.video_id, store.poses, strict=True):
        clip[:] = 0 if video_id == first else clip
    store.save(study.paths.poses)
    run = PoseRun(study, "small-s0")
    model = run.build()
    run.pretrain(model)
    run.train(model)
    predictions = run.predict(model, "test")
    assert predictions.video_id[0] == first
    assert np.isfinite(predictions.logits).all()
    assert run.show("test")[0] != first


def test_training_batches_are_augmented_by_the_recipe_and_drawn_from_the_runs_seed(study):
    def first(name, **changes):
        study.runs[0].set.update(changes)
        run = PoseRun(study, name)
        return run.batches("train", run.config.train, vary=True)[0][0].numpy()

    assert np.array_equal(first("small-s0"), first("small-s0"))
    assert not np.array_equal(first("small-s0"), first("small-s4"))
    plain = first("small-s0", **{"augment.rotation": 0, "augment.splice": 0})
    assert plain[..., :2].max() < 1.2
    rotated = first("small-s0", **{"augment.rotation": 90})
    assert plain.shape == rotated.shape
    assert np.abs(plain - rotated).max() > 0.05


def taught_ids(run, batches):
    """The clips that may come in batches, by video_id."""
    by_array = {id(poses): video_id for video_id, poses in run.poses.items()}
    return {by_array[id(poses)] for poses in batches.clips}


def test_no_clip_of_a_withheld_gloss_is_ever_in_a_batch_of_a_training(study, monkeypatch):
    seen, fit = [], lib.runs.fit
    monkeypatch.setattr(lib.runs, "fit", lambda *args, **how: seen.append(args[2:4]) or fit(*args, **how))
    spec = RunSpec(recipe="small", set={"without": 1, "augment.splice": 1})
    run = PoseRun(study.model_copy(update={"runs": [spec]}), "small")
    assert run.withheld() == [0]
    model = run.build()
    run.pretrain(model)
    run.train(model)
    assert len(seen) == 2
    for train, val in seen:
        assert taught_ids(run, train) == {"00002", "00005", "00012"}
        assert taught_ids(run, val) == {"00003", "00010"}
    for batches in seen[1]:
        assert not any(batches[number][1][:, 0].any() for number in range(len(batches)))
    assert run.content()["clips"] == ["00002", "00005", "00012"]
    # Predictions are of every clip all the same.
    assert run.predict(model, "val").video_id.tolist() == ["00003", "00010", "00014"]


@pytest.mark.parametrize(("without", "classes", "labels"), [
    (0, 3, []), (1, 3, [0]), (2, 3, [0, 1]), (3, 30, [1, 4, 7]), (200, 2000, [*range(1, 600, 3)]),
])  # fmt: skip
def test_withheld_glosses_are_a_fixed_choice_among_those_with_the_most_clips(
    study, without, classes, labels, monkeypatch
):
    monkeypatch.setattr(PoseRun, "glosses", [str(number) for number in range(classes)])
    spec = RunSpec(recipe="small", set={"without": without})
    assert PoseRun(study.model_copy(update={"runs": [spec]}), "small").withheld() == labels


def test_a_run_without_any_gloss_is_one_clear_error(study):
    run = PoseRun(study.model_copy(update={"runs": [RunSpec(recipe="small", set={"without": 3})]}), "small")
    with pytest.raises(StudyError, match="recipe small: no clip of split 'train' is left 'without'"):
        run.taught("train")


def test_a_run_learns_nothing_from_one_that_knows_a_gloss_which_it_withholds(study):
    specs = [RunSpec(recipe="small", name=f"w{without}", set={"without": without}) for without in (0, 1, 2)]
    none, one, two = (PoseRun(study.model_copy(update={"runs": specs}), spec.name) for spec in specs)
    for run, source, count in ((one, none, 1), (two, none, 2), (two, one, 1)):
        with pytest.raises(StudyError, match=f"knows {count} glosses that recipe small withholds"):
            refuse_twins(run, source)
    for run, source in ((none, one), (one, one), (one, two)):
        refuse_twins(run, source)


def test_a_split_without_a_present_clip_is_an_error_that_names_it(study):
    index = pd.read_parquet(study.paths.index)
    index.loc[index["split"] == "val", "status"] = "missing"
    index.to_parquet(study.paths.index)
    run = PoseRun(study, "small-s0")
    with pytest.raises(StudyError, match="study three: no clip of split 'val' is present"):
        run.batches("val", run.config.train, vary=False)


@pytest.mark.parametrize(
    ("change", "text"), [({"options.widht": 8}, "unknown key 'widht'"), ({"options.depth": "deep"}, "key 'depth'")]
)
def test_a_wrong_option_of_the_model_is_one_line_that_names_recipe_and_option(study, change, text):
    study.runs[0].set.update(change)
    with pytest.raises(StudyError, match=text) as error:
        PoseRun(study, "small-s0").build()
    assert "small" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_model_is_built_from_the_seed_for_the_studys_glosses_and_layout(study):
    one, same, other = (PoseRun(study, name).build().get_weights() for name in ("small-s0", "small-s0", "small-s4"))
    assert one[-1].shape == (3,)
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one[0], other[0])


def test_predictions_do_not_depend_on_the_batch_they_are_made_in(study):
    run = PoseRun(study, "small-s0")
    model = run.build()
    clips = [run.poses[video_id] for video_id in run.clips("train")["video_id"]]
    alone = np.concatenate([keras.ops.convert_to_numpy(model(clip[None, :12], training=False)) for clip in clips])
    short = [clip[:12] for clip in clips]
    for size in (1, 2, 5, 64):
        logits = predict(model, PoseBatches(short, None, 3, size, max_frames=12))
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, alone, atol=1e-5)
    assert np.ptp(alone, axis=0).max() > 1e-3  # the order can be seen


def test_predictions_are_written_for_every_present_clip_in_index_order(study):
    run = PoseRun(study, "small-s0")
    model = run.build()
    run.predict(model, "test")
    written = Predictions.load(run.report / "predictions-test.npz")
    assert written.video_id.tolist() == ["00000", "00006", "00009", "00013"]
    assert written.label.tolist() == [1, 2, 0, 1]
    assert written.glosses.tolist() == GLOSSES
    expected = predict(model, run.batches("test", run.config.train, vary=False, targets=False))
    np.testing.assert_array_equal(written.logits, expected)


def test_pretraining_training_and_metrics_leave_the_files_of_the_contract(study):
    run = PoseRun(study, "small-s0")
    model = run.build()
    pretraining, history = run.pretrain(model), run.train(model)
    assert pretraining["epoch"].tolist() == history["epoch"].tolist() == [1, 2]
    for split in ("val", "test"):
        score(run, model, split)
    assert sorted(path.name for path in run.report.iterdir()) == [
        "history-pretrain.csv", "history.csv", "metrics-val.json", "metrics.json",
        "predictions-test.npz", "predictions-val.npz",
    ]  # fmt: skip
    metrics = json.loads((run.report / "metrics.json").read_text())
    assert set(CONTRACT) <= metrics.keys()
    assert (metrics["n"], metrics["n_missing"], metrics["split"]) == (4, 2, "test")
    assert (metrics["model"], metrics["variant"], metrics["recipe"]) == ("spobet", "small", "small")
    assert (metrics["seed"], metrics["backend"], metrics["epochs"]) == (0, keras.backend.backend(), 4)
    assert metrics["params_m"] == pytest.approx(model.count_params() / 1e6)
    assert metrics["train_seconds"] == pytest.approx(pretraining["seconds"].sum() + history["seconds"].sum(), abs=1e-3)
    val = json.loads((run.report / "metrics-val.json").read_text())
    assert (val["split"], val["n"], val["n_missing"]) == ("val", 3, 1)
    assert val["top1"] == pytest.approx(history["val_accuracy"].max(), abs=1e-5)  # the best epoch is what is kept


def test_a_recipe_without_pretraining_trains_and_leaves_no_history_of_one(study):
    study.runs[0].set["pretrain"] = None
    run = PoseRun(study, "small-s0")
    run.report.mkdir(parents=True)
    (run.report / "history-pretrain.csv").write_text("epoch,loss,val_loss,seconds\n1,1.0,1.0,1000\n")  # of before
    model = run.build()
    pretraining, history = run.pretrain(model), run.train(model)
    assert pretraining.empty
    metrics = score(run, model, "test")
    assert metrics["epochs"] == len(history)
    assert metrics["train_seconds"] == pytest.approx(history["seconds"].sum(), abs=1e-3)


def test_pretraining_of_a_model_that_has_none_is_an_error_that_names_the_recipe(study, monkeypatch):
    family = replace(family_of("spobet"), pretraining=None)
    monkeypatch.setitem(lib.models.FAMILIES, "spobet", family)
    run = PoseRun(study, "small-s0")
    with pytest.raises(StudyError, match="recipe small: spobet cannot be pre-trained; remove 'pretrain'"):
        run.pretrain(run.build())


def test_a_second_start_trains_nothing_again_and_gives_the_same_predictions(study, capsys):
    def go():
        run = PoseRun(study, "small-s0")
        model = run.build()
        run.pretrain(model)
        return run.train(model), run.predict(model, "test").logits

    (history, logits), (again, same) = go(), go()
    pd.testing.assert_frame_equal(history, again)
    np.testing.assert_array_equal(logits, same)
    assert "from scratch" not in capsys.readouterr().out


@pytest.mark.parametrize("changed", ["recipe", "clips"])
def test_checkpoints_of_another_recipe_or_other_clips_are_left_behind_and_that_is_said(study, capsys, changed):
    run = PoseRun(study, "small-s0")
    folder = run.open_folder("train")
    Path(folder / "best.weights.h5").touch()
    if changed == "recipe":
        study.runs[0].set["train.learning_rate"] = 0.5
    else:
        index = pd.read_parquet(study.paths.index)
        index.loc[1, "status"] = "missing"
        index.to_parquet(study.paths.index)
    capsys.readouterr()
    run = PoseRun(study, "small-s0")
    assert run.open_folder("train") == folder
    assert not (folder / "best.weights.h5").exists()
    assert "training starts from scratch" in (said := capsys.readouterr().out)
    assert "data/three/runs/small-s0/train-old-1; delete" in said
    assert (folder.with_name("train-old-1") / "best.weights.h5").exists()


def test_checkpoints_that_were_set_aside_are_never_overwritten(study):
    for number, rate in enumerate((0.1, 0.2, 0.3)):
        study.runs[0].set["train.learning_rate"] = rate
        (PoseRun(study, "small-s0").open_folder("train") / "best.weights.h5").write_text(f"{number}")
    runs = study.paths.training("small-s0")
    kept = {path.parent.name: path.read_text() for path in runs.glob("*/best.weights.h5")}
    assert kept == {"train-old-1": "0", "train-old-2": "1", "train": "2"}


def test_checkpoints_of_the_same_recipe_and_clips_are_kept(study):
    for _ in range(2):
        run = PoseRun(study, "small-s0")
        folder = run.open_folder("train")
        Path(folder / "best.weights.h5").touch()
    assert sorted(path.name for path in folder.iterdir()) == ["best.weights.h5", "run.json"]


def test_checkpoints_from_before_a_setting_was_added_are_kept(study):
    folder = PoseRun(study, "small-s0").open_folder("train")
    (folder / "best.weights.h5").touch()
    identity = json.loads((folder / "run.json").read_text())
    del identity["train"]["label_smoothing"], identity["data"]
    (folder / "run.json").write_text(json.dumps(identity))
    assert (PoseRun(study, "small-s0").open_folder("train") / "best.weights.h5").exists()
    identity["train"]["label_smoothing"] = 0.7
    (folder / "run.json").write_text(json.dumps(identity))
    assert not (PoseRun(study, "small-s0").open_folder("train") / "best.weights.h5").exists()


def test_poses_that_were_mended_train_anew(study):
    folder = PoseRun(study, "small-s0").open_folder("train")
    (folder / "best.weights.h5").touch()
    store = PoseStore.load(study.paths.poses)
    PoseStore(store.video_id, [clip * 0.9 for clip in store.poses]).save(study.paths.poses)
    assert not (PoseRun(study, "small-s0").open_folder("train") / "best.weights.h5").exists()


def test_attention_of_the_classification_token_has_a_weight_for_every_frame(study):
    study.runs[0].set.update({"options.stride": 2, "options.depth": 2})
    run = PoseRun(study, "small-s0")
    scores = keras.ops.convert_to_numpy(run.build().attention(run.poses["00001"][None, :5]))[0]
    weights = attention_over_time(scores, np.ones(5, bool), stride=2).axes[0].images[0].get_array()
    assert weights.shape == (4, 5)  # 2 layers of 2 heads
    np.testing.assert_array_equal(weights[:, 0], weights[:, 1])  # frames 0 and 1 are one token
    assert (weights > 0).all()
    assert (weights[:, ::2].sum(-1) < 1).all()  # the rest falls on the classification token itself


# ---- a run of an RGB model -----------------------------------------------------------------------------

CLIP_RECIPE = {
    "model": "x3d-xs",
    "frames": 4,
    "size": 32,
    "options": {"momentum": 0.5},
    "train": {"epochs": 1, "batch_size": 4},
    "augment": {"jitter": 1, "crop": 0.2},
}


def write_coloured_video(path, colour):
    """Eight frames of one colour."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.width = stream.height = 64
        for _ in range(8):
            image = np.broadcast_to(colour, (64, 64, 3)).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode())


@pytest.fixture
def clip_study(study, recipes):
    """The study of 16 clips with a video each, and its clip store as notebook 02 leaves it; clip 13 is black."""
    recipes("rgb", CLIP_RECIPE)
    study.runs.append(RunSpec(recipe="rgb"))
    index = pd.read_parquet(study.paths.index)
    index["path"] = [str(study.root / f"{number}.mp4") for number in range(len(CLIPS))]
    index["frame_start"], index["frame_end"], index["bbox"] = 0, 8, None
    for number, (path, label) in enumerate(zip(index["path"], index["label"], strict=True)):
        write_coloured_video(path, np.zeros(3) if number == 13 else 60 + 100 * np.eye(3)[label])
    index.to_parquet(study.paths.index)
    build_clips(index, study.paths.clips, size=64, workers=1).to_parquet(study.paths.clips_table, index=False)
    return study


def test_checkpoints_of_clips_of_another_length_are_set_aside_and_those_of_former_versions_kept(clip_study):
    folder = ClipRun(clip_study, "rgb").open_folder("train")
    identity = json.loads((folder / "run.json").read_text())
    del identity["data"]
    identity["frames"] = identity.pop("lengths")  # as they were written
    (folder / "run.json").write_text(json.dumps(identity))
    (folder / "best.weights.h5").touch()
    assert (ClipRun(clip_study, "rgb").open_folder("train") / "best.weights.h5").exists()
    clip_study.runs[-1].set["frames"] = CLIP_RECIPE["frames"] + 1
    assert not (ClipRun(clip_study, "rgb").open_folder("train") / "best.weights.h5").exists()


def test_a_run_is_opened_as_the_kind_that_its_model_asks_for(clip_study):
    assert type(open_run(clip_study, "small-s4")) is PoseRun
    assert type(open_run(clip_study, "rgb")) is ClipRun
    with pytest.raises(StudyError, match="no run 'small'; its runs: small-s0, small-s4, rgb"):
        open_run(clip_study, "small")


@pytest.mark.parametrize("name", ["rgb", "small-s0"])
def test_a_clip_that_a_store_could_not_hold_is_missing_with_its_reason_for_every_run(clip_study, name):
    rows = {"video_id": ["00009"], "status": ["unreadable"], "reason": ["no joint"]}
    pd.DataFrame(rows).to_parquet(clip_study.paths.poses_table)
    run = open_run(clip_study, name)
    assert run.clips("test")["video_id"].tolist() == ["00000", "00006"]
    assert run.index["status"][13].startswith("unreadable: frames 0 to 8 are black")
    assert run.index["status"][9] == "unreadable: no joint"
    assert run.index["status"][[4, 7, 15]].tolist() == ["missing", "unreadable: cut off", "dropped: twice"]
    assert run.facts(run.build(), "test")["n_missing"] == 4


def test_clips_come_with_their_labels_and_as_many_frames_and_pixels_as_the_recipe_asks(clip_study):
    run = ClipRun(clip_study, "rgb")
    clips, targets = run.batches("test", run.config.train, vary=False)[0]
    assert clips.shape == (3, 4, 32, 32, 3)
    assert targets.argmax(1).tolist() == [1, 2, 0]
    assert clips.mean((1, 2, 3)).argmax(1).tolist() == [1, 2, 0]  # each gloss has its colour


def test_an_rgb_run_trains_and_leaves_the_files_of_the_contract(clip_study):
    run = ClipRun(clip_study, "rgb")
    model = run.build()
    history = run.train(model)
    for split in ("val", "test"):
        score(run, model, split)
    assert sorted(path.name for path in run.report.iterdir()) == [
        "history.csv", "metrics-val.json", "metrics.json", "predictions-test.npz", "predictions-val.npz",
    ]  # fmt: skip
    metrics = json.loads((run.report / "metrics.json").read_text())
    assert (metrics["n"], metrics["n_missing"], metrics["epochs"]) == (3, 3, len(history))
    assert (metrics["model"], metrics["variant"]) == ("x3d", "xs")
    assert (metrics["input"], metrics["frames"], metrics["size"], metrics["weights"]) == ("RGB", 4, 32, "scratch")
    assert metrics["gflops"] > 0
    clip_study.runs[-1] = RunSpec(recipe="rgb", set={"options.differences": True})
    assert ClipRun(clip_study, "rgb").facts(model, "val")["input"] == "RGB differences"
    clip_study.runs[-1] = RunSpec(recipe="rgb")
    again = ClipRun(clip_study, "rgb")
    trained = again.build()
    pd.testing.assert_frame_equal(again.train(trained), history)
    np.testing.assert_array_equal(again.predict(trained, "val").logits, run.predict(model, "val").logits)


@pytest.fixture
def pretrained_study(clip_study, recipes, monkeypatch):
    """The study with a run that begins with "published" weights of X3D, which here are all .01, and a head first."""
    recipes("known", CLIP_RECIPE | {"weights": "x3d-xs", "head": {"epochs": 2, "batch_size": 4}})
    clip_study.runs.append(RunSpec(recipe="known"))

    def load(model, name, weights):
        assert (name, weights) == ("x3d-xs", "x3d-xs")
        for weight in model.blocks[0].weights:
            weight.assign(keras.ops.full_like(weight, 0.01))

    monkeypatch.setattr(lib.runs, "load_pretrained", load)
    return clip_study


def test_the_head_step_sees_other_clips_varied_than_the_training_does(pretrained_study, monkeypatch):
    run, first = ClipRun(pretrained_study, "known"), []

    def fit(model, recipe, train, *args, **options):
        train.set_epoch(0)
        first.append(train[0])
        return pd.DataFrame({"epoch": [1]})

    monkeypatch.setattr(lib.runs, "fit", fit)
    run.train(run.build())
    (head, _), (clips, _) = first
    assert np.abs(head - clips).max() > 0.01


def test_a_run_learns_the_statistics_that_its_published_weights_lack(pretrained_study, monkeypatch):
    monkeypatch.setitem(WEIGHTS, "x3d-xs", WEIGHTS["x3d-xs"]._replace(statistics=False))
    run = ClipRun(pretrained_study, "known")
    model, again = run.build(), run.build()
    means = [dict(m.blocks[1].module.named_buffers()) for m in (model, again)]
    assert means[0].keys() == means[1].keys()
    for name, value in means[0].items():
        np.testing.assert_allclose(value.cpu().numpy(), means[1][name].cpu().numpy(), atol=1e-6)
        assert not name.endswith("running_mean") or value.abs().max() > 0


def test_a_run_with_published_weights_trains_its_head_first_and_then_all(pretrained_study):
    run = ClipRun(pretrained_study, "known")
    model = run.build()
    history = run.train(model)
    assert history["epoch"].tolist() == [1, 2, 3]
    assert [len(pd.read_csv(run.report / name)) for name in ("history-head.csv", "history.csv")] == [2, 1]
    head_only = ClipRun(pretrained_study, "known").build()
    head_only.load_weights(run.folder / "head" / "best.weights.h5")
    below, trained = (keras.ops.convert_to_numpy(m.blocks[0].trainable_variables[0]) for m in (head_only, model))
    np.testing.assert_allclose(below, 0.01)  # frozen while the head was trained
    assert np.abs(trained - 0.01).max() > 1e-5
    assert run.facts(model, "test")["weights"] == "x3d-xs"
    metrics = score(run, model, "test")
    assert metrics["epochs"] == 3


def test_frozen_stages_of_a_recipe_stay_frozen_after_the_head_was_trained(pretrained_study):
    pretrained_study.runs[-1].set["options.freeze"] = 1
    run = ClipRun(pretrained_study, "known")
    model = run.build()
    run.train(model)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model.blocks[0].variables[0]), 0.01)
    assert [block.trainable for block in model.blocks][:2] == [False, True]


def test_a_head_is_only_trained_first_on_published_weights_and_in_one_precision(recipes):
    recipes("bare", CLIP_RECIPE | {"head": {"epochs": 2}})
    assert "set weights" in problem("bare")
    recipes("mixed", CLIP_RECIPE | {"weights": "x3d-xs", "head": {"mixed_precision": True}})
    assert "head.mixed_precision and train.mixed_precision differ" in problem("mixed")


def test_shown_clips_are_those_that_the_model_gets(clip_study):
    run = ClipRun(clip_study, "rgb")
    clips, glosses = run.show("test", 2)
    assert clips.shape == (2, 4, 32, 32, 3)
    assert glosses == [GLOSSES[1], GLOSSES[2]]
    varied, _ = run.show("train", 2, vary=True)
    assert varied.shape == clips.shape
    assert not run.publishable
    looked = run.look(run.clips("test")["video_id"][:2], 3)
    np.testing.assert_array_equal(looked, clips[:, [0, 2, 3]])


def test_a_run_on_drawn_poses_trains_from_the_pose_store_and_says_what_it_reads(study, recipes):
    recipe = {name: value for name, value in CLIP_RECIPE.items() if name != "augment"}
    recipes("drawn", recipe | {"drawing": {"third": "hands"}, "augment": {"rotation": 10, "splice": 0.5}})
    study.runs.append(RunSpec(recipe="drawn"))
    run = open_run(study, "drawn")
    assert type(run) is DrawnRun
    clips, glosses = run.show("test", 2)
    assert clips.shape == (2, 4, 32, 32, 3)
    assert (clips.max((1, 2, 3))[:, :2] > 0.9).all()
    assert run.publishable
    assert glosses == [GLOSSES[1], GLOSSES[2]]
    model = run.build()
    history = run.train(model)
    metrics = score(run, model, "test")
    assert (metrics["input"], metrics["frames"], metrics["size"]) == ("drawn", 4, 32)
    assert metrics["n"] == len(run.clips("test"))
    again = DrawnRun(study, "drawn")
    pd.testing.assert_frame_equal(again.train(again.build()), history)
    study.runs[-1] = RunSpec(recipe="drawn", set={"drawing.thickness": 2})
    assert not (DrawnRun(study, "drawn").open_folder("train") / "best.weights.h5").exists()  # drawn otherwise


def test_clips_without_hands_are_drawn_empty_and_told(study, recipes, capsys):
    recipes("drawn", {"model": "x3d-xs", "frames": 4, "size": 32, "drawing": {}, "train": {"batch_size": 9}})
    study.runs.append(RunSpec(recipe="drawn"))
    run = open_run(study, "drawn")
    run.batches("val", run.config.train, vary=False)
    assert capsys.readouterr().out == ""
    first, *others = run.clips("val")["video_id"]
    run.poses[first] = np.zeros((1, 42, 3), np.float32)
    clips, _ = run.batches("val", run.config.train, vary=False)[0]
    assert capsys.readouterr().out == f"drawn: 1 of {1 + len(others)} clips show no joints and are drawn empty\n"
    assert [bool(clip.any()) for clip in clips] == [False, *[True] * len(others)]


def test_a_run_of_another_kind_of_model_is_refused(clip_study):
    with pytest.raises(StudyError, match="run rgb trains the model x3d-xs, which another notebook trains"):
        PoseRun(clip_study, "rgb")
    with pytest.raises(StudyError, match="run small-s0 trains the model spobet"):
        ClipRun(clip_study, "small-s0")


def test_an_rgb_run_without_the_clip_store_says_which_notebook_makes_it(clip_study):
    (clip_study.paths.clips_table).unlink()
    with pytest.raises(StudyError, match="02_clips"):
        ClipRun(clip_study, "rgb")
