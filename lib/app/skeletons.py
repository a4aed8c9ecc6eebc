"""Skeletons for practice: the hands of one training clip of each sign, from the pose store of the model's study."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lib.data.augment import resample
from lib.data.layouts import LAYOUTS, SIDES
from lib.data.poses import PoseStore, trim
from lib.paths import Paths, replacing

FRAMES = 32  # of a skeleton; the page puts others between them
ASPECT = 1.5  # width over height of a picture, which no store tells: those of WLASL lie between 4:3 and 16:9
SMALLEST = 1e-3  # of a picture; a square that is never smaller has a size even where all joints are in one place
RATE = 25.0  # frames a second where the index does not say it
LAYOUT = LAYOUTS["hands-42"]


def write_skeletons(path: Path, labels: Sequence[str], study: Paths) -> bool:
    """Write a file of one record for each label. Returns whether there were clips to take them from.

    A record is the seconds that the clip takes, float32 (little-endian; 0: there is no clip of this sign), and the
    joints of its frames, uint8 (FRAMES, 42, 2): x and y in the square around all of them, from 1 to 255; 0 for one that
    is missing.
    """
    if not (study.index.is_file() and study.poses.is_file()):
        return False
    index, store = pd.read_parquet(study.index), PoseStore.load(study.poses)
    index = index[(index["split"] == "train") & (index["status"] == "present")].set_index("video_id")
    clips: dict[str, list[tuple[np.ndarray, float]]] = {}
    for video_id, poses in zip(store.video_id, store.poses, strict=True):
        if video_id in index.index and poses.shape[1] == len(LAYOUT.joints) and poses[..., 2].any():
            row = index.loc[video_id]
            clips.setdefault(row["gloss"], []).append((trim(poses), row["fps"] if row["fps"] > 0 else RATE))
    with replacing(path) as partial, partial.open("wb") as file:
        for label in labels:
            found = clips.get(label)
            poses, rate = found[clearest([clip for clip, _ in found])] if found else (None, RATE)
            seconds = 0 if poses is None else len(poses) / rate
            file.write(np.array(seconds, "<f4").tobytes() + compact(poses).tobytes())
    return bool(clips)


def clearest(clips: Sequence[np.ndarray]) -> int:
    """Which of a sign's clips, trimmed poses (frames, 42, 3), shows it best.

    The one with the largest share of frames that show as many hands as most frames with hands of all these clips do,
    times how near its length is to their median one: the shorter of the two over the longer.
    """
    counts = [sum(clip[:, LAYOUT.parts[side], 2].any(1).astype(int) for side in SIDES) for clip in clips]
    usual = np.bincount(np.concatenate(counts), minlength=3)[1:].argmax() + 1
    median = np.median([len(clip) for clip in clips])
    worth = [np.mean(count == usual) * min(len(count) / median, median / len(count)) for count in counts]
    return int(np.argmax(worth))


def compact(poses: np.ndarray | None) -> np.ndarray:
    """The joints of a clip as a record holds them; None: no clip."""
    if poses is None:
        return np.zeros((FRAMES, len(LAYOUT.joints), 2), np.uint8)
    poses = resample(poses, np.linspace(0, len(poses) - 1, FRAMES))
    places, seen = poses[..., :2] * (ASPECT, 1), poses[..., 2] > 0
    low, high = places[seen].min(0), places[seen].max(0)
    side = max(*(high - low), SMALLEST)
    scaled = 128 + 254 * (places - (low + high) / 2) / side
    return np.where(seen[..., None], np.clip(np.round(scaled), 1, 255), 0).astype(np.uint8)
