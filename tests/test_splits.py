"""Signer-disjoint splits and the duplicates policy."""

import numpy as np
import pandas as pd
import pytest

from lib.data.splits import drop_duplicates, duplicate_groups, signer_disjoint
from lib.data.wlasl import SPLITS, read_annotations
from lib.settings import StudyError


def clips(seed=0, n_signers=30, n_glosses=12, n_clips=600):
    """Random clips whose signers differ much in their number of clips, as in WLASL; 60/20/20 %."""
    draw = np.random.default_rng(seed)
    weight = 1 / np.arange(1, n_signers + 1)
    table = pd.DataFrame({
        "video_id": [f"{number:05d}" for number in range(n_clips)],
        "gloss": draw.choice([f"g{number:02d}" for number in range(n_glosses)], n_clips),
        "signer": pd.array(draw.choice(n_signers, n_clips, p=weight / weight.sum()), dtype="Int64"),
        "split": draw.choice(SPLITS, n_clips, p=[0.6, 0.2, 0.2]),
    })  # fmt: skip
    return table


@pytest.mark.parametrize("seed", range(5))
def test_no_signer_stands_in_two_splits_and_shares_stay_near_the_official_ones(seed):
    table = clips(seed)
    table["split"] = signer_disjoint(table)
    assert not table[["signer", "split"]].drop_duplicates()["signer"].duplicated().any()
    share = table["split"].value_counts(normalize=True)[list(SPLITS)]
    assert share.to_numpy() == pytest.approx([0.6, 0.2, 0.2], abs=0.05)
    assert table["gloss"][table["split"] == "train"].nunique() == 12


def test_row_order_does_not_matter():
    table = clips().set_index("video_id")
    shuffled = table.sample(frac=1, random_state=1)
    pd.testing.assert_series_equal(signer_disjoint(table), signer_disjoint(shuffled).loc[table.index])


def test_gloss_of_a_single_signer_stands_in_train():
    table = clips()
    small = table["signer"] == table["signer"].value_counts().index[-1]
    table.loc[table.index[small], "gloss"] = "rare"
    table["split"] = signer_disjoint(table)
    assert set(table["split"][table["gloss"] == "rare"]) == {"train"}


def test_unknown_signers_stand_in_train():
    table = clips()
    table.loc[:9, "signer"] = pd.NA
    assert set(signer_disjoint(table)[:10]) == {"train"}


def test_unknown_signers_everywhere_is_an_error_that_says_which_file_has_them():
    table = clips().assign(signer=pd.array([pd.NA] * 600, dtype="Int64"))
    with pytest.raises(StudyError, match=r"needs the signers, which nslt files do not hold; add WLASL_v0\.3\.json"):
        signer_disjoint(table)


def test_too_few_signers_is_an_error():
    with pytest.raises(StudyError, match=r"leaves .* empty: 1 signers are too few"):
        signer_disjoint(clips(n_signers=1))


def test_real_signer_disjoint_split_keeps_proportions_and_glosses(wlasl_root):
    table = read_annotations(wlasl_root, 300)
    new = table.assign(split=signer_disjoint(table))
    assert not new[["signer", "split"]].drop_duplicates()["signer"].duplicated().any()
    share = new["split"].value_counts(normalize=True)[list(SPLITS)]
    official = table["split"].value_counts(normalize=True)[list(SPLITS)]
    assert share.to_numpy() == pytest.approx(official.to_numpy(), abs=0.03)
    assert new["gloss"][new["split"] == "train"].nunique() == 300


# ---- duplicates ----------------------------------------------------------------------------------------


def index(*rows):
    """Rows of (video_id, label, split, content)."""
    table = pd.DataFrame(rows, columns=["video_id", "label", "split", "content"])
    return table.assign(status=table["content"].map(lambda content: "present" if content else "missing"))


def statuses(table):
    return drop_duplicates(table).set_index("video_id")["status"].to_dict()


def test_training_and_validation_copies_of_a_test_clip_are_dropped():
    table = index(("a", 0, "train", "x"), ("b", 0, "val", "x"), ("c", 0, "test", "x"), ("d", 0, "train", "y"))
    dropped = "dropped: same content in test"
    assert statuses(table) == {"a": dropped, "b": dropped, "c": "present", "d": "present"}


def test_copies_under_two_glosses_are_dropped_outside_test():
    table = index(("a", 0, "train", "x"), ("b", 1, "val", "x"))
    dropped = "dropped: same content under another gloss"
    assert statuses(table) == {"a": dropped, "b": dropped}


def test_test_clips_stay_even_when_their_labels_conflict():
    assert statuses(index(("a", 0, "test", "x"), ("b", 1, "test", "x"))) == {"a": "present", "b": "present"}


def test_harmless_copies_within_train_stay():
    assert statuses(index(("a", 0, "train", "x"), ("b", 0, "train", "x"))) == {"a": "present", "b": "present"}


def test_missing_clips_are_no_duplicates_of_each_other():
    table = index(("a", 0, "train", ""), ("b", 1, "test", ""))
    assert duplicate_groups(table).empty
    assert statuses(table) == {"a": "missing", "b": "missing"}


def test_rows_and_their_order_stay():
    table = index(("a", 0, "train", "x"), ("b", 0, "test", "x"))
    pd.testing.assert_frame_equal(drop_duplicates(table).drop(columns="status"), table.drop(columns="status"))
