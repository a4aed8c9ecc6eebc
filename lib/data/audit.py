"""The audit of a data set: coverage, unreadable files, duplicates, twins, and signers that test shares with train."""

import os
from collections.abc import Iterable

import pandas as pd

from lib.data.find import HALF, locate, other_files, shortfall
from lib.data.index import duplicates, present
from lib.data.own_clips import ignored, name_missing
from lib.data.twins import KINDS, NEAR
from lib.data.wlasl import PUBLISHED_COUNTS, SPLITS, disagreements
from lib.study import Study

ALL = "(all)"  # the sum over glosses or splits; WLASL has a gloss "all"
LISTED = 20  # clips or groups that a detail names; it gives the number of the others

Row = tuple[str, int, str]


def audit(index: pd.DataFrame, study: Study, twins: pd.DataFrame) -> pd.DataFrame:
    """Check the index of a study: one row per check, with the columns check, count, detail.

    twins: the table of `lib.data.twins.pair_up`; its rows may name clips that are not in the study.

    The name of a check says whether it counts clips, groups (of clips with identical content), signers or glosses.
    "present" excludes clips that were dropped as twins; duplicate checks cover all readable clips. Splits are
    those of the index, so a signer-disjoint study is audited on its own splits.
    Raises StudyError when the annotation files of study.root cannot be read.
    """
    covered = coverage(index)
    rows = [*_clips(index, study), *_coverage(covered, index), *_duplicates(index), *_twins(index, twins)]
    rows += _signers(index)
    if "clips" in study.sources:
        made = index["split_from"][index["split_from"] != "given"].value_counts().sort_index()
        detail = "; ".join(f"{count} {how}" for how, count in made.items())
        rows.append(("splits_made", int(made.sum()), detail or "all splits are given"))
    else:
        found = disagreements(study.root, study.subset)
        named = found["video_id"] + " " + found["field"] + " " + found["files"] + ": " + found["values"]
        rows.append(("annotation_disagreements", len(found), _listed(named)))
    return pd.DataFrame(rows, columns=["check", "count", "detail"])


def coverage(index: pd.DataFrame) -> pd.DataFrame:
    """Count official and present clips by gloss and split.

    Columns: gloss, split, official, present (clips), coverage = present / official in [0, 1]. ALL as gloss or split
    marks the sum over it. The sums come first, then glosses by label; combinations without an official clip are absent.
    """
    clips = index.assign(present=index["status"] == "present")
    sums = [clips.assign(**dict.fromkeys(columns, ALL)) for columns in (("gloss", "split"), ("gloss",), ("split",), ())]
    stacked = pd.concat(sums)
    stacked["label"] = stacked["label"].where(stacked["gloss"] != ALL, -1)
    stacked["split"] = pd.Categorical(stacked["split"], [ALL, *SPLITS])
    groups = stacked.groupby(["label", "gloss", "split"], observed=True)["present"]
    table = groups.agg(official="size", present="sum").reset_index().drop(columns="label")
    return table.assign(split=table["split"].astype(str), coverage=table["present"] / table["official"])


def _clips(index: pd.DataFrame, study: Study) -> list[Row]:
    counts = tuple(int((index["split"] == split).sum()) for split in SPLITS)
    official = "train {} / val {} / test {}".format(*counts)
    published = None if "clips" in study.sources else PUBLISHED_COUNTS.get(study.subset)
    if study.split != "official":
        official += f" ({study.split} split)"
    elif published:
        official += ", as published" if counts == published else f", published: {published}"
    status = index["status"].str.partition(": ")  # kind, separator, reason
    kind, named = status[0], index["video_id"] + " " + status[2]
    noted = index["notes"] != ""  # readable, but odd
    return [
        ("clips_official", len(index), official),
        ("clips_present", int((kind == "present").sum()), f"readable in {' and '.join(study.sources)}"),
        _missing(index["video_id"], kind == "missing", study),
        ("unreadable", int((kind == "unreadable").sum()), _listed(named[kind == "unreadable"])),
        ("clips_dropped", int((kind == "dropped").sum()), _listed(named[kind == "dropped"])),
        _ignored(study),
        ("clips_with_notes", int(noted.sum()), _listed((index["video_id"] + " " + index["notes"])[noted])),
    ]


def _missing(ids: pd.Series, missing: pd.Series, study: Study) -> Row:
    """How many clips are missing: of own clips which, of WLASL's what else lies there when they are more than half."""
    if "clips" in study.sources:
        return "clips_missing", int(missing.sum()), _listed(name_missing(study.root, LISTED))
    lines = ["absent from at least one source"]
    for source in study.sources if missing.mean() > HALF else ():
        found, others = locate(study.root, source, ids)
        lines.append(shortfall(source, list(ids), found, others, study.root))
    return "clips_missing", int(missing.sum()), "; ".join(filter(None, lines))


def _ignored(study: Study) -> Row:
    """How many files in the folders of the videos are not read, by their suffix."""
    found = {"clips": ignored, "videos": lambda root: other_files(root / "videos")}.get(study.sources[0])
    files = pd.Series(found(study.root) if found else [], dtype=str)
    groups = files.groupby(files.map(lambda file: os.path.splitext(file)[1].lower() or "(no suffix)"))
    return "files_ignored", len(files), _listed(f"{len(of)} {suffix}, such as {of.iloc[0]}" for suffix, of in groups)


def _coverage(covered: pd.DataFrame, index: pd.DataFrame) -> list[Row]:
    by_split = covered[(covered["gloss"] == ALL) & (covered["split"] != ALL)]
    rows = [
        (f"clips_present_{row.split}", int(row.present), f"{row.coverage:.1%} of {row.official}")
        for row in by_split.itertuples()
    ]
    glosses = covered[(covered["split"] == ALL) & (covered["gloss"] != ALL)].sort_values("coverage", kind="stable")
    complete = int((glosses["coverage"] == 1).sum())
    worst = (f"{row.gloss} {row.present}/{row.official}" for row in glosses.head(5).itertuples())
    rows.append(("glosses_complete", complete, f"of {len(glosses)}; least covered: {_listed(worst)}"))
    for split in SPLITS:
        absent = sorted(set(glosses["gloss"]) - set(present(index, split)["gloss"]))
        rows.append((f"glosses_without_{split}_clip", len(absent), _listed(absent)))
    return rows


def _duplicates(index: pd.DataFrame) -> list[Row]:
    clips = duplicates(index)
    groups = clips.groupby("content")
    splits, labels = groups["split"].nunique(), groups["label"].nunique()
    test = clips[clips["split"] == "test"]
    in_conflict = test[test.groupby("content")["label"].transform("nunique") > 1]
    conflicts = _listed(in_conflict["video_id"] + " " + in_conflict["gloss"])
    detail = "identical test clips under different glosses, kept; at most one of each group can be scored right: "
    name = clips["video_id"] + " " + clips["gloss"] + " (" + clips["split"] + ")"
    named = name.groupby(clips["content"]).agg(" = ".join).sort_values()
    return [
        ("duplicate_groups", len(named), _listed(named)),
        ("duplicate_groups_across_splits", int((splits > 1).sum()), _listed(named[splits > 1])),
        ("duplicate_groups_conflicting_labels", int((labels > 1).sum()), _listed(named[labels > 1])),
        ("test_clips_conflicting_labels", len(in_conflict), detail + conflicts),
    ]


def _twins(index: pd.DataFrame, twins: pd.DataFrame) -> list[Row]:
    """Near-copies, what was dropped as a twin, and test clips whose twin is in the training split of any gloss."""
    inside = twins["twin"].isin(index["video_id"])
    near = twins[(twins["kind"] == NEAR) & ~(inside & (twins["twin"] < twins["video_id"]))]  # each pair once
    across = near[near["split"] != near["twin_split"]]
    dropped = index[index["status"].str.startswith("dropped: twin of ")]
    rows = [
        (
            "near_copy_pairs",
            len(near),
            f"{int((~inside[near.index]).sum())} with a clip of another gloss; {_pairs(near)}",
        ),
        ("near_copy_pairs_across_splits", len(across), _pairs(across)),
    ]
    for split in ("train", "val"):
        clips = dropped[dropped["split"] == split]
        named = clips["video_id"] + " " + clips["status"].str.removeprefix("dropped: ")
        rows.append((f"{split}_clips_dropped_as_twins", len(clips), _listed(named)))
    trained = twins[(twins["split"] == "test") & (twins["twin_split"] == "train")]
    for kind in KINDS:
        pairs = trained[trained["kind"] == kind]
        clips = pairs["video_id"].nunique()
        other = pairs["video_id"][pairs["gloss"] != pairs["twin_gloss"]].nunique()
        detail = f"{other} under another gloss, whether in the study or not; {_pairs(pairs)}"
        rows.append((f"test_clips_with_{kind}_twin_in_train", clips, detail))
    return rows


def _pairs(twins: pd.DataFrame) -> str:
    """Pairs of twins by name."""
    first = twins["video_id"] + " " + twins["gloss"] + " (" + twins["split"] + ")"
    return _listed(first + " = " + twins["twin"] + " " + twins["twin_gloss"] + " (" + twins["twin_split"] + ")")


def _signers(index: pd.DataFrame) -> list[Row]:
    known = index[index["signer"].notna()]
    train, val, test = (set(known["signer"][known["split"] == split]) for split in SPLITS)
    clips = known[(known["split"] == "test") & known["signer"].isin(test & train)]
    n_test = int((index["split"] == "test").sum())
    return [
        ("signers", known["signer"].nunique(), f"signer unknown for {len(index) - len(known)} clips"),
        ("test_signers", len(test), _listed(map(str, sorted(test)))),
        ("test_signers_also_in_train", len(test & train), f"they sign {len(clips)} of {n_test} test clips"),
        ("val_signers_also_in_train", len(val & train), f"of {len(val)}"),
    ]


def _listed(items: Iterable[str]) -> str:
    items = list(items)
    more = f"; and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return "; ".join(items[:LISTED]) + more
