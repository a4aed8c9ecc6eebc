"""The index of a study: one row per official clip, with the status that all later steps go by.

Notebook 01 writes what `lib.data.sources.build_index` found; notebooks 02 and 03 record the clips they could not store.
`read_index` combines the three, so that all runs of a study use the same clips and can be compared clip by clip.
Splits are here, too; they are neither random nor depend on the order of the rows. What is done about duplicates is in
`lib.data.twins`.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
import pandas as pd

from lib.data.wlasl import SPLITS
from lib.settings import StudyError
from lib.study import Study

HELD_OUT = 0.15  # of the clips, for each of val and test that has to be made


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


# ---- splits and duplicates -----------------------------------------------------------------------------


def signer_disjoint(clips: pd.DataFrame, share: Mapping[str, float] | None = None) -> pd.Series:
    """Assign the clips to splits such that no signer is in two of them: the new splits, on `clips.index`.

    `clips` has the columns signer and gloss. `share` is the target for every gloss, split -> fraction of its clips in
    [0, 1]; by default, the proportions of the column split. Signers are assigned greedily, those with most clips
    first, each to the split that brings all glosses closest to their targets (least squares, as in sklearn's
    StratifiedGroupKFold, which only knows folds of equal size). An empty split then takes the signer that train
    misses least, and a gloss without a training clip moves its smallest signer to train. Clips of unknown signers
    go to train.
    Raises StudyError when no signer is known or there are too few signers to fill the three splits.
    """
    if clips["signer"].isna().all():
        raise StudyError(
            "split: signer-disjoint needs the signers, which nslt files do not hold; add WLASL_v0.3.json or "
            "WLASL<n>.json to annotations/ (own clips: the column signer to clips.csv), or set split: official"
        )
    counts = pd.crosstab(clips["signer"], clips["gloss"]).sort_index(axis=1)
    wanted = clips["split"].value_counts(normalize=True) if share is None else pd.Series(share)
    share = wanted.reindex(list(SPLITS), fill_value=0.0)
    assigned = _assign_signers(counts, share.to_numpy())
    _fill_empty_splits(assigned, counts, share)
    unknown = set(clips["gloss"][clips["signer"].isna()])
    size = counts.sum(axis=1)
    for gloss in counts.columns:
        signers = counts.index[counts[gloss] > 0]
        if gloss not in unknown and all(assigned[signer] != "train" for signer in signers):
            assigned[min(signers, key=lambda signer: (size[signer], signer))] = "train"
    splits = clips["signer"].map(assigned).fillna("train").astype(str).rename("split")
    empty = [split for split in SPLITS if share[split] > 0 and not (splits == split).any()]
    if empty:
        problem = f"{len(counts)} signers are too few for these glosses"
        raise StudyError(f"split: signer-disjoint leaves {' and '.join(empty)} empty: {problem}; set split: official")
    return splits


def _assign_signers(counts: pd.DataFrame, share: np.ndarray) -> dict[int | str, str]:
    """Greedy assignment; counts (signers, glosses), share (3,) of the splits."""
    target = np.outer(share, counts.to_numpy().sum(axis=0))  # (splits, glosses)
    filled = np.zeros_like(target)
    assigned = {}
    for signer in sorted(counts.index, key=lambda signer: (-counts.loc[signer].sum(), signer)):
        clips = counts.loc[signer].to_numpy()
        # The change of the squared distance to the target when these clips join a split.
        cost = (clips * (clips + 2 * (filled - target))).sum(axis=1)
        best = int(np.argmin(cost))
        filled[best] += clips
        assigned[signer] = SPLITS[best]
    return assigned


def _fill_empty_splits(assigned: dict[int | str, str], counts: pd.DataFrame, share: pd.Series) -> None:
    """Give each empty split that has a share one signer of a split that has several."""
    for split in SPLITS:
        sizes = pd.Series(assigned).value_counts()
        spare = [signer for signer in counts.index if sizes[assigned[signer]] > 1]
        if share[split] > 0 and split not in sizes and spare:
            train = counts.loc[[signer for signer in counts.index if assigned[signer] == "train"]]
            only = train.columns[(train > 0).sum() == 1]  # glosses of one signer
            assigned[min(spare, key=lambda s: ((counts.loc[s, only] > 0).sum(), counts.loc[s].sum(), s))] = split


def make_splits(clips: pd.DataFrame) -> pd.DataFrame:
    """Complete the splits of own clips: the columns split and split_from, on `clips.index`.

    `clips` has the columns path (unique), gloss, signer and split, str, "" where unknown. Given splits are kept. A
    clip without one joins the other clips of its signer. The rest is divided among train and the splits without a
    clip; if nothing is left but a split is empty, train is divided. Each signer stays in one split if enough signers
    are known (split_from "signer-disjoint"); otherwise every gloss has the same proportions ("file-disjoint").
    """
    given = clips[(clips["split"] != "") & (clips["signer"] != "")]
    first = given["split"].map(SPLITS.index).groupby(given["signer"]).min()
    of_signer = clips["signer"].map(first).map(dict(enumerate(SPLITS))).fillna("").astype(object)
    split = clips["split"].mask(clips["split"] == "", of_signer)
    origin = pd.Series("given", clips.index).mask(split != clips["split"], "signer-disjoint")
    empty = [name for name in SPLITS[1:] if not (split == name).any()]
    pool = split == ""
    if not pool.any() and empty:
        pool = split == "train"
    if pool.any():
        share = {"train": 1 - HELD_OUT * len(empty), **dict.fromkeys(empty, HELD_OUT)}
        known = clips[pool].assign(signer=clips["signer"].replace("", pd.NA))
        try:
            divided, how = signer_disjoint(known, share), "signer-disjoint"
        except StudyError:  # signers are unknown or too few
            glosses = clips[pool].groupby("gloss")["path"]
            divided, how = pd.concat([_divide_gloss(paths, empty) for _, paths in glosses]), "file-disjoint"
        split = divided.reindex(split.index).fillna(split)
        origin = origin.mask(pool, how)
    return pd.DataFrame({"split": split, "split_from": origin})


def _divide_gloss(paths: pd.Series, held_out: list[str]) -> pd.Series:
    """Divide the clips of one gloss by the hash of their path, so that consecutive recordings are spread.

    The first clip goes to train, the second to test, the third to val, however small the shares.
    """
    hashes = paths.map(lambda path: hashlib.sha256(path.encode()).hexdigest())
    left = paths.iloc[hashes.argsort()].index
    split = pd.Series("train", paths.index)
    for name in reversed(held_out):
        count = min(max(1, int(HELD_OUT * len(paths) + 0.5)), len(left) - 1)
        split[left[:count]], left = name, left[count:]
    return split


def duplicates(index: pd.DataFrame) -> pd.DataFrame:
    """The rows of readable clips that share their content with another clip."""
    readable = index[index["content"] != ""]
    return readable[readable["content"].duplicated(keep=False)]
