"""`make study`: check the study and its data, then run Snakemake, and end with why a step failed if one did.

    python workflow/run.py <study> <data root, or ""> [Snakemake's options]

What can be known to fail before any work is done fails here, as one line.
"""

import os
import sys
from pathlib import Path

import snakemake.cli

from lib.data.index import list_clips
from lib.paths import home
from lib.recipes import read_recipe
from lib.settings import StudyError
from lib.spaces import read_space
from lib.study import READABLE, Study, load_study

WORKFLOW = Path(__file__).absolute().parent


def main(name: str, data: str, options: list[str]) -> int:
    """Check, run, and return the exit code: 0, or 1 with the reason as the last line on stderr."""
    data = from_home(data)
    try:
        study = load_study(name, data, require_data=False)
        check(study, generated=not data)
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    home().mkdir(parents=True, exist_ok=True)
    return run(study, [*arguments(name, data), *options])


def run(study: Study, arguments: list[str]) -> int:
    """Run Snakemake in this process, so that signals reach it, then print what failed notebooks left."""
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
    """The data root relative to `home()`, so that no spelling of one folder runs anything again or is committed.

    A relative one starts where the user stands.
    """
    return os.path.relpath(data, home()) if data else data


def check(study: Study, *, generated: bool) -> None:
    """Raise StudyError for a recipe, space, data root, annotation file or source that is absent, broken or no use."""
    for search in study.searches:
        read_space(search)
    if not (study.synthetic and generated):
        check_data(study)
    for spec in (*map(study.origin, study.runs), *study.searches):
        read_recipe(spec.recipe, spec.set)
        sources = READABLE[spec.family().kind]
        if not set(sources) & set(study.sources):
            raise StudyError(
                f"study {study.name}: recipe '{spec.recipe}' reads {' or '.join(sources)}, the study has "
                f"{', '.join(study.sources)}; correct 'sources' or 'runs'"
            )


def check_data(study: Study) -> None:
    """Raise StudyError when the data root lacks what the study reads, or what says which clips there are is wrong."""
    if not study.root.is_dir():
        raise StudyError(f"the data root {study.root} does not exist: correct DATA")
    list_clips(study)
    for source in study.sources:
        if source != "clips" and not any((study.root / source).glob("*")):
            raise StudyError(
                f"{study.root / source} is missing or empty: put the {source} there (see data/README.md), "
                f"or take '{source}' out of the study's sources"
            )


def arguments(name: str, data: str) -> list[str]:
    """Snakemake's arguments: little chatter, and nothing to clean up by hand after a kill.

    The steps hold locks of their own, which end with their processes (run_notebook.py), hence --nolock.
    """
    config = [f"study={Path(name).absolute() if name.endswith('.yaml') else name}"]
    config += [f"data={data}"] if data else []  # Snakemake would read an empty value as None
    # Of each search, and of each training; see the Makefile.
    config += [f"{key.lower()}={os.environ[key]}" for key in ("WORKERS", "THREADS") if os.environ.get(key)]
    return [
        *("--nolock", "--rerun-incomplete", "--rerun-triggers", "mtime", "input", "params"),
        *("--quiet", "reason", "host", "--config", *config),
        # Last, as these take one value each: the options above would take a target behind them for a value, too.
        *("--snakefile", str(WORKFLOW / "Snakefile"), "--directory", str(home())),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
