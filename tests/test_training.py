"""Training: what each setting of a recipe does, which weights are kept, and going on after an interruption."""

import os
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from lib import training
from lib.data.augment import PoseAugment
from lib.data.layouts import LAYOUTS
from lib.data.loaders import PoseBatches
from lib.models import build
from lib.models.spobet import MaskedFrames
from lib.optimizers import RAdam, Schedule, make_optimizer
from lib.recipes import Training
from lib.training import Progress, computes_in_bfloat16, fit, patience_is_over, prepare

TINY = {
    "layout": "hands-42", "normalisation": "robust", "width": 8, "depth": 1, "heads": 2, "feed_forward": 16,
    "dropout": 0.2, "head_dropout": 0.2,
}  # fmt: skip
PLAIN = {"batch_size": 4, "epochs": 2, "learning_rate": 0.01}
CLASSES = 3


@pytest.fixture(autouse=True)
def float32_afterwards():
    """A recipe with mixed precision must not reach the other tests."""
    yield
    keras.config.set_dtype_policy("float32")


def clips_of(count, seed):
    """Clips that hold random joints, plus a place that says a little about the class."""
    rng = np.random.default_rng(seed)
    clips = [rng.random((frames, 42, 3), dtype=np.float32) for frames in rng.integers(3, 9, count)]
    for number, clip in enumerate(clips):
        clip[..., 2] = 1
        clip[:, :21, number % CLASSES % 2] += number % CLASSES
    return clips, np.arange(count) % CLASSES


def data_of(recipe, labels=True, count=10):
    clips, classes = clips_of(count, seed=1)
    seen, answers = clips_of(7, seed=2)
    # A variation that depends on the epoch, so that a resumed training must come back to it.
    form = {"max_frames": 8, "vary": PoseAugment(noise=0.2, splice=0.5), "layout": LAYOUTS["hands-42"], "seed": 5}
    train = PoseBatches(clips, classes if labels else None, CLASSES, recipe.batch_size, **form)
    return train, PoseBatches(seen, answers if labels else None, CLASSES, recipe.batch_size, max_frames=8)


def trained(folder, options=TINY, **settings):
    """Train a tiny SPOBET; the same settings always give the same weights. Returns model, history and val."""
    recipe = Training(**{**PLAIN, **settings})
    prepare(recipe, 3)
    model = build("spobet", CLASSES, **options)
    train, val = data_of(recipe)
    return model, fit(model, recipe, train, val, folder), val


def masked_frames():
    """A tiny SPOBET in pre-training, always with the same weights."""
    prepare(Training(), 3)
    masked = MaskedFrames(build("spobet", CLASSES, **TINY), share=0.4)
    masked(np.ones((1, 8, 42, 3), np.float32))
    return masked


def pretrained(folder, masked=None):
    """Pre-train for three epochs, with a rate so high that the last is not the best. Returns the history."""
    masked = masked_frames() if masked is None else masked
    recipe = Training(**PLAIN | {"epochs": 3, "learning_rate": 0.3, "schedule": "constant"})
    return fit(masked, recipe, *data_of(recipe, labels=False), folder, classify=False)


def weights_of(model):
    return np.concatenate([np.ravel(weight) for weight in model.get_weights()])


def same_history(one, other):
    columns = one.columns.drop("seconds")
    assert list(one.columns) == list(other.columns)
    np.testing.assert_allclose(one[columns], other[columns], atol=1e-5)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Weights and history of the plain recipe, to compare with."""
    model, history, _ = trained(tmp_path_factory.mktemp("plain"))
    return weights_of(model), history


# ---- the recipe ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"learning_rte": 0.1}, "learning_rte"),
        ({"epochs": "many"}, "epochs"),
        ({"epochs": 1.5}, "epochs"),
        ({"epochs": 0}, "epochs"),
        ({"optimizer": "sgd"}, "optimizer"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"warmup": 1}, "warmup"),
        ({"average": 1}, "average"),
        ({"label_smoothing": None}, "label_smoothing"),
        ({"mixed_precision": "perhaps"}, "mixed_precision"),
    ],
)
def test_unknown_setting_or_wrong_value_is_an_error_that_names_it(settings, key):
    with pytest.raises(ValidationError) as error:
        Training(**settings)
    assert [problem["loc"] for problem in error.value.errors()] == [(key,)]


CHANGES = {
    "optimizer": ["radam", "rmsprop"],
    "learning_rate": [0.02],
    "final_learning_rate": [0.005],
    "warmup": [0.5],
    "schedule": ["constant", "linear"],
    "weight_decay": [0.5],
    "clip_norm": [0.01],
    "label_smoothing": [0.2],
    "average": [0.5],
    "batch_size": [5],
    "epochs": [3],
    "mixed_precision": [True],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in CHANGES for value in CHANGES[field]])
def test_every_field_of_the_recipe_changes_training(tmp_path, plain, field, value, monkeypatch):
    monkeypatch.setattr(training, "computes_in_bfloat16", lambda: True)
    model, _, _ = trained(tmp_path, **{field: value})
    assert np.abs(weights_of(model) - plain[0]).max() > 1e-5


def test_adamw_without_decay_is_adam_and_decay_with_another_optimiser_is_refused(tmp_path, plain):
    model, _, _ = trained(tmp_path, optimizer="adam")
    np.testing.assert_allclose(weights_of(model), plain[0], atol=1e-6)
    with pytest.raises(ValidationError, match="weight_decay needs the optimizer adamw, not adam"):
        Training(optimizer="adam", weight_decay=0.1)


def test_no_field_of_the_recipe_is_left_untested():
    assert CHANGES.keys() | {"early_stopping", "validate_every", "momentum", "epsilon"} == Training.model_fields.keys()


@pytest.mark.parametrize(("field", "value"), [("momentum", 0.9), ("epsilon", 1.0)])
def test_momentum_and_epsilon_of_rmsprop_change_training_and_are_refused_elsewhere(tmp_path, field, value):
    without, with_it = (
        weights_of(trained(tmp_path / str(len(settings)), optimizer="rmsprop", **settings)[0])
        for settings in ({}, {field: value})
    )
    assert np.abs(with_it - without).max() > 1e-5
    with pytest.raises(ValidationError, match=f"{field} needs the optimizer rmsprop, not adamw"):
        Training(**{field: value})


def test_the_same_recipe_and_seed_give_the_same_weights(tmp_path, plain):
    model, history, _ = trained(tmp_path)
    np.testing.assert_allclose(weights_of(model), plain[0], atol=1e-6)
    same_history(history, plain[1])


def test_mixed_precision_computes_in_bfloat16_and_keeps_weights_features_and_logits_in_float32(monkeypatch):
    monkeypatch.setattr(training, "computes_in_bfloat16", lambda: True)
    prepare(Training(mixed_precision=True), 0)
    model = build("spobet", CLASSES, **TINY)
    assert model.encoder.embed.compute_dtype == "bfloat16"
    assert model.features.compute_dtype == model.head.compute_dtype == "float32"
    assert {weight.dtype for weight in model.trainable_variables} == {"float32"}
    prepare(Training(), 0)
    assert build("spobet", CLASSES, **TINY).encoder.embed.compute_dtype == "float32"


@pytest.mark.parametrize(("gpu", "policy"), [(True, "mixed_bfloat16"), (False, "float32")])
def test_mixed_precision_is_left_out_where_it_would_be_slow(gpu, policy, monkeypatch):
    monkeypatch.setattr(training, "computes_in_bfloat16", lambda: False)
    monkeypatch.setattr(training, "has_gpu", lambda: gpu)
    prepare(Training(mixed_precision=True), 0)
    assert keras.config.dtype_policy().name == policy


@pytest.mark.parametrize(
    ("flags", "fast"),
    [("fpu sse2 avx512_bf16", True), ("fpu amx_bf16 amx_tile", True), ("fp asimd bf16 i8mm", True), ("avx512f", False)],
)
def test_a_processor_that_computes_in_bfloat16_is_known_by_its_flags(flags, fast, tmp_path, monkeypatch):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    info = tmp_path / "cpuinfo"
    assert not computes_in_bfloat16(info)
    info.write_text(f"model name\t: Some Processor\nflags\t\t: {flags}\n")
    assert computes_in_bfloat16(info) == fast
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert not computes_in_bfloat16(info)


# ---- learning rate and optimisers ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "middle"), [("constant", 1.0), ("linear", (1.0 + 0.1) / 2), ("cosine", (1.0 + 0.1) / 2)]
)
def test_learning_rate_rises_in_warm_up_and_falls_to_the_final_rate(schedule, middle):
    recipe = Training(learning_rate=1.0, final_learning_rate=0.1, warmup=0.1, schedule=schedule)
    rate = Schedule(recipe, steps=100)
    assert float(rate(0)) == pytest.approx(0.1)
    assert float(rate(4)) == pytest.approx(0.5)
    assert float(rate(9)) == pytest.approx(1.0)
    assert float(rate(10)) == pytest.approx(1.0)
    assert float(rate(55)) == pytest.approx(middle)
    assert float(rate(100)) == pytest.approx(1.0 if schedule == "constant" else 0.1)
    assert float(rate(500)) == float(rate(100))


def test_cosine_falls_slowly_at_first_and_linear_evenly():
    def quarter(schedule):
        return float(Schedule(Training(learning_rate=1.0, schedule=schedule), steps=100)(25))

    assert quarter("linear") == pytest.approx(0.75)
    assert quarter("cosine") == pytest.approx((1 + np.cos(np.pi / 4)) / 2, abs=1e-6)


def test_without_warm_up_the_first_step_has_the_full_rate():
    assert float(Schedule(Training(learning_rate=0.3), steps=10)(0)) == pytest.approx(0.3)


def test_radam_steps_as_torchs_own_before_and_after_the_variance_is_known():
    start, target = np.array([3.0, -2.0, 0.5], np.float32), np.array([1.0, 1.0, -1.0], np.float32)
    ours, theirs = keras.Variable(start), torch.nn.Parameter(torch.tensor(start))
    optimizer, reference = RAdam(0.03, epsilon=1e-8), torch.optim.RAdam([theirs], lr=0.03, eps=1e-8)
    path = []  # in float32 rho is a small difference of large numbers: good to 1e-4 here, where a step is about 0.05
    for _ in range(20):
        optimizer.apply([2 * (ours.value.detach() - torch.tensor(target))], [ours])
        theirs.grad = 2 * (theirs.detach() - torch.tensor(target))
        reference.step()
        np.testing.assert_allclose(keras.ops.convert_to_numpy(ours), theirs.detach().numpy(), atol=1e-4)
        path.append(theirs.detach().numpy().copy())
    assert np.abs(path[4] - start).max() > 0.1  # moved while rho <= 5
    assert np.abs(path[19] - path[5]).max() > 0.01  # and afterwards


CLIPPED = {"clip_norm": 1.0, "average": 0.7}
OPTIMIZERS = [
    ({"optimizer": "adam"}, keras.optimizers.Adam),
    ({"optimizer": "adamw", "weight_decay": 0.3, **CLIPPED}, keras.optimizers.AdamW),
    ({"optimizer": "adamw", "weight_decay": 0.0}, keras.optimizers.AdamW),
    ({"optimizer": "rmsprop", "momentum": 0.9, "epsilon": 1.0, **CLIPPED}, keras.optimizers.RMSprop),
    ({"optimizer": "rmsprop"}, keras.optimizers.RMSprop),
]


@pytest.mark.parametrize(("settings", "peer"), OPTIMIZERS)
def test_optimisers_step_as_those_of_keras(settings, peer, monkeypatch):
    """Also where axes lie in memory in another order than they are counted, in weights and in gradients."""

    def steps():
        rng = np.random.default_rng(0)
        shapes = {"kernel": (3, 4), "bias": (5,), "turned_kernel": (2, 3, 4)}
        weights = [keras.Variable(rng.normal(size=s).astype(np.float32), name=n) for n, s in shapes.items()]
        weights[2].value.data = weights[2].value.data.permute(2, 0, 1).contiguous().permute(1, 2, 0)
        optimizer = make_optimizer(Training(learning_rate=0.1, **settings), steps=10)
        optimizer.build(weights)
        for _ in range(7):
            grads = [torch.tensor(3 * rng.normal(size=w.shape[::-1]).astype(np.float32)) for w in weights]
            with torch.no_grad():
                optimizer.apply([grad.permute(*range(grad.ndim)[::-1]) for grad in grads], weights)
        averages = optimizer._model_variables_moving_average if settings.get("average") else []
        return type(optimizer), [keras.ops.convert_to_numpy(value) for value in [*weights, *averages]]

    kind, ours = steps()
    monkeypatch.setattr("lib.optimizers._classes", lambda: {settings["optimizer"]: peer})
    peers, theirs = steps()
    assert kind.__module__ == "lib.optimizers"
    assert issubclass(peers, peer)
    assert peers is not kind
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_weight_decay_shrinks_matrices_and_leaves_biases_norms_and_embeddings():
    prepare(Training(), 0)
    model = build("spobet", CLASSES, **TINY, positions=True)
    optimizer = make_optimizer(Training(learning_rate=0.1, weight_decay=0.5, schedule="constant"), steps=10)
    for weight in model.trainable_variables:
        weight.assign(keras.ops.ones(weight.shape))
    gradients = [keras.ops.zeros(weight.shape) for weight in model.trainable_variables]
    optimizer.apply(gradients, model.trainable_variables)
    value = {weight.path: keras.ops.convert_to_numpy(weight).mean() for weight in model.trainable_variables}
    spared = {path for path in value if path.split("/")[-1] in ("bias", "gamma", "beta", "embeddings")}
    assert {path.split("/")[-1] for path in spared} == {"bias", "gamma", "beta", "embeddings"}
    assert len(value) > len(spared)
    for path, mean in value.items():
        assert mean == pytest.approx(1.0 if path in spared else 1 - 0.1 * 0.5), path


# ---- history, best weights, early stopping -------------------------------------------------------------


@pytest.fixture(scope="module", params=[None, 0.7], ids=["plain", "averaged"])
def longer(request, tmp_path_factory):
    """Model, history, val and folder of six epochs, without and with moving average."""
    folder = tmp_path_factory.mktemp("longer")
    return *trained(folder, epochs=6, learning_rate=0.05, schedule="linear", average=request.param), folder


def test_history_has_the_columns_of_the_contract_and_the_schedules_rates(longer):
    _, history, _, folder = longer
    columns = ["accuracy", "epoch", "learning_rate", "loss", "seconds", "val_accuracy", "val_loss"]
    assert sorted(history.columns) == columns
    assert history["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(history["learning_rate"], np.linspace(0.05, 0, 7)[1:], atol=1e-7)
    assert (history["seconds"] > 0).all()
    pd.testing.assert_frame_equal(history, pd.read_csv(folder / "history.csv"))


def test_weights_left_in_the_model_are_those_of_the_best_validation_accuracy(longer):
    model, history, val, _ = longer
    best = history.loc[history["val_accuracy"].idxmax()]
    assert best["val_accuracy"] > history["val_accuracy"].min()  # so the test can fail
    loss, accuracy = model.evaluate(val, verbose=0)
    assert accuracy == pytest.approx(best["val_accuracy"])
    assert loss == pytest.approx(best["val_loss"], abs=1e-5)


def test_training_learns(longer):
    _, history, _, _ = longer
    assert history["loss"].iloc[-1] < 0.8 * history["loss"].iloc[0]


@pytest.mark.parametrize(
    ("monitor", "past", "worse", "better"),
    [("val_accuracy", [0.5, 0.9, 0.6], 0.9, 0.95), ("val_loss", [0.5, 0.2, 0.3], 0.25, 0.1)],
)
def test_best_weights_of_an_interrupted_training_are_replaced_by_better_ones_only(
    tmp_path, monitor, past, worse, better
):
    metric, path = monitor.removeprefix("val_"), tmp_path / "best.weights.h5"
    pd.DataFrame({"epoch": [1, 2, 3, 4], monitor: [*past, better]}).to_csv(tmp_path / "history.csv", index=False)
    progress = Progress(Training(), None, tmp_path, monitor, epoch=3)  # the checkpoint of epoch 4 was not written
    progress.set_model(build("spobet", CLASSES, **TINY))
    progress.on_test_end({metric: worse})
    assert not path.exists()
    progress.on_test_end({metric: better})
    assert path.exists()
    path.unlink()
    progress.on_test_end({metric: better})
    assert not path.exists()


@pytest.mark.parametrize(
    ("monitor", "values", "patience", "over"),
    [
        ("val_accuracy", [0.5, 0.4, 0.5], 2, True),
        ("val_accuracy", [0.5, 0.4, 0.6], 2, False),
        ("val_accuracy", [0.5, 0.4], 2, False),
        ("val_accuracy", [0.5, 0.4, 0.3], None, False),
        ("val_loss", [0.5, 0.6, 0.7], 2, True),
        ("val_loss", [0.5, 0.4, 0.3], 2, False),
        ("val_loss", [], 1, False),
    ],
)
def test_patience_ends_when_the_best_epoch_is_too_long_ago(monitor, values, patience, over):
    assert patience_is_over(pd.DataFrame({monitor: values}), monitor, patience) is over


def test_early_stopping_ends_earlier_and_a_second_start_trains_no_further(tmp_path):
    settings = {"epochs": 30, "early_stopping": 2, "learning_rate": 0.05}
    model, history, _ = trained(tmp_path, **settings)
    assert len(history) < 30
    assert len(history) - 1 - history["val_accuracy"].idxmax() == 2
    again, longer, _ = trained(tmp_path, **settings)
    assert len(longer) == len(history)
    np.testing.assert_array_equal(weights_of(again), weights_of(model))


def test_pretraining_keeps_the_weights_of_the_lowest_validation_loss(tmp_path):
    masked = masked_frames()
    history = pretrained(tmp_path, masked)
    assert sorted(history.columns) == ["epoch", "learning_rate", "loss", "seconds", "val_loss"]
    last = keras.ops.convert_to_numpy(masked.decoder.kernel).copy()
    masked.load_weights(tmp_path / "best.weights.h5")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(masked.decoder.kernel), last)
    assert history["val_loss"].idxmin() != 2  # so that the best is not simply the last
    masked.load_weights(tmp_path / "last.weights.h5")
    assert np.abs(keras.ops.convert_to_numpy(masked.decoder.kernel) - last).max() > 1e-3


def test_a_loss_that_is_no_number_stops_training_with_an_error(tmp_path):
    recipe = Training(**PLAIN)
    prepare(recipe, 3)
    model = build("spobet", CLASSES, **TINY)
    train, val = data_of(recipe)
    train.augmented.clips.frames[0, 0, 0] = np.nan
    with pytest.raises(RuntimeError, match="NaN"):
        fit(model, recipe, train, val, tmp_path)


# ---- going on after an interruption --------------------------------------------------------------------

WHOLE = {
    "options": {**TINY, "convolutions": 1, "kernel": 3}, "epochs": 4, "average": 0.7, "early_stopping": 9,
    "warmup": 0.2, "optimizer": "adamw",
}  # fmt: skip


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Weights and history of a training that nothing interrupted."""
    model, history, _ = trained(tmp_path_factory.mktemp("unbroken"), **WHOLE)
    return weights_of(model), history


def assert_goes_on_as_unbroken(folder, unbroken):
    keras.utils.set_random_seed(99)  # nothing may hang on what the interrupted process had drawn
    model, history, val = trained(folder, **WHOLE)
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    same_history(history, unbroken[1])
    np.testing.assert_allclose(weights_of(model), unbroken[0], atol=1e-5)
    assert model.evaluate(val, verbose=0)[1] == pytest.approx(history["val_accuracy"].max())


@pytest.fixture
def interrupt(monkeypatch):
    """Call a function that is interrupted as it reads training batch number `batch`, from 0 on."""

    def interrupt(batch, function, *arguments, **options):
        read, numbers = PoseBatches.__getitem__, iter(range(1000))

        def interrupted(self, number):
            if self.vary is not None and next(numbers) == batch:
                raise KeyboardInterrupt
            return read(self, number)

        with monkeypatch.context() as patch:
            patch.setattr(PoseBatches, "__getitem__", interrupted)
            with pytest.raises(KeyboardInterrupt):
                function(*arguments, **options)

    return interrupt


@pytest.mark.parametrize("batch", [3, 8])
def test_a_training_killed_in_any_batch_goes_on_as_if_unbroken(tmp_path, interrupt, unbroken, batch):
    interrupt(batch, trained, tmp_path, **WHOLE)
    assert_goes_on_as_unbroken(tmp_path, unbroken)


ON_TENSORFLOW = """
import sys, keras, numpy as np
from pathlib import Path
from lib.training import Training, fit, prepare

class Numbers(keras.utils.PyDataset):
    on_gpu = False
    seed, epoch = 5, 0
    def __len__(self): return 3
    def set_epoch(self, epoch): self.epoch = epoch
    def __getitem__(self, number):
        rng = np.random.default_rng([self.epoch, number])
        return rng.random((4, 8), np.float32), np.eye(3, dtype=np.float32)[rng.integers(3, size=4)]

def train(folder, until=None):
    recipe = Training(epochs=4, learning_rate=.05)
    prepare(recipe, 1)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dropout(.5), keras.layers.Dense(3)])
    keras.utils.set_random_seed(99 if until is None else 1)  # nothing may hang on what a process had drawn before
    return fit(model, recipe, Numbers(), Numbers(), Path(folder), until=until).drop(columns="seconds")

assert keras.backend.backend() == "tensorflow"
train("again", until=2)
np.testing.assert_allclose(train("again"), train("whole"), rtol=1e-5)
"""


def test_on_tensorflow_too_dropout_goes_on_as_in_an_unbroken_training(tmp_path):
    environment = os.environ | {"KERAS_BACKEND": "tensorflow"}
    command = [sys.executable, "-c", ON_TENSORFLOW]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_pretraining_goes_on_with_the_masks_it_would_have_drawn(tmp_path, interrupt):
    whole, again = pretrained(tmp_path / "whole"), tmp_path / "again"
    interrupt(8, pretrained, again)
    keras.utils.set_random_seed(99)
    same_history(pretrained(again), whole)


# Saved in turn: best and last of epoch 1, last of epochs 2 and 3, best and last of epoch 4.
@pytest.mark.parametrize("written", ["half", "all"])
@pytest.mark.parametrize("save", [2, 3, 5])
def test_a_training_killed_while_it_saves_goes_on_as_if_unbroken(tmp_path, monkeypatch, unbroken, save, written):
    whole, saves = keras.Model.save_weights, iter(range(1, 100))

    def interrupted(self, filepath, **options):
        stop = next(saves) == save
        whole(self, filepath, **options)
        if stop:
            if written == "half":
                os.truncate(filepath, 1000)
            raise KeyboardInterrupt

    monkeypatch.setattr(keras.Model, "save_weights", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, **WHOLE)
    monkeypatch.undo()
    assert_goes_on_as_unbroken(tmp_path, unbroken)


def test_a_finished_training_is_not_trained_again(tmp_path, unbroken):
    trained(tmp_path, **WHOLE)
    before = (tmp_path / "history.csv").read_text()
    model, _, _ = trained(tmp_path, **WHOLE)
    assert (tmp_path / "history.csv").read_text() == before
    np.testing.assert_allclose(weights_of(model), unbroken[0], atol=1e-5)


def test_of_a_finished_training_the_best_weights_are_enough(tmp_path, unbroken):
    trained(tmp_path, **WHOLE)
    (tmp_path / training.LAST).unlink()
    model, history, _ = trained(tmp_path, **WHOLE)
    same_history(history, unbroken[1])
    np.testing.assert_allclose(weights_of(model), unbroken[0], atol=1e-5)


def test_a_training_is_validated_and_saved_every_so_many_epochs_and_at_the_end(tmp_path):
    often = trained(tmp_path / "often", epochs=5)[1]
    model, seldom, val = trained(tmp_path / "seldom", epochs=5, validate_every=2)
    assert seldom["val_accuracy"].notna().tolist() == [False, True, False, True, True]
    np.testing.assert_allclose(seldom["loss"], often["loss"], rtol=1e-4)
    best = often["val_accuracy"].iloc[[1, 3, 4]].max()
    assert model.evaluate(val, verbose=0, return_dict=True)["accuracy"] == pytest.approx(best)


def test_a_training_killed_between_two_validations_goes_on_from_the_first(tmp_path, monkeypatch):
    whole = trained(tmp_path / "whole", epochs=5, validate_every=2)[1]
    begin = Progress.on_epoch_begin

    def kill(self, epoch, logs=None):
        begin(self, epoch, logs)
        if epoch == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "on_epoch_begin", kill)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "killed", epochs=5, validate_every=2)
    monkeypatch.undo()
    same_history(trained(tmp_path / "killed", epochs=5, validate_every=2)[1], whole)
