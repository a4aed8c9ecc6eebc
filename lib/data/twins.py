"""Twins: pairs of clips that show one recording, identical or near-copies, and the rule that keeps results honest.

Nothing is trained on a twin of a clip that is validated or tested on, whatever its gloss, and no val clip is a twin of
a test clip: choosing by it would be choosing by test. Test clips always stay, so that results remain comparable.

Two train clips that are twins under different glosses both stay: one label is wrong, or the sign has both meanings,
and nobody knows which; no result is distorted. So do two val clips: they are scored, and a reader can take either label
as right.
"""

from collections.abc import Iterable

import pandas as pd

from lib.study import Study

COLUMNS = ("video_id", "gloss", "split", "twin", "twin_gloss", "twin_split", "kind")
IDENTICAL, NEAR = KINDS = ("identical", "near")
SCORED = ("test", "val")


def read_twins(study: Study) -> pd.DataFrame:
    """Read the twins of the study's clips that notebook 01 has found: COLUMNS, all str, see `pair_up`.

    Empty where the study has no such file.
    """
    path = study.paths.table("twins.csv")
    if not path.is_file():
        return pd.DataFrame(columns=list(COLUMNS), dtype=str)
    return pd.read_csv(path, dtype=str, keep_default_na=False)  # a gloss may be called "null"


def pair_up(clips: pd.DataFrame, near: Iterable[tuple[str, str]], inside: Iterable[str]) -> pd.DataFrame:
    """All ordered pairs of twins whose first clip is in the study: the columns COLUMNS, sorted by video_id and twin.

    clips: video_id, gloss, split and content, of all clips known; identical ones have the same content, and "" is like
    no other. near: pairs of contents that are near-copies, in either order. inside: the video_ids of the study.
    """
    clips = clips.loc[clips["content"] != "", ["video_id", "gloss", "split", "content"]]
    others = clips.rename(columns={"video_id": "twin", "gloss": "twin_gloss", "split": "twin_split"})
    contents = pd.DataFrame([*near], columns=["content", "other"])
    same = clips[["content"]].drop_duplicates().assign(kind=IDENTICAL)
    both = pd.concat([contents, contents.rename(columns={"content": "other", "other": "content"})]).drop_duplicates()
    alike = pd.concat([same.assign(other=same["content"]), both.assign(kind=NEAR)])
    pairs = clips[clips["video_id"].isin([*inside])].merge(alike, on="content")
    pairs = pairs.merge(others.rename(columns={"content": "other"}), on="other")
    pairs = pairs[pairs["video_id"] != pairs["twin"]]
    return pairs[list(COLUMNS)].sort_values(["video_id", "twin"], ignore_index=True)


def drop_twins(index: pd.DataFrame, twins: pd.DataFrame) -> pd.DataFrame:
    """Give the present clips that the rule forbids the status "dropped: twin of <video_id> (<split>)"; all rows stay.

    Dropped are train clips with a twin in val or test, and val clips with a twin in test, of this index and present.
    twins: the columns COLUMNS. A clip with several such twins names one in test rather than in val.
    """
    split = index.loc[index["status"] == "present"].set_index("video_id")["split"]
    pairs = twins.assign(own=twins["video_id"].map(split), other=twins["twin"].map(split))
    chosen_by_test = (pairs["own"] == "val") & (pairs["other"] == "test")
    forbids = chosen_by_test | ((pairs["own"] == "train") & pairs["other"].isin(SCORED))
    first = pairs[forbids].sort_values(["other", "twin"]).drop_duplicates("video_id").set_index("video_id")
    reason = index["video_id"].map("dropped: twin of " + first["twin"] + " (" + first["other"] + ")")
    return index.assign(status=index["status"].mask(reason.notna(), reason))
