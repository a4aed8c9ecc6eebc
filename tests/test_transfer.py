"""Runs that start from another study's run, or learn from trained ones."""

import json

import keras
import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.special import softmax

from helpers import RECIPE
from lib.data.drawing import Pen
from lib.data.twins import COLUMNS
from lib.graphs import Recorded, numbers_made_on_device, recorded_step
from lib.recipes import read_recipe
from lib.runs import open_run
from lib.settings import StudyError
from lib.study import RunSpec, Study, find_seed
from lib.training import BEST, make_optimizer
from lib.transfer import lesson

TEACHERS = "three/small"
FIELDS = {"title": "Glosses", "sources": ["hands"], "split": "official", "layout": "hands-42"}


@pytest.fixture
def recipe(request, recipes):
    """What a test asks for, or RECIPE, as the recipe of the study "three"."""
    content = getattr(request, "param", RECIPE)
    recipes("small", content)
    return content


@pytest.fixture
def source(study, recipe, tmp_path, monkeypatch):
    """The study "three" with its run small-s4 trained, or at least with weights that nothing else has."""
    monkeypatch.setattr("lib.paths.STUDIES", tmp_path / "studies")
    (tmp_path / "studies").mkdir()
    runs = [{"recipe": "small", "seeds": [0, 4]}]
    (tmp_path / "studies" / "three.yaml").write_text(yaml.safe_dump({**FIELDS, "subset": 3, "runs": runs}))
    run = open_run(study, "small-s4")
    model, rng = run.build(), np.random.default_rng(0)
    model.set_weights([value + rng.normal(size=value.shape) for value in model.get_weights()])
    for mean in (value for layer in model.layers if hasattr(layer, "module") for value in layer.module.buffers()):
        mean.add_(1)  # running statistics of torch, which are no weights to Keras
    (run.folder / "train").mkdir(parents=True)
    model.save_weights(run.folder / "train" / BEST)
    return run


@pytest.fixture
def other(source, recipe, recipes):
    """A function: a study of the first two of the glosses, in the other order, which starts from "three"."""
    index = source.index[source.index["label"] < 2].assign(label=lambda rows: 1 - rows["label"])

    def make(start=TEACHERS, seed=4, **changes):
        recipes("next", {**recipe, "start": start, **changes})
        fields = {**FIELDS, "subset": 2, "runs": [{"recipe": "next", "seeds": [seed]}]}
        study = Study(name="two", root=source.study.root, **fields)
        study.paths.data.mkdir(parents=True, exist_ok=True)
        index.to_parquet(study.paths.index)
        study.paths.poses.write_bytes(source.study.paths.poses.read_bytes())
        return open_run(study, f"next-s{seed}")

    return make


def numpy(value):
    return keras.ops.convert_to_numpy(value)


def test_a_run_starts_from_the_weights_of_the_same_seed_with_the_glosses_in_its_own_order(other, source):
    model, trained = other().build(), source.trained()
    poses = np.random.default_rng(1).random((2, 8, 42, 3), np.float32).round(2)
    np.testing.assert_allclose(numpy(model(poses))[:, ::-1], numpy(trained(poses))[:, :2], rtol=1e-4, atol=1e-5)
    assert other().facts(model, "val")["weights"] == "three/small-s4"


def of_drawings(model):
    """The recipe of a model that reads small drawings."""
    return {"model": model, "frames": 8, "size": 32, "drawing": {}, "train": {"batch_size": 4}}


LARGER = {"movinet-a0": 48, "x3d-xs": 48, "i3d": 32, "s3d": 32}  # I3D reads clips of one size


@pytest.mark.parametrize("recipe", map(of_drawings, LARGER), indirect=True)
def test_a_model_of_videos_starts_from_a_run_on_smaller_drawings(recipe, other, source):
    model, trained = other(size=LARGER[recipe["model"]]).build(), source.trained()
    clips = np.random.default_rng(1).random((2, 8, 32, 32, 3), np.float32)
    np.testing.assert_allclose(numpy(model(clips))[:, ::-1], numpy(trained(clips))[:, :2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recipe", [of_drawings("x3d-xs")], indirect=True)
def test_a_run_starts_from_published_weights_or_from_another_run(recipe, recipes):
    recipes("both", recipe | {"start": TEACHERS, "weights": "x3d-xs"})
    with pytest.raises(StudyError, match="weights and start: a training begins with one of them"):
        read_recipe("both")
    recipes("head", recipe | {"start": TEACHERS, "head": {"epochs": 1}})
    assert read_recipe("head").head.epochs == 1
    recipes("head", recipe | {"head": {"epochs": 1}})
    with pytest.raises(StudyError, match="set weights or start"):
        read_recipe("head")


def test_a_gloss_that_the_source_does_not_know_keeps_its_random_weights(other, source):
    run = other()
    names = run.index["gloss"].replace({run.glosses[0]: "unheard"})
    run.index = run.index.assign(gloss=names)
    scratch = open_run(replace_start(run, None), run.name).build()
    kernel, fresh = run.build().head.get_weights()[0], scratch.head.get_weights()[0]
    np.testing.assert_array_equal(kernel[:, 0], fresh[:, 0])
    np.testing.assert_array_equal(kernel[:, 1], source.trained().head.get_weights()[0][:, 0])


def replace_start(run, start):
    """The study of a run whose recipe starts from something else."""
    spec = run.study.runs[0].model_copy(update={"set": {"start": start}})
    return run.study.model_copy(update={"runs": [spec]})


def test_a_source_that_saw_a_judged_clip_or_a_twin_of_one_is_refused(other, source):
    run = other()
    seen, judged = source.clips("train")["video_id"].iloc[0], run.clips("test")["video_id"].iloc[0]
    row = [judged, "own", "test", seen, "another gloss", "train", "near"]
    table = run.study.paths.table("twins.csv")
    table.parent.mkdir(parents=True)
    pd.DataFrame([row], columns=COLUMNS).to_csv(table, index=False)
    with pytest.raises(StudyError, match=f"three/small-s4 was trained on 1 clips .* such as {seen} .clip {judged}."):
        run.build()
    pd.DataFrame([[*row[:3], "99999", *row[4:]]], columns=COLUMNS).to_csv(table, index=False)
    run.build()  # a twin that nobody was trained on
    moved = run.index["video_id"] == run.clips("train")["video_id"].iloc[0]
    run.index.loc[moved, "split"] = "val"  # splits that are not nested
    with pytest.raises(StudyError, match="was trained on 1 clips"):
        run.build()


@pytest.mark.parametrize(
    ("changes", "seed", "problem"),
    [
        ({}, 0, "is missing: train the run first"),
        ({}, 9, r"study three has no run of 'small' with seed 9; its runs: small-s0, small-s4"),
        ({"start": "three/large"}, 4, "no run of 'large'"),
        ({"start": "four/small"}, 4, "there is no study 'four'"),
        ({"options": {**RECIPE["options"], "width": 24}}, 4, "starts from three/small-s4, but their options differ"),
    ],
)
def test_a_start_that_is_not_there_or_does_not_fit_is_one_line(other, changes, seed, problem):
    with pytest.raises(StudyError, match=problem) as error:
        other(seed=seed, **changes).build()
    assert "\n" not in str(error.value)


def test_the_place_of_a_run_is_a_study_and_a_name(recipes):
    recipes("bad", {**RECIPE, "start": "three"})
    with pytest.raises(StudyError, match="start"):
        read_recipe("bad")


def test_a_target_is_the_teachers_mean_opinion_and_the_gloss(source, study):
    run = open_run(study, "small-s4")
    poses, targets = run.batches("train", run.config.train, vary=True)[0]
    teach = lesson(run, [source, source], weight=0.75)
    opinion = softmax(numpy(source.trained()(poses)), axis=-1)
    taught = numpy(teach(poses, targets))
    np.testing.assert_allclose(taught, 0.75 * opinion + 0.25 * numpy(targets), atol=1e-5)
    np.testing.assert_allclose(taught.sum(-1), 1, atol=1e-5)


def test_a_distilled_run_trains_on_these_targets_and_is_validated_on_glosses(source, study, recipes):
    recipes("small", {**RECIPE, "distil": {"teachers": TEACHERS, "seeds": [4], "weight": 1.0}})
    run = open_run(study, "small-s0")
    train, val = (run.batches(split, run.config.train, vary=split == "train") for split in ("train", "val"))
    poses, targets = train[0]
    np.testing.assert_allclose(numpy(targets), softmax(numpy(source.trained()(poses)), axis=-1), atol=1e-5)
    assert set(np.unique(numpy(val[0][1]))) == {0, 1}
    assert run.train(run.build())["val_loss"].notna().all()


def test_a_model_of_videos_learns_from_teachers_that_see_the_poses_it_sees_drawn(source, study, recipes, monkeypatch):
    poses, draw = [], Pen.draw
    monkeypatch.setattr(Pen, "draw", lambda pen, clip, *more: poses.append(clip) or draw(pen, clip, *more))
    content = of_drawings("x3d-xs") | {"augment": {"rotation": 20, "splice": 0.5}}
    recipes("drawn", content | {"distil": {"teachers": TEACHERS, "seeds": [4], "weight": 1.0}})
    study.runs.append(RunSpec(recipe="drawn"))
    run = open_run(study, "drawn")
    _, targets = run.batches("train", run.config.train, vary=True)[0]
    np.testing.assert_allclose(targets, softmax(numpy(source.trained()(np.array(poses))), axis=-1), atol=1e-5)
    assert set(np.unique(run.batches("val", run.config.train, vary=False)[0][1])) == {0, 1}


def test_a_teacher_reads_poses_and_needs_torch(source, study, recipes, monkeypatch):
    recipes("drawn", of_drawings("x3d-xs"))
    study.runs.append(RunSpec(recipe="drawn"))
    with pytest.raises(StudyError, match="three/drawn is no model of poses"):
        lesson(source, [open_run(study, "drawn")], 0.5)
    monkeypatch.setattr("keras.backend.backend", lambda: "tensorflow")
    with pytest.raises(StudyError, match="set KERAS_BACKEND=torch"):
        lesson(source, [source], 0.5)


def distilled(study, recipes):
    """A run of "three" that learns from its other one."""
    recipes("small", {**RECIPE, "distil": {"teachers": TEACHERS, "seeds": [4]}})
    return open_run(study, "small-s0")


@pytest.fixture(params=["start", "distil"])
def made(request, other, study, recipes):
    """A function: open the run that starts or learns from small-s4 of "three", as a later session does."""
    return other if request.param == "start" else lambda: distilled(study, recipes)


def test_a_source_that_is_trained_anew_has_the_run_trained_anew(made, source, capsys):
    folder = made().open_folder("train")
    (folder / BEST).touch()
    assert (made().open_folder("train") / BEST).exists()
    capsys.readouterr()
    weights = source.folder / "train" / BEST
    weights.write_bytes(weights.read_bytes() + b" ")
    assert not (made().open_folder("train") / BEST).exists()
    assert "a source have changed; training starts from scratch" in capsys.readouterr().out


def test_a_run_trained_before_its_sources_were_noted_or_whose_source_is_not_here_is_kept(made, source):
    folder = made().open_folder("train")
    (folder / BEST).touch()
    identity = json.loads((folder / "run.json").read_text())
    assert identity.pop("sources") == {TEACHERS + "-s4": source.checksum()}
    (folder / "run.json").write_text(json.dumps(identity))
    assert (made().open_folder("train") / BEST).exists()
    weights = source.folder / "train" / BEST
    content = weights.read_bytes()
    weights.unlink()
    assert (made().open_folder("train") / BEST).exists()
    weights.write_bytes(content + b" ")  # trained anew elsewhere, and brought here
    assert not (made().open_folder("train") / BEST).exists()


def test_a_run_that_has_ended_needs_no_weights_of_its_source_and_one_that_has_not_does(made, source):
    def train():
        run = made()
        return run.train(run.build())

    history = train()
    (source.folder / "train" / BEST).unlink()
    pd.testing.assert_frame_equal(train(), history)
    made().folder.joinpath("train", "history.csv").unlink()
    with pytest.raises(StudyError, match="train the run first"):
        train()


def test_teachers_know_the_same_glosses(other, source):
    with pytest.raises(StudyError, match="three/small-s4 knows other glosses"):
        lesson(other(), [source], 0.5)


def test_find_seed_reads_the_same_data_root(source, study):
    found, name = find_seed(study, TEACHERS, 4)
    assert (found.name, found.root, name) == ("three", study.root, "small-s4")


def test_what_a_gpu_does_not_record_is_called(monkeypatch, capsys):
    class OnGpu:
        shape, is_cuda = (2,), True

        def clone(self):
            return self

    def refuse(*_):
        raise RuntimeError("CUDA error:\noperation failed")

    monkeypatch.setattr(Recorded, "_record", refuse)
    recorded = Recorded(lambda tensor: tensor.shape)
    assert [recorded(OnGpu()), recorded(OnGpu())] == [(2,), (2,)]
    assert capsys.readouterr().out.count("not recorded, so that the GPU waits for Python: CUDA error: operation") == 1


def test_the_step_that_a_gpu_records_is_keras_own_and_looks_at_no_value(study, monkeypatch):
    """On a CPU nothing is recorded, but the step is the same; what a recording forbids is caught here."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class NoLooking(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            assert "_local_scalar_dense" not in str(function)
            assert "lift_fresh" not in str(function)
            return function(*arguments, **(options or {}))

    def called(recorded, *arguments):
        with NoLooking():
            return recorded.function(*arguments)

    run = open_run(study, "small-s0")
    batch, results = run.batches("train", run.config.train, vary=True)[0], []
    for recorded in (False, True):
        model = run.build()
        model.compile(
            make_optimizer(run.config.train, 10), "categorical_crossentropy", metrics=["accuracy"], jit_compile=False
        )
        keras.utils.set_random_seed(1)
        step = recorded_step(model) if recorded else lambda data, model=model: model.train_step(data[0])
        step([batch])
        with monkeypatch.context() as patch, numbers_made_on_device():
            patch.setattr(Recorded, "__call__", called)
            logs = step([batch])
        results.append([*map(numpy, logs.values()), *model.get_weights()])
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
