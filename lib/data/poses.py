"""Poses of clips: readers of OpenPose's JSON files and of MediaPipe hand landmarks, and the pose store.

A pose array is float32 (frames, joints, 3): x, y, present in {0, 1}; x = y = 0 where a joint is not present.
"""

from __future__ import annotations

import json
import re
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from lib.data.hands import order_hands
from lib.data.layouts import LAYOUTS, Layout
from lib.paths import replacing
from lib.settings import StudyError
from lib.study import Study

# Which values of an OpenPose list a layout takes: list, its length in joints, joint numbers.
OPENPOSE = {
    "body": ("pose_keypoints_2d", 25, [*range(8), *range(15, 19)]),
    "left": ("hand_left_keypoints_2d", 21, list(range(21))),
    "right": ("hand_right_keypoints_2d", 21, list(range(21))),
}
FRAME_NUMBER = re.compile(r"(\d+)_keypoints\.json")
MAX_FRAMES = 100_000  # an hour at 25 frames/s; a larger number in a file name is a mistake, not a clip
SIMILAR = 0.7  # people at least this share as large as the largest may be the signer


def read_openpose(folder: Path, layout: Layout) -> np.ndarray:
    """Read the `*_<frame>_keypoints.json` files of one clip, as OpenPose's --write_json leaves them.

    The number in a file's name is its frame: numbering starts at 1 (WLASL), or at 0 where a frame 0 exists,
    and a number without a file is a frame without joints. A joint is present when its confidence is above 0.
    Of several people `choose_signer` keeps one.
    Returns float32 (frames, joints, 3): x, y in the unit of the files (pixels), present.
    Raises StudyError naming the file when it is broken or its lists do not have the lengths of BODY_25 and of
    21 joints for each hand; an empty list is a part without joints.
    """
    files = _numbered(Path(folder))
    first = min(1, *files)
    people = {number - first: _read_people(path, layout) for number, path in files.items()}
    poses = np.zeros((max(people) + 1, len(layout.joints), 3), np.float32)
    for frame, person in choose_signer(people).items():
        poses[frame] = person
    return poses


def choose_signer(people: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Choose one person of each frame: {frame: (people, joints, 3)} -> {frame: (joints, 3)}.

    The largest; among people of similar size the one nearest to where the largest mostly is, so that two who
    are about equally large do not take turns. A frame without people, or without joints, is left out.
    """
    people = {frame: found[found[..., 2].any(1)] for frame, found in people.items()}
    people = {frame: found for frame, found in people.items() if len(found)}
    if all(len(found) == 1 for found in people.values()):
        return {frame: found[0] for frame, found in people.items()}
    sizes = {frame: _sizes(found) for frame, found in people.items()}
    usual = np.median([_places(found)[sizes[frame].argmax()] for frame, found in people.items()], axis=0)
    signer = {}
    for frame, found in people.items():
        candidates = found[sizes[frame] >= SIMILAR * sizes[frame].max()]
        signer[frame] = candidates[np.linalg.norm(_places(candidates) - usual, axis=-1).argmin()]
    return signer


def read_hands(archive: Mapping[str, np.ndarray] | Path, video_id: str) -> np.ndarray:
    """Read the MediaPipe hand landmarks of one clip and put the hands in order (see `order_hands`).

    archive: by video_id, float (frames, 2 hands, 21 joints, x y z), -1 = missing; or the path of such an npz.
    Returns float32 (frames, 42, 3): x, y in units of the image's width and height, present.
    Raises StudyError when the archive has no such clip, or the clip has another shape or values that are no
    finite numbers.
    """
    if isinstance(archive, str | Path):
        with np.load(archive) as opened:
            return read_hands(opened, video_id)
    if video_id not in archive:
        raise StudyError(f"no hand landmarks of clip {video_id} in the archive; build the index anew")
    landmarks = np.asarray(archive[video_id], np.float32)
    if landmarks.ndim != 4 or landmarks.shape[1:] != (2, 21, 3) or not np.isfinite(landmarks).all():
        raise StudyError(
            f"hand landmarks of clip {video_id}, shape {landmarks.shape}, are not finite numbers of shape "
            "(frames, 2, 21, 3); leave the clip out or make the archive anew"
        )
    return order_hands(landmarks)


@dataclass(frozen=True)
class PoseStore:
    """The poses of many clips, in one order: `video_id` str (n,) and `poses`, n arrays (frames, joints, 3)."""

    video_id: np.ndarray
    poses: list[np.ndarray]

    def save(self, path: Path) -> None:
        """Write one npz file: all frames in one array, and where each clip starts and ends.

        The file appears only when it is complete.
        """
        lengths = [len(clip) for clip in self.poses]
        with replacing(Path(path)) as partial:
            np.savez_compressed(
                partial,
                video_id=np.asarray(self.video_id, str),
                frames=np.concatenate(self.poses),
                offsets=np.cumsum([0, *lengths]),
            )

    @classmethod
    def load(cls, path: Path) -> PoseStore:
        """Read what `save` wrote. Raises StudyError when the file is absent."""
        if not Path(path).exists():
            raise StudyError(f"{path} is missing; run the notebook 03_poses first")
        with np.load(path) as store:
            frames, offsets = store["frames"], store["offsets"]
            return cls(store["video_id"], np.split(frames, offsets[1:-1]))


def build_poses(study: Study, index: pd.DataFrame) -> PoseStore:
    """Read the poses of every `present` clip of the index, in index order, cut to [frame_start, frame_end).

    `frame_end` -1 is the last frame. Poses come from the source that the study's layout belongs to.
    Raises StudyError when nothing is present or a clip cannot be read.
    """
    clips = index[index["status"] == "present"]
    if clips.empty:
        raise StudyError(f"no clip of study {study.name} is present under {study.root}; see the index")
    rows = tqdm(clips.itertuples(), total=len(clips), desc="poses")
    read = _reader(study)
    poses = [_cut(read(clip.video_id), clip.video_id, clip.frame_start, clip.frame_end) for clip in rows]
    return PoseStore(clips["video_id"].to_numpy(str), poses)


def missing_joints(poses: list[np.ndarray], layout: Layout) -> pd.DataFrame:
    """What the detector did not find, by part, over all frames of all clips, as shares in [0, 1].

    Columns: joints (share of joints missing), frames (share of frames without any joint of the part), clips
    (share of clips in which the part is never seen). The last row, "all", is the pose as a whole.
    """
    parts = {**layout.parts, "all": slice(None)}
    return pd.DataFrame({part: _missing(poses, where) for part, where in parts.items()}).T.rename_axis("part")


def _missing(poses: list[np.ndarray], part: slice) -> dict[str, float]:
    present = [clip[:, part, 2] > 0 for clip in poses]
    frames = np.concatenate(present)
    return {
        "joints": 1 - frames.mean(),
        "frames": 1 - frames.any(1).mean(),
        "clips": 1 - np.mean([clip.any() for clip in present]),
    }


def _reader(study: Study) -> Callable[[str], np.ndarray]:
    """What reads the poses of a clip by its video_id, from the source that the study's layout belongs to."""
    if study.layout == "openpose-54":
        return lambda video_id: read_openpose(study.root / "keypoints" / video_id, LAYOUTS[study.layout])
    archive = ChainMap(*(np.load(path) for path in sorted((study.root / "hands").glob("*.npz"))))
    return lambda video_id: read_hands(archive, video_id)


def _cut(poses: np.ndarray, video_id: str, start: int, end: int) -> np.ndarray:
    """The signed segment [start, end) of a clip's frames."""
    segment = poses[start : len(poses) if end == -1 else end]
    if not len(segment):
        raise StudyError(f"clip {video_id}: frames {start} to {end} lie outside its {len(poses)} frames")
    return segment


def _numbered(folder: Path) -> dict[int, Path]:
    """The keypoint files of a folder by frame number, ascending."""
    files = {}
    for path in folder.glob("*_keypoints.json"):
        match = FRAME_NUMBER.search(path.name)
        if not match or int(match[1]) > MAX_FRAMES:
            raise StudyError(f"{path}: no frame number in the name; expected image_00001_keypoints.json")
        if int(match[1]) in files:
            raise StudyError(f"{path}: frame {int(match[1])} is there twice; remove one of the two files")
        files[int(match[1])] = path
    if not files:
        raise StudyError(f"{folder}: holds no keypoint files such as image_00001_keypoints.json")
    return dict(sorted(files.items()))


def _read_people(path: Path, layout: Layout) -> np.ndarray:
    """All people of one frame: float32 (people, joints, 3): x, y, present."""
    try:
        people = json.loads(path.read_bytes())["people"]
        rows = [_read_person(person, layout) for person in people]
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise StudyError(f"{path}: no OpenPose keypoints ({type(error).__name__}: {error})") from error
    return np.array(rows, np.float32).reshape(-1, len(layout.joints), 3)


def _read_person(person: dict[str, list[float]], layout: Layout) -> np.ndarray:
    """One person in the order of the layout: (joints, 3)."""
    return np.concatenate([_read_part(person, *OPENPOSE[part]) for part in layout.parts])


def _read_part(person: dict[str, list[float]], key: str, length: int, joints: list[int]) -> np.ndarray:
    values = np.array(person[key] or [0.0] * 3 * length, np.float32)
    if values.shape != (3 * length,):
        raise ValueError(f"{key} has {values.size} values, expected {3 * length}")
    if not np.isfinite(values).all():
        raise ValueError(f"{key} has a value that is no finite number")
    x, y, confidence = values.reshape(length, 3)[joints].T
    present = confidence > 0
    return np.stack([x * present, y * present, present], 1)


def _sizes(people: np.ndarray) -> np.ndarray:
    """Diagonal of the box around each person's present joints: (people, joints, 3) -> (people,)."""
    here = people[..., 2:] > 0
    low = np.where(here, people[..., :2], np.inf).min(1)
    high = np.where(here, people[..., :2], -np.inf).max(1)
    return np.linalg.norm(high - low, axis=-1)


def _places(people: np.ndarray) -> np.ndarray:
    """Mean position of each person's present joints: (people, joints, 3) -> (people, 2)."""
    return people[..., :2].sum(1) / np.maximum(people[..., 2:].sum(1), 1)
