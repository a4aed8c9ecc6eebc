"""Own clips: <root>/<split>/<gloss>/<clip>.mp4, <root>/<gloss>/<clip>.mp4, or files listed in <root>/clips.csv.

clips.csv has the columns path (relative to the root) and gloss and, where known, signer and split (train, val or
test); further columns are kept. If it exists, only the files that it lists are clips. Hidden files and folders (whose
names start with a dot) are skipped.
"""

import csv
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from lib.data.find import composed, nearest, other_files, printable, speller, walk
from lib.data.index import make_splits
from lib.data.video import SUFFIXES
from lib.data.wlasl import ANNOTATED_FPS, COLUMNS, SPLITS
from lib.settings import StudyError

LISTING = "clips.csv"
RESERVED = {*COLUMNS, "n_frames", "status", "content", "split_from"} - {"gloss", "signer", "split", "source"}
UNSAFE = re.compile(r"[^\w.-]+")  # in file names
LONGEST = 200  # bytes of a video_id; file systems allow 255 for it and the suffixes added to it

Row = dict[str, str]


def read_folder(root: Path) -> pd.DataFrame:
    """List the clips of a folder, one row each, without opening the files.

    Columns: those of `lib.data.wlasl.read_annotations`, where signer is str (NA unknown), source is "unknown" unless
    clips.csv has it, and the segment is the whole file (frames 1 to -1, no box);
    path         str, relative to the root
    split_from   given | signer-disjoint | file-disjoint: how the clip got its split, see `make_splits`
    and the further columns of clips.csv, str. Labels number the glosses in sorted order. Rows are ordered by
    label and video_id.
    Raises StudyError, naming the file, line or column, when a name or clips.csv is invalid, when there is no clip, a
    split has none, or a gloss has none in train.
    """
    where = root / LISTING if (root / LISTING).is_file() else root
    table = pd.DataFrame(row for _, row in _rows(root))
    if table.empty:
        there = f", only files such as '{found[0]}'" if (found := ignored(root)) else ""
        raise StudyError(f"{where}: there is no clip{there}; see data/README.md, 'Your own clips'")
    keys = table["path"].map(composed)  # so that names and splits are the same on every system
    table = table.assign(**make_splits(table.assign(path=keys)))
    for split in SPLITS:
        if not (table["split"] == split).any():
            raise StudyError(f"{root}: split '{split}' has no clip; add some (to make splits, a gloss needs three)")
    glosses = sorted(set(table["gloss"]))
    absent = sorted(set(glosses) - set(table["gloss"][table["split"] == "train"]))
    if absent:
        there = " and ".join(sorted(set(table["split"][table["gloss"] == absent[0]])))
        problem = f"gloss '{absent[0]}' has clips in {there} but none in train ({len(absent)} such)"
        raise StudyError(f"{root}: {problem}; add some to train, or remove the gloss")
    table = table.assign(
        video_id=_ids(keys.where(~keys.duplicated(keep=False), table["path"])),
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


def name_missing(root: Path, most: int) -> list[str]:
    """Name the clips without a file: line of clips.csv, path, and for the first `most` the file that may be meant."""
    lines = {row["path"]: line for line, row in _rows(root)}
    missing = [path for path in lines if not os.path.isfile(root / path)]
    others = [file for file in map(printable, walk(root) if missing else ()) if file not in lines]
    hints = {path: nearest(path, others) for path in missing[:most]}
    return [f"{lines[path]}{path}{hints.get(path, '')}" for path in missing]


def ignored(root: Path) -> list[str]:
    """The visible files in folders of clips that are no clips: not videos or, with a clips.csv, not listed there."""
    if not (root / LISTING).is_file():
        return [file for file in other_files(root) if "/" in file and not file.startswith("poses/")]
    clips = {Path(row["path"]) for _, row in _rows(root)}
    beside = {clip.parent for clip in clips}
    clips.add(Path(LISTING))
    return sorted(printable(file) for file in walk(root) if file.parent in beside and file not in clips)


def _rows(root: Path) -> Iterator[tuple[str, Row]]:
    """Each clip, after the words that say where clips.csv lists it ("" in a tree)."""
    where = root / LISTING
    return _read_listing(where) if where.is_file() else (("", row) for row in _read_tree(root))


def _read_tree(root: Path) -> Iterator[Row]:
    files = sorted(file for file in walk(root) if file.suffix.lower() in SUFFIXES)
    first, depths = {file.parts[0] for file in files}, {len(file.parts) for file in files}
    with_splits = 3 in depths or (depths == {2} and first <= set(SPLITS))
    form = "<split>/<gloss>/<clip>" if with_splits else "<gloss>/<clip>"
    for split in SPLITS if with_splits else ():
        if split not in first and (root / split).is_dir():
            raise StudyError(f"{root / split}: holds no clip; add some, or remove it to make the split from train")
    for file in files:
        if os.fsencode(file) != str(file).encode(errors="replace"):
            raise StudyError(f"{root}: the name {str(file)!a} is not UTF-8; rename the file")
        if len(file.parts) != form.count("/") + 1:
            raise StudyError(f"{root}: {file} is not {form}; move the file, or list the clips in {LISTING}")
        if with_splits and file.parts[0] not in SPLITS:
            raise StudyError(f"{root}: folder '{file.parts[0]}' is not a split; rename it to train, val or test")
        split, gloss = file.parts[:2] if with_splits else ("", file.parts[0])
        yield {"path": file.as_posix(), "gloss": composed(gloss).strip(), "signer": "", "split": split}


def _read_listing(path: Path) -> Iterator[tuple[str, Row]]:
    seen: dict[str, int] = {}
    spell = speller(path.parent)
    for line, row in _records(path):
        file, row = spell(row["path"]), {"signer": "", "split": "", **row}
        problem = ""
        if file in seen:
            problem = f"column 'path': '{file}' is in line {seen[file]}, too; remove one of them"
        elif not row["gloss"]:
            problem = "column 'gloss': is empty; fill it in or remove the line"
        elif row["split"] not in ("", *SPLITS):
            problem = f"column 'split': '{row['split']}' is not train, val or test; correct it, or leave it empty"
        elif file.startswith("/") or file.split("/")[0] in (".", ".."):
            problem = f"column 'path': '{row['path']}' is not inside the folder of {LISTING}; write it relative to that"
        if problem:
            raise StudyError(f"{path}, line {line}, {problem}")
        seen[file] = line
        yield f"{LISTING}, line {line}: ", {**row, "path": file}


def _records(path: Path) -> Iterator[tuple[int, Row]]:
    """Line number, and the fields by column, stripped and, but for paths, in NFC, of each line that is not blank."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            columns = [name.strip() for name in next(reader, [])]
            _check_columns(columns, path)
            for fields in reader:
                if len(fields) not in (0, len(columns)):
                    problem = f"has {len(fields)} fields, the header {len(columns)}; quote fields that contain commas"
                    raise StudyError(f"{path}, line {reader.line_num}: {problem}")
                if any(fields):
                    row = {name: field.strip() for name, field in zip(columns, fields, strict=True)}
                    yield reader.line_num, {n: field if n == "path" else composed(field) for n, field in row.items()}
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise StudyError(f"{path}, line {reader.line_num}: {error}; correct the line") from error


def _check_columns(columns: list[str], path: Path) -> None:
    for name in ("path", "gloss"):
        if name not in columns:
            there = ", ".join(columns) or "nothing"
            raise StudyError(f"{path}: column '{name}' is missing, the first line has {there}; add it, after a comma")
    for name in columns:
        if not name or columns.count(name) > 1:
            what = f"column '{name}' appears twice" if name else f"column {columns.index('') + 1} has no name"
            raise StudyError(f"{path}: {what}; rename or remove it")
        if name in RESERVED:
            raise StudyError(f"{path}: the name of column '{name}' is reserved for the index; rename or remove it")


def _ids(paths: pd.Series) -> pd.Series:
    """The video_id of each path, safe as a file name: folders and stem, with a hash where these are not unique."""
    names = paths.map(lambda path: UNSAFE.sub("_", os.path.splitext(path)[0].replace("/", "-")).lstrip(".-"))
    unfit = names.str.casefold().duplicated(keep=False) | names.map(lambda name: not 0 < len(name.encode()) <= LONGEST)
    hashes = paths.map(lambda path: hashlib.sha256(path.encode()).hexdigest())
    return names.mask(unfit, names.str[:40] + "-" + hashes.str[:8])
