"""One's own clips: <root>/<split>/<gloss>/<clip>.mp4, <root>/<gloss>/<clip>.mp4, or <root>/clips.csv.

clips.csv has the columns path (relative to the root) and gloss and, where known, signer and split (train, val or
test); further columns are kept. Where it is there, it alone says which files are clips. Names of files and folders
that begin with a dot are passed over.
"""

import csv
import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath

import pandas as pd

from lib.data.splits import signer_disjoint
from lib.data.video import SUFFIXES
from lib.data.wlasl import ANNOTATED_FPS, COLUMNS, SPLITS
from lib.settings import StudyError

LISTING = "clips.csv"
HELD_OUT = 0.15  # of the clips, for val and for test each, where splits are made
GIVEN = ("path", "gloss", "signer", "split")
MADE = ("video_id", "label", "frame_start", "frame_end", "fps", "bbox", "n_frames", "status", "content", "split_from")
UNSAFE = re.compile(r"[^\w.-]+")  # in names of files
LONGEST = 200  # bytes of a video_id; file systems allow 255 with what is added

Row = dict[str, str]


def read_folder(root: Path) -> pd.DataFrame:
    """Read which clips a folder of one's own holds, one row each, without opening any.

    Columns: those of `lib.data.wlasl.read_annotations`, where signer is str (NA unknown), source is "unknown"
    unless clips.csv has it, and the whole file is the segment (frames 1 to -1, no box);
    path         str, relative to the root
    split_from   given | signer-disjoint | file-disjoint: where the split comes from, see `make_splits`
    and those that clips.csv has besides, str. Labels number the glosses by name. Rows are ordered by label and
    video_id.
    Raises StudyError, naming the file, line or column, when something is wrong with the names or with clips.csv, when
    there is no clip, a split has none, or a gloss has none in train.
    """
    listed = (root / LISTING).is_file()
    table = pd.DataFrame(_read_listing(root / LISTING) if listed else _read_tree(root))
    if table.empty:
        raise StudyError(
            f"{root / LISTING if listed else root}: there is no clip; see data/README.md, 'Your own clips'"
        )
    table = table.assign(**make_splits(table))
    _check_splits(table, root)
    glosses = sorted(set(table["gloss"]))
    table = table.assign(
        video_id=_ids(table["path"]),
        label=table["gloss"].map(glosses.index),
        signer=table["signer"].replace("", pd.NA).astype("string"),
        source=table.get("source", "unknown"),
        frame_start=1,
        frame_end=-1,
        fps=ANNOTATED_FPS,
        bbox=None,
    )
    first = [*COLUMNS, "path", "split_from"]
    ordered = table[first + [column for column in table if column not in first]]
    return ordered.sort_values(["label", "video_id"], ignore_index=True)


def watched(root: Path) -> list[Path]:
    """What changes when a clip is added, removed or described anew: clips.csv and the folders with clips, sorted."""
    folders = {root / parent for path in read_folder(root)["path"] for parent in PurePosixPath(path).parents}
    return sorted(path for path in {*folders, root / LISTING} if path.exists())


# ---- the two forms -------------------------------------------------------------------------------------


def _read_tree(root: Path) -> Iterator[Row]:
    """The clips by their folders."""
    files = _video_files(root)
    first, depths = {file.parts[0] for file in files}, {len(file.parts) for file in files}
    with_splits = 3 in depths or (depths == {2} and first <= set(SPLITS))
    form = "<split>/<gloss>/<clip>" if with_splits else "<gloss>/<clip>"
    for split in SPLITS if with_splits else ():
        if split not in first and (root / split).is_dir():
            raise StudyError(
                f"{root / split}: holds no clip; put some there, or remove the folder and it is made of train"
            )
    for file in files:
        if len(file.parts) != form.count("/") + 1:
            raise StudyError(f"{root}: {file} is not {form}; move the file, or list the clips in {LISTING}")
        if with_splits and file.parts[0] not in SPLITS:
            raise StudyError(f"{root}: folder '{file.parts[0]}' is no split; rename it to train, val or test")
        split, gloss = file.parts[:2] if with_splits else ("", file.parts[0])
        yield {"path": file.as_posix(), "gloss": _normal(gloss), "signer": "", "split": split}


def _video_files(root: Path) -> list[Path]:
    """Videos up to one folder too deep, relative to the root; links to folders are followed."""
    found = [path.relative_to(root) for depth in range(1, 5) for path in root.glob("/".join("*" * depth))]
    videos = [path for path in found if path.suffix.lower() in SUFFIXES and (root / path).is_file()]
    for path in videos:
        if os.fsencode(path) != str(path).encode(errors="replace"):
            raise StudyError(f"{root}: the name {str(path)!a} is not UTF-8; rename the file")
    return sorted(path for path in videos if not any(part.startswith(".") for part in path.parts))


def _read_listing(path: Path) -> Iterator[Row]:
    """The clips that clips.csv lists, checked."""
    seen: dict[str, int] = {}
    for line, row in _records(path):
        row = {"signer": "", "split": "", **row}
        problem = _problem(row)
        row["path"] = normpath(row["path"])
        if row["path"] in seen:
            problem = f"column 'path': '{row['path']}' stands in line {seen[row['path']]}, too; remove one of them"
        if problem:
            raise StudyError(f"{path}, line {line}, {problem}")
        seen[row["path"]] = line
        yield row


def _problem(row: Row) -> str:
    """What is wrong with a row of clips.csv, and what to do; "" where nothing is."""
    if not row["gloss"]:
        return "column 'gloss': is empty; fill it in or remove the line"
    if row["split"] not in ("", *SPLITS):
        return f"column 'split': '{row['split']}' is not train, val or test; correct it, or leave it empty"
    path = row["path"]
    if not path or path.startswith("/") or normpath(path).split("/")[0] in (".", ".."):
        return f"column 'path': '{path}' is no file inside the folder of {LISTING}; write it relative to that folder"
    return ""


def _records(path: Path) -> Iterator[tuple[int, Row]]:
    """Number of the line and fields by column, stripped, of each line that is not blank."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            columns = [name.strip() for name in next(reader, [])]
            _check_columns(columns, path)
            for fields in reader:
                if len(fields) not in (0, len(columns)):
                    raise StudyError(
                        f"{path}, line {reader.line_num}: has {len(fields)} fields, the header {len(columns)}; "
                        "put fields with a comma in quotation marks"
                    )
                if any(fields):
                    yield reader.line_num, dict(zip(columns, map(_normal, fields), strict=True))
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise StudyError(f"{path}, line {reader.line_num}: {error}; correct the line") from error


def _check_columns(columns: list[str], path: Path) -> None:
    absent = [name for name in GIVEN[:2] if name not in columns]
    if absent:
        there = ", ".join(columns) or "nothing"
        raise StudyError(
            f"{path}: column '{absent[0]}' is missing, the first line has {there}; add it, with commas between columns"
        )
    for name in columns:
        if not name or columns.count(name) > 1:
            what = f"column '{name}' stands twice" if name else f"column {columns.index('') + 1} has no name"
            raise StudyError(f"{path}: {what}; rename or remove it")
        if name in MADE:
            raise StudyError(f"{path}: column '{name}' is one that the index makes itself; rename or remove it")


def _normal(text: str) -> str:
    """Without blanks at the ends, and accents in one form: systems differ in how they write them."""
    return unicodedata.normalize("NFC", text.strip())


# ---- names ---------------------------------------------------------------------------------------------


def _ids(paths: pd.Series) -> pd.Series:
    """A name for each path that can name a file: its folders and its stem; with a hash where that is not unique."""
    names = paths.map(lambda path: UNSAFE.sub("_", os.path.splitext(path)[0].replace("/", "-")).lstrip(".-"))
    unfit = names.str.casefold().duplicated(keep=False) | names.map(lambda name: not 0 < len(name.encode()) <= LONGEST)
    hashed = names.str[:40] + "-" + paths.map(_hash).str[:8]
    return names.mask(unfit, hashed)


def _hash(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()


# ---- splits --------------------------------------------------------------------------------------------


def make_splits(clips: pd.DataFrame) -> pd.DataFrame:
    """Give every clip a split: the columns split and split_from, on `clips.index`.

    `clips` has the columns path (unique), gloss, signer and split, str, "" where unknown. Splits that are given stay.
    A clip without one goes where its signer is. What is left is shared out between train and the splits that no clip
    has; when nothing is left, and a split has no clip, it is made of train. Sharing out keeps signers in one split
    where signers are known and there are enough of them (split_from: signer-disjoint; see
    `lib.data.splits.signer_disjoint`), else it only keeps the glosses' proportions (file-disjoint).
    No randomness; the order of the rows does not matter.
    """
    split = clips["split"].mask(clips["split"] == "", _split_of_signer(clips))
    origin = pd.Series("given", clips.index).mask(split != clips["split"], "signer-disjoint")
    held_out = [name for name in SPLITS[1:] if not (split == name).any()]
    pool = split == ""
    if not pool.any() and held_out:
        pool = split == "train"
    if pool.any():
        shared, how = _share_out(clips[pool], held_out)
        split = shared.reindex(split.index).fillna(split)
        origin = origin.mask(pool, how)
    return pd.DataFrame({"split": split, "split_from": origin})


def _split_of_signer(clips: pd.DataFrame) -> pd.Series:
    """The split that is given for other clips of the same signer; the first of several, "" where there is none."""
    given = clips[(clips["split"] != "") & (clips["signer"] != "")]
    first = given["split"].map(SPLITS.index).groupby(given["signer"]).min()
    return clips["signer"].map(first).map(dict(enumerate(SPLITS))).fillna("").astype(object)


def _share_out(clips: pd.DataFrame, held_out: list[str]) -> tuple[pd.Series, str]:
    """The split of each clip, and how it was found."""
    share = {"train": 1 - HELD_OUT * len(held_out), **dict.fromkeys(held_out, HELD_OUT)}
    known = clips.assign(signer=clips["signer"].replace("", pd.NA))
    try:
        return signer_disjoint(known, share), "signer-disjoint"
    except StudyError:  # signers are unknown or too few
        by_gloss = clips.groupby("gloss", group_keys=False)
        return pd.concat([_by_file(paths, held_out) for _, paths in by_gloss["path"]]), "file-disjoint"


def _by_file(paths: pd.Series, held_out: list[str]) -> pd.Series:
    """The split of each clip of one gloss, in the order of hashes, so that neighbouring recordings are shared out.

    Train gets the first clip, test and then val the next, whatever their shares.
    """
    left = paths.iloc[paths.map(_hash).argsort()].index
    split = pd.Series("train", paths.index)
    for name in reversed(held_out):
        count = min(max(1, int(HELD_OUT * len(paths) + 0.5)), len(left) - 1)
        split[left[:count]], left = name, left[count:]
    return split


def _check_splits(table: pd.DataFrame, root: Path) -> None:
    for split in SPLITS:
        if not (table["split"] == split).any():
            raise StudyError(
                f"{root}: split '{split}' has no clip: add some; where splits are made, a gloss needs three clips"
            )
    absent = sorted(set(table["gloss"]) - set(table["gloss"][table["split"] == "train"]))
    if absent:
        where = " and ".join(sorted(set(table["split"][table["gloss"] == absent[0]])))
        raise StudyError(
            f"{root}: gloss '{absent[0]}' has clips in {where} but none in train ({len(absent)} such); add some to "
            "train, or take it out"
        )
