"""Where every file lies, and how files are written: whole or not at all, by one process at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
STUDIES, RECIPES, SPACES = (REPOSITORY / "workflow" / kind for kind in ("studies", "recipes", "spaces"))


def home() -> Path:
    """The folder of data/ and reports/: $STUDY_HOME, or else the repository."""
    return Path(os.environ.get("STUDY_HOME") or REPOSITORY).absolute()


@dataclass(frozen=True)
class Paths:
    """The files of one study: heavy ones in data/<study>/, which git ignores, light ones in reports/<study>/.

    `root` is the folder of data/ and reports/: `home()`, or Path() for paths relative to it, as the workflow has them.
    """

    study: str
    root: Path

    @property
    def data(self) -> Path:
        """Folder of the heavy files."""
        return self.root / "data" / self.study

    @property
    def report(self) -> Path:
        """Folder of the light files, which are committed."""
        return self.root / "reports" / self.study

    @property
    def index(self) -> Path:
        """The index, one row for each official clip, as notebook 01 found it; read it with `read_index`."""
        return self.data / "index.parquet"

    @property
    def clips(self) -> Path:
        """The clip store, one file for each clip."""
        return self.data / "clips"

    @property
    def clips_table(self) -> Path:
        """What notebook 02 stored of each clip, or why it could not."""
        return self.clips / "clips.parquet"

    @property
    def poses(self) -> Path:
        """The pose store."""
        return self.data / "poses.npz"

    @property
    def poses_table(self) -> Path:
        """What notebook 03 stored of each clip, or why it could not."""
        return self.data / "poses.parquet"

    @property
    def unfinished(self) -> Path:
        """Folder of notebooks that are running or have failed."""
        return self.data / "unfinished"

    @property
    def models(self) -> Path:
        """Folder of the released files."""
        return self.report / "models"

    def search(self, name: str) -> Path:
        """Folder of a search: its trials, and what its tuners know."""
        return self.data / "searches" / name

    def found_recipe(self, search: str) -> Path:
        """The recipe that a search has found."""
        return self.report / "recipes" / f"{search}.yaml"

    def training(self, run: str) -> Path:
        """Folder of the checkpoints of a run."""
        return self.data / "runs" / run

    def run(self, run: str) -> Path:
        """Folder of what a run reports: predictions, metrics, history."""
        return self.report / "runs" / run

    def predictions(self, run: str, split: str = "test") -> Path:
        """The predictions of a run for the clips of a split."""
        return self.run(run) / f"predictions-{split}.npz"

    def metrics(self, run: str, split: str = "test") -> Path:
        """The facts of a run, and its scores on a split."""
        return self.run(run) / ("metrics.json" if split == "test" else f"metrics-{split}.json")

    def exported(self, run: str, form: str, precision: str) -> Path:
        """An exported file: <run>[-stream]-<precision>.tflite or .onnx. form: "tflite", "onnx-stream" and so on."""
        suffix, _, stream = form.partition("-")
        return self.data / "exports" / f"{'-'.join(filter(None, (run, stream, precision)))}.{suffix}"

    def export_table(self, run: str) -> Path:
        """What the exported files of a run are worth, a row for each."""
        return self.run(run) / "export.csv"

    def table(self, name: str) -> Path:
        """A table of the report, such as "audit.csv"."""
        return self.report / "tables" / name

    def figure(self, name: str) -> Path:
        """A figure of the report, such as "comparison.png"."""
        return self.report / "figures" / name

    def page(self, step: str) -> Path:
        """An executed notebook of the report, without its suffixes .ipynb and .html."""
        return self.report / "notebooks" / step

    def done(self, step: str) -> Path:
        """What a step of the workflow leaves behind when it has ended well."""
        return self.data / "done" / step


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes the place of `path` when the block ends without an error.

    Missing folders are made. After an error `path` is as it was before, and the unfinished file is gone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}-{path.name}")  # keeps the suffix, which some writers go by
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock file, for which other processes wait. The lock ends with the process, however that ends.

    Needs a file system with flock (local, or NFS 4). Without `wait` it raises BlockingIOError when another has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
