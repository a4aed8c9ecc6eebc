"""A study: one YAML file that says which data, which split and which runs; checked before work starts."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from lib import paths
from lib.data.layouts import LAYOUTS
from lib.models import Family, family_of
from lib.paths import Paths, home
from lib.recipes import AnyRecipe, Space, Stores, find_recipe, kind_of, model_of, read_recipe
from lib.settings import Settings, StudyError, did_you_mean, load_yaml, parse

# Names become parts of file names.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Source = Literal["videos", "keypoints", "hands", "poses", "clips"]
Tuner = Literal["bayesian", "hyperband", "random"]
Precision = Literal["float32", "float16", "int8-dynamic", "int8"]
READABLE = {"poses": ("keypoints", "hands", "poses"), "clips": ("videos", "clips")}  # sources of each store
HELD = {"keypoints": ("openpose-54", "hands-42"), "hands": ("hands-42",), "poses": tuple(LAYOUTS)}  # layouts by source


class _Strict(Settings):
    model_config = ConfigDict(strict=True)


class FromRecipe(_Strict):
    """A recipe, with what `set` replaces in it for this study, by dotted name ("train.epochs": 5)."""

    recipe: Name
    set: dict[str, Any] = {}

    def model(self) -> str:
        """Name of the model that the recipe trains. Raises StudyError when there is no such recipe or model."""
        return model_of(find_recipe(self.recipe), self.set)

    def family(self) -> Family:
        """The model's row of the registry. Raises StudyError as `model` does."""
        return family_of(self.model())

    def reads(self) -> Stores:
        """Which store a run of the recipe reads. Raises StudyError as `model` does."""
        return kind_of(find_recipe(self.recipe), self.set).reads


class RunSpec(FromRecipe):
    """A recipe to train: once with seed 0 under the recipe's name, or once for each of `seeds`.

    `name` replaces the recipe's name, so that one recipe can be trained in several ways. The recipe may be one that a
    search of the study finds.
    """

    name: Name | None = None
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None

    def runs(self) -> Iterator[tuple[str, int]]:
        """Name and seed of each run."""
        yield from ((f"{self.title}-s{seed}", seed) for seed in self.seeds) if self.seeds else ((self.title, 0),)

    @property
    def title(self) -> str:
        """The name of its runs without the seed."""
        return self.name or self.recipe


class SearchSpec(FromRecipe):
    """A search for better settings of a recipe; its result is the recipe `name`, which runs of the study may train.

    `set` becomes part of that recipe. `trial` applies during the search only; its train.epochs is the longest trial.
    """

    name: Name
    space: Name  # a file in workflow/spaces/
    trial: dict[str, Any] = {}
    tuners: Annotated[list[Tuner], Field(min_length=1)] = ["bayesian", "hyperband", "random"]
    trials: Annotated[int, Field(ge=1)] | None = None  # of bayesian and random; None: as many epochs as hyperband costs
    seed: Annotated[int, Field(ge=0)] = 0


class ClipStore(_Strict):
    """How notebook 02 stores the clips of the videos."""

    size: Annotated[int, Field(ge=16)] = 256  # pixels on a side; leaves room for a random crop of 7/8 at the usual 224
    margin: Annotated[float, Field(ge=0)] = 0.1  # on each side, as a share of the box's longer side
    find_person: bool = False  # without a box, crop to whatever moves instead of the centre


class Hours(_Strict):
    """The longest that a step may take where a scheduler (SLURM) asks; one that is stopped resumes when run again."""

    data: Annotated[float, Field(gt=0)] = 4  # each of notebooks 01 to 03
    train: Annotated[float, Field(gt=0)] = 24
    search: Annotated[float, Field(gt=0)] = 48
    export: Annotated[float, Field(gt=0)] = 4


class StudyFile(_Strict):
    """The keys of a study file. Keys without a default are required; any other key is an error."""

    title: str
    synthetic: bool = False  # made-up data: every report says so
    subset: Annotated[int, Field(ge=2)]  # number of glosses; for one's own clips, all of them
    sources: Annotated[list[Source], Field(min_length=1)]  # a clip is present when readable in all of these
    split: Literal["official", "signer-disjoint"]  # official: of own clips, given or made (lib/data/index.py)
    drop_duplicates: bool | None = None  # drop twins (lib/data/twins.py); without it, where the sources have hands
    clips: ClipStore = ClipStore()
    layout: Literal[tuple(LAYOUTS)] | None = None  # of keypoints, hands and poses
    searches: list[SearchSpec] = []
    runs: Annotated[list[RunSpec], Field(min_length=1)]
    exports: list[Name] = []  # runs that notebook 10 exports
    predict: Name | None = None  # the run of a pose model that notebook 12 names clips and longer videos with
    ablation: Name | None = None  # the run that notebook 15 compares all others with, on validation alone
    new_signs: Name | None = None  # the run of a pose model that notebook 14 names signs with which it never saw
    precisions: list[Precision] = list(get_args(Precision))  # of the exported files
    hours: Hours = Hours()
    release: list[Name] = []  # exported runs whose files are committed in reports/<study>/models/

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        for first in {"videos", "clips"} & set(self.sources[1:]):
            raise ValueError(f"key 'sources': put '{first}' first, so that the index has their paths and frame numbers")
        poses = set(READABLE["poses"]) & set(self.sources)
        if "clips" in self.sources and (set(self.sources) - {"clips", "poses"} or (self.layout and not poses)):
            what = "key 'layout'" if self.layout else "the other sources"
            raise ValueError(f"key 'sources': 'clips' (one's own videos) have no annotations or poses; remove {what}")
        if poses and not self.layout:
            raise ValueError("key 'layout' is missing; add it")
        if poses and not self.pose_source:
            raise ValueError(f"key 'layout': {' and '.join(sorted(poses))} do not hold '{self.layout}'")
        return self

    @property
    def pose_source(self) -> str:
        """The first source that holds the joints of the layout, "" if none does."""
        return next((source for source in self.sources if self.layout in HELD.get(source, ())), "")

    @property
    def drops_twins(self) -> bool:
        """Whether nothing is trained on twins of the clips that are validated and tested on."""
        return "hands" in self.sources if self.drop_duplicates is None else self.drop_duplicates

    @model_validator(mode="after")
    def _check_precisions(self) -> Self:
        needed = ["float32", "int8", *(["float16"] if self.release else [])]  # of notebook 10, and of released files
        if missing := [precision for precision in needed if precision not in self.precisions]:
            raise ValueError(f"key 'precisions': add {' and '.join(missing)}")
        return self

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        runs, searches = self.run_names(), [spec.name for spec in self.searches]
        for name in runs:
            if runs.count(name) > 1:
                raise ValueError(f"run '{name}' appears twice in 'runs': remove one or give it other 'seeds'")
        for name in searches:
            if searches.count(name) > 1 or (paths.RECIPES / f"{name}.yaml").is_file():
                taken = "another search" if searches.count(name) > 1 else "a recipe in workflow/recipes/"
                raise ValueError(f"search '{name}' has the name of {taken}: rename it")
        lists = [("exports", self.exports, runs), ("release", self.release, self.exports)]
        lists += [(key, [run], runs) for key in ("predict", "new_signs", "ablation") if (run := getattr(self, key))]
        for key, names, known in lists:
            for name in set(names) - set(known):
                raise ValueError(f"key '{key}': there is no run '{name}'; there are {', '.join(known) or 'none'}")
        return self

    def run_names(self) -> list[str]:
        """Names of all runs in the order of the file: "<recipe>", or "<recipe>-s<seed>" for each seed."""
        return [name for spec in self.runs for name, _ in spec.runs()]


class Study(StudyFile):
    """A study file together with its name and the data root it is run on."""

    name: Name
    root: Path

    @property
    def paths(self) -> Paths:
        """Where the study's files lie."""
        return Paths(self.name, home())

    def recipe_path(self, name: str) -> Path:
        """File of a recipe: found by a search of the study, else one of workflow/recipes/."""
        found = name in (spec.name for spec in self.searches)
        return self.paths.found_recipe(name) if found else paths.RECIPES / f"{name}.yaml"

    def origin(self, spec: RunSpec) -> FromRecipe:
        """The spec that says which model a run trains: its own, or the search that is to find its recipe."""
        return next((search for search in self.searches if search.name == spec.recipe), spec)

    def planned(self, spec: RunSpec) -> AnyRecipe:
        """The recipe of a run, as far as it is known before a search has found its settings."""
        origin = self.origin(spec)
        return read_recipe(origin.recipe, {**origin.set, **spec.set})

    def fusible(self) -> dict[str, list[str]]:
        """The runs that notebook 16 chooses from, by kind of model, "clips" and "poses"; {} unless there are both.

        Runs that start from other runs or learn from them, which may have seen more than this study, are left out.
        """
        kinds: dict[str, list[str]] = {}
        for spec in self.runs:
            recipe = self.planned(spec)
            if not recipe.start and not getattr(recipe, "distil", None):
                kinds.setdefault(self.origin(spec).family().kind, []).extend(run for run, _ in spec.runs())
        return kinds if len(kinds) > 1 else {}

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


def load_study(name: str, data: str | Path = "", require_data: bool = True) -> Study:
    """Read and check a study file.

    `name` is a file in workflow/studies/ without its suffix, or the path of a .yaml file.
    `data` is the data root; a relative one starts at `home()`. If empty, a synthetic study uses data/<name>/wlasl;
    every other study needs one.
    Raises StudyError when the file is absent or wrong or, with `require_data`, when the data root is absent.
    """
    path = _find_file(name)
    content = load_yaml(path)
    if not isinstance(content, dict):
        raise StudyError(f"{path}: holds no keys; it needs {', '.join(StudyFile.model_fields)}")
    fields = dict(parse(StudyFile, content, path))
    root = _find_root(path.stem, data, has_own=fields["synthetic"] and "clips" not in fields["sources"])
    if require_data and not root.is_dir():
        hint = "run `make study` to make it" if fields["synthetic"] and not data else "correct DATA"
        raise StudyError(f"the data root {root} does not exist: {hint}")
    return parse(Study, {**fields, "name": path.stem, "root": root}, path)


def _find_file(name: str) -> Path:
    path = Path(name) if name.endswith((".yaml", ".yml")) else paths.STUDIES / f"{name}.yaml"
    if path.is_file():
        return path
    shipped = sorted(file.stem for file in paths.STUDIES.glob("*.yaml"))
    raise StudyError(
        f"there is no study '{name}'{did_you_mean(name, shipped)}; workflow/studies/ has {', '.join(shipped)}; "
        "or give the path of a .yaml file"
    )


def _find_root(name: str, data: str | Path, *, has_own: bool) -> Path:
    if not str(data) and not has_own:
        raise StudyError(f"study {name} needs data: pass DATA=<root> (see data/README.md)")
    return Path(os.path.normpath(home() / (data or f"data/{name}/wlasl")))


def find_seed(study: Study, place: str, seed: int) -> tuple[Study, str]:
    """Find the run of a seed among "<study>/<name of its runs>": its study, on the same data root, and its name.

    Raises StudyError when there is no such study or run.
    """
    name, _, title = place.partition("/")
    other = study if name == study.name else load_study(name, study.root)
    runs = {number: run for spec in other.runs if spec.title == title for run, number in spec.runs()}
    if seed not in runs:
        there = ", ".join(other.run_names())
        raise StudyError(f"study {name} has no run of '{title}' with seed {seed}; its runs: {there}")
    return other, runs[seed]


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
