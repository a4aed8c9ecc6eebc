"""Building the index: the official clips of a study, and what the data root holds of each."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from lib.data.find import Place, locate, shortfall, walk
from lib.data.hands import MISSING
from lib.data.holistic import read_found
from lib.data.index import signer_disjoint
from lib.data.layouts import LAYOUTS, Layout
from lib.data.near_copies import near_copies
from lib.data.own_clips import LISTING, name_missing, read_folder
from lib.data.poses import keypoint_files, read_landmarks, read_openpose
from lib.data.twins import pair_up
from lib.data.video import probe
from lib.data.wlasl import read_annotations, read_outside
from lib.machine import cores
from lib.settings import StudyError
from lib.study import Study

ROUNDING_OVERSHOOT = 1.2  # annotated ends overshoot whole files by up to 4 % (real clips), compilations by 70 % or more


@dataclass(frozen=True)
class Content:
    """What a source holds of one clip; of an unreadable one only the path and the problem."""

    path: str
    n_frames: int | None = None
    fps: float | None = None  # keypoints and hands do not have it
    sha256: str = ""
    problem: str = ""
    notes: str = ""  # what is odd in a clip that is readable all the same


def list_clips(study: Study) -> pd.DataFrame:
    """List the official clips of the study: WLASL's (`read_annotations`), or those of a folder (`read_folder`).

    Raises StudyError as these do, when a folder has more or fewer glosses than the study, or when no file exists.
    """
    if "clips" not in study.sources:
        return read_annotations(study.root, study.subset)
    clips = read_folder(study.root)
    glosses = clips["gloss"].unique()
    if len(glosses) != study.subset:
        named = ", ".join([*glosses[:5], "…"] if len(glosses) > 5 else glosses)
        problem = f"holds {len(glosses)} glosses ({named}), the study asks for {study.subset}"
        raise StudyError(f"{study.root}: {problem}; correct the names of the glosses, or the study's subset")
    if not any(os.path.isfile(study.root / path) for path in clips["path"]):
        example = name_missing(study.root, 1)[0].removeprefix(f"{LISTING}, ")
        problem = f"none of the {len(clips)} clips exists, for example {example}"
        raise StudyError(f"{study.root / LISTING}: {problem}; write paths relative to the folder of this file")
    return clips


def build_index(study: Study) -> pd.DataFrame:
    """Build the index: one row per official clip of the study, present or not, ordered by label and video_id.

    Columns: those of `list_clips`, and
    path         str, of the clip in the study's first source; "" where missing
    status       present (readable in every source) | missing | unreadable: <reason> | dropped: <reason>
    n_frames     Int64, frames in the first source; NA where missing or unreadable
    content      str, SHA-256 of the clip in the first source; "" where missing or unreadable
    notes        str, what is odd in a readable clip, of all sources (and of clips.csv), joined by "; "; "" for nothing
    frame_start and frame_end are 0-based and half-open, in frames of the file; where n_frames is NA, at the
    annotation's rate (see `to_file_frames`). fps is the file's own rate if the first source knows it, else the
    annotation's. The study's `split` is applied; no twin is dropped (see `find_twins`). Every file is read to its end.
    Raises StudyError when annotations or a whole source are absent or broken, or a source holds none of the clips.
    """
    clips = list_clips(study)
    if study.split == "signer-disjoint":
        clips["split"] = signer_disjoint(clips)
        if "split_from" in clips:
            clips["split_from"] = "signer-disjoint"
    found = [read_clips(study, source, find_clips(study, source, clips)) for source in study.sources]
    rows = [_row(clip, [contents.get(clip["video_id"]) for contents in found]) for clip in clips.to_dict("records")]
    return pd.DataFrame(rows, index=clips.index).astype({"signer": clips["signer"].dtype, "n_frames": "Int64"})


def find_twins(study: Study, index: pd.DataFrame) -> pd.DataFrame:
    """Find the twins of the present clips of an index: the table of `lib.data.twins.pair_up`.

    Twins are identical clips of the index and, where the study reads hands, near-copies, among all clips of the data
    root that have hands: also those of other glosses (see `read_outside`), with the split of their annotation file.
    """
    inside = index[index["status"] == "present"]
    if "hands" not in study.sources:
        return pair_up(inside, [], inside["video_id"])
    columns = ["video_id", "gloss", "split"]
    clips = pd.concat([inside[columns], read_outside(study.root, study.subset)[columns]], ignore_index=True)
    places, _ = locate(study.root, "hands", clips["video_id"])
    landmarks, contents = {}, {}  # each content once
    for video_id, (place, *others) in tqdm(places.items(), desc="twins"):
        try:
            clip = read_landmarks(place.archive, place.name)
        except StudyError:  # it is in no index as present
            continue
        if not others and (clip[..., :2] != MISSING).any():
            contents[video_id] = _hash(clip)
            landmarks.setdefault(contents[video_id], clip)
    names = list(landmarks)
    near = [(names[i], names[j]) for i, j in near_copies(list(landmarks.values()))]
    return pair_up(clips.assign(content=clips["video_id"].map(contents).fillna("")), near, inside["video_id"])


def _row(clip: dict, contents: list[Content | None]) -> dict:
    """The index row of a clip, given what each source holds of it (None: nothing)."""
    first = contents[0] or Content("")
    segment = clip["frame_start"], clip["frame_end"]
    fps = first.fps or clip["fps"]
    start, end = to_file_frames(*segment, fps=clip["fps"], file_fps=fps, n_frames=first.n_frames)
    problem = next((content.problem for content in contents if content and content.problem), "")
    notes = [clip.get("notes", ""), *(content.notes for content in contents if content)]
    lengths = [str(content.n_frames) for content in contents if content and content.n_frames]
    if len(set(lengths)) > 1:
        notes.append(f"{' and '.join(lengths)} frames in its sources, scaled")
    return clip | {
        "frame_start": start,
        "frame_end": end,
        "fps": fps,
        "path": first.path,
        "status": f"unreadable: {problem}" if problem else "missing" if None in contents else "present",
        "n_frames": first.n_frames,
        "content": first.sha256,
        "notes": "; ".join(dict.fromkeys(filter(None, notes))),
    }


def list_files(study: Study) -> str:
    """List what the index is made from, a line for each file: its path in the data root, its size and its time.

    Another text means that a file was added, removed, or replaced in place.
    """
    if "clips" in study.sources:
        paths = [study.root / path for path in (LISTING, *read_folder(study.root)["path"])]
    else:
        folders = [study.root / name for name in ("annotations", *study.sources)]
        paths = [folder / file for folder in folders for file in walk(folder)]
    there = sorted(path for path in paths if path.is_file())
    facts = [(path.relative_to(study.root).as_posix(), path.stat()) for path in there]
    return "".join(f"{name}\t{stat.st_size}\t{stat.st_mtime_ns}\n" for name, stat in facts)


def to_file_frames(
    start: int, end: int, *, fps: float, file_fps: float | None, n_frames: int | None
) -> tuple[int, int]:
    """Convert annotated frame numbers to 0-based half-open ones of the file, scaled by `file_fps` / `fps`.

    `start` and `end` are 1-based and inclusive at `fps`; -1 is the end of the file. An unknown `file_fps` is taken to
    equal `fps`. With `n_frames` the result lies in [0, n_frames] and is never empty. Without it an end of -1 stays -1.
    WLASL's preprocess.py cuts compilations into one file per sign, to which the numbers of the compilation no longer
    apply. A file is taken for such a cut-out, and returned whole, when the segment starts after its end, or ends far
    after it while the file's length is closer to the segment's length than to the segment's end.
    Raises ValueError unless 1 <= start <= end (or end = -1), fps > 0 and n_frames > 0.
    """
    if start < 1 or (end != -1 and end < start) or fps <= 0 or (n_frames is not None and n_frames < 1):
        raise ValueError(f"need 1 <= start <= end or end = -1, got {start}..{end} at {fps} fps of {n_frames} frames")
    ratio = (file_fps or fps) / fps
    first = round((start - 1) * ratio)
    last = n_frames if end == -1 else max(round(end * ratio), first + 1)
    if n_frames is None:
        return first, -1 if last is None else last
    reaches_far = last > ROUNDING_OVERSHOOT * n_frames
    if first >= n_frames or (reaches_far and abs(n_frames - (last - first)) < last - n_frames):
        return 0, n_frames
    return first, min(last, n_frames)


def find_clips(study: Study, source: str, clips: pd.DataFrame) -> dict[str, list[Place]]:
    """Where a source has the clips, by video_id: the places of each, the best first. Clips that it lacks have no entry.

    Raises StudyError, saying what was looked for and what is there instead, when it has none.
    """
    if source == "clips":
        files = zip(clips["video_id"], [study.root / path for path in clips["path"]], strict=True)
        return {video_id: [Place(video_id, path)] for video_id, path in files if os.path.isfile(path)}
    places, others = locate(study.root, source, clips["video_id"])
    if not places:
        raise StudyError(f"{study.root}: {shortfall(source, list(clips['video_id']), (), others, study.root)}")
    return places


def read_clips(study: Study, source: str, places: dict[str, list[Place]]) -> dict[str, Content]:
    """Read clips of a source to their ends, those of `find_clips`, and say what each holds, by video_id."""
    readers = {"hands": _read_hands, "poses": _read_poses}
    readers["keypoints"] = lambda place: _read_keypoints(place.path, LAYOUTS[study.layout])
    read = partial(_attempt, read=readers.get(source, lambda place: _read_video(place.path)), root=study.root)
    with ThreadPoolExecutor(cores()) as pool:
        contents = pool.map(read, places.keys(), places.values())
        return dict(zip(places, tqdm(contents, desc=source, total=len(places)), strict=True))


def _attempt(video_id: str, places: list[Place], read: Callable[[Place], Content], root: Path) -> Content:
    """Read the first of a clip's places."""
    path, *others = (place.path for place in places)
    names = sorted({place.name for place in places})
    try:
        if len(names) > 1:
            raise StudyError(f"{path}: {' and '.join(names)} may each be clip {video_id}; give one of them this name")
        content = read(places[0])
    except StudyError as error:
        # Statuses appear in committed reports, which must not name folders of this machine.
        return Content(str(path), problem=str(error).removeprefix(f"{path}: ").replace(f"{path}{os.sep}", ""))
    unread = [f"not read: {other.relative_to(root).as_posix()}" for other in others]
    return replace(content, notes="; ".join(filter(None, [content.notes, *unread])))


def _read_video(path: Path) -> Content:
    info = probe(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Content(str(path), info.frames, info.fps, digest, notes=info.notes)


def _read_keypoints(folder: Path, layout: Layout) -> Content:
    poses = read_openpose(folder, layout)
    digest, odd = hashlib.sha256(), 0
    for path in keypoint_files(folder).values():
        digest.update(content := path.read_bytes())
        odd += b"NaN" in content or b"Infinity" in content
    notes = f"joints without a finite place in {odd} frames, taken as missing" if odd else ""
    return Content(str(folder), len(poses), sha256=digest.hexdigest(), notes=notes)


def _read_hands(place: Place) -> Content:
    landmarks = read_landmarks(place.archive, place.name)
    finite = np.isfinite(landmarks)
    odd = 0 if finite.all() else int((~finite[..., :2]).any((2, 3)).sum())
    notes = f"{odd} hands without a finite place, taken as missing" if odd else ""
    return Content(str(place.path), len(landmarks), sha256=_hash(landmarks), notes=notes)


def _hash(landmarks: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(landmarks)).hexdigest()


def _read_poses(place: Place) -> Content:
    found = read_found(place.path)
    empty = not (np.isfinite(found["body"]).any() or np.isfinite(found["hands"]).any())
    notes = "; ".join(filter(None, [str(found.get("notes", "")), "nobody is found in it" * empty]))
    fps = float(found["fps"]) if found["fps"] > 0 else None
    digest = str(found.get("sha256", "")) or hashlib.sha256(found["body"]).hexdigest()
    return Content(str(place.path), len(found["body"]), fps, digest, notes=notes)
