"""A study: one YAML file that says which data, which split and which runs; checked before work starts."""

import difflib
import os
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from lib.models import family

STUDIES = Path(__file__).parents[1] / "workflow" / "studies"
RECIPES = STUDIES.parent / "recipes"

# Names become parts of file names.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Source = Literal["videos", "keypoints", "hands", "clips"]
Tuner = Literal["bayesian", "hyperband", "random"]


class StudyError(ValueError):
    """What a user can put right, said in one line: the file or key, what is wrong, what to do."""


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class FromRecipe(_Checked):
    """A recipe, with what `set` replaces in it for this study, by dotted name ("train.epochs": 5)."""

    recipe: Name
    set: dict[str, Any] = {}

    def model(self) -> str:
        """Name of the model that the recipe trains, read without any framework.

        Raises StudyError when there is no such recipe or it names no model.
        """
        path = RECIPES / f"{self.recipe}.yaml"
        if not path.is_file():
            there = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml")))
            raise StudyError(f"there is no recipe '{self.recipe}'; there are {there}")
        content = load_yaml(path)
        model = self.set.get("model") or (content.get("model") if isinstance(content, dict) else None)
        if not isinstance(model, str):
            raise StudyError(f"{path}: key 'model' is missing; add it")
        return model

    def family(self) -> str:
        """Family of the model. Raises StudyError as `model` does, and for an unknown model."""
        try:
            return family(self.model())
        except ValueError as error:
            raise StudyError(f"recipe '{self.recipe}': {error}") from None

    def reads_poses(self) -> bool:
        """Whether the model reads poses; the others read clips. Raises StudyError as `family` does."""
        return self.family() == "spobet"


class RunSpec(FromRecipe):
    """A recipe to train: once with seed 0 and the recipe's name, or once for each of `seeds`.

    `name` is a name of its own, so that a recipe can be trained in several ways. The recipe may be one that a search
    of the study finds.
    """

    name: Name | None = None
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None

    def runs(self) -> Iterator[tuple[str, int]]:
        """Name and seed of each run."""
        if self.seeds is None:
            yield self.title, 0
        else:
            yield from ((f"{self.title}-s{seed}", seed) for seed in self.seeds)

    @property
    def title(self) -> str:
        """What its runs are called, but for the seed."""
        return self.name or self.recipe


class SearchSpec(FromRecipe):
    """A search for the settings of a recipe; what it finds is the recipe `name`, which runs of the study may train.

    `set` becomes part of that recipe, `trial` is set while searching only: train.epochs, the longest of a trial.
    """

    name: Name
    space: Name  # a file in workflow/spaces/
    trial: dict[str, Any] = {}
    tuners: Annotated[list[Tuner], Field(min_length=1)] = ["bayesian", "hyperband", "random"]
    trials: Annotated[int, Field(ge=1)] | None = None  # of bayesian and of random; None: as hyperband costs in epochs
    seed: Annotated[int, Field(ge=0)] = 0


class ClipStore(_Checked):
    """How notebook 02 stores the clips of the videos."""

    size: Annotated[int, Field(ge=16)] = 256  # pixels on a side; leaves a random crop of 7/8 at the usual 224
    margin: Annotated[float, Field(ge=0)] = 0.1  # of the box's longer side, on each side; see lib/data/video.py
    find_person: bool = False  # where no box is given: crop to what moves, not to the middle


class StudyFile(_Checked):
    """The keys of a study file. Every key without a default must be there; no other key may be."""

    title: str
    synthetic: bool = False  # made-up data: every report says so
    subset: Annotated[int, Field(ge=2)]  # number of glosses; of one's own clips, all
    sources: Annotated[list[Source], Field(min_length=1)]  # a clip is present when readable in all of these
    split: Literal["official", "signer-disjoint"]  # official: of one's own clips, given or made (lib/data/folder.py)
    drop_duplicates: bool = False
    clips: ClipStore = ClipStore()
    layout: Literal["openpose-54", "hands-42"] | None = None  # of keypoints and hands
    searches: list[SearchSpec] = []
    runs: Annotated[list[RunSpec], Field(min_length=1)]
    exports: list[Name] = []  # names of runs that notebook 10 makes files of
    release: list[Name] = []  # of those, whose files are committed in reports/<study>/models/

    @model_validator(mode="after")
    def _videos_come_first(self) -> Self:
        if "videos" in self.sources[1:]:
            raise ValueError("key 'sources': put 'videos' first, so that the index has their paths and frame numbers")
        return self

    @model_validator(mode="after")
    def _own_clips_stand_alone(self) -> Self:
        if "clips" in self.sources and (len(self.sources) > 1 or self.layout):
            what = "key 'layout'" if self.layout else "the other sources"
            raise ValueError(
                f"key 'sources': 'clips' (one's own videos) come without annotations or poses; remove {what}"
            )
        return self

    @model_validator(mode="after")
    def _poses_have_a_layout(self) -> Self:
        if {"keypoints", "hands"} & set(self.sources) and not self.layout:
            raise ValueError("key 'layout' is missing; add it")
        return self

    @model_validator(mode="after")
    def _run_names_are_unique(self) -> Self:
        names = self.run_names()
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"run '{name}' stands twice in 'runs': remove one or give it other 'seeds'")
        return self

    @model_validator(mode="after")
    def _searches_have_names_of_their_own(self) -> Self:
        names = [spec.name for spec in self.searches]
        for name in names:
            if names.count(name) > 1 or (RECIPES / f"{name}.yaml").is_file():
                taken = "another search" if names.count(name) > 1 else "a recipe in workflow/recipes/"
                raise ValueError(f"search '{name}' has the name of {taken}: give it another")
        return self

    @model_validator(mode="after")
    def _exported_runs_exist(self) -> Self:
        for key, names, there in (
            ("exports", self.exports, self.run_names()),
            ("release", self.release, self.exports),
        ):
            for name in names:
                if name not in there:
                    raise ValueError(f"key '{key}': there is no run '{name}'; there are {', '.join(there) or 'none'}")
        return self

    def run_names(self) -> list[str]:
        """Names of all runs in the order of the file: "<recipe>", or "<recipe>-s<seed>" for each seed."""
        return [name for spec in self.runs for name, _ in spec.runs()]


class Study(StudyFile):
    """A study file together with its name and the data root it is run on."""

    name: Name
    root: Path

    @property
    def data_dir(self) -> Path:
        """Folder of the heavy files, which git ignores."""
        return home() / "data" / self.name

    @property
    def report_dir(self) -> Path:
        """Folder of the light files, which are committed."""
        return home() / "reports" / self.name

    @property
    def index_path(self) -> Path:
        """The index: one row per official clip (parquet)."""
        return self.data_dir / "index.parquet"

    @property
    def poses_path(self) -> Path:
        """The pose store (npz)."""
        return self.data_dir / "poses.npz"

    @property
    def clips_dir(self) -> Path:
        """The clip store: one file for each clip, and clips.parquet."""
        return self.data_dir / "clips"

    @property
    def recipes_dir(self) -> Path:
        """The recipes that searches of the study have found."""
        return self.report_dir / "recipes"

    def recipe_path(self, name: str) -> Path:
        """File of a recipe: found by a search of the study, else one of workflow/recipes/."""
        found = name in (spec.name for spec in self.searches)
        return (self.recipes_dir if found else RECIPES) / f"{name}.yaml"

    def origin(self, spec: RunSpec) -> FromRecipe:
        """What says which model a run trains, also before a search has found its recipe."""
        return next((search for search in self.searches if search.name == spec.recipe), spec)

    def find_search(self, name: str) -> SearchSpec:
        """The search called `name`. Raises StudyError, with the searches, when there is none."""
        for spec in self.searches:
            if spec.name == name:
                return spec
        there = ", ".join(spec.name for spec in self.searches) or "none"
        raise StudyError(f"study {self.name} has no search '{name}'; its searches: {there}")

    def find_run(self, name: str) -> tuple[RunSpec, int]:
        """Recipe and seed of the run called `name`. Raises StudyError, with the runs, when there is none."""
        for spec in self.runs:
            for run, seed in spec.runs():
                if run == name:
                    return spec, seed
        raise StudyError(f"study {self.name} has no run '{name}'; its runs: {', '.join(self.run_names())}")


def home() -> Path:
    """Where data/ and reports/ lie: $STUDY_HOME, else the root of the repository."""
    return Path(os.environ.get("STUDY_HOME") or STUDIES.parents[1]).absolute()


def most_epochs() -> int | None:
    """How many epochs a training may take at most: $STUDY_EPOCHS, where all of a study is to be tried; else None."""
    return int(os.environ["STUDY_EPOCHS"]) if os.environ.get("STUDY_EPOCHS") else None


def load_study(name: str, data: str | Path = "", require_data: bool = True) -> Study:
    """Read and check a study file.

    `name` is a file in workflow/studies/ without its suffix, or the path of a .yaml file.
    `data` is the data root; a relative one starts at `home()`. Empty: a synthetic study has its own at
    data/<name>/wlasl, others, and those on one's own clips, need one.
    Raises StudyError when the file is absent or wrong or, with `require_data`, when the data root is absent.
    """
    path = _find_file(name)
    fields = dict(_read(path))
    root = _find_root(path.stem, data, has_own=fields["synthetic"] and "clips" not in fields["sources"])
    if require_data and not root.is_dir():
        hint = "run `make study` to make it" if fields["synthetic"] and not data else "correct DATA"
        raise StudyError(f"the data root {root} does not exist: {hint}")
    try:
        return Study(**fields, name=path.stem, root=root)
    except ValidationError as error:
        raise StudyError(f"{path}: {explain(error, Study)}") from None


def _find_file(name: str) -> Path:
    path = Path(name) if name.endswith((".yaml", ".yml")) else STUDIES / f"{name}.yaml"
    if path.is_file():
        return path
    shipped = sorted(file.stem for file in STUDIES.glob("*.yaml"))
    guess = f" (did you mean '{near[0]}'?)" if (near := difflib.get_close_matches(name, shipped, 1)) else ""
    raise StudyError(
        f"there is no study '{name}'{guess}; workflow/studies/ has {', '.join(shipped)}; "
        "or give the path of a .yaml file"
    )


def _read(path: Path) -> StudyFile:
    content = load_yaml(path)
    if not isinstance(content, dict):
        raise StudyError(f"{path}: holds no keys; it needs {', '.join(StudyFile.model_fields)}")
    try:
        return StudyFile.model_validate(content)
    except ValidationError as error:
        raise StudyError(f"{path}: {explain(error, StudyFile)}") from None


def load_yaml(path: Path) -> Any:
    """Content of a YAML file. Raises StudyError, naming it, when it is not valid."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, a date that does not exist
        raise StudyError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None


def _find_root(name: str, data: str | Path, *, has_own: bool) -> Path:
    if not str(data) and not has_own:
        raise StudyError(f"study {name} needs data: say where they are with DATA=<root> (see data/README.md)")
    return Path(os.path.normpath(home() / (data or f"data/{name}/wlasl")))


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Say the first problem of a file in one line; unknown keys first, as a misspelt key is missing too."""
    problems = error.errors(include_url=False)
    first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    *parents, key = first["loc"] or ("",)
    where = f" in {_dotted(parents)}" if parents else ""
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}{where}{_suggest(str(key), _model_at(model, parents))}"
    if first["type"] == "missing":
        return f"key '{key}' is missing{where}; add it"
    if not first["loc"]:
        return first["msg"].removeprefix("Value error, ")
    return f"key '{_dotted(first['loc'])}': {first['msg']}, got {reprlib.repr(first['input'])}"


def _model_at(model: type[BaseModel], location: list[str | int]) -> type[BaseModel]:
    """The model that the keys at `location` belong to; list positions have no model of their own."""
    for key in (part for part in location if isinstance(part, str)):
        annotation = model.model_fields[key].annotation
        parts = (annotation, *get_args(annotation))
        model = next(part for part in parts if isinstance(part, type) and issubclass(part, BaseModel))
    return model


def _suggest(key: str, model: type[BaseModel]) -> str:
    near = difflib.get_close_matches(key, model.model_fields, 1)
    return f" (did you mean '{near[0]}'?)" if near else f"; the keys are {', '.join(model.model_fields)}"


def _dotted(location: list | tuple) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")
