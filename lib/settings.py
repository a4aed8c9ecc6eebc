"""Settings files: YAML read into typed models, and problems told in one line that says what to do."""

import difflib
import reprlib
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

T = TypeVar("T", bound=BaseModel)


class StudyError(ValueError):
    """Something the user can put right, said in one line: the file or key, what is wrong, what to do."""


class Settings(BaseModel):
    """Base of everything that is read from a settings file: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, with or without a byte order mark. Raises StudyError, naming it, when it is not."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror}); correct its permissions") from error


def load_yaml(path: Path) -> Any:
    """Read a YAML file. Raises StudyError, naming the file, when it is not valid."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that does not exist
        raise StudyError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None


def parse(kind: type[T], content: Any, where: object) -> T:
    """Validate `content` as settings of a kind. Raises StudyError ("<where>: problem") for the first thing wrong."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise StudyError(f"{where}: {explain(error, kind)}") from None


def explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """Put the first problem in one line; unknown keys come first, because a misspelt key is also a missing one."""
    problems = error.errors(include_url=False)
    first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    *parents, key = first["loc"] or ("",)
    where = f" in {_dotted(parents)}" if parents else ""
    if first["type"] == "extra_forbidden":
        keys = list(_model_at(kind, parents).model_fields)
        return f"unknown key {key!r}{where}" + (did_you_mean(str(key), keys) or f"; the keys are {', '.join(keys)}")
    if first["type"] == "missing":
        return f"key '{key}' is missing{where}; add it"
    if not first["loc"]:
        return first["msg"].removeprefix("Value error, ")
    return f"key '{_dotted(first['loc'])}': {first['msg']}, got {reprlib.repr(first['input'])}"


def did_you_mean(name: str, known: list[str]) -> str:
    """ " (did you mean '…'?)" for the known name nearest to a misspelt one, or nothing."""
    near = difflib.get_close_matches(name, known, 1)
    return f" (did you mean '{near[0]}'?)" if near else ""


def _model_at(kind: type[BaseModel], location: list[str | int]) -> type[BaseModel]:
    """The model that the keys at `location` belong to; positions in a list have no model of their own."""
    for key in (part for part in location if isinstance(part, str)):
        annotation = kind.model_fields[key].annotation
        parts = (annotation, *get_args(annotation))
        kind = next(part for part in parts if isinstance(part, type) and issubclass(part, BaseModel))
    return kind


def _dotted(location: list | tuple) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")
