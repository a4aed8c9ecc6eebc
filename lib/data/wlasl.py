"""WLASL's annotation files: WLASL_v0.3.json and WLASL<n>.json (the rich ones), and nslt_<n>.json.

Each file is enough on its own and gives the same clips; only the rich ones know signer, box and source. Where both
kinds exist, the nslt file decides which clips are official and their split, and the rich file supplies the rest.
Files that disagree on a clip's class come from different releases: an error. Disagreement on splits, or on which
clips exist, is harmless; `disagreements` lists it for the audit. Frame numbers are not compared: nslt files mostly
give the length of the clip's own file where the rich ones say "to the end" or number the frames of a longer video.
"""

import re
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lib.settings import StudyError, explain, read_text

SPLITS = ("train", "val", "test")
COLUMNS = ("video_id", "gloss", "label", "split", "signer", "source", "frame_start", "frame_end", "fps", "bbox")
# Clips in train, val and test (Li et al. 2020, table 3; it agrees with the files once WITHDRAWN is left out).
PUBLISHED_COUNTS = {100: (1442, 338, 258), 300: (3549, 900, 668), 1000: (8974, 2318, 1876), 2000: (14289, 3916, 2878)}
# In the nslt files, but neither in v0.3 nor in the published experiments ("feel safe to ignore", the authors in
# https://github.com/dxli94/WLASL/issues/38).
WITHDRAWN = {
    "09500", "12209", "13422", "16096", "20065", "20138",
    "39347", "47639", "48251", "51153", "57839", "60721",
}  # fmt: skip
CLASS_LIST_ERRATA = {"losear": "lose"}  # wlasl_class_list.txt misspells one gloss of v0.3
ANNOTATED_FPS = 25.0  # of frame numbers in files that state no rate (start_kit README: "decoding with FPS=25")

T = TypeVar("T")
SplitName = Literal["train", "val", "test"]
Number = Annotated[int, Field(ge=-1_000_000_000, le=1_000_000_000)]  # fits the index
NonEmpty = Annotated[str, Field(min_length=1)]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class _RichClip(_Record):
    video_id: NonEmpty
    split: SplitName
    frame_start: Number
    frame_end: Number
    fps: Annotated[float, Field(ge=1, le=1000)]
    bbox: Annotated[list[Number], Field(min_length=4, max_length=4)] | None = None
    signer_id: Number | None = None  # negative: unknown
    source: str | None = None


class _RichGloss(_Record):
    gloss: NonEmpty
    instances: list[_RichClip]


class _NsltClip(_Record):
    subset: SplitName
    action: tuple[Number, Number, Number]  # class number, first frame, last frame


def read_annotations(root: Path, subset: int) -> pd.DataFrame:
    """Read the official clips of the first `subset` glosses from <root>/annotations/, one row each.

    Columns: video_id str, gloss str, label int in [0, subset), split train|val|test, signer Int64 (NA unknown), source
    str ("unknown"), frame_start and frame_end int (raw: 1-based, inclusive, -1 = to the end) at fps frames per second,
    bbox list[int] (xmin, ymin, xmax, ymax in pixels) or None. Rows are ordered by label, then video_id, whichever
    files they came from. With an nslt file alone signer, source and bbox are unknown.
    Raises StudyError, naming the file, when none exists, one is broken, or two disagree on a class.
    """
    folder = root / "annotations"
    tables = _read_files(folder, subset)
    if not tables:
        raise StudyError(
            f"{folder} holds neither WLASL_v0.3.json, WLASL{subset}.json nor nslt_{subset}.json; download one from "
            "https://github.com/dxli94/WLASL, or point DATA at the folder of annotations/"
        )
    for (name_a, a), (name_b, b) in combinations(tables.items(), 2):
        both = a.merge(b, on="video_id")
        wrong = both[both["label_x"] != both["label_y"]]
        if len(wrong):
            clip = wrong.iloc[0]
            problem = f"{name_a} and {name_b} give clip {clip.video_id} class {clip.label_x} and {clip.label_y}"
            raise StudyError(f"{folder}: {problem} ({len(wrong)} such clips); take both from one release of WLASL")
    nslt = tables.pop(f"nslt_{subset}.json", None)
    rich = next(iter(tables.values()), None)
    table = rich if nslt is None else nslt
    if table.empty:
        raise StudyError(f"{folder}: the first {subset} glosses have no clip; download the files again")
    if nslt is None or rich is None:
        return table
    clips, known = nslt.set_index("video_id"), rich.set_index("video_id")
    known = known[known.index.isin(clips.index)].assign(split=clips["split"])
    return _checked(pd.concat([known, clips.drop(known.index)]).reset_index(), folder)


def read_outside(root: Path, subset: int) -> pd.DataFrame:
    """Read the clips of all glosses beyond the first `subset`, which a model of the subset does not know.

    They come from the largest of the annotation files, WLASL_v0.3.json, WLASL<n>.json and nslt_<n>.json, read as
    `read_annotations` reads n glosses, in its columns and order: labels are at least `subset`. WLASL's subsets are
    nested, so that a clip has the same split in each. No clip of the subset is among them, whatever another release
    says of it. The table is empty when no file holds more glosses.
    WLASL holds some videos twice under different glosses: a clip outside may show what one inside does (1 to 3 %).
    Raises StudyError like `read_annotations`, of the subset or of the largest file.
    """
    inside = read_annotations(root, subset)
    glosses = max(_sizes(root / "annotations"))
    if glosses <= subset:
        return inside[:0]
    clips = read_annotations(root, glosses)
    outside = (clips["label"] >= subset) & ~clips["video_id"].isin(inside["video_id"])
    return clips[outside].reset_index(drop=True)


def disagreements(root: Path, subset: int) -> pd.DataFrame:
    """List where two annotation files differ: columns video_id, field, files, values.

    The field is "split", or "clip" for a clip that only one of the two files has. Empty where the files agree, or
    only one exists. Raises StudyError naming a broken file.
    """
    rows = []
    for (name_a, a), (name_b, b) in combinations(_read_files(root / "annotations", subset).items(), 2):
        columns = {"a": a.set_index("video_id")["split"], "b": b.set_index("video_id")["split"]}
        splits = pd.concat(columns, axis=1).fillna("absent")
        for clip in splits[splits["a"] != splits["b"]].itertuples():
            field = "clip" if "absent" in (clip.a, clip.b) else "split"
            rows.append((clip.Index, field, f"{name_a} / {name_b}", f"{clip.a} / {clip.b}"))
    return pd.DataFrame(rows, columns=["video_id", "field", "files", "values"])


def _sizes(folder: Path) -> list[int]:
    """The number of glosses of each annotation file; the name of v0.3 does not say it."""
    named = [re.fullmatch(r"(?:nslt_|WLASL)([1-9]\d*)\.json", path.name) for path in folder.iterdir() if path.is_file()]
    sizes = [int(match[1]) for match in named if match]
    newest = folder / "WLASL_v0.3.json"
    return [*sizes, len(_parse(newest, TypeAdapter(list[_RichGloss])))] if newest.is_file() else sizes


def _read_files(folder: Path, subset: int) -> dict[str, pd.DataFrame]:
    """The table of each annotation file by its name: v0.3, WLASL<n>, nslt, as far as they exist."""
    rich = [path for name in ("WLASL_v0.3.json", f"WLASL{subset}.json") if (path := folder / name).is_file()]
    tables, names = {}, []
    for path in rich:
        tables[path.name], glosses = _read_rich(path, subset)
        names = names or glosses
    nslt = folder / f"nslt_{subset}.json"
    if nslt.is_file():
        tables[nslt.name] = _read_nslt(nslt, names or _read_class_list(folder / "wlasl_class_list.txt", subset))
    return tables


def _read_rich(path: Path, subset: int) -> tuple[pd.DataFrame, list[str]]:
    """The clips, and the names of the glosses."""
    glosses = _parse(path, TypeAdapter(list[_RichGloss]))[:subset]
    if len(glosses) < subset:
        raise StudyError(f"{path}: holds {len(glosses)} glosses, the study asks for {subset}; use a larger file")
    clips = [
        {"gloss": gloss.gloss, "label": label, **clip.model_dump()}
        for label, gloss in enumerate(glosses)
        for clip in gloss.instances
    ]
    table = pd.DataFrame(clips, columns=["gloss", "label", *_RichClip.model_fields])
    signer = table["signer_id"].astype("Int64")
    table = table.assign(signer=signer.mask(signer < 0), source=table["source"].fillna("unknown"))
    return _checked(table, path), _distinct([gloss.gloss for gloss in glosses], path)


def _read_nslt(path: Path, glosses: list[str]) -> pd.DataFrame:
    rows = []
    for video_id, clip in _parse(path, TypeAdapter(dict[str, _NsltClip])).items():
        label, start, end = clip.action
        if not 0 <= label < len(glosses):
            problem = f"clip {video_id} has class {label}, the classes of this subset are 0 to {len(glosses) - 1}"
            raise StudyError(f"{path}: {problem}; download the file again")
        if video_id not in WITHDRAWN:
            rows.append((video_id, glosses[label], label, clip.subset, None, "unknown", start, end))
    return _checked(pd.DataFrame(rows, columns=COLUMNS[:-2]).assign(fps=ANNOTATED_FPS, bbox=None), path)


def _read_class_list(path: Path, subset: int) -> list[str]:
    """The glosses by class number, from lines `number<TAB>gloss`."""
    if not path.is_file():
        raise StudyError(f"{path} is missing; it names the glosses of an nslt file")
    lines = read_text(path).splitlines()
    if len(lines) < subset:
        raise StudyError(f"{path}: holds {len(lines)} glosses, the study asks for {subset}; download the file again")
    glosses = []
    for number, line in enumerate(lines[:subset]):
        label, _, gloss = line.partition("\t")
        if label != str(number) or not gloss.strip():
            raise StudyError(f"{path}, line {number + 1}: expected '{number}<TAB>gloss'; download the file again")
        glosses.append(CLASS_LIST_ERRATA.get(gloss.strip(), gloss.strip()))
    return _distinct(glosses, path)


def _distinct(glosses: list[str], path: Path) -> list[str]:
    """The glosses; a name that two have would make one row of them in every table."""
    for label, gloss in enumerate(glosses):
        if (first := glosses.index(gloss)) != label:
            problem = f"classes {first} and {label} are both the gloss '{gloss}'"
            raise StudyError(f"{path}: {problem}; rename one, or download the file again")
    return glosses


def _parse(path: Path, shape: TypeAdapter[T]) -> T:
    try:
        return shape.validate_json(read_text(path))
    except ValidationError as error:
        raise StudyError(f"{path}: {explain(error, _Record)}; correct the file or download it again") from error


def _checked(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Check the clips; return the columns in their order and types, the rows by label and video_id."""
    twice = table["video_id"][table["video_id"].duplicated()]
    if len(twice):
        raise StudyError(f"{path}: clip {twice.iloc[0]} appears more than once ({len(twice)} such); remove the copies")
    start, end = table["frame_start"], table["frame_end"]
    wrong = table[(start < 1) | ((end != -1) & (end < start))]
    if len(wrong):
        clip = wrong.iloc[0]
        problem = f"clip {clip.video_id} runs from frame {clip.frame_start} to {clip.frame_end}"
        raise StudyError(f"{path}: {problem}; correct it: frames count from 1, and the end is inclusive or -1")
    ordered = table[list(COLUMNS)].sort_values(["label", "video_id"], ignore_index=True)
    boxes = ordered["bbox"].astype(object)
    types = {"signer": "Int64", "fps": "float64"}
    return ordered.astype(types).assign(bbox=boxes.where(boxes.notna(), None))
