"""The audit and the coverage table, on a small index whose findings are known."""

import json
from types import SimpleNamespace

import pandas as pd
import pytest

from lib.data.audit import ALL, audit, coverage
from lib.data.index import duplicates
from lib.data.sources import build_index
from lib.data.twins import pair_up
from lib.figures import data as figures

CLIPS = [  # video_id, gloss, label, split, signer, status, content
    ("1", "book", 0, "train", 5, "present", "x"),
    ("2", "book", 0, "test", 5, "present", "x"),
    ("3", "book", 0, "train", 6, "unreadable: cut short", ""),
    ("4", "all", 1, "val", 7, "missing", ""),
    ("5", "all", 1, "train", None, "present", "y"),
    ("6", "all", 1, "test", 8, "present", "z"),
    ("7", "book", 0, "test", 9, "present", "z"),
    ("8", "all", 1, "train", 9, "dropped: twin of 2 (test)", "x"),
]


@pytest.fixture
def index():
    columns = ["video_id", "gloss", "label", "split", "signer", "status", "content"]
    table = pd.DataFrame(CLIPS, columns=columns).astype({"signer": "Int64"})
    notes = ["", "mirrored", *[""] * 6]
    return table.assign(source="aslu", notes=notes, frame_start=0, frame_end=range(20, 28), fps=25.0)


@pytest.fixture
def study(tmp_path):
    return SimpleNamespace(root=tmp_path, subset=2, sources=["hands"], split="official")


def audited(index, study):
    return audit(index, study, pair_up(index, [], index["video_id"]))


@pytest.fixture
def table(index, study):
    return audited(index, study).set_index("check")


def test_columns_are_those_of_the_contract_and_checks_stand_once(index, study):
    table = audited(index, study)
    assert table.columns.tolist() == ["check", "count", "detail"]
    assert table["check"].is_unique


@pytest.mark.parametrize(
    ("check", "count"),
    {
        "clips_official": 8, "clips_present": 5, "clips_missing": 1, "unreadable": 1, "clips_dropped": 1,
        "clips_with_notes": 1,
        "clips_present_train": 2, "clips_present_val": 0, "clips_present_test": 3,
        "glosses_complete": 0, "glosses_without_train_clip": 0, "glosses_without_val_clip": 2,
        "duplicate_groups": 2, "duplicate_groups_across_splits": 1, "duplicate_groups_conflicting_labels": 2,
        "test_clips_conflicting_labels": 2, "signers": 5, "test_signers": 3, "test_signers_also_in_train": 2,
        "annotation_disagreements": 0,
    }.items(),
)  # fmt: skip
def test_count(table, check, count):
    assert table.loc[check, "count"] == count


def test_details_name_the_clips(table):
    assert table.loc["unreadable", "detail"] == "3 cut short"
    assert table.loc["clips_with_notes", "detail"] == "2 mirrored"
    assert table.loc["duplicate_groups_across_splits", "detail"] == "1 book (train) = 2 book (test) = 8 all (train)"
    assert table.loc["test_signers_also_in_train", "detail"] == "they sign 2 of 3 test clips"
    assert table.loc["clips_present_test", "detail"] == "100.0% of 3"


def test_what_lies_there_instead_is_said_when_most_clips_are_missing(index, study):
    (study.root / "videos").mkdir()
    for name in ("1.mp4", "sign.mp4", "1.part", ".lock"):
        (study.root / "videos" / name).touch()
    study.sources = ["videos"]
    some = audited(index, study).set_index("check")
    assert some.loc["clips_missing"].tolist() == [1, "absent from at least one source"]
    assert some.loc["files_ignored"].tolist() == [1, "1 .part, such as 1.part"]
    most = audited(index.assign(status=["present", "present", "present", *["missing"] * 5]), study).set_index("check")
    assert most.loc["clips_missing"].tolist() == [5, (
        "absent from at least one source; videos: 1 of 8 official clips are there; looked for "
        "videos/2.mp4, found 1 others, such as 'videos/sign.mp4'; "
        "add the rest; if some of the others are these clips, name them as in the annotations"
    )]  # fmt: skip


def test_data_without_any_copy_have_no_duplicates(index, study):
    table = audited(index.assign(content=index["video_id"]), study).set_index("check")
    assert table.filter(like="duplicate", axis=0)["count"].tolist() == [0, 0, 0]


def test_missing_clips_are_no_duplicates_of_each_other(index):
    assert duplicates(index.assign(content="")).empty


def test_own_clips_are_compared_with_no_published_counts_and_say_how_splits_were_made(index, study):
    study.subset, study.sources = 100, ["clips"]
    made = index.assign(split_from=["given", "signer-disjoint", *["given"] * 4, "file-disjoint", "file-disjoint"])
    table = audited(made, study).set_index("check")
    assert table.loc["clips_official", "detail"] == "train 4 / val 1 / test 3"
    assert table.loc["splits_made"].tolist() == [3, "2 file-disjoint; 1 signer-disjoint"]
    given = audited(index.assign(split_from="given"), study).set_index("check")
    assert given.loc["splits_made"].tolist() == [0, "all splits are given"]
    assert "annotation_disagreements" not in table.index


def test_counts_that_differ_from_the_published_ones_are_said(index, study):
    study.subset = 100
    detail = audited(index, study).set_index("check").loc["clips_official", "detail"]
    assert detail == "train 4 / val 1 / test 3, published: (1442, 338, 258)"


def test_disagreeing_annotation_files_are_listed(index, study):
    folder = study.root / "annotations"
    folder.mkdir()
    clip = {"video_id": "1", "split": "train", "frame_start": 1, "frame_end": -1, "fps": 25}
    (folder / "WLASL2.json").write_text(
        json.dumps([{"gloss": "book", "instances": [clip]}, {"gloss": "all", "instances": []}])
    )
    (folder / "nslt_2.json").write_text(json.dumps({"1": {"subset": "val", "action": [0, 1, 9]}}))
    row = audited(index, study).set_index("check").loc["annotation_disagreements"]
    assert row["count"] == 1
    assert row["detail"] == "1 split WLASL2.json / nslt_2.json: train / val"


def test_coverage_is_given_per_gloss_and_split_and_summed(index):
    table = coverage(index).set_index(["gloss", "split"])
    assert table.loc[(ALL, ALL)].tolist() == [8, 5, 0.625]
    assert table.loc[(ALL, "train")].tolist() == [4, 2, 0.5]
    assert table.loc[("all", ALL)].tolist() == [4, 2, 0.5]  # a gloss of WLASL, not the sum
    assert table.loc[("book", "test")].tolist() == [2, 2, 1.0]
    assert ("book", "val") not in table.index
    assert table.loc[("book", ALL), "official"] + table.loc[("all", ALL), "official"] == 8


def test_figures_show_what_the_index_says(index):
    per_gloss = figures.clips_per_gloss(coverage(index)).axes[0]
    assert sorted(bar.get_height() for bar in per_gloss.containers[1]) == [2, 3]
    signers = figures.signers(index).axes[0].get_title(loc="left")
    assert signers.startswith("3 signers in test, 2 of them also in train")
    assert "median 24" in figures.lengths(index).axes[0].get_title(loc="left")
    bars = figures.sources(index).axes[0].containers
    assert [container[0].get_width() for container in bars] == [8, 5]


def test_the_figure_of_signers_says_where_none_is_known(index):
    (axis,) = figures.signers(index.assign(signer=pd.array([None] * len(index), "Int64"))).axes
    assert axis.get_title(loc="left") == "The annotations name no signer"
    assert not axis.containers[0].patches
    assert axis.get_legend() is None


REAL_DUPLICATES = {100: 7, 300: 28}


@pytest.mark.parametrize("subset", REAL_DUPLICATES)
def test_known_duplicates_of_the_real_hand_landmarks_are_found(wlasl_root, subset):
    study = SimpleNamespace(
        root=wlasl_root,
        subset=subset,
        sources=["hands"],
        split="official",
        drop_duplicates=False,
        layout="hands-42",
    )
    table = audited(build_index(study), study).set_index("check")
    assert table.loc["duplicate_groups", "count"] == REAL_DUPLICATES[subset]
    assert "24960 go (test) = 24961 go (train)" in table.loc["duplicate_groups_across_splits", "detail"]
    assert "05741 before (test) = 32253 last (test)" in table.loc["duplicate_groups_conflicting_labels", "detail"]
    assert table.loc["clips_present", "count"] == {100: 1013, 300: 2660}[subset]
