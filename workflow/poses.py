"""`make poses`: find the poses in the videos of a study with MediaPipe, and write <root>/poses/<video_id>.npz.

    python workflow/poses.py <study> <data root> [--face]

Run again, it resumes. What is in these files: see lib/data/holistic.py.
"""

import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from lib.data.holistic import finders, read_found
from lib.data.sources import find_clips, list_clips
from lib.machine import cores
from lib.paths import replacing
from lib.settings import StudyError
from lib.study import load_study


def main(name: str, data: str, face: bool = False) -> int:
    """Find the poses; a relative root starts at the current directory.

    Returns the exit code: 0, 130 after Ctrl-C, or 1 after a line on stderr for each video not read, or one for all.
    """
    try:
        study = load_study(name, Path(data).absolute() if data else "")
        source = "clips" if "clips" in study.sources else "videos"
        clips = list_clips(study)
        places = find_clips(study, source, clips)
        videos = {video_id: found[0].path for video_id, found in places.items()}
        problems = write_poses(videos, study.root / "poses", face=face)
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; run it again to go on", file=sys.stderr)
        return 130
    for problem in problems.values():
        print(f"unreadable: {problem}", file=sys.stderr)
    made = f"{len(videos) - len(problems):,} of {len(clips):,} clips of {study.name} have poses"
    print(f"{made} in {study.root / 'poses'}; {len(clips) - len(videos):,} have no video")
    return int(bool(problems))


def write_poses(
    videos: Mapping[str, Path], folder: Path, *, face: bool = False, workers: int | None = None
) -> dict[str, str]:
    """Find the poses in videos, by video_id, and write <folder>/<video_id>.npz for each. Returns the problems, by id.

    `workers` processes share the work (default: `cores()`). A file that was made from the same video, by name and size,
    is kept, so that an interrupted run resumes; files are written whole. A video that cannot be read, or that crashes
    MediaPipe, is a problem and stops no other. Raises StudyError when MediaPipe cannot be had.
    """
    left = [video_id for video_id, video in videos.items() if not _is_made(folder / f"{video_id}.npz", video, face)]
    count = min(workers or cores(), len(left))

    def attempt(video_id: str) -> str:
        try:
            found = find(videos[video_id])
            with replacing(folder / f"{video_id}.npz") as partial:
                np.savez_compressed(partial, **found)
            return ""
        except (StudyError, OSError) as error:  # OSError: the disk is full, or closed to us
            return f"{videos[video_id]}: {str(error).removeprefix(f'{videos[video_id]}: ')}"

    bar = tqdm(desc="poses", total=len(videos), initial=len(videos) - len(left))
    with bar, finders(count, face) as find, ThreadPoolExecutor(max(1, count)) as pool:
        problems = {}
        for video_id, problem in zip(left, pool.map(attempt, left), strict=True):
            problems |= {video_id: problem} if problem else {}
            bar.update()
        return problems


def _is_made(path: Path, video: Path, face: bool) -> bool:
    try:
        found = read_found(path)
    except StudyError:
        return False
    same = str(found.get("video")) == video.name and found.get("bytes") == video.stat().st_size
    return bool(same and ("face" in found or not face))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3], face="--face" in sys.argv[3:]))
