"""Recipes (how a model is trained) and search spaces (which of its settings may be tried) as typed settings."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticUndefined, to_jsonable_python

from lib import paths
from lib.data.augment import ClipAugment, PoseAugment
from lib.data.drawing import Drawing
from lib.models import FAMILIES, family_of
from lib.settings import Settings, StudyError, load_yaml, parse

Stores = Literal["clips", "poses"]  # what batches are made of
RUNS = r"^[^/]+/[^/]+$"  # runs of a study: <study>/<name of the runs, without the seed>


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
    validate_every: int = Field(1, ge=1, description="epochs from one validation and checkpoint to the next")
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
    without: int = Field(0, ge=0, description="glosses whose clips no training sees, to measure new signs on")
    start: str | None = Field(
        None, pattern=RUNS, description="runs to start from, as <study>/<name of the runs>: that of the same seed"
    )
    train: Training


class Pretraining(Training):
    """Masked-frame pre-training."""

    hidden: float = Field(0.3, gt=0, lt=1, description="share of frames hidden")
    span: int = Field(1, ge=1, description="consecutive frames hidden together")


class Distillation(Settings):
    """What trained runs teach: their mean opinion of each clip, augmented as the student sees it, beside its gloss.

    Hinton et al. 2015; one view for teacher and student as in Beyer et al. 2022.
    """

    teachers: str = Field(pattern=RUNS, description="the runs that teach, as <study>/<name of the runs>")
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1, description="of the teachers")
    weight: float = Field(0.7, gt=0, le=1, description="of the teachers' opinion in the target; the gloss has the rest")


class PoseRecipe(Recipe):
    """A recipe of a pose model."""

    reads: ClassVar[Stores] = "poses"
    max_frames: int = Field(250, ge=1, description="longer clips are resampled to this length")
    distil: Distillation | None = None
    pretrain: Pretraining | None = None
    augment: PoseAugment = PoseAugment()

    @model_validator(mode="after")
    def _check_precision(self) -> Self:
        if self.pretrain and self.pretrain.mixed_precision != self.train.mixed_precision:
            raise ValueError("pretrain.mixed_precision and train.mixed_precision differ, but it is one model: set both")
        return self


class RgbRecipe(Recipe):
    """What the recipes of an RGB model share."""

    frames: int = Field(20, ge=1, description="sampled evenly from the signed segment")
    size: int = Field(224, ge=16, description="height and width in pixels")
    weights: str | None = Field(None, description="published weights to start from, see lib.models.weights")
    head: Training | None = Field(None, description="trains the new head first, with everything else frozen")

    @model_validator(mode="after")
    def _check_head(self) -> Self:
        if self.weights and self.start:
            raise ValueError("weights and start: a training begins with one of them; set the other to null")
        if self.head and not (self.weights or self.start):
            raise ValueError("head: training the head first needs trained weights below it: set weights or start")
        if self.head and self.head.mixed_precision != self.train.mixed_precision:
            raise ValueError("head.mixed_precision and train.mixed_precision differ, but it is one model: set both")
        return self


class ClipRecipe(RgbRecipe):
    """A recipe of an RGB model that reads stored clips."""

    reads: ClassVar[Stores] = "clips"
    augment: ClipAugment = ClipAugment()


class DrawnRecipe(RgbRecipe):
    """A recipe of an RGB model that reads drawn poses; see `lib.data.drawing`."""

    reads: ClassVar[Stores] = "poses"
    distil: Distillation | None = None
    drawing: Drawing
    augment: PoseAugment = PoseAugment()


AnyRecipe = PoseRecipe | ClipRecipe | DrawnRecipe


def shortened(config: AnyRecipe, epochs: int | None) -> AnyRecipe:
    """The recipe with every training cut to at most `epochs`; None leaves it as it is."""
    steps = {name: getattr(config, name, None) for name in ("pretrain", "head", "train") if epochs}
    cut = {name: step.model_copy(update={"epochs": min(step.epochs, epochs)}) for name, step in steps.items() if step}
    return config.model_copy(update=cut)


def with_defaults(past: dict[str, Any], now: Settings) -> dict[str, Any]:
    """Saved settings, with the defaults of the fields that have been added to the class of `now` since."""
    filled = dict(past)
    for name, field in type(now).model_fields.items():
        value = getattr(now, name)
        if name not in past:
            default = field.get_default(call_default_factory=True)
            filled[name] = None if default is PydanticUndefined else to_jsonable_python(default)
        elif isinstance(value, Settings) and isinstance(past[name], dict):
            filled[name] = with_defaults(past[name], value)
    return filled


def most_epochs() -> int | None:
    """The most epochs a training may take, from $STUDY_EPOCHS, which `make try` sets; None if unset."""
    return int(os.environ["STUDY_EPOCHS"]) if os.environ.get("STUDY_EPOCHS") else None


def read_recipe(recipe: str | Path, changes: dict[str, Any] | None = None) -> AnyRecipe:
    """Read workflow/recipes/<recipe>.yaml, or the file given, with `changes` by dotted name ("train.epochs": 5).

    Raises StudyError naming the key when one is unknown or of a wrong type, and when there is no such recipe.
    """
    path = find_recipe(recipe)
    content = changed(path, changes or {})
    return parse(kind_of(path, changes), content, path)


def kind_of(path: Path, changes: dict[str, Any] | None = None) -> type[AnyRecipe]:
    """Of which class a recipe file, with `changes`, is: an RGB model reads drawn poses where there is a `drawing`.

    Raises StudyError as `model_of` does.
    """
    if family_of(model_of(path, changes)).kind == "poses":
        return PoseRecipe
    return DrawnRecipe if "drawing" in changed(path, changes or {}) else ClipRecipe


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


FROZEN = "options.freeze"  # the only setting whose maximum may be "all"
MOST_STEPS = 1000
Value = bool | int | float | str


def _number(value: Any) -> Any:
    """Refuse anything but a finite number: YAML reads 1e-4, without a point, as text, and .inf as a number."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError("must be a number (with a point and a sign, such as 1.0e-4)")
    if value is not None and not math.isfinite(value):
        raise ValueError("must be finite")
    return value


def _known_family(name: str) -> str:
    if name not in FAMILIES:
        raise ValueError(f"there is no family '{name}'; there are {', '.join(FAMILIES)}")
    return name


Number = Annotated[int | float | None, BeforeValidator(_number)]
NumberOrAll = Annotated[
    int | float | Literal["all"] | None, BeforeValidator(lambda value: value if value == "all" else _number(value))
]


class Dimension(Settings):
    """The values of one setting: `choices`, or the range from `min` to `max`, both included.

    A range holds whole numbers if all its bounds are whole. `step` keeps every step from `min` on; with `log` the
    range is searched on a logarithmic scale.
    """

    min: Number = None
    max: NumberOrAll = None
    step: Number = None
    log: bool = Field(False, strict=True)
    choices: Annotated[list[Value], Field(min_length=2, strict=True)] | None = None

    @model_validator(mode="after")
    def _choices_or_range(self) -> Self:
        if self.choices is None:
            if self.min is None or self.max is None:
                raise ValueError("give 'min' and 'max', or 'choices'")
            if self.max != "all":
                self._check_range()
        elif self.model_fields_set != {"choices"}:
            raise ValueError("'choices' cannot be combined with other keys")
        elif len({type(choice) for choice in self.choices}) > 1:
            raise ValueError("'choices' are of different types (write 1.0 for 1 among 0.5)")
        elif len(set(self.choices)) < len(self.choices):
            raise ValueError("one of the 'choices' appears twice")
        return self

    def _check_range(self) -> None:
        if self.min >= self.max:
            raise ValueError("'min' must be below 'max'")
        if self.log and (self.min <= 0 or self.step is not None):
            raise ValueError("'log' needs a 'min' above 0 and no 'step'")
        if self.step is not None and not 1 <= (self.max - self.min) / (self.step or math.inf) <= MOST_STEPS:
            raise ValueError(f"'step' must fit 1 to {MOST_STEPS} times between 'min' and 'max'")

    @property
    def whole(self) -> bool:
        """Whether a range holds whole numbers only."""
        return all(isinstance(value, int) for value in (self.min, self.max, self.step) if value is not None)

    def values(self) -> list[Value] | None:
        """All values in order; None for a range without steps."""
        if self.choices is not None:
            return self.choices
        if self.step is not None:
            # Rounded, because 3 × 0.1 is not 0.3; 1e-9 keeps the last step, because (0.5 - 0) // 0.1 is 4.
            count = math.floor((self.max - self.min) / self.step + 1e-9) + 1
            return [round(self.min + number * self.step, 12) for number in range(count)]
        return None

    def ends(self) -> tuple[Value, Value]:
        """The first and the last value."""
        values = self.values()
        return (values[0], values[-1]) if values else (self.min, self.max)

    def inside(self, value: Value) -> Value:
        """The value, clipped to the range in case of rounding errors; a choice as it was written."""
        if self.choices is not None:
            return self.choices[self.choices.index(value)]
        return min(max(value, self.min), self.max)

    def place(self, value: Value) -> float:
        """Position of a value between the first (0) and the last (1), on the scale that is searched."""
        values = self.values()
        if values:
            return values.index(value) / (len(values) - 1)
        if self.log:
            return math.log(value / self.min) / math.log(self.max / self.min)
        return (value - self.min) / (self.max - self.min)


class Space(Settings):
    """The settings that a search may try, by dotted name, and the families of models that it is for."""

    families: Annotated[list[Annotated[str, AfterValidator(_known_family)]], Field(min_length=1)]
    space: Annotated[dict[str, Any], Field(min_length=1)]

    def dimensions(self, stages: int | None = None) -> dict[str, Dimension]:
        """The dimensions by setting. `stages`: how many the model can freeze, the meaning of "all".

        Raises StudyError, in one line that names the setting, for one that is wrong.
        """
        found = {}
        for key, given in self.space.items():
            where = f"space of '{key}'"
            found[key] = parse(Dimension, given, where)
            if found[key].max == "all" and key != FROZEN:
                raise StudyError(f"{where}: only {FROZEN} goes up to 'all'")
            if found[key].max == "all" and stages is not None:
                found[key] = parse(Dimension, {**given, "max": stages}, where)
        return found
