"""Readers of WLASL's annotation files: WLASL_v0.3.json and WLASL<n>.json (rich), nslt_<n>.json (splits).

Each file is enough on its own and gives the same clips; the rich ones add signer, box and source. Where a
rich file and the nslt file exist, nslt decides which clips are official and their split, the rich file gives
the rest. Files that disagree on a clip's class belong to different releases: an error. Those that disagree on
a split or on which clips exist can be used together; `disagreements` lists every such clip for the audit.
Frame numbers are not compared: nslt mostly gives the length of the clip's own file where the rich ones say
"to the end" or number the frames of a longer one.
"""

from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lib.settings import StudyError

SPLITS = ("train", "val", "test")
COLUMNS = (
    "video_id", "gloss", "label", "split", "signer", "source", "frame_start", "frame_end", "fps", "bbox",
)  # fmt: skip
# train, val, test (Li et al. 2020, table 3; the issue tracker and the files agree once WITHDRAWN is left
# out).
PUBLISHED_COUNTS = {
    100: (1442, 338, 258),
    300: (3549, 900, 668),
    1000: (8974, 2318, 1876),
    2000: (14289, 3916, 2878),
}
# In the nslt files, but neither in v0.3 nor in the published experiments ("feel safe to ignore", the authors
# in https://github.com/dxli94/WLASL/issues/38).
WITHDRAWN = {
    "09500", "12209", "13422", "16096", "20065", "20138",
    "39347", "47639", "48251", "51153", "57839", "60721",
}  # fmt: skip
# wlasl_class_list.txt misspells one gloss of v0.3.
CLASS_LIST_ERRATA = {"losear": "lose"}
# The rate at which WLASL counts frames where a file does not say (start_kit README: "decoding with FPS=25").
ANNOTATED_FPS = 25.0

T = TypeVar("T")
SplitName = Literal["train", "val", "test"]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class _Instance(_Record):
    """One clip in a rich file."""

    video_id: Annotated[str, Field(min_length=1)]
    split: SplitName
    frame_start: Annotated[int, Field(ge=1)]
    frame_end: Annotated[int, Field(ge=-1)]
    fps: Annotated[float, Field(gt=0)]
    bbox: Annotated[list[int], Field(min_length=4, max_length=4)] | None = None
    signer_id: int | None = None
    source: str | None = None
    url: str | None = None


class _Gloss(_Record):
    """One gloss with its clips in a rich file."""

    gloss: Annotated[str, Field(min_length=1)]
    instances: list[_Instance]


class _NsltClip(_Record):
    """One clip in an nslt file; action = class number, first frame, last frame."""

    subset: SplitName
    action: Annotated[list[int], Field(min_length=3, max_length=3)]


def read_annotations(root: Path, subset: int) -> pd.DataFrame:
    """Read the official clips of the first `subset` glosses from <root>/annotations/, one row each.

    Columns: video_id str, gloss str, label int in [0, subset), split train|val|test, signer Int64 (NA
    unknown), source str ("unknown"), frame_start and frame_end int (raw: 1-based, inclusive, -1 = to the end)
    at fps frames per second, bbox list[int] (xmin, ymin, xmax, ymax in pixels) or None. Rows are ordered by
    label, then video_id, so that the table does not depend on which of the files it came from. With an nslt
    file alone signer, source and bbox are unknown.
    Raises StudyError naming the file when none is there, or one is broken, or two disagree on a class.
    """
    tables = read_files(root, subset)
    if not tables:
        raise StudyError(
            f"{root / 'annotations'} holds neither WLASL_v0.3.json, WLASL{subset}.json nor "
            f"nslt_{subset}.json; download one from https://github.com/dxli94/WLASL, or point DATA at the "
            "folder that holds annotations/"
        )
    _refuse_conflicting_labels(tables, root)
    nslt = tables.get(f"nslt_{subset}.json")
    rich = next((table for name, table in tables.items() if not name.startswith("nslt")), None)
    if rich is not None and nslt is not None:
        return _merge(rich, nslt)
    return nslt if rich is None else rich


def read_files(root: Path, subset: int) -> dict[str, pd.DataFrame]:
    """Read each annotation file that is there, by itself: file name -> table as `read_annotations` gives it.

    Rich files come first, v0.3 before WLASL<n>. Raises StudyError naming a broken file.
    """
    folder = root / "annotations"
    rich = _rich_files(root, subset)
    entries = {name: _read_glosses(path, subset) for name, path in rich.items()}
    tables = {name: _rich_table(entries[name], rich[name]) for name in rich}
    nslt = folder / f"nslt_{subset}.json"
    if nslt.is_file():
        names = [entry.gloss for entry in next(iter(entries.values()), [])]
        tables[nslt.name] = _read_nslt(nslt, names or _read_class_list(folder / "wlasl_class_list.txt", subset))
    return tables


def read_urls(root: Path, subset: int) -> dict[str, str]:
    """Read where the clips' videos are on the web: video_id -> address, for clips that have one in a rich file.

    v0.3 comes before WLASL<n>: its addresses are the newer ones.
    Raises StudyError when no rich file is there, or naming a broken one.
    """
    files = _rich_files(root, subset)
    if not files:
        raise StudyError(
            f"{root / 'annotations'} holds neither WLASL_v0.3.json nor WLASL{subset}.json, which say where the videos "
            "are; get one from https://github.com/dxli94/WLASL (start_kit)"
        )
    urls: dict[str, str] = {}
    for path in files.values():
        for clip in (clip for entry in _read_glosses(path, subset) for clip in entry.instances):
            if clip.url:
                urls.setdefault(clip.video_id, clip.url)
    return urls


def _rich_files(root: Path, subset: int) -> dict[str, Path]:
    names = ("WLASL_v0.3.json", f"WLASL{subset}.json")
    return {name: path for name in names if (path := root / "annotations" / name).is_file()}


def disagreements(root: Path, subset: int) -> pd.DataFrame:
    """List where two of the annotation files differ: video_id, field (clip or split), files, values.

    The field `clip` marks a clip that only one of the two has. Empty where the files agree or only one is
    there.
    """
    found = [
        row
        for (name_a, a), (name_b, b) in combinations(read_files(root, subset).items(), 2)
        for row in _differences(a, b, f"{name_a} / {name_b}")
    ]
    return pd.DataFrame(found, columns=["video_id", "field", "files", "values"])


def _differences(a: pd.DataFrame, b: pd.DataFrame, files: str) -> list[tuple[str, str, str, str]]:
    columns = {"a": a.set_index("video_id")["split"], "b": b.set_index("video_id")["split"]}
    splits = pd.concat(columns, axis=1)
    splits = splits[splits["a"] != splits["b"]]  # an absent clip (NaN) differs from everything
    return [
        (str(clip.Index), "split" if pd.notna(clip.a) and pd.notna(clip.b) else "clip", files,
         " / ".join("absent" if pd.isna(split) else split for split in (clip.a, clip.b)))
        for clip in splits.itertuples()
    ]  # fmt: skip


def _refuse_conflicting_labels(tables: dict[str, pd.DataFrame], root: Path) -> None:
    for (name_a, a), (name_b, b) in combinations(tables.items(), 2):
        both = a.merge(b, on="video_id")
        wrong = both[both["label_x"] != both["label_y"]]
        if len(wrong):
            clip = wrong.iloc[0]
            raise StudyError(
                f"{root / 'annotations'}: {name_a} and {name_b} give clip {clip.video_id} class "
                f"{clip.label_x} and {clip.label_y} ({len(wrong)} such clips); take both from one release of "
                "WLASL, or remove one"
            )


def _merge(rich: pd.DataFrame, nslt: pd.DataFrame) -> pd.DataFrame:
    """The clips and splits of `nslt`, everything else from `rich` where it knows the clip."""
    clips = nslt.set_index("video_id")
    known = rich[rich["video_id"].isin(clips.index)].set_index("video_id")
    only_nslt = clips.loc[clips.index.difference(known.index)]
    merged = pd.concat([known.assign(split=clips["split"]), only_nslt])
    return _table(merged.reset_index())


def _read_glosses(path: Path, subset: int) -> list[_Gloss]:
    glosses = _parse(path, TypeAdapter(list[_Gloss]))
    if len(glosses) < subset:
        raise StudyError(f"{path}: holds {len(glosses)} glosses, the study asks for {subset}; take a larger file")
    return glosses[:subset]


def _rich_table(glosses: list[_Gloss], path: Path) -> pd.DataFrame:
    clips = [
        {"gloss": entry.gloss, "label": label, "signer": _signer(clip.signer_id), **clip.model_dump()}
        for label, entry in enumerate(glosses)
        for clip in entry.instances
    ]
    table = pd.DataFrame(clips, columns=[*COLUMNS, "signer_id"])
    return _checked(table.assign(source=table["source"].fillna("unknown")), path)


def _read_nslt(path: Path, glosses: list[str]) -> pd.DataFrame:
    clips = _parse(path, TypeAdapter(dict[str, _NsltClip]))
    rows = []
    for video_id, clip in clips.items():
        label, start, end = clip.action
        if not 0 <= label < len(glosses):
            raise StudyError(
                f"{path}: clip {video_id} has class {label}, the classes of this subset are 0 to "
                f"{len(glosses) - 1}; download the file again"
            )
        if video_id not in WITHDRAWN:
            rows.append((video_id, glosses[label], label, clip.subset, None, "unknown", start, end))
    table = pd.DataFrame(rows, columns=COLUMNS[:-2])
    return _checked(table.assign(fps=ANNOTATED_FPS, bbox=None), path)


def _read_class_list(path: Path, subset: int) -> list[str]:
    """The glosses by class number, from lines `number<TAB>gloss`."""
    if not path.is_file():
        raise StudyError(f"{path} is missing; nslt files need it for the names of the glosses")
    glosses = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        label, _, gloss = line.partition("\t")
        if label != str(number) or not gloss.strip():
            raise StudyError(f"{path}, line {number + 1}: expected '{number}<TAB>gloss'; download the file again")
        glosses.append(CLASS_LIST_ERRATA.get(gloss.strip(), gloss.strip()))
    if len(glosses) < subset:
        raise StudyError(f"{path}: holds {len(glosses)} glosses, the study asks for {subset}")
    return glosses[:subset]


def _parse(path: Path, shape: TypeAdapter[T]) -> T:
    try:
        return shape.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = " ".join(str(part) for part in first["loc"])
        what = f"at {where}: {first['msg']}" if where else first["msg"]
        raise StudyError(f"{path}: {what}; correct the file or download it again") from error


def _signer(number: int | None) -> int | None:
    """Negative signer numbers stand for an unknown signer."""
    return None if number is None or number < 0 else number


def _checked(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    twice = table["video_id"][table["video_id"].duplicated()]
    if len(twice):
        raise StudyError(f"{path}: clip {twice.iloc[0]} stands more than once ({len(twice)} such); remove the copies")
    start, end = table["frame_start"], table["frame_end"]
    wrong = table[(start < 1) | ((end != -1) & (end < start))]
    if len(wrong):
        clip = wrong.iloc[0]
        raise StudyError(
            f"{path}: clip {clip.video_id} runs from frame {clip.frame_start} to {clip.frame_end}; frames "
            "count from 1 and the end is inclusive or -1; correct it"
        )
    return _table(table)


def _table(table: pd.DataFrame) -> pd.DataFrame:
    """The columns in their order and types, rows by label and video_id."""
    ordered = table[list(COLUMNS)].sort_values(["label", "video_id"], ignore_index=True)
    boxes = ordered["bbox"].astype(object)
    return ordered.assign(
        signer=ordered["signer"].astype("Int64"),
        fps=ordered["fps"].astype(np.float64),
        bbox=boxes.where(boxes.notna(), None),
    )
