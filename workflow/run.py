"""`make study`: check the study and its data, run Snakemake, and finish with the reason if a step failed.

    python workflow/run.py <study> <data root, or ""> [Snakemake's options]

Problems that can be found before any work is done are reported here, in one line.
"""

import os
import sys
from pathlib import Path
from urllib.parse import quote

import snakemake.cli

from lib.data.sources import list_clips, list_files
from lib.machine import cores
from lib.paths import REPOSITORY, home, replacing
from lib.recipes import read_recipe
from lib.settings import StudyError
from lib.study import READABLE, Study, load_study, read_space

WORKFLOW = Path(__file__).absolute().parent


def main(name: str, data: str, options: list[str]) -> int:
    """Check and run a study. Returns the exit code: 0, or 1 with the reason as the last line on stderr."""
    data = from_home(data)
    try:
        study = load_study(name, data, require_data=False)
        check(study, generated=not data)
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    home().mkdir(parents=True, exist_ok=True)
    if study.root.is_dir():  # else the study makes its data, and this list, first
        update_listing(study)
    # Snakemake's own count of "all" cores knows no container's quota.
    options = [str(cores()) if option == "all" else option for option in options]
    return run(study, [*arguments(name, data), *options])


def update_listing(study: Study) -> None:
    """Write the list of the files that the index is made from, unless it is as it was: a newer one means new work."""
    files, path = list_files(study), study.paths.listing
    if not path.is_file() or path.read_text(encoding="utf-8", errors="surrogateescape") != files:
        with replacing(path) as partial:
            partial.write_text(files, encoding="utf-8", errors="surrogateescape")


def run(study: Study, arguments: list[str]) -> int:
    """Run Snakemake in this process, so that signals reach it, then print the errors of failed notebooks."""
    errors = study.paths.unfinished
    for old in errors.glob("*.error"):
        old.unlink()
    try:
        snakemake.cli.main(arguments)
    except SystemExit as end:
        for error in sorted(errors.glob("*.error")):
            print(error.read_text(), end="", file=sys.stderr)
        return 1 if end.code else 0
    return 0


def from_home(data: str) -> str:
    """The data root relative to `home()`.

    Every spelling of a folder is then the same parameter, so none reruns anything, and pages show no machine's path.
    A relative root starts at the current directory.
    """
    return os.path.relpath(data, home()) if data else data


def check(study: Study, *, generated: bool) -> None:
    """Raise StudyError for a recipe, space, data root, annotation file or source that is absent, broken or unusable."""
    if {"{", "}"} & set(f"{REPOSITORY}{home()}"):
        raise StudyError(f"{REPOSITORY}: Snakemake takes {{ and }} in a path for patterns; rename the folder")
    for search in study.searches:
        read_space(search)
    if not (study.synthetic and generated):
        check_data(study)
    for spec in (*map(study.origin, study.runs), *study.searches):
        read_recipe(spec.recipe, spec.set)
        sources = READABLE[spec.reads()]
        if not set(sources) & set(study.sources):
            raise StudyError(
                f"study {study.name}: recipe '{spec.recipe}' reads {' or '.join(sources)}, the study has "
                f"{', '.join(study.sources)}; correct 'sources' or 'runs'"
            )


def check_data(study: Study) -> None:
    """Raise StudyError when the data root lacks a source of the study, or its list of clips is wrong."""
    if not study.root.is_dir():
        raise StudyError(f"the data root {study.root} does not exist: correct DATA")
    list_clips(study)
    for source in study.sources:
        if source != "clips" and not any((study.root / source).glob("*")):
            make = "run `make poses`" if source == "poses" else f"put the {source} there (see data/README.md)"
            problem = f"{study.root / source} is missing or empty: {make}"
            raise StudyError(f"{problem}, or take '{source}' out of the study's sources")


def arguments(name: str, data: str) -> list[str]:
    """Snakemake's arguments: quiet, and with nothing to clean up by hand after a kill.

    --nolock, because each step holds a lock of its own, which ends with its process (run_notebook.py).
    """
    path = str(Path(name).absolute()) if name.endswith((".yaml", ".yml")) else name
    config = [f"study={quote(path)}"]  # Snakemake reads values as YAML, without their quotation marks
    config += [f"data={quote(data)}"] if data else []  # and an empty one as None
    # Workers of each search and threads of each training, exported by the Makefile.
    config += [f"{key.lower()}={os.environ[key]}" for key in ("WORKERS", "THREADS") if os.environ.get(key)]
    return [
        *("--nolock", "--rerun-incomplete", "--rerun-triggers", "mtime", "input", "params"),
        *("--quiet", "reason", "host", "--config", *config),
        # These come last because they take one value each: a target after the options above would become their value.
        *("--snakefile", str(WORKFLOW / "Snakefile"), "--directory", str(home())),
    ]


if __name__ == "__main__":
    if sys.argv[1] == "--list":  # a step of the workflow, after the sample's data have been made
        update_listing(load_study(*sys.argv[2:]))
        sys.exit()
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
