"""The index of a study: one row per official clip, with the status that all later steps go by.

Notebook 01 writes what `lib.data.sources.build_index` found; notebooks 02 and 03 record the clips they could not store.
`read_index` combines the three, so that all runs of a study use the same clips and can be compared clip by clip.
"""

import pandas as pd

from lib.settings import StudyError
from lib.study import Study


def read_index(study: Study, *, stores: bool = True) -> pd.DataFrame:
    """Read the index, with the columns of `build_index`.

    Present clips that the clip store or the pose store could not hold get the status "unreadable: <reason>". Clips
    that a store's table does not list keep their status. Only notebooks 02 and 03 pass `stores=False`: they build the
    stores, and retry what failed last time. Raises StudyError when notebook 01 has not written the index.
    """
    path = study.paths.index
    if not path.is_file():
        raise StudyError(f"{path} is missing; run notebooks/01_dataset.ipynb, or `make study STUDY={study.name}`")
    index = pd.read_parquet(path)
    tables = [study.paths.clips_table, study.paths.poses_table] if stores else []
    for path in (path for path in tables if path.is_file()):
        table = pd.read_parquet(path, columns=["video_id", "status", "reason"]).set_index("video_id")
        failures = "unreadable: " + table["reason"][table["status"] != "present"]
        failed = (index["status"] == "present") & index["video_id"].isin(failures.index)
        index["status"] = index["status"].mask(failed, index["video_id"].map(failures))
    return index


def present(index: pd.DataFrame, split: str | None = None) -> pd.DataFrame:
    """The rows of the present clips of a split, or of all splits, in index order."""
    rows = index[index["status"] == "present"]
    return rows if split is None else rows[rows["split"] == split]


def missing_count(index: pd.DataFrame, split: str) -> int:
    """Count the clips of a split that are not present. Raises StudyError when the index has no clip of that split."""
    clips = index[index["split"] == split]
    if clips.empty:
        raise StudyError(f"the index has no clip of split {split!r}, only {sorted(index['split'].unique())}")
    return len(clips) - len(present(clips))
