"""Poses: hands found in raw videos against those of an archive

MediaPipe Holistic 0.10.21, as `make poses` runs it, against MediaPipe Hands as WLASL's archive of hands has it, on the
clips of a data root that has both. A row for each clip: its frames in both, the frames in which either finds a hand,
and those in which both do. `distance` is the median distance of a joint in the latter, in image widths, where the hands
of a frame are paired so that they are nearest. `sides` is the share of the pairs that Holistic, which follows arms, and
`order_hands`, which sees hands alone, take for the same hand of the signer. The last row is the median of the clips.
"""

import os
import sys
import time
from contextlib import closing
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.report import machine, versions, write
from lib.data.find import locate
from lib.data.holistic import Holistic, find_poses
from lib.data.poses import read_hands
from lib.settings import StudyError


def main(name: str = "poses-agreement", root: str = "") -> Path | None:
    """Measure on the clips of `root`, or $DATA, and write the report; None where there are none, or no MediaPipe."""
    where, root = machine(), Path(root or os.environ.get("DATA") or ".")
    try:
        videos = {place.name: place.path for place in locate(root, "videos", ())[1]}
        hands = {video_id: places[0] for video_id, places in locate(root, "hands", videos)[0].items()}
        with closing(Holistic()) as holistic:
            rows = [compare(videos[video_id], hands[video_id], holistic) for video_id in sorted(hands)]
            used = versions("numpy") | {"mediapipe": holistic.version}
    except StudyError as error:
        print(f"not measured: {error}; DATA=<root> names one", file=sys.stderr)
        return None
    numbers = pd.DataFrame(rows).drop(columns=["clip", "same"]).median()
    same = sum(row["same"] for row in rows)
    rows.append({"clip": f"median of {len(rows)}", **numbers, "same": f"{same} of {len(rows)}"})
    return write(name, __doc__, rows, used, where)


def compare(video: Path, place: Any, holistic: Holistic) -> dict[str, Any]:
    """The row of a clip."""
    start = time.perf_counter()
    found = find_poses(video, holistic)
    seconds = time.perf_counter() - start
    theirs = read_hands(place.archive, place.name).reshape(-1, 2, 21, 3)
    theirs = np.where(theirs[..., 2:] > 0, theirs[..., :2], np.nan)
    ours, frames = found["hands"][..., :2], len(found["hands"])
    same, widths = frames == len(theirs), np.array([1, found["height"] / found["width"]])
    both = [(frame, round(frame * (len(theirs) - 1) / max(1, frames - 1))) for frame in range(frames)]
    pairs = [nearest_pairs(ours[mine] * widths, theirs[other] * widths) for mine, other in both]
    joints = [distance for pair in pairs for _, distances in pair for distance in distances]
    sides = [agree for pair in pairs for agree, _ in pair]
    return {
        "clip": place.name, "frames": frames, "archive": len(theirs), "same": same,
        "seen": int(np.isfinite(ours).all((2, 3)).any(1).sum()),
        "seen_archive": int(np.isfinite(theirs).all((2, 3)).any(1).sum()),
        "both": sum(map(bool, pairs)), "distance": np.median(joints) if joints else np.nan,
        "sides": np.mean(sides) if sides else np.nan, "seconds": seconds,
    }  # fmt: skip


def nearest_pairs(ours: np.ndarray, theirs: np.ndarray) -> list[tuple[bool, np.ndarray]]:
    """Pair the hands of a frame, each (2, 21, 2) with NaN for a missing one: same side or not, distances (21,)."""
    apart = np.linalg.norm(ours[:, None] - theirs[None], axis=-1)  # (our hand, their hand, joint)
    ways = [[(mine == other, apart[mine, other]) for mine, other in enumerate(way)] for way in permutations(range(2))]
    ways = [[pair for pair in way if np.isfinite(pair[1]).all()] for way in ways]
    most = max(map(len, ways))
    return min((way for way in ways if len(way) == most), key=lambda way: sum(pair[1].mean() for pair in way))
