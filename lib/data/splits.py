"""Split policies of a study: signer-disjoint splits, and what to do with duplicated clips."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lib.data.wlasl import SPLITS
from lib.settings import StudyError


def signer_disjoint(clips: pd.DataFrame, share: Mapping[str, float] | None = None) -> pd.Series:
    """Share the clips out so that no signer stands in two splits: the new split of each clip, on
    `clips.index`.

    `clips` has the columns signer and gloss. The target for every gloss is `share`, split -> part of the clips in
    [0, 1]; without it, the proportions of the column split (official). Signers are placed one by one, the one with
    most clips first, where they bring all glosses nearest to their targets (least squares, as in sklearn's
    StratifiedGroupKFold, which knows only equal folds and no must-have glosses). A split that gets nobody takes the
    signer whom train misses least. Then a gloss without a training clip takes its smallest signer into train. Clips
    of unknown signers stand in train. No randomness; the order of the rows does not matter.
    Raises StudyError when no signer is known or the signers are too few to fill the three splits.
    """
    if clips["signer"].isna().all():
        raise StudyError(
            "split: signer-disjoint needs the signers, which nslt files do not hold; "
            "add WLASL_v0.3.json or WLASL<n>.json to annotations/ (own clips: the column signer to clips.csv), "
            "or set split: official"
        )
    counts = pd.crosstab(clips["signer"], clips["gloss"]).sort_index(axis=1)
    wanted = clips["split"].value_counts(normalize=True) if share is None else pd.Series(share)
    share = wanted.reindex(list(SPLITS), fill_value=0.0)
    placed = _place_signers(counts, share.to_numpy())
    _fill_empty_splits(placed, counts, share)
    _bring_every_gloss_into_train(placed, counts, clips)
    splits = clips["signer"].map(placed).fillna("train").astype(str).rename("split")
    empty = [split for split in SPLITS if share[split] > 0 and not (splits == split).any()]
    if empty:
        raise StudyError(
            f"split: signer-disjoint leaves {' and '.join(empty)} empty: {len(counts)} signers are too "
            "few for these glosses; set split: official"
        )
    return splits


def _place_signers(counts: pd.DataFrame, share: np.ndarray) -> dict[int, str]:
    """Greedy placement; counts (signers, glosses), share (3,) of the splits."""
    target = np.outer(share, counts.to_numpy().sum(axis=0))  # (splits, glosses)
    filled = np.zeros_like(target)
    order = sorted(counts.index, key=lambda signer: (-counts.loc[signer].sum(), signer))
    placed = {}
    for signer in order:
        clips = counts.loc[signer].to_numpy()
        # The change of the squared distance to the target when these clips join a split.
        cost = (clips * (clips + 2 * (filled - target))).sum(axis=1)
        best = int(np.argmin(cost))
        filled[best] += clips
        placed[signer] = SPLITS[best]
    return placed


def _fill_empty_splits(placed: dict[int, str], counts: pd.DataFrame, share: pd.Series) -> None:
    """Give each split that is wanted and got nobody one signer of a split that has more."""
    for split in SPLITS:
        sizes = pd.Series(placed).value_counts()
        spare = [signer for signer in counts.index if sizes[placed[signer]] > 1]
        if share[split] > 0 and split not in sizes and spare:
            train = counts.loc[[signer for signer in counts.index if placed[signer] == "train"]]
            only = train.columns[(train > 0).sum() == 1]  # glosses of one signer
            placed[min(spare, key=lambda s: ((counts.loc[s, only] > 0).sum(), counts.loc[s].sum(), s))] = split


def _bring_every_gloss_into_train(placed: dict[int, str], counts: pd.DataFrame, clips: pd.DataFrame) -> None:
    """Move signers into train until it holds every gloss that has a clip."""
    unknown = set(clips["gloss"][clips["signer"].isna()])
    size = counts.sum(axis=1)
    for gloss in counts.columns:
        signers = counts.index[counts[gloss] > 0]
        if gloss not in unknown and all(placed[signer] != "train" for signer in signers):
            placed[min(signers, key=lambda signer: (size[signer], signer))] = "train"


def duplicate_groups(index: pd.DataFrame) -> pd.Series:
    """The clips that share their content with another one: video_id -> content, for readable clips of the
    index."""
    readable = index[index["content"] != ""].set_index("video_id")["content"]
    return readable[readable.duplicated(keep=False)]


def drop_duplicates(index: pd.DataFrame) -> pd.DataFrame:
    """Mark clips of train and val that leak: the index with "dropped: <reason>" as their status; no row goes.

    Dropped are clips whose content also stands in the test split, and clips whose content also stands under
    another gloss (one of the labels is wrong, and which is unknown). Test clips always stay, so results
    remain comparable; those with conflicting labels are counted by the audit.
    """
    groups = index[index["video_id"].isin(duplicate_groups(index).index)].groupby("content")
    stands_in_test = groups["split"].transform(lambda splits: (splits == "test").any())
    has_two_labels = groups["label"].transform("nunique") > 1
    reason = pd.Series("", index=index.index)
    reason[has_two_labels.index[has_two_labels]] = "dropped: same content under another gloss"
    reason[stands_in_test.index[stands_in_test]] = "dropped: same content in test"
    drops = (reason != "") & (index["split"] != "test") & (index["status"] == "present")
    return index.assign(status=index["status"].mask(drops, reason))
