"""One status of a clip: what notebook 01 found, and what the stores of notebooks 02 and 03 could not hold."""

from types import SimpleNamespace

import pandas as pd
import pytest

from lib.data.index import missing_count, present, read_index
from lib.paths import Paths
from lib.settings import StudyError

FOUND = {"a": "present", "b": "present", "c": "missing", "d": "dropped: same content in test", "e": "present"}


@pytest.fixture
def study(tmp_path):
    """A study with an index of five clips."""
    study = SimpleNamespace(name="tiny", paths=Paths("tiny", tmp_path))
    study.paths.clips.mkdir(parents=True)
    index = pd.DataFrame({"video_id": list(FOUND), "split": ["test", "test", "test", "train", "train"]})
    index.assign(status=FOUND.values()).to_parquet(study.paths.index)
    return study


def store(path, **reasons):
    """A store's table: why each clip could not be stored, "" where it was."""
    table = pd.DataFrame({"video_id": list(reasons), "reason": list(reasons.values())}, dtype=str)
    table.assign(status=table["reason"].map(lambda reason: "unreadable" if reason else "present")).to_parquet(path)


def status(study, **options):
    return read_index(study, **options).set_index("video_id")["status"].to_dict()


def test_index_without_stores_is_read_as_it_was_written(study):
    pd.testing.assert_frame_equal(read_index(study), pd.read_parquet(study.paths.index))
    assert status(study) == FOUND


@pytest.mark.parametrize("table", ["clips_table", "poses_table"])
def test_clip_that_either_store_could_not_hold_is_missing_for_every_reader(study, table):
    store(getattr(study.paths, table), a="", b="black throughout", e="")
    index = read_index(study)
    assert index.set_index("video_id")["status"].to_dict() == FOUND | {"b": "unreadable: black throughout"}
    assert present(index)["video_id"].tolist() == ["a", "e"]
    assert present(index, "test")["video_id"].tolist() == ["a"]
    assert missing_count(index, "test") == 2


def test_first_reason_wins_and_the_index_comes_first(study):
    store(study.paths.clips_table, a="", b="black throughout", c="", d="cut short", e="")
    store(study.paths.poses_table, a="no joints", b="no joints", c="no joints", d="no joints", e="")
    expected = {"a": "unreadable: no joints", "b": "unreadable: black throughout"}
    assert status(study) == FOUND | expected


def test_stale_table_leaves_clips_that_it_does_not_list_as_they_are(study):
    store(study.paths.clips_table, gone="cut short", a="")
    assert status(study) == FOUND
    store(study.paths.poses_table)
    assert status(study) == FOUND


def test_notebooks_that_build_the_stores_retry_what_failed_last_time(study):
    store(study.paths.clips_table, a="", b="black throughout", e="")
    assert status(study, stores=False) == FOUND


def test_missing_count_counts_every_clip_of_the_split_that_is_not_present(study):
    index = pd.DataFrame({"split": ["test"] * 4 + ["train"], "status": [*FOUND.values()][1:] + ["missing"]})
    assert missing_count(index, "test") == 2
    with pytest.raises(StudyError, match="no clip of split 'dev'"):
        missing_count(index, "dev")


def test_absent_index_names_the_notebook_that_writes_it(tmp_path):
    with pytest.raises(StudyError, match=r"index.parquet is missing; run notebooks/01_dataset.ipynb"):
        read_index(SimpleNamespace(name="tiny", paths=Paths("tiny", tmp_path)))
