"""What is in the data: coverage, broken files, duplicates, signers that the test split shares with
training."""

from collections.abc import Iterable

import pandas as pd

from lib.data.splits import duplicate_groups
from lib.data.wlasl import PUBLISHED_COUNTS, SPLITS, disagreements
from lib.study import Study

ALL = "(all)"  # the sum over glosses or splits; WLASL has a gloss "all"
LISTED = 20  # clips or groups that a detail names before it says how many more there are

Row = tuple[str, int, str]


def audit(index: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Check the index of a study: one row per check, with the columns check, count, detail.

    Counts are of clips, groups (of clips with identical content), signers or glosses, as the check's name
    says. "present" excludes clips that the duplicates policy dropped; duplicate checks look at every readable
    clip. Splits are those of the index, so a signer-disjoint study is audited on its own splits.
    Raises StudyError when the annotation files of study.root cannot be read.
    """
    rows = [
        *_clip_rows(index, study),
        *_split_rows(index),
        *_gloss_rows(index),
        *_duplicate_rows(index),
        *_signer_rows(index),
        _split_row(index) if "clips" in study.sources else _disagreement_row(study),
    ]
    return pd.DataFrame(rows, columns=["check", "count", "detail"])


def coverage(index: pd.DataFrame) -> pd.DataFrame:
    """Official and present clips for every gloss and split.

    Columns: gloss, split, official, present (clips), coverage = present / official in [0, 1]. ALL in gloss or
    split sums over it; combinations without an official clip have no row. The sums come first, then glosses
    by label.
    """
    clips = index.assign(present=index["status"] == "present")
    tables = [
        clips.assign(**{column: ALL for column in margins})
        for margins in (("gloss", "split"), ("gloss",), ("split",), ())
    ]
    stacked = pd.concat(tables)
    stacked["label"] = stacked["label"].where(stacked["gloss"] != ALL, -1)
    stacked["split"] = pd.Categorical(stacked["split"], [ALL, *SPLITS])
    groups = stacked.groupby(["label", "gloss", "split"], observed=True)["present"]
    table = groups.agg(official="size", present="sum").reset_index().drop(columns="label")
    return table.assign(split=table["split"].astype(str), coverage=table["present"] / table["official"])


def _clip_rows(index: pd.DataFrame, study: Study) -> list[Row]:
    kind = index["status"].str.split(":").str[0]
    broken = index[kind == "unreadable"]
    dropped = index[kind == "dropped"]
    return [
        ("clips_official", len(index), _official_detail(index, study)),
        ("clips_present", int((kind == "present").sum()), f"readable in {' and '.join(study.sources)}"),
        ("clips_missing", int((kind == "missing").sum()), "absent from at least one source"),
        (
            "unreadable",
            len(broken),
            _listed(broken["video_id"] + " " + broken["status"].str.removeprefix("unreadable: ")),
        ),
        (
            "clips_dropped",
            len(dropped),
            _listed(dropped["video_id"] + " " + dropped["status"].str.removeprefix("dropped: ")),
        ),
    ]


def _official_detail(index: pd.DataFrame, study: Study) -> str:
    counts = tuple(int((index["split"] == split).sum()) for split in SPLITS)
    detail = "train {} / val {} / test {}".format(*counts)
    published = None if "clips" in study.sources else PUBLISHED_COUNTS.get(study.subset)
    if study.split != "official":
        return f"{detail} ({study.split} split)"
    if published is None:
        return detail
    return f"{detail}, as published" if counts == published else f"{detail}, published: {published}"


def _split_rows(index: pd.DataFrame) -> list[Row]:
    table = coverage(index)
    by_split = table[(table["gloss"] == ALL) & (table["split"] != ALL)]
    return [
        (f"clips_present_{row.split}", int(row.present), f"{row.coverage:.1%} of {row.official}")
        for row in by_split.itertuples()
    ]


def _gloss_rows(index: pd.DataFrame) -> list[Row]:
    table = coverage(index)
    glosses = table[(table["split"] == ALL) & (table["gloss"] != ALL)].sort_values("coverage", kind="stable")
    worst = glosses["gloss"] + " " + glosses["present"].astype(str) + "/" + glosses["official"].astype(str)
    complete = int((glosses["coverage"] == 1).sum())
    rows = [("glosses_complete", complete, f"of {len(glosses)}; least covered: " + _listed(worst.head(5)))]
    present = index[index["status"] == "present"]
    for split in SPLITS:
        absent = glosses["gloss"][~glosses["gloss"].isin(present["gloss"][present["split"] == split])].sort_values()
        rows.append((f"glosses_without_{split}_clip", len(absent), _listed(absent)))
    return rows


def _duplicate_rows(index: pd.DataFrame) -> list[Row]:
    clips = index[index["video_id"].isin(duplicate_groups(index).index)]
    groups = clips.groupby("content")
    splits, labels = groups["split"].nunique(), groups["label"].nunique()
    test = clips[clips["split"] == "test"]
    in_conflict = test[test.groupby("content")["label"].transform("nunique") > 1]
    named = pd.Series({content: _group_name(group) for content, group in groups}, dtype=object).sort_values()
    return [
        ("duplicate_groups", len(named), _listed(named)),
        ("duplicate_groups_across_splits", int((splits > 1).sum()), _listed(named[splits > 1])),
        ("duplicate_groups_conflicting_labels", int((labels > 1).sum()), _listed(named[labels > 1])),
        ("test_clips_conflicting_labels", len(in_conflict),
         "identical test clips under different glosses, kept; at most one of each group can be scored right: "
         + _listed(in_conflict["video_id"] + " " + in_conflict["gloss"])),
    ]  # fmt: skip


def _group_name(clips: pd.DataFrame) -> str:
    return " = ".join(f"{clip.video_id} {clip.gloss} ({clip.split})" for clip in clips.itertuples())


def _signer_rows(index: pd.DataFrame) -> list[Row]:
    known = index[index["signer"].notna()]
    signers = {split: set(known["signer"][known["split"] == split]) for split in SPLITS}
    shared = signers["test"] & signers["train"]
    clips = known[(known["split"] == "test") & known["signer"].isin(shared)]
    n_test = int((index["split"] == "test").sum())
    return [
        ("signers", known["signer"].nunique(), f"signer unknown for {len(index) - len(known)} clips"),
        ("test_signers", len(signers["test"]), _listed(str(signer) for signer in sorted(signers["test"]))),
        ("test_signers_also_in_train", len(shared), f"they sign {len(clips)} of {n_test} test clips"),
        ("val_signers_also_in_train", len(signers["val"] & signers["train"]), f"of {len(signers['val'])}"),
    ]


def _split_row(index: pd.DataFrame) -> Row:
    """How many of one's own clips have a split that was made here, and how it was made."""
    made = index["split_from"][index["split_from"] != "given"].value_counts().sort_index()
    detail = "; ".join(f"{count} {how}" for how, count in made.items())
    return ("splits_made", int(made.sum()), detail or "all splits are given")


def _disagreement_row(study: Study) -> Row:
    found = disagreements(study.root, study.subset)
    return (
        "annotation_disagreements",
        len(found),
        _listed(found["video_id"] + " " + found["field"] + " " + found["files"] + ": " + found["values"]),
    )


def _listed(items: Iterable[str]) -> str:
    """The first items, separated by semicolons, and how many more there are."""
    items = list(items)
    more = f"; and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return "; ".join(items[:LISTED]) + more
