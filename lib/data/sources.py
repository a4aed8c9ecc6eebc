"""What a data root holds of each clip: videos, OpenPose keypoints, MediaPipe hand landmarks; one's own clips.

The content of a clip is identified by a SHA-256: of the file's bytes (videos, clips), of the JSON files' bytes in
frame order (keypoints), of the array's bytes (hands). It is exact: it never takes two different clips for
one. Copies that were re-encoded are beyond it.
"""

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
from tqdm.auto import tqdm

from lib.data.folder import read_folder
from lib.data.layouts import LAYOUTS
from lib.data.poses import read_openpose
from lib.data.video import SUFFIXES, probe
from lib.study import Study, StudyError

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
