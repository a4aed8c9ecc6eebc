"""Signer-disjoint splits, the splits of own clips, and the duplicates policy."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.data.index import make_splits, signer_disjoint
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


# ---- own clips -----------------------------------------------------------------------------------------

clip = st.tuples(st.integers(0, 3), st.integers(-1, 6), st.sampled_from(["", "", *SPLITS]))


def clips_of(drawn):
    """A table of clips, as make_splits gets it, from (gloss, signer or -1, split)."""
    table = pd.DataFrame(drawn, columns=["gloss", "signer", "split"]).astype({"split": str})
    names = table["signer"].map(lambda number: "" if number < 0 else f"s{number}").astype(str)
    return table.assign(path=table.index.map("{}.mp4".format), gloss=table["gloss"].map("g{}".format), signer=names)


@given(drawn=st.lists(clip, min_size=1, max_size=40), order=st.randoms(use_true_random=False))
def test_splits_lose_no_clip_keep_what_is_given_and_do_not_depend_on_the_order(drawn, order):
    clips = clips_of(drawn)
    made = make_splits(clips)
    assert made.index.equals(clips.index)
    assert made["split"].isin(SPLITS).all()
    kept = made["split_from"] == "given"
    assert (made["split"] == clips["split"])[kept].all()
    # What is given changes only where a split is absent and there is nothing else to make it of.
    assert clips["split"][~kept].isin(["", "train"]).all()
    shuffled = clips.sample(frac=1, random_state=order.randrange(1000))
    pd.testing.assert_frame_equal(make_splits(shuffled).loc[clips.index], made)


@given(drawn=st.lists(clip, min_size=1, max_size=40))
def test_clips_without_a_split_never_bring_a_signer_into_a_second_one_unless_it_is_said(drawn):
    clips = clips_of(drawn)
    made = clips.assign(**make_splits(clips))
    if "file-disjoint" in set(made["split_from"]):
        return
    known = made[made["signer"] != ""]
    for signer, splits in known.groupby("signer")["split"]:
        given = set(clips["split"][clips["signer"] == signer]) - {""}
        assert splits.nunique() <= max(1, len(given))


@given(sizes=st.lists(st.integers(3, 30), min_size=1, max_size=5))
def test_without_signers_every_gloss_is_in_every_split_in_the_same_proportion(sizes):
    made = clips_of([(gloss, -1, "") for gloss, size in enumerate(sizes) for _ in range(size)])
    made = made.assign(**make_splits(made))
    assert set(made["split_from"]) == {"file-disjoint"}
    counts = pd.crosstab(made["gloss"], made["split"])
    for gloss, size in enumerate(sizes):
        held_out = max(1, int(0.15 * size + 0.5))
        assert counts.loc[f"g{gloss}", list(SPLITS)].tolist() == [size - 2 * held_out, held_out, held_out]


@pytest.mark.parametrize(("signers", "expected"), [(3, [1, 1, 1]), (4, [2, 1, 1]), (8, [6, 1, 1]), (20, [14, 3, 3])])
def test_signers_of_equal_size_are_shared_out_whole(signers, expected):
    made = clips_of([(gloss, who, "") for who in range(signers) for gloss in range(4)])
    made = made.assign(**make_splits(made))
    assert set(made["split_from"]) == {"signer-disjoint"}
    assert made.groupby("signer")["split"].nunique().eq(1).all()
    assert [made["signer"][made["split"] == split].nunique() for split in SPLITS] == expected


def test_too_few_signers_are_shared_out_by_file_and_that_is_said():
    made = make_splits(clips_of([(gloss, who, "") for who in range(2) for gloss in range(2) for _ in range(5)]))
    assert set(made["split_from"]) == {"file-disjoint"}
    assert set(made["split"]) == set(SPLITS)


def test_clip_without_a_split_goes_where_its_signer_is_and_the_rest_into_train():
    clips = clips_of([(0, 0, "train"), (0, 1, "val"), (0, 2, "test"), (0, 2, ""), (0, 3, ""), (0, -1, "")])
    made = make_splits(clips)
    assert made["split"].tolist() == ["train", "val", "test", "test", "train", "train"]
    assert made["split_from"].tolist() == ["given"] * 3 + ["signer-disjoint"] * 3
