"""Training: one resumable `fit` for every model of the study."""

from __future__ import annotations

import ctypes
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from lib.optimizers import make_optimizer
from lib.paths import replacing
from lib.recipes import Training

LOOKS = 50  # batches from one look at the loss to the next
REPORTS = 20  # lines of progress in a training
DRAWS = 1 << 16  # more than the random draws of one layer in one epoch
BEST, LAST = "best.weights.h5", "last.weights.h5"
BFLOAT16 = ("amx_bf16", "avx512_bf16", " bf16")  # CPU flags of x86, and of Arm
SIGNS = {"val_accuracy": 1, "val_loss": -1}  # higher is better, lower is better


def prepare(recipe: Training, seed: int) -> None:
    """Set what a model is built with: the seed of weights and dropout, and the precision.

    Mixed precision is used on a GPU and on CPUs that compute in bfloat16. S3D's step takes a quarter of the time on
    such a CPU, and 1.2 x as long on one that emulates bfloat16.
    """
    keep_memory()
    keras.utils.set_random_seed(seed)
    mixed = recipe.mixed_precision and (has_gpu() or computes_in_bfloat16())
    keras.config.set_dtype_policy("mixed_bfloat16" if mixed else "float32")


def keep_memory() -> None:
    """Reuse freed memory instead of returning it to the system, and ask for huge pages; only on Linux with glibc.

    Torch on a CPU returns every large tensor, and the system clears its pages anew at the next step: a third of
    MoViNet-A0's step.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read by torch
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((-1, -1), (-4, 0), (-8, 1)):  # M_TRIM_THRESHOLD: never, M_MMAP_MAX, M_ARENA_MAX
            mallopt(option, value)


def has_gpu() -> bool:
    """Whether the current backend has a GPU."""
    if keras.backend.backend() == "torch":
        import torch

        return torch.cuda.is_available()
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def computes_in_bfloat16(info: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU multiplies in bfloat16, as Linux reports it; False on other systems.

    Where oneDNN is held to older instructions (ONEDNN_MAX_CPU_ISA), it would emulate bfloat16 at a sixth of the speed.
    """
    held_back = "ONEDNN_MAX_CPU_ISA" in os.environ
    return not held_back and info.exists() and any(name in info.read_text() for name in BFLOAT16)


def compute_in_float32(model: keras.Model) -> None:
    """Have a model compute in float32 from now on, whatever precision it was built for; its weights are float32."""
    for layer in model._flatten_layers():  # Keras has no public way to reach nested layers
        layer.dtype_policy = "float32"


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
    """Train a built model, or resume its training from the checkpoints in `folder`.

    With `classify` the model is trained on one-hot labels, and the best checkpoint has the highest validation
    accuracy. Without, the model adds its own loss, and the lowest validation loss is best. The best weights are in
    the model afterwards. `until` pauses after so many epochs; paused or interrupted, the training is the same in the
    end. `train` needs `seed`, `set_epoch` and `on_gpu`, as `Batches` has.
    Writes best.weights.h5, last.weights.h5 (weights and optimiser), history.csv and tensorboard/ to `folder`.
    Returns the history, one row per epoch: epoch, loss, accuracy, val_loss, val_accuracy, learning_rate, seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    monitor = "val_accuracy" if classify else "val_loss"
    if not has_ended(read_history(folder / "history.csv"), monitor, recipe):
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing)
        labelled = {"loss": loss, "metrics": ["accuracy"]} if classify else {}
        # XLA takes nine times as long for a step of MoViNet on a CPU.
        model.compile(make_optimizer(recipe, recipe.epochs * len(train)), jit_compile=False, **labelled)
        epoch, last = _resume(model, folder / LAST, len(train)), min(until or recipe.epochs, recipe.epochs)
        callbacks = [Progress(recipe, train, folder, monitor, epoch), keras.callbacks.TerminateOnNaN(raise_error=True)]
        # Without the graph, as MoViNet's is too large.
        callbacks += [keras.callbacks.TensorBoard(str(folder / "tensorboard"), write_graph=False)]
        if recipe.average is not None:
            callbacks += [keras.callbacks.SwapEMAWeights()]  # after Progress, which saves the averaged weights
        with _on_gpu(model, classify) if train.on_gpu else nullcontext():
            model.fit(
                feed(train),
                validation_data=feed(val),
                validation_freq=[*range(recipe.validate_every, last, recipe.validate_every), last],
                initial_epoch=epoch,
                epochs=last,
                callbacks=Callbacks(callbacks, add_history=True, model=model, steps=len(train)),
                verbose=0,
                shuffle=False,  # the batches shuffle themselves
            )
    model.load_weights(folder / BEST)
    return read_history(folder / "history.csv")


@contextmanager
def _on_gpu(model: keras.Model, classify: bool) -> Iterator[None]:
    """Train on batches that are made on a GPU without having it wait for Python; see lib.graphs."""
    from lib.graphs import numbers_made_on_device, recorded_step

    with numbers_made_on_device():
        if classify:
            model.train_function = recorded_step(model)
        yield
        model.train_function = None


def _resume(model: keras.Model, path: Path, steps: int) -> int:
    """Load weights and optimiser from the last checkpoint, if there is one. Returns the number of epochs trained.

    It is a single file, replaced in one step; Keras' BackupAndRestore writes two and can be killed between them.
    """
    model.optimizer.build(model.trainable_variables)
    if path.exists():
        model.load_weights(path)
    return int(ops.convert_to_numpy(model.optimizer.iterations)) // steps


def feed(batches: keras.utils.PyDataset) -> Any:
    """The input of `model.fit`: on TensorFlow a tf.data.Dataset in which the number of frames of poses (axis 1) varies.

    Keras would fix each axis on which the first two batches agree.
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


class Callbacks(keras.callbacks.CallbackList):
    """Callbacks that see what came of a batch only now and then: to look at the loss, the CPU waits for the GPU.

    What they see is the mean since the epoch began, so a loss that is no number cannot be missed.
    """

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Pass on every LOOKS-th batch and the last of the epoch."""
        if (batch + 1) % LOOKS == 0 or batch + 1 == self.params["steps"]:
            super().on_train_batch_end(batch, logs)

    def on_test_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Nothing: Progress looks at the end."""


class Progress(keras.callbacks.Callback):
    """Log and save a training so that it can be resumed after any kill, and stop it early.

    A kill between two of the files that an epoch writes repeats the epoch, because the last checkpoint comes last.
    """

    def __init__(self, recipe: Training, train: Any, folder: Path, monitor: str, epoch: int) -> None:
        """epoch: the number of epochs trained so far; later rows of the history are discarded."""
        super().__init__()
        self.recipe, self.train, self.folder, self.monitor = recipe, train, folder, monitor
        past = read_history(folder / "history.csv")
        past = past[past["epoch"] <= epoch]
        self.rows = past.to_dict("records")
        self.best = max(SIGNS[monitor] * past[monitor].dropna(), default=-math.inf)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Set the epoch's batches and random numbers, so that a resumed training equals an uninterrupted one.

        Dropout draws from torch's global generator, or from a seed and a count of draws. TensorFlow's generator is
        not used by anything, and seeding it would compile the step anew (ten seconds for a MoViNet, every epoch).
        """
        self.start = time.perf_counter()
        self.train.set_epoch(epoch)
        if keras.backend.backend() == "torch":
            import torch

            torch.manual_seed(int(np.random.SeedSequence([self.train.seed, epoch]).generate_state(1)[0]))
        for state in self.model.variables:
            if state.name == "seed_generator_state":
                state.assign([int(state[0]), epoch * DRAWS])

    def on_test_end(self, logs: dict | None = None) -> None:
        """Save the weights if this validation is the best so far, while the moving average is still swapped in."""
        value = SIGNS[self.monitor] * logs[self.monitor.removeprefix("val_")]
        if value > self.best:
            self.best = value
            _save_weights(self.model, self.folder / BEST)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Write the history, decide on early stopping and save the last checkpoint, in this order.

        The last two only after epochs that are validated.
        """
        logs["learning_rate"] = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self.rows.append({"epoch": epoch + 1, **logs, "seconds": time.perf_counter() - self.start})
        history = pd.DataFrame(self.rows)
        with replacing(self.folder / "history.csv") as partial:
            history.to_csv(partial, index=False)
        if self.monitor not in logs:
            return
        if patience_is_over(history, self.monitor, self.recipe.early_stopping):
            self.model.stop_training = True
        _save_weights(self.model, self.folder / LAST)
        every, left = max(1, self.recipe.epochs // REPORTS), self.recipe.epochs - epoch - 1
        if (epoch + 1) % every == 0 or not left:
            values = history.drop(columns=["epoch", "seconds"]).iloc[-1]
            line = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
            minutes = left * history["seconds"].tail(5).mean() / 60
            print(f"epoch {epoch + 1}/{self.recipe.epochs}  {line}  {minutes:.1f} min left", flush=True)


def _save_weights(model: keras.Model, path: Path) -> None:
    with replacing(path) as partial:
        model.save_weights(partial)


def patience_is_over(history: pd.DataFrame, monitor: str, patience: int | None) -> bool:
    """Whether the last `patience` epochs were no better than the best epoch before them; never with None."""
    if patience is None or history.empty:
        return False
    return len(history) - 1 - int(np.nanargmax(SIGNS[monitor] * history[monitor].to_numpy())) >= patience


def has_ended(history: pd.DataFrame, monitor: str, recipe: Training) -> bool:
    """Whether a training with this history is over, so that its best weights are all that is needed."""
    return len(history) >= recipe.epochs or patience_is_over(history, monitor, recipe.early_stopping)


def read_history(path: Path) -> pd.DataFrame:
    """Read a history.csv. Before the first epoch it has no rows and the columns that decide on the best epoch."""
    if path.exists():
        return pd.read_csv(path)
    return pd.DataFrame(columns=["epoch", "val_accuracy", "val_loss"])
