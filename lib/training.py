"""How a model is trained: a recipe as data, and one `fit` for every model of the study."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import pandas as pd
from keras import ops
from pydantic import BaseModel, ConfigDict, Field

NOT_DECAYED = ["bias", "gamma", "beta", "embedding"]  # weight decay is for the matrices alone
REPORTS = 20  # lines of progress that a training prints


class Recipe(BaseModel):
    """Everything about training that is not the model or the data. One step is one batch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    optimizer: Literal["adam", "adamw", "radam", "rmsprop"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0, description="the highest, after warm-up")
    final_learning_rate: float = Field(0.0, ge=0, description="at the last step")
    warmup: float = Field(0.0, ge=0, lt=1, description="share of all steps with a linear rise from 0")
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    weight_decay: float = Field(0.0, ge=0, description="decoupled (adamw)")
    clip_norm: float | None = Field(None, gt=0, description="largest norm of all gradients together")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    average: float | None = Field(None, gt=0, lt=1, description="momentum of the moving average of the weights")
    batch_size: int = Field(32, ge=1)
    epochs: int = Field(50, ge=1)
    early_stopping: int | None = Field(None, ge=1, description="epochs without a better validation value")
    mixed_precision: bool = Field(False, description="bfloat16 where keras deems it safe; weights stay float32")


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0, then constant, or falling along a line or half a cosine to the final rate."""

    def __init__(self, recipe: Recipe, steps: int) -> None:
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
        decay = ops.power(ops.cast(self.beta_2, variable.dtype), step)
        longest = 2 / (1 - self.beta_2) - 1
        rho = longest - 2 * step * decay / (1 - decay)
        safe = ops.maximum(rho, 5.0)
        rectify = ops.sqrt(((safe - 4) * (safe - 2) * longest) / ((longest - 4) * (longest - 2) * safe))
        adaptive = rectify * ops.sqrt(1 - decay) / (ops.sqrt(v) + self.epsilon)
        momentum = m / (1 - ops.power(ops.cast(self.beta_1, variable.dtype), step))
        scale = ops.where(rho > 5.0, adaptive, ops.ones_like(v))
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * momentum * scale)


def prepare(recipe: Recipe, seed: int) -> None:
    """Set what must stand before a model is built: the seed of weights and dropout, and the precision."""
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy("mixed_bfloat16" if recipe.mixed_precision else "float32")


def make_optimizer(recipe: Recipe, steps: int) -> keras.optimizers.Optimizer:
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
    kinds = {"adam": keras.optimizers.Adam, "radam": RAdam, "rmsprop": keras.optimizers.RMSprop}
    return kinds[recipe.optimizer](**common)


def fit(
    model: keras.Model,
    recipe: Recipe,
    train: keras.utils.PyDataset,
    val: keras.utils.PyDataset,
    folder: Path,
    *,
    classify: bool = True,
) -> pd.DataFrame:
    """Train a built model, going on where an interrupted training in the same folder stopped.

    `train` needs `set_epoch`. With `classify` the model's logits are trained on one-hot labels, and the best
    checkpoint is the one of highest validation accuracy; without, the model adds its own loss, and the lowest
    validation loss is best. Leaves the best weights in the model.
    Writes to `folder`: best.weights.h5, last/ (weights, optimiser, epoch), history.csv, tensorboard/.
    Returns the history, one row per epoch: epoch, loss, accuracy, val_loss, val_accuracy, learning_rate, seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing)
    model.compile(
        make_optimizer(recipe, recipe.epochs * len(train)),
        loss=loss if classify else None,
        metrics=["accuracy"] if classify else None,
    )
    monitor = "val_accuracy" if classify else "val_loss"
    callbacks = make_callbacks(recipe, train, folder, monitor)
    model.fit(train, validation_data=val, epochs=recipe.epochs, callbacks=callbacks, verbose=0)
    model.load_weights(folder / "best.weights.h5")
    return read_history(folder / "history.csv")


def make_callbacks(recipe: Recipe, train: Any, folder: Path, monitor: str) -> list[keras.callbacks.Callback]:
    """What happens around the epochs. The order matters: what is saved to go on from are the weights in training;
    what is saved as best is their moving average, which stands in for them from there to the next epoch.
    """
    mode = "max" if monitor == "val_accuracy" else "min"
    past = read_history(folder / "history.csv")[monitor].tolist()
    best = (max(past) if mode == "max" else min(past)) if past else None
    callbacks = [
        keras.callbacks.BackupAndRestore(str(folder / "last"), double_checkpoint=True, delete_checkpoint=False),
        FollowEpoch(train),
        Log(folder / "history.csv", recipe.epochs),
        keras.callbacks.TensorBoard(str(folder / "tensorboard")),
        keras.callbacks.TerminateOnNaN(raise_error=True),
    ]
    if recipe.average is not None:
        callbacks.append(keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    callbacks.append(
        keras.callbacks.ModelCheckpoint(
            folder / "best.weights.h5", monitor, mode=mode, save_best_only=True, save_weights_only=True,
            initial_value_threshold=best,
        )
    )  # fmt: skip
    if recipe.early_stopping is not None:
        callbacks.append(Patience(recipe.early_stopping, monitor, mode, past))
    return callbacks


class FollowEpoch(keras.callbacks.Callback):
    """Tell the data which epoch it is, so that a resumed training sees what an unbroken one sees."""

    def __init__(self, data: Any) -> None:
        super().__init__()
        self.data = data

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Runs after BackupAndRestore has found the epoch to begin with."""
        self.data.set_epoch(self.model._initial_epoch or 0)


class Log(keras.callbacks.Callback):
    """Write one CSV row for each epoch, and print about twenty lines of progress in a training."""

    def __init__(self, path: Path, epochs: int) -> None:
        super().__init__()
        self.path, self.epochs, self.every = path, epochs, max(1, epochs // REPORTS)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Append the row; the time of validation is in it."""
        logs["learning_rate"] = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row = {"epoch": epoch + 1, **logs, "seconds": time.perf_counter() - self.start}
        history = read_history(self.path)
        history = history[history["epoch"] <= epoch] if len(history) else history
        rows = pd.concat([history, pd.DataFrame([row])]) if len(history) else pd.DataFrame([row])
        rows.to_csv(self.path, index=False)
        if (epoch + 1) % self.every == 0 or epoch + 1 == self.epochs:
            left = (self.epochs - epoch - 1) * rows["seconds"].tail(5).mean()
            values = "  ".join(f"{name} {row[name]:.4f}" for name in rows if name not in ("epoch", "seconds"))
            print(f"epoch {epoch + 1}/{self.epochs}  {values}  {left / 60:.1f} min left", flush=True)


class Patience(keras.callbacks.EarlyStopping):
    """Early stopping that remembers the epochs before an interruption."""

    def __init__(self, epochs: int, monitor: str, mode: str, past: list[float]) -> None:
        super().__init__(monitor=monitor, mode=mode, patience=epochs)
        self.past = past

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Live through the past epochs again."""
        super().on_train_begin(logs)
        for epoch, value in enumerate(self.past):
            self.on_epoch_end(epoch, {self.monitor: value})


def read_history(path: Path) -> pd.DataFrame:
    """Read a history.csv; before the first epoch it is empty, with the two columns that decide the best epoch."""
    if path.exists():
        return pd.read_csv(path)
    return pd.DataFrame(columns=["epoch", "val_accuracy", "val_loss"])
