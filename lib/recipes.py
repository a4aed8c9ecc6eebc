"""A recipe file, workflow/recipes/<name>.yaml, as typed settings: the model, how it is trained and on what."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lib.data.augment import PoseAugment
from lib.data.clip_augment import ClipAugment
from lib.models import family
from lib.study import RECIPES, StudyError, explain, load_yaml
from lib.training import Recipe


class RunConfig(BaseModel):
    """What every recipe file holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="a name that lib.models.build knows")
    variant: str = ""
    options: dict[str, Any] = Field({}, description="fields of the model's own configuration")
    train: Recipe


class Pretraining(Recipe):
    """Masked-frame pre-training: a recipe, and what is hidden."""

    hidden: float = Field(0.3, gt=0, lt=1, description="share of frames hidden")
    span: int = Field(1, ge=1, description="frames hidden in one piece")


class PoseConfig(RunConfig):
    """A recipe of a pose model."""

    max_frames: int = Field(250, ge=1, description="longer clips are resampled to this length")
    pretrain: Pretraining | None = None
    augment: PoseAugment = PoseAugment()

    @model_validator(mode="after")
    def _one_precision(self) -> Self:
        if self.pretrain and self.pretrain.mixed_precision != self.train.mixed_precision:
            raise ValueError("pretrain.mixed_precision and train.mixed_precision differ, but it is one model: set both")
        return self


class ClipConfig(RunConfig):
    """A recipe of an RGB model."""

    frames: int = Field(20, ge=1, description="sampled evenly from the signed segment")
    size: int = Field(224, ge=16, description="height and width in pixels")
    weights: str | None = Field(None, description="published weights to begin with, see lib.models.weights")
    head: Recipe | None = Field(None, description="how the new head is trained first, all below it frozen")
    augment: ClipAugment = ClipAugment()

    @model_validator(mode="after")
    def _head_first_of_what_is_known(self) -> Self:
        if self.head and not self.weights:
            raise ValueError("head: nothing is to be kept frozen below a head without published weights: set weights")
        if self.head and self.head.mixed_precision != self.train.mixed_precision:
            raise ValueError("head.mixed_precision and train.mixed_precision differ, but it is one model: set both")
        return self


def shortened(config: PoseConfig | ClipConfig, epochs: int | None) -> PoseConfig | ClipConfig:
    """The same with no training of more than so many epochs; None: as it is."""
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


def read_config(recipe: str | Path, changes: dict[str, Any] | None = None) -> PoseConfig | ClipConfig:
    """Read workflow/recipes/<recipe>.yaml or the file given, with `changes` by dotted name ("train.epochs": 5) put in.

    Raises StudyError naming the key when one is unknown or has a wrong type, and when there is no such recipe.
    """
    path = find_recipe(recipe)
    kind: type[RunConfig] = RunConfig
    try:
        content = changed(path, changes or {})
        kind = _kind(content)
        return kind.model_validate(content)
    except ValidationError as error:
        raise StudyError(f"{path}: {explain(error, kind)}") from None
    except StudyError:
        raise
    except ValueError as error:
        raise StudyError(f"{path}: {error.args[0]}") from None


def find_recipe(recipe: str | Path) -> Path:
    """File of a recipe. Raises StudyError when there is none."""
    path = recipe if isinstance(recipe, Path) else RECIPES / f"{recipe}.yaml"
    if path.exists():
        return path
    if path.parent != RECIPES:
        raise StudyError(f"{path} is not there yet: the search that finds it has not ended; see `make tune`")
    there = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml")))
    raise StudyError(f"there is no recipe '{path.stem}'; workflow/recipes/ has {there}")


def _kind(content: Any) -> type[RunConfig]:
    """Which settings a recipe file has. Raises ValueError for a model that is not there."""
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, str):
        return RunConfig  # validating will say what is wrong
    return PoseConfig if family(model) == "spobet" else ClipConfig


def changed(path: Path, changes: dict[str, Any]) -> Any:
    """Content of a recipe file with `changes` by dotted name put in. Raises StudyError when a name leads nowhere."""
    content = load_yaml(path) or {}
    if not isinstance(content, dict):
        return content  # validating will say what is wrong
    for key, value in changes.items():
        *parents, last = key.split(".")
        place = content
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise StudyError(f"{path}: cannot change '{key}': '{parent}' holds no settings")
        place[last] = value
    return content
