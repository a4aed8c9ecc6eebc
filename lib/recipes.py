"""Recipes: workflow/recipes/<name>.yaml as typed settings of a model, its input and its training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from lib import paths
from lib.data.augment import ClipAugment, PoseAugment
from lib.models import family_of
from lib.settings import Settings, StudyError, load_yaml, parse


class Training(Settings):
    """Optimiser, schedule and regularisation of one training. One step is one batch."""

    optimizer: Literal["adam", "adamw", "radam", "rmsprop"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0, description="peak, after warm-up")
    final_learning_rate: float = Field(0.0, ge=0, description="at the last step")
    warmup: float = Field(0.0, ge=0, lt=1, description="share of all steps, rising linearly from 0")
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    weight_decay: float = Field(0.0, ge=0, description="decoupled (adamw)")
    momentum: float = Field(0.0, ge=0, lt=1, description="of the steps (rmsprop)")
    epsilon: float = Field(1e-7, gt=0, description="added to the root mean square (rmsprop); 1 is nearly plain SGD")
    clip_norm: float | None = Field(None, gt=0, description="clips the global norm of the gradients")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    average: float | None = Field(None, gt=0, lt=1, description="momentum of the moving average of the weights")
    batch_size: int = Field(32, ge=1)
    epochs: int = Field(50, ge=1)
    early_stopping: int | None = Field(None, ge=1, description="patience in epochs")
    mixed_precision: bool = Field(False, description="bfloat16 where it is fast; weights stay float32")

    @model_validator(mode="after")
    def _options_fit_the_optimizer(self) -> Self:
        owners = {"weight_decay": "adamw", "momentum": "rmsprop", "epsilon": "rmsprop"}
        for name, owner in owners.items():
            if name in self.model_fields_set and getattr(self, name) and self.optimizer != owner:
                raise ValueError(f"{name} needs the optimizer {owner}, not {self.optimizer}")
        return self


class Recipe(Settings):
    """What every recipe file holds."""

    model: str = Field(description="a name in the registry, lib/models/__init__.py")
    variant: str = ""
    options: dict[str, Any] = Field({}, description="fields of the model's configuration")
    train: Training


class Pretraining(Training):
    """Masked-frame pre-training."""

    hidden: float = Field(0.3, gt=0, lt=1, description="share of frames hidden")
    span: int = Field(1, ge=1, description="consecutive frames hidden together")


class PoseRecipe(Recipe):
    """A recipe of a pose model."""

    max_frames: int = Field(250, ge=1, description="longer clips are resampled to this length")
    pretrain: Pretraining | None = None
    augment: PoseAugment = PoseAugment()

    @model_validator(mode="after")
    def _check_precision(self) -> Self:
        if self.pretrain and self.pretrain.mixed_precision != self.train.mixed_precision:
            raise ValueError("pretrain.mixed_precision and train.mixed_precision differ, but it is one model: set both")
        return self


class ClipRecipe(Recipe):
    """A recipe of an RGB model."""

    frames: int = Field(20, ge=1, description="sampled evenly from the signed segment")
    size: int = Field(224, ge=16, description="height and width in pixels")
    weights: str | None = Field(None, description="published weights to start from, see lib.models.weights")
    head: Training | None = Field(None, description="trains the new head first, with everything else frozen")
    augment: ClipAugment = ClipAugment()

    @model_validator(mode="after")
    def _check_head(self) -> Self:
        if self.head and not self.weights:
            raise ValueError("head: training the head first needs published weights below it: set weights")
        if self.head and self.head.mixed_precision != self.train.mixed_precision:
            raise ValueError("head.mixed_precision and train.mixed_precision differ, but it is one model: set both")
        return self


def shortened(config: PoseRecipe | ClipRecipe, epochs: int | None) -> PoseRecipe | ClipRecipe:
    """The recipe with every training cut to at most `epochs`; None leaves it as it is."""
    stages = {name: getattr(config, name, None) for name in ("pretrain", "head", "train")}
    if epochs is None:
        return config
    return config.model_copy(
        update={
            name: stage.model_copy(update={"epochs": min(stage.epochs, epochs)})
            for name, stage in stages.items()
            if stage
        }
    )


def most_epochs() -> int | None:
    """The most epochs a training may take, from $STUDY_EPOCHS, which `make try` sets; None if unset."""
    return int(os.environ["STUDY_EPOCHS"]) if os.environ.get("STUDY_EPOCHS") else None


def read_recipe(recipe: str | Path, changes: dict[str, Any] | None = None) -> PoseRecipe | ClipRecipe:
    """Read workflow/recipes/<recipe>.yaml, or the file given, with `changes` by dotted name ("train.epochs": 5).

    Raises StudyError naming the key when one is unknown or of a wrong type, and when there is no such recipe.
    """
    path = find_recipe(recipe)
    content = changed(path, changes or {})
    kind = PoseRecipe if family_of(model_of(path, changes)).kind == "poses" else ClipRecipe
    return parse(kind, content, path)


def model_of(path: Path, changes: dict[str, Any] | None = None) -> str:
    """Name of the model that a recipe file, with `changes`, trains. Raises StudyError for none or an unknown one."""
    model = changed(path, changes or {}).get("model")
    if not isinstance(model, str):
        raise StudyError(f"{path}: key 'model' is missing; add it")
    try:
        return family_of(model) and model
    except StudyError as error:
        raise StudyError(f"{path}: {error}") from None


def find_recipe(recipe: str | Path) -> Path:
    """File of a recipe. Raises StudyError when there is none."""
    path = recipe if isinstance(recipe, Path) else paths.RECIPES / f"{recipe}.yaml"
    if path.exists():
        return path
    if path.parent != paths.RECIPES:
        raise StudyError(f"{path} is not there yet: the search that finds it has not ended; see `make tune`")
    there = ", ".join(sorted(file.stem for file in paths.RECIPES.glob("*.yaml")))
    raise StudyError(f"there is no recipe '{path.stem}'; workflow/recipes/ has {there}")


def changed(path: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """Content of a recipe file with `changes` by dotted name put in. Raises StudyError when a name leads nowhere."""
    content = load_yaml(path) or {}
    if not isinstance(content, dict):
        raise StudyError(f"{path}: holds no keys; it needs model and train")
    for key, value in changes.items():
        *parents, last = key.split(".")
        place = content
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise StudyError(f"{path}: cannot change '{key}': '{parent}' holds no settings")
        place[last] = value
    return content
