"""Search spaces as data: workflow/spaces/<name>.yaml says which settings of a recipe a search may try."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from lib import paths
from lib.models import FAMILIES
from lib.settings import Settings, StudyError, load_yaml, parse
from lib.study import SearchSpec

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


def read_space(spec: SearchSpec) -> Space:
    """The space of a search. Raises StudyError, in one line, when there is none, or it is wrong or for other models."""
    path = paths.SPACES / f"{spec.space}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in paths.SPACES.glob("*.yaml")))
        raise StudyError(f"search {spec.name}: there is no space '{spec.space}'; workflow/spaces/ has {there}")
    content = load_yaml(path)
    space = parse(Space, content if isinstance(content, dict) else {}, path)
    try:
        space.dimensions()
    except StudyError as error:
        raise StudyError(f"{path}: {error}") from None
    if spec.family().name not in space.families:
        raise StudyError(
            f"search {spec.name}: space '{spec.space}' is for {', '.join(space.families)}; recipe '{spec.recipe}' "
            f"trains {spec.model()}"
        )
    return space
