"""How a model is trained: a recipe as data, and one `fit` for every model of the study."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from lib.paths import replacing
from lib.recipes import Training

NOT_DECAYED = ["bias", "gamma", "beta", "embedding"]  # weight decay is for the matrices alone
REPORTS = 20  # lines of progress that a training prints
DRAWS = 1 << 16  # more than the random draws of one layer in one epoch
BEST, LAST = "best.weights.h5", "last.weights.h5"
BFLOAT16 = ("amx_bf16", "avx512_bf16", " bf16")  # flags of x86 processors, and of Arm's
SIGNS = {"val_accuracy": 1, "val_loss": -1}  # higher is better, lower is better


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0, then constant, or falling along a line or half a cosine to the final rate."""

    def __init__(self, recipe: Training, steps: int) -> None:
        """Spread the recipe's schedule over `steps` batches."""
        self.recipe, self.steps = recipe, steps
        self.warmup = math.ceil(recipe.warmup * steps)

    def __call__(self, step: Any) -> Any:
        """Learning rate at a step, counted from 0."""
        step = ops.cast(step, "float32")
        share = ops.clip((step - self.warmup) / max(self.steps - self.warmup, 1), 0.0, 1.0)
        falls = {
            "constant": lambda: ops.ones_like(share),
            "linear": lambda: 1 - share,
            "cosine": lambda: (1 + ops.cos(np.pi * share)) / 2,
        }
        high, low = self.recipe.learning_rate, self.recipe.final_learning_rate
        after = low + (high - low) * falls[self.recipe.schedule]()
        return ops.where(step < self.warmup, high * (step + 1) / max(self.warmup, 1), after)


class RAdam(keras.optimizers.Adam):
    """Rectified Adam (Liu et al. 2020, algorithm 2), which keras lacks; the published SPOBET trains with it."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Adam's step times the rectification; plain momentum while the variance is not yet known (rho <= 5)."""
        step = ops.cast(self.iterations + 1, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        index = self._get_variable_index(variable)
        m, v = self._momentums[index], self._velocities[index]
        self.assign_add(m, (gradient - m) * (1 - self.beta_1))
        self.assign_add(v, (gradient**2 - v) * (1 - self.beta_2))
        known = -ops.expm1(step * math.log(self.beta_2))  # 1 - beta_2 ** step, exact enough to tell rho from 5
        longest = 2 / (1 - self.beta_2) - 1
        rho = longest - 2 * step * (1 - known) / known
        safe = ops.maximum(rho, 5.0)
        rectify = ops.sqrt(((safe - 4) * (safe - 2) * longest) / ((longest - 4) * (longest - 2) * safe))
        adaptive = rectify * ops.sqrt(known) / (ops.sqrt(v) + self.epsilon)
        momentum = m / (1 - ops.power(ops.cast(self.beta_1, variable.dtype), step))
        scale = ops.where(rho > 5.0, adaptive, ops.ones_like(v))
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * momentum * scale)


def prepare(recipe: Training, seed: int) -> None:
    """Set what must stand before a model is built: the seed of weights and dropout, and the precision.

    Mixed precision is left out where it would slow the training down (S3D's step takes 1.2 x as long on a processor
    that has to imitate bfloat16, and a quarter on one that computes in it).
    """
    keras.utils.set_random_seed(seed)
    mixed = recipe.mixed_precision and (has_gpu() or computes_in_bfloat16())
    keras.config.set_dtype_policy("mixed_bfloat16" if mixed else "float32")


def has_gpu() -> bool:
    """Whether the backend in use has a GPU."""
    if keras.backend.backend() == "torch":
        import torch

        return torch.cuda.is_available()
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def computes_in_bfloat16(info: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether Linux says that the processor has instructions for products in bfloat16; elsewhere no."""
    return info.exists() and any(name in info.read_text() for name in BFLOAT16)


def compute_in_float32(model: keras.Model) -> None:
    """Have a model compute in float32 from now on, whatever precision it was built for; its weights are float32."""
    for layer in model._flatten_layers():  # keras knows no public way to all layers within layers
        layer.dtype_policy = "float32"


def make_optimizer(recipe: Training, steps: int) -> keras.optimizers.Optimizer:
    """Make the recipe's optimiser for a training of `steps` batches."""
    common = {
        "learning_rate": Schedule(recipe, steps),
        "global_clipnorm": recipe.clip_norm,
        "use_ema": recipe.average is not None,
        "ema_momentum": recipe.average or 0.99,
    }
    if recipe.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(weight_decay=recipe.weight_decay, **common)
        optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
        return optimizer
    if recipe.optimizer == "rmsprop":
        return keras.optimizers.RMSprop(momentum=recipe.momentum, epsilon=recipe.epsilon, **common)
    kinds = {"adam": keras.optimizers.Adam, "radam": RAdam}
    return kinds[recipe.optimizer](**common)


def fit(
    model: keras.Model,
    recipe: Training,
    train: keras.utils.PyDataset,
    val: keras.utils.PyDataset,
    folder: Path,
    *,
    classify: bool = True,
    until: int | None = None,
) -> pd.DataFrame:
    """Train a built model, going on where an interrupted training in the same folder stopped.

    With `until` it pauses after so many of the recipe's epochs, without changing what the recipe says of the learning
    rate: paused or not, the training is the same.

    `train` needs `set_epoch` and `seed`. With `classify` the model's logits are trained on one-hot labels, and the best
    checkpoint is the one of highest validation accuracy; without, the model adds its own loss, and the lowest
    validation loss is best. Leaves the best weights in the model.
    Writes to `folder`: best.weights.h5 and last.weights.h5 (weights, optimiser), history.csv, tensorboard/.
    Returns the history, one row per epoch: epoch, loss, accuracy, val_loss, val_accuracy, learning_rate, seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing)
    model.compile(
        make_optimizer(recipe, recipe.epochs * len(train)),
        loss=loss if classify else None,
        metrics=["accuracy"] if classify else None,
        jit_compile=False,  # XLA took nine times as long for a step of MoViNet on a processor
    )
    monitor = "val_accuracy" if classify else "val_loss"
    epoch = resume(model, folder / LAST, len(train))
    if not patience_is_over(read_history(folder / "history.csv"), monitor, recipe.early_stopping):
        model.fit(
            feed(train),
            validation_data=feed(val),
            initial_epoch=epoch,
            epochs=min(until or recipe.epochs, recipe.epochs),
            callbacks=make_callbacks(recipe, train, folder, monitor, epoch),
            verbose=0,
            shuffle=False,  # the batches know their order
        )
    model.load_weights(folder / BEST)
    return read_history(folder / "history.csv")


def resume(model: keras.Model, path: Path, steps: int) -> int:
    """Load the weights and the optimiser that `KeepLast` saved, if it did. Returns how many epochs they have seen.

    One file holds all, written in one step (keras' BackupAndRestore, killed between its two, repeats an epoch).
    """
    model.optimizer.build(model.trainable_variables)
    if path.exists():
        model.load_weights(path)
    return int(ops.convert_to_numpy(model.optimizer.iterations)) // steps


def feed(batches: keras.utils.PyDataset) -> Any:
    """What `model.fit` reads; for TensorFlow a tf.data.Dataset that leaves the number of frames of poses (axis 1) open.

    By itself keras tells TensorFlow that all batches have the axes on which the first two agree.
    """
    if keras.backend.backend() != "tensorflow":
        return batches
    import tensorflow as tf

    shapes = [(None, None, *array.shape[2:]) if array.ndim == 4 else (None, *array.shape[1:]) for array in batches[0]]
    data = tf.data.Dataset.from_generator(
        lambda: (batches[i] for i in range(len(batches))),
        output_signature=tuple(tf.TensorSpec(shape, tf.float32) for shape in shapes),
    )
    return data.apply(tf.data.experimental.assert_cardinality(len(batches)))


def make_callbacks(
    recipe: Training, train: Any, folder: Path, monitor: str, epoch: int
) -> list[keras.callbacks.Callback]:
    """What happens around the epochs of a training that goes on after `epoch` epochs. The order matters.

    The best weights are kept as the validation ends, while their moving average still stands in for those in
    training. Then comes the row of the history, and last what a later training goes on from: killed between any
    two of these, it lives through the epoch again and nothing is lost.
    """
    history = read_history(folder / "history.csv")
    past = history[history["epoch"] <= epoch]
    callbacks = [FollowEpoch(train), KeepBest(folder / BEST, monitor, past)]
    if recipe.average is not None:
        callbacks.append(keras.callbacks.SwapEMAWeights())
    callbacks += [
        keras.callbacks.TerminateOnNaN(raise_error=True),
        Log(folder / "history.csv", past, recipe.epochs),
        keras.callbacks.TensorBoard(
            str(folder / "tensorboard"), write_graph=False
        ),  # a MoViNet has too many nodes to look at
    ]
    if recipe.early_stopping is not None:
        callbacks.append(StopEarly(folder / "history.csv", monitor, recipe.early_stopping))
    return [*callbacks, KeepLast(folder / LAST)]


class FollowEpoch(keras.callbacks.Callback):
    """Begin each epoch with that epoch's batches and random numbers, so that a resumed training is an unbroken one."""

    def __init__(self, data: Any) -> None:
        super().__init__()
        self.data = data

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Dropout draws from the framework's own generator (torch), or from a seed and a count of draws.

        TensorFlow's generator, which nothing draws from, is left alone: to seed it anew makes TensorFlow compile the
        step again (ten seconds for a MoViNet, every epoch).
        """
        self.data.set_epoch(epoch)
        if keras.backend.backend() == "torch":
            import torch

            torch.manual_seed(int(np.random.SeedSequence([self.data.seed, epoch]).generate_state(1)[0]))
        for state in self.model.variables:
            if state.name == "seed_generator_state":
                state.assign([int(state[0]), epoch * DRAWS])


class KeepBest(keras.callbacks.Callback):
    """Save the weights whenever a validation is better than all before it, also those before an interruption."""

    def __init__(self, path: Path, monitor: str, past: pd.DataFrame) -> None:
        super().__init__()
        self.path, self.metric, self.sign = path, monitor.removeprefix("val_"), SIGNS[monitor]
        self.best = max(self.sign * past[monitor], default=-math.inf)

    def on_test_end(self, logs: dict | None = None) -> None:
        """Judge the validation that ends."""
        value = self.sign * logs[self.metric]
        if value > self.best:
            self.best = value
            save_weights(self.model, self.path)


class KeepLast(keras.callbacks.Callback):
    """Save what `resume` goes on from."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """The epoch is over; a kill before this one is finished repeats it."""
        save_weights(self.model, self.path)


def save_weights(model: keras.Model, path: Path) -> None:
    """Write the weights and the optimiser's state to `path` in one step."""
    with replacing(path) as partial:
        model.save_weights(partial)


class Log(keras.callbacks.Callback):
    """Write one CSV row for each epoch, and print about twenty lines of progress in a training."""

    def __init__(self, path: Path, past: pd.DataFrame, epochs: int) -> None:
        super().__init__()
        self.path, self.rows, self.epochs = path, past.to_dict("records"), epochs
        self.every = max(1, epochs // REPORTS)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Append the row; the time of validation is in it."""
        logs["learning_rate"] = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row = {"epoch": epoch + 1, **logs, "seconds": time.perf_counter() - self.start}
        self.rows.append(row)
        rows = pd.DataFrame(self.rows)
        with replacing(self.path) as partial:
            rows.to_csv(partial, index=False)
        if (epoch + 1) % self.every == 0 or epoch + 1 == self.epochs:
            left = (self.epochs - epoch - 1) * rows["seconds"].tail(5).mean()
            values = "  ".join(f"{name} {row[name]:.4f}" for name in rows if name not in ("epoch", "seconds"))
            print(f"epoch {epoch + 1}/{self.epochs}  {values}  {left / 60:.1f} min left", flush=True)


class StopEarly(keras.callbacks.Callback):
    """Stop when the history's best epoch is too long ago."""

    def __init__(self, history: Path, monitor: str, patience: int) -> None:
        super().__init__()
        self.history, self.monitor, self.patience = history, monitor, patience

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Runs after Log has written the epoch's row."""
        self.model.stop_training = patience_is_over(read_history(self.history), self.monitor, self.patience)


def patience_is_over(history: pd.DataFrame, monitor: str, patience: int | None) -> bool:
    """Whether the last `patience` epochs (None: any number) were no better than the best one before them."""
    if patience is None or history.empty:
        return False
    return len(history) - 1 - int((SIGNS[monitor] * history[monitor]).to_numpy().argmax()) >= patience


def read_history(path: Path) -> pd.DataFrame:
    """Read a history.csv; before the first epoch it is empty, with the two columns that decide the best epoch."""
    if path.exists():
        return pd.read_csv(path)
    return pd.DataFrame(columns=["epoch", "val_accuracy", "val_loss"])
