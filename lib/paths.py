"""Where every file lies, and how files are written: whole or not at all, by one process at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
STUDIES, RECIPES, SPACES = (REPOSITORY / "workflow" / kind for kind in ("studies", "recipes", "spaces"))


def home() -> Path:
    """The folder of data/ and reports/: $STUDY_HOME, or else the repository."""
    return Path(os.environ.get("STUDY_HOME") or REPOSITORY).absolute()


class Paths:
    """The files of one study: heavy ones in data/<study>/, which git ignores, light ones in reports/<study>/."""

    def __init__(self, study: str, root: Path) -> None:
        """root: the folder of data/ and reports/; `home()`, or Path() for the relative paths of the workflow."""
        self.data = root / "data" / study
        self.listing = self.data / "files.txt"  # what the index is made from
        self.index = self.data / "index.parquet"  # as notebook 01 found it; `read_index` adds what 02 and 03 found
        self.clips = self.data / "clips"  # the clip store, one file for each clip
        self.clips_table = self.clips / "clips.parquet"  # what notebook 02 stored of each clip, or why it could not
        self.poses = self.data / "poses.npz"  # the pose store
        self.poses_table = self.data / "poses.parquet"  # what notebook 03 stored of each clip, or why it could not
        self.unfinished = self.data / "unfinished"  # notebooks that are running or have failed
        self.report = root / "reports" / study
        self.models = self.report / "models"  # released files

    def search(self, name: str) -> Path:
        """Folder of a search: its trials and the state of its tuners."""
        return self.data / "searches" / name

    def found_recipe(self, search: str) -> Path:
        """The recipe that a search has found."""
        return self.report / "recipes" / f"{search}.yaml"

    def training(self, run: str) -> Path:
        """Folder of a run's checkpoints."""
        return self.data / "runs" / run

    def run(self, run: str) -> Path:
        """Folder of a run's predictions, metrics and history."""
        return self.report / "runs" / run

    def predictions(self, run: str, split: str = "test") -> Path:
        """The predictions of a run for the clips of a split."""
        return self.run(run) / f"predictions-{split}.npz"

    def metrics(self, run: str, split: str = "test") -> Path:
        """The facts of a run and its scores on a split."""
        return self.run(run) / ("metrics.json" if split == "test" else f"metrics-{split}.json")

    def known(self, run: str) -> Path:
        """From which score on a clip shows a sign that the run knows, as notebook 12 has found."""
        return self.run(run) / "known.json"

    def exported(self, run: str, form: str, precision: str) -> Path:
        """An exported file, <run>[-stream]-<precision>.tflite or .onnx; form: "tflite", "onnx-stream" and so on."""
        suffix, _, stream = form.partition("-")
        return self.data / "exports" / f"{'-'.join(filter(None, (run, stream, precision)))}.{suffix}"

    def exported_predictions(self, run: str, form: str, precision: str) -> Path:
        """The predictions of an exported file for the test clips."""
        return self.run(run) / "exports" / f"predictions-test-{form}-{precision}.npz"

    def export_table(self, run: str) -> Path:
        """Size, latency and operations of a run's exported files."""
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
        """An empty file that says that a step of the workflow has succeeded."""
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

    Needs a file system with flock (local, or NFS 4) where it is not Windows. Without `wait` it raises BlockingIOError
    when another has it.
    """
    from filelock import FileLock, Timeout  # here, because environments that lack it ask where files lie

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, blocking=wait, is_singleton=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise BlockingIOError(f"{path} is locked by another process") from error
    try:
        yield
    finally:
        lock.release()
