"""Search spaces as data: workflow/spaces/<name>.yaml says which settings of a recipe a search may try."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from lib import paths
from lib.models import FAMILIES
from lib.settings import StudyError, explain, load_yaml
from lib.study import SearchSpec

FROZEN = "options.freeze"  # whose largest value may be written "all"
MOST_STEPS = 1000
Value = bool | int | float | str


def _number(value: Any) -> Any:
    """Refuse what is no finite number: YAML reads 1e-4, without a point, as text, and .inf as a number."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError("must be a number (with a point and a sign, such as 1.0e-4)")
    if value is not None and not math.isfinite(value):
        raise ValueError("must be finite")
    return value


def _number_or_all(value: Any) -> Any:
    return value if value == "all" else _number(value)


Number = Annotated[int | float | None, BeforeValidator(_number)]


class Dimension(BaseModel):
    """The values of one setting: `choices`, or from `min` to `max`, both among them.

    Whole numbers when all that is given is whole. With `step` only every step from `min` on; with `log` every factor
    is as likely as another of its size.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: Number = None
    max: Annotated[int | float | Literal["all"] | None, BeforeValidator(_number_or_all)] = None
    step: Number = None
    log: bool = Field(False, strict=True)
    choices: Annotated[list[Value], Field(min_length=2, strict=True)] | None = None

    @model_validator(mode="after")
    def _either_choices_or_a_range(self) -> Self:
        ranged = self.min is not None and self.max is not None
        if self.choices is None and not ranged:
            raise ValueError("give 'min' and 'max', or 'choices'")
        if self.choices is not None and self.model_fields_set != {"choices"}:
            raise ValueError("'choices' come alone")
        return self

    @model_validator(mode="after")
    def _choices_of_one_kind(self) -> Self:
        if len({type(choice) for choice in self.choices or ()}) > 1:
            raise ValueError("'choices' are of different types (write 1.0 for 1 among 0.5)")
        if self.choices and len(set(self.choices)) < len(self.choices):
            raise ValueError("one of the 'choices' stands twice")
        return self

    @model_validator(mode="after")
    def _a_range(self) -> Self:
        if self.choices or self.max == "all":
            return self
        if self.min >= self.max:
            raise ValueError("'min' must be below 'max'")
        if self.log and (self.min <= 0 or self.step is not None):
            raise ValueError("'log' needs a 'min' above 0 and no 'step'")
        if self.step is not None and not 1 <= (self.max - self.min) / (self.step or math.inf) <= MOST_STEPS:
            raise ValueError(f"'step' must fit 1 to {MOST_STEPS} times between 'min' and 'max'")
        return self

    @property
    def whole(self) -> bool:
        """Whether the values of a range are whole numbers."""
        return all(isinstance(value, int) for value in (self.min, self.max, self.step) if value is not None)

    def values(self) -> list[Value] | None:
        """The values in their order; None for a range in which every number, or every whole one, may be tried."""
        if self.choices is not None:
            return self.choices
        if self.step is not None:
            # Rounded, as 3 × 0.1 is not 0.3; the last counts although (0.5 - 0) // 0.1 is 4.
            count = math.floor((self.max - self.min) / self.step + 1e-9) + 1
            return [round(self.min + number * self.step, 12) for number in range(count)]
        return None

    def ends(self) -> tuple[Value, Value]:
        """The first and the last value."""
        values = self.values()
        return (values[0], values[-1]) if values else (self.min, self.max)

    def inside(self, value: Value) -> Value:
        """The value itself, or the end that rounding took it beyond; a choice as it was written."""
        if self.choices is not None:
            return self.choices[self.choices.index(value)]
        return min(max(value, self.min), self.max)

    def place(self, value: Value) -> float:
        """Where a value lies between the first (0) and the last (1), on the scale that is searched."""
        values = self.values()
        if values:
            return values.index(value) / (len(values) - 1)
        if self.log:
            return math.log(value / self.min) / math.log(self.max / self.min)
        return (value - self.min) / (self.max - self.min)


def _family(name: str) -> str:
    if name not in FAMILIES:
        raise ValueError(f"Input should be one of {', '.join(FAMILIES)}")
    return name


class Space(BaseModel):
    """The settings that a search may try, by dotted name, and the families of models that it is for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    families: Annotated[list[Annotated[str, AfterValidator(_family)]], Field(min_length=1)]
    space: Annotated[dict[str, Any], Field(min_length=1)]

    def dimensions(self, stages: int | None = None) -> dict[str, Dimension]:
        """The dimensions by setting. `stages`: how many the model can freeze, which "all" then stands for.

        Raises StudyError, in one line that names the setting, for one that is wrong.
        """
        return {key: _dimension(key, given, stages) for key, given in self.space.items()}


def _dimension(key: str, given: Any, stages: int | None) -> Dimension:
    try:
        found = Dimension.model_validate(given)
        if found.max == "all" and stages is not None:
            found = Dimension.model_validate({**given, "max": stages})
    except ValidationError as error:
        raise StudyError(f"space of '{key}': {explain(error, Dimension)}") from None
    if found.max == "all" and key != FROZEN:
        raise StudyError(f"space of '{key}': only {FROZEN} goes up to 'all'")
    return found


def read_space(spec: SearchSpec) -> Space:
    """The space of a search. Raises StudyError, in one line, when there is none, or it is wrong or for other models."""
    path = paths.SPACES / f"{spec.space}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in paths.SPACES.glob("*.yaml")))
        raise StudyError(f"search {spec.name}: there is no space '{spec.space}'; workflow/spaces/ has {there}")
    content = load_yaml(path)
    try:
        space = Space.model_validate(content if isinstance(content, dict) else {})
        space.dimensions()
    except ValidationError as error:
        raise StudyError(f"{path}: {explain(error, Space)}") from None
    except StudyError as error:
        raise StudyError(f"{path}: {error}") from None
    if spec.family().name not in space.families:
        raise StudyError(
            f"search {spec.name}: space '{spec.space}' is for {', '.join(space.families)}; recipe '{spec.recipe}' "
            f"trains {spec.model()}"
        )
    return space
