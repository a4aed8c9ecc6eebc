"""The index of a study: every official clip, what the data root holds of it, and where its sign stands."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from lib.data.layouts import LAYOUTS
from lib.data.own_clips import LISTING, read_folder
from lib.data.poses import read_openpose
from lib.data.splits import drop_duplicates, signer_disjoint
from lib.data.video import SUFFIXES, probe
from lib.data.wlasl import read_annotations
from lib.paths import replacing
from lib.settings import StudyError
from lib.study import Study

__all__ = ["build_index", "list_clips", "read_annotations", "read_index", "to_file_frames", "write_index"]

# Annotated ends overshoot whole files by up to 4 % (real clips); compilations at least 70 %.
ROUNDING_OVERSHOOT = 1.2


def list_clips(study: Study) -> pd.DataFrame:
    """The official clips of the study: of WLASL's annotations (`read_annotations`), or of a folder (`read_folder`).

    Raises StudyError as these do, and when a folder has another number of glosses than the study says, or lists only
    files that are not there.
    """
    if "clips" not in study.sources:
        return read_annotations(study.root, study.subset)
    clips = read_folder(study.root)
    glosses = clips["gloss"].unique()
    if len(glosses) != study.subset:
        named = ", ".join([*glosses[:5], "…"] if len(glosses) > 5 else glosses)
        raise StudyError(
            f"{study.root}: holds {len(glosses)} glosses ({named}), the study asks for {study.subset}; correct "
            "the names of the glosses, or the study's subset"
        )
    if not any(os.path.isfile(study.root / path) for path in clips["path"]):
        raise StudyError(
            f"{study.root / LISTING}: none of the {len(clips)} clips is there, such as '{clips['path'][0]}'; "
            "paths are relative to the folder of this file"
        )
    return clips


def build_index(study: Study) -> pd.DataFrame:
    """One row per official clip of the study, present or not, ordered by label and video_id.

    Columns: those of `list_clips`, and
    path         str, of the clip in the study's first source; "" where missing
    status       present | missing | unreadable: <reason> | dropped: <reason>; present = readable in every
    source n_frames     Int64, frames in the first source; NA where it is missing or unreadable
    content      str, SHA-256 of the clip in the first source (see below); "" where missing or
    unreadable frame_start, frame_end are 0-based and half-open here, in frames of the file (see
    `to_file_frames`); where n_frames is NA they stay at the annotation's rate, and an end of -1 stays -1.
    fps is the file's own rate where the first source knows it, else the annotation's.
    The study's `split` and `drop_duplicates` have been applied.
    Raises StudyError when annotations or a whole source are absent or broken.
    """
    clips = list_clips(study)
    if study.split == "signer-disjoint":
        clips["split"] = signer_disjoint(clips)
        if "split_from" in clips:
            clips["split_from"] = "signer-disjoint"
    found = [look(study, source, clips["video_id"]) for source in study.sources]
    rows = [_row(clip, [contents.get(clip["video_id"]) for contents in found]) for clip in clips.to_dict("records")]
    index = pd.DataFrame(rows, index=clips.index)
    index = index.astype({"signer": clips["signer"].dtype, "n_frames": "Int64"})
    if study.drop_duplicates:
        index = drop_duplicates(index)
    return index


def to_file_frames(
    start: int, end: int, *, fps: float, file_fps: float | None, n_frames: int | None
) -> tuple[int, int]:
    """Turn annotated frame numbers into 0-based half-open ones of the file, scaled by `file_fps` / `fps`.

    `start` and `end` are 1-based and inclusive at `fps`, end -1 = to the end. Where `file_fps` is unknown it
    is taken to equal `fps`. With `n_frames` known the result lies in [0, n_frames] and holds at least one
    frame; a segment that overshoots the file is cut at its end. Without it an end of -1 stays -1.
    WLASL's own preprocess.py cuts YouTube compilations into one file per sign, to which the numbers of the
    compilation no longer apply: see `is_cut_out`; then the whole file is the segment.
    Raises ValueError unless 1 <= start <= end (or end = -1), rates are positive, n_frames > 0.
    """
    if start < 1 or (end != -1 and end < start) or fps <= 0 or (n_frames is not None and n_frames < 1):
        raise ValueError(f"need 1 <= start <= end or end = -1, got {start}..{end} at {fps} fps of {n_frames} frames")
    ratio = (file_fps or fps) / fps
    first = round((start - 1) * ratio)
    if n_frames is None:
        return first, -1 if end == -1 else max(round(end * ratio), first + 1)
    last = n_frames if end == -1 else max(round(end * ratio), first + 1)
    if is_cut_out(first, last, n_frames):
        return 0, n_frames
    return first, min(last, n_frames)


def is_cut_out(first: int, end: int, n_frames: int) -> bool:
    """Whether a file of `n_frames` holds just the segment [first, end), cut out of a longer one.

    So it is when the segment lies wholly behind the file's end, or reaches far beyond it (not by the few
    frames that rounding explains) while the file is nearer to the segment in length than to its end. All in
    frames of the file.
    """
    reaches_far = end > ROUNDING_OVERSHOOT * n_frames
    return first >= n_frames or (reaches_far and abs(n_frames - (end - first)) < end - n_frames)


def _row(clip: dict, contents: list[Content | None]) -> dict:
    """The index row of one clip, given what each source holds of it (None: nothing)."""
    content = contents[0] if contents[0] and not contents[0].problem else None
    n_frames = content.n_frames if content else None
    fps = content.fps if content and content.fps else clip["fps"]
    start, end = to_file_frames(
        clip["frame_start"], clip["frame_end"], fps=clip["fps"], file_fps=fps, n_frames=n_frames
    )
    return clip | {
        "frame_start": start,
        "frame_end": end,
        "fps": fps,
        "path": str(contents[0].path) if contents[0] else "",
        "status": _status(contents),
        "n_frames": n_frames,
        "content": content.sha256 if content else "",
    }


def _status(contents: list[Content | None]) -> str:
    problems = [content.problem for content in contents if content and content.problem]
    if problems:
        return f"unreadable: {problems[0]}"
    return "missing" if None in contents else "present"


def write_index(index: pd.DataFrame, study: Study) -> None:
    """Write the index to study.paths.index; an interrupted write leaves an existing file untouched."""
    with replacing(study.paths.index) as path:
        index.to_parquet(path, index=False)


def read_index(study: Study) -> pd.DataFrame:
    """Read the index that notebook 01 wrote, as `build_index` gives it. Raises StudyError when there is
    none."""
    if not study.paths.index.is_file():
        raise StudyError(
            f"{study.paths.index} is missing; run notebooks/01_dataset.ipynb, or `make study STUDY={study.name}`"
        )
    return pd.read_parquet(study.paths.index)


Reader = Callable[[], "Content"]
HANDS_SHAPE = (2, 21, 3)  # hands, joints, x y z


@dataclass(frozen=True)
class Content:
    """What a source holds of one clip; `problem` says why it cannot be read and is empty where it can.

    `fps` is None where the source does not know it, `sha256` is empty where there is a problem.
    """

    path: Path
    n_frames: int = 0
    fps: float | None = None
    sha256: str = ""
    problem: str = ""


def look(study: Study, source: str, video_ids: Iterable[str]) -> dict[str, Content]:
    """Read what `source` (videos, keypoints, hands or clips) of the study holds of the clips; absent clips have no
    entry.

    Every clip is read to its end, in threads, with a progress bar.
    Raises StudyError when the data root holds nothing of that source at all.
    """
    find = {"videos": _find_videos, "keypoints": _find_keypoints, "hands": _find_hands, "clips": _find_clips}[source]
    found = find(study)
    wanted = [video_id for video_id in video_ids if video_id in found]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        contents = list(tqdm(pool.map(lambda v: _attempt(*found[v]), wanted), desc=source, total=len(wanted)))
    return dict(zip(wanted, contents, strict=True))


def _attempt(path: Path, read: Reader) -> Content:
    try:
        return read()
    except StudyError as error:
        # Statuses end up in committed reports, which name no folders of the machine.
        reason = str(error).removeprefix(f"{path}: ").replace(f"{path}{os.sep}", "")
        return Content(path, problem=reason)


def _find_videos(study: Study) -> dict[str, tuple[Path, Reader]]:
    files = sorted(_folder(study.root, "videos").iterdir())
    by_suffix = {suffix: [path for path in files if path.suffix.lower() == suffix] for suffix in SUFFIXES}
    preferred_last = [path for suffix in reversed(SUFFIXES) for path in by_suffix[suffix]]
    return {path.stem: (path, partial(_read_video, path)) for path in preferred_last}


def _find_clips(study: Study) -> dict[str, tuple[Path, Reader]]:
    clips = read_folder(study.root)
    paths = {clip.video_id: study.root / clip.path for clip in clips.itertuples()}
    return {video_id: (path, partial(_read_video, path)) for video_id, path in paths.items() if os.path.isfile(path)}


def _find_keypoints(study: Study) -> dict[str, tuple[Path, Reader]]:
    folders = sorted(path for path in _folder(study.root, "keypoints").iterdir() if path.is_dir())
    return {path.name: (path, partial(_read_keypoints, path, study.layout)) for path in folders}


def _find_hands(study: Study) -> dict[str, tuple[Path, Reader]]:
    paths = sorted((study.root / "hands").glob("*.npz"))
    if not paths:
        raise StudyError(
            f"{study.root / 'hands'} holds no .npz with hand landmarks; put the archive of MediaPipe "
            "landmarks by video_id there, or take 'hands' out of the study's sources"
        )
    archives = {path: _open_archive(path) for path in paths}
    return {
        video_id: (path, partial(_read_hands, path, archive, video_id))
        for path, archive in archives.items()
        for video_id in archive.files
    }


def _open_archive(path: Path) -> np.lib.npyio.NpzFile:
    try:
        return np.load(path)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise StudyError(f"{path}: is not a readable .npz archive ({error}); download it again") from error


def _folder(root: Path, name: str) -> Path:
    if not (root / name).is_dir():
        raise StudyError(f"{root / name} is missing; put the {name} there, or take '{name}' out of the study's sources")
    return root / name


def _read_video(path: Path) -> Content:
    info = probe(path)
    with path.open("rb") as file:
        return Content(path, info.frames, info.fps, hashlib.file_digest(file, "sha256").hexdigest())


def _read_keypoints(folder: Path, layout: str) -> Content:
    poses = read_openpose(folder, LAYOUTS[layout])
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*_keypoints.json")):
        digest.update(path.read_bytes())
    return Content(folder, len(poses), None, digest.hexdigest())


def _read_hands(path: Path, archive: np.lib.npyio.NpzFile, video_id: str) -> Content:
    try:
        hands = archive[video_id]
    except (ValueError, BadZipFile, zlib.error) as error:
        raise StudyError(f"{path}: {video_id} is damaged ({error}); download it again") from error
    if hands.shape[1:] != HANDS_SHAPE or len(hands) == 0:
        raise StudyError(f"{path}: {video_id} has shape {hands.shape}, expected (frames, 2 hands, 21 joints, 3)")
    return Content(path, len(hands), None, hashlib.sha256(np.ascontiguousarray(hands)).hexdigest())
