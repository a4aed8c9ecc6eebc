"""Writing files so that a killed process never leaves half of one behind."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes the place of `path` when the block ends without an
    error.

    Missing folders are made. After an error `path` is as it was before and the unfinished file is gone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}-{path.name}")  # keeps the suffix, which some writers go by
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
