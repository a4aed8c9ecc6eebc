"""The learning rate schedule and the optimisers of every training."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import keras
import numpy as np
from keras import ops

from lib.recipes import Training

NOT_DECAYED = ["bias", "gamma", "beta", "embedding"]  # weight decay is for matrices only


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0, then constant, linear or cosine decay to the final rate, over `steps` batches."""

    def __init__(self, recipe: Training, steps: int) -> None:
        self.recipe, self.steps = recipe, steps
        self.warmup = math.ceil(recipe.warmup * steps)

    def __call__(self, step: Any) -> Any:
        """Learning rate at a step, counted from 0."""
        step = ops.cast(step, "float32")
        share = ops.clip((step - self.warmup) / max(self.steps - self.warmup, 1), 0.0, 1.0)
        left = {"constant": ops.ones_like(share), "linear": 1 - share, "cosine": (1 + ops.cos(np.pi * share)) / 2}
        high, low = self.recipe.learning_rate, self.recipe.final_learning_rate
        decayed = low + (high - low) * left[self.recipe.schedule]
        return ops.where(step < self.warmup, high * (step + 1) / max(self.warmup, 1), decayed)


class RAdam(keras.optimizers.Adam):
    """Rectified Adam (Liu et al. 2020, algorithm 2), which Keras lacks; the published SPOBET trains with it."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Adam's step times the rectification; plain momentum until the variance is known (rho > 5)."""
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


def make_optimizer(recipe: Training, steps: int) -> keras.optimizers.Optimizer:
    """Make the recipe's optimiser for a training of `steps` batches."""
    common = {"learning_rate": Schedule(recipe, steps), "global_clipnorm": recipe.clip_norm}
    common |= {"use_ema": recipe.average is not None, "ema_momentum": recipe.average or 0.99}
    if recipe.optimizer == "adamw":
        common["weight_decay"] = recipe.weight_decay
    if recipe.optimizer == "rmsprop":
        common |= {"momentum": recipe.momentum, "epsilon": recipe.epsilon}
    optimizer = _classes()[recipe.optimizer](**common)
    if recipe.optimizer == "adamw":
        optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
    return optimizer


def _classes() -> dict[str, type[keras.optimizers.Optimizer]]:
    """The optimisers' classes by name."""
    known = keras.optimizers
    keras_own = {"adam": known.Adam, "adamw": known.AdamW, "rmsprop": known.RMSprop, "radam": RAdam}
    return keras_own | (_in_few_passes() if keras.backend.backend() == "torch" else {})


@cache
def _in_few_passes() -> dict[str, type[keras.optimizers.Optimizer]]:
    """Adam, AdamW and RMSprop on torch, which read and write all weights once, or a few times; the steps are Keras'.

    Keras 3.15 goes over all weights about ten times in a step: two fifths of a step of I3D on small clips.
    """
    from keras.src.backend.torch.optimizers import torch_adam, torch_rmsprop

    adam = type("Adam", (_AdamStep, torch_adam.Adam), {"__module__": __name__})
    rmsprop = type("RMSprop", (_RMSpropStep, torch_rmsprop.RMSprop), {"__module__": __name__})
    return {"adam": adam, "adamw": adam, "rmsprop": rmsprop}


class _ForAll:
    """What concerns the gradients or the weights as a whole, and what is known without asking a GPU, which would wait.

    done: the number of steps, as `iterations`, but in the memory of the CPU; None if only `iterations` knows it.
    """

    done: int | None = None

    def build(self, variables: list) -> None:
        super().build(variables)
        self.done = None

    def load_own_variables(self, store: Any) -> None:
        """Load the number of steps, too."""
        super().load_own_variables(store)
        self.done = None

    def apply(self, grads: list, trainable_variables: list | None = None) -> None:
        """Count the step, too."""
        super().apply(grads, trainable_variables)
        self.done = self._count() + 1

    def _count(self) -> int:
        self.done = int(self.iterations) if self.done is None else self.done
        return self.done

    def _get_current_learning_rate(self) -> float:
        with keras.device("cpu"):
            return float(self._learning_rate(self._count()))

    def _clip_gradients(self, grads: list) -> list:
        import torch

        if not self.global_clipnorm:
            return grads
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        return list(torch._foreach_mul(grads, self.global_clipnorm / norm.clamp(min=self.global_clipnorm)))

    def _update_model_variables_moving_average(self, trainable_variables: list) -> None:
        import torch

        if self.use_ema:
            averages = _values(self._model_variables_moving_average)
            keep = self.ema_momentum if self._count() else 0.0
            torch._foreach_lerp_(averages, _values(trainable_variables), 1 - keep)

    def _state(self, kept: list, variables: list) -> list:
        return [kept[self._get_variable_index(variable)].value for variable in variables]


class _AdamStep(_ForAll):
    def build(self, variables: list) -> None:
        super().build(variables)
        # Torch goes along the memory of all arrays at once: their axes must lie there in the order of the weights'.
        for moment, variable in zip([*self._momentums, *self._velocities], variables * 2, strict=True):
            moment.value.data = _as_laid_out(variable.value, moment.value)

    def _apply_weight_decay(self, variables: list) -> None:
        """Nothing: it is part of the update."""

    def _parallel_update_step(self, grads: list, variables: list, learning_rate: float) -> None:
        import torch

        step = torch.full((), self._count() + 1.0, device=grads[0].device)
        # Keras adds epsilon to the root of the variance before its bias is corrected, torch afterwards.
        epsilon = self.epsilon / math.sqrt(1 - self.beta_2 ** (self._count() + 1))
        options = {"lr": learning_rate, "beta1": self.beta_1, "beta2": self.beta_2, "eps": epsilon}
        options |= {"amsgrad": False, "maximize": False}
        groups: dict[float, list] = {}  # by weight decay
        for variable, grad in zip(variables, grads, strict=True):
            decay = self.weight_decay if self.weight_decay and self._use_weight_decay(variable) else 0.0
            groups.setdefault(decay, []).append((variable, _as_laid_out(variable.value, grad)))
        for decay, pairs in groups.items():
            chosen, slopes = zip(*pairs, strict=True)
            moments = self._state(self._momentums, chosen), self._state(self._velocities, chosen)
            steps = [step] * len(chosen)
            torch._fused_adamw_(_values(chosen), slopes, *moments, [], steps, weight_decay=decay, **options)


class _RMSpropStep(_ForAll):
    def _parallel_update_step(self, grads: list, variables: list, learning_rate: float) -> None:
        import torch

        squares = self._state(self._velocities, variables)
        torch._foreach_mul_(squares, self.rho)
        torch._foreach_addcmul_(squares, grads, grads, value=1 - self.rho)
        roots = torch._foreach_add(squares, self.epsilon)
        torch._foreach_sqrt_(roots)
        if self.momentum:
            moments = self._state(self._momentums, variables)
            torch._foreach_mul_(moments, self.momentum)
            torch._foreach_addcdiv_(moments, grads, roots, value=learning_rate)
            torch._foreach_sub_(_values(variables), moments)
        else:
            torch._foreach_addcdiv_(_values(variables), grads, roots, value=-learning_rate)


def _values(variables: list) -> list:
    return [variable.value for variable in variables]


def _as_laid_out(value: Any, other: Any) -> Any:
    """The other tensor, with its axes in memory in the order of those of the first."""
    import torch

    return other if other.stride() == value.stride() else torch.empty_like(value).copy_(other)
