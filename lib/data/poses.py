"""Poses of clips: readers of OpenPose's JSON files and of MediaPipe hand landmarks, and the pose store.

For MediaPipe's poses of the whole body see `lib.data.holistic`.

A clip of poses is float32 (frames, joints, 3): x, y, present in {0, 1}, with x = y = 0 where a joint is missing.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from lib.data.augment import resample
from lib.data.find import Place, is_hidden, locate
from lib.data.hands import order_hands
from lib.data.holistic import read_found, to_layout
from lib.data.index import present
from lib.data.layouts import LAYOUTS, Layout
from lib.machine import PARSING
from lib.paths import replacing
from lib.settings import StudyError
from lib.study import Study

# Which list of an OpenPose person each part takes, and which joints of it, by their number in the list. The models
# BODY_25 and COCO (18 joints) number eyes and ears differently, but both in the order of BODY (doc/02_output.md of
# OpenPose). From version 1.3 on the names of the lists end in "_2d".
OPENPOSE = {
    "body": ("pose_keypoints", {25: [*range(8), *range(15, 19)], 18: [*range(8), *range(14, 18)]}),
    "left": ("hand_left_keypoints", {21: list(range(21))}),
    "right": ("hand_right_keypoints", {21: list(range(21))}),
}
FRAME_NUMBER = re.compile(r"(\d+)_keypoints\.json")
MAX_RATIO = 6  # of the frame rates of two files of one clip, 10 and 60; more is another recording, or a part of it
MAX_FRAMES = 100_000  # an hour at 25 frames/s; a larger number in a file name is a mistake
SIMILAR = 0.7  # people of at least this share of the largest person's size may be the signer


def read_openpose(folder: Path, layout: Layout) -> np.ndarray:
    """Read the `*_<frame>_keypoints.json` files of one clip, as written by OpenPose's --write_json.

    Frame numbers start at 1 (WLASL), or at 0 if there is a frame 0; a number without a file is a frame without joints.
    A joint is present when its confidence is above 0 and all its values are finite. Of several people only the signer
    is kept. Returns float32 (frames, joints, 3): x, y in the unit of the files (pixels), present.
    Raises StudyError naming the file when it is broken or a list does not have the length of BODY_25, of COCO or of a
    hand's 21 joints; an empty list, or none, stands for a part without joints.
    """
    files = keypoint_files(Path(folder))
    first = min(1, *files)
    people = {number - first: _read_people(path, layout) for number, path in files.items()}
    poses = np.zeros((max(people) + 1, len(layout.joints), 3), np.float32)
    for frame, person in _choose_signer(people).items():
        poses[frame] = person
    return poses


def read_hands(archive: Mapping[str, np.ndarray], video_id: str) -> np.ndarray:
    """Read the MediaPipe hand landmarks of one clip and tell left from right (see `order_hands`).

    archive and what is raised: see `read_landmarks`.
    Returns float32 (frames, 42, 3): x, y in units of the image's width and height, present.
    """
    return order_hands(read_landmarks(archive, video_id))


def read_landmarks(archive: Mapping[str, np.ndarray], video_id: str) -> np.ndarray:
    """Read the MediaPipe hand landmarks of one clip as they are stored.

    archive: an open .npz file or the like; by video_id, numbers (frames, 2 hands, 21 joints, x y z), -1 = missing.
    Raises StudyError when the clip is missing or damaged, or has another shape.
    """
    try:
        with PARSING:
            landmarks = np.asarray(archive[video_id])
    except Exception as error:  # those of zip, zlib, numpy and the parser of its headers share no class
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise StudyError(f"clip {video_id}: no hand landmarks ({reason}); make the archive again") from error
    shape, form = landmarks.shape, landmarks.dtype
    if form.kind not in "fiu" or len(shape) != 4 or shape[1:] != (2, 21, 3) or not len(landmarks):
        problem = f"{form} of shape {shape} instead of numbers (frames, 2, 21, 3)"
        raise StudyError(f"clip {video_id}: hand landmarks are {problem}; make the archive again")
    return landmarks


@dataclass(frozen=True)
class PoseStore:
    """The poses of n clips: `video_id` str (n,) and `poses`, n arrays (frames, joints, 3)."""

    video_id: np.ndarray
    poses: list[np.ndarray]

    def save(self, path: Path) -> None:
        """Write one .npz file, atomically: all frames in one array, and the offsets of the clips."""
        with replacing(Path(path)) as partial:
            offsets = np.cumsum([0, *map(len, self.poses)])
            ids, frames = np.asarray(self.video_id, str), np.concatenate(self.poses)
            np.savez_compressed(partial, video_id=ids, frames=frames, offsets=offsets)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises StudyError when the file is missing."""
        if not Path(path).exists():
            raise StudyError(f"{path} is missing; run the notebook 03_poses first")
        with np.load(path) as store:
            return cls(store["video_id"], np.split(store["frames"], store["offsets"][1:-1]))

    def trimmed(self) -> dict[str, np.ndarray]:
        """The clips by video_id, without empty frames at the ends; see `trim`."""
        return dict(zip(self.video_id, map(trim, self.poses), strict=True))


def build_poses(study: Study, index: pd.DataFrame) -> tuple[PoseStore, pd.DataFrame]:
    """Read the poses of every `present` clip of the index, in index order, trimmed to [frame_start, frame_end).

    A `frame_end` of -1 means the last frame. The poses are those of `study.pose_source`. Frame numbers are those of the
    index's first source; where the poses have more or fewer frames (see n_frames), numbers are scaled.
    Returns the store of the clips that could be read, and one row per clip: video_id, status (present | unreadable),
    reason ("" when present), frames. Raises StudyError when no clip is left.
    """
    clips, source = present(index), study.pose_source
    places, _ = locate(study.root, source, clips["video_id"])
    poses, rows = {}, []
    for clip in tqdm(clips.itertuples(), total=len(clips), desc="poses"):
        try:
            if clip.video_id not in places:
                raise StudyError(f"clip {clip.video_id} is no longer in {source}; run the notebook 01_dataset again")
            frames = read_place(places[clip.video_id][0], source, LAYOUTS[study.layout])
            segment = frames[_segment(clip, len(frames))]
            poses[clip.video_id] = segment
            rows.append((clip.video_id, "present", "", len(segment)))
        except StudyError as error:
            reason = str(error).replace(f"{study.root}{os.sep}", "")  # reports name no folders of the machine
            rows.append((clip.video_id, "unreadable", reason, 0))
    if not any(clip[..., 2].any() for clip in poses.values()):
        problem = "all joints are missing" if poses else rows[0][2] if rows else "see the index"
        raise StudyError(f"study {study.name}: no clip has poses under {study.root}: {problem}")
    table = pd.DataFrame(rows, columns=["video_id", "status", "reason", "frames"])
    return PoseStore(np.array(list(poses), str), list(poses.values())), table


def read_place(place: Place, source: str, layout: Layout) -> np.ndarray:
    """Read the poses of one clip from a source: float32 (frames, joints, 3). Raises StudyError when they are broken."""
    if source == "hands":
        return read_hands(place.archive, place.name)
    return to_layout(read_found(place.path), layout) if source == "poses" else read_openpose(place.path, layout)


def _segment(clip: Any, frames: int) -> slice:
    """The segment of a row of the index in poses of so many frames, as a slice that holds at least one frame."""
    known = frames if pd.isna(clip.n_frames) else clip.n_frames
    start, end = clip.frame_start, known if clip.frame_end == -1 else clip.frame_end
    ratio = frames / known
    if start >= known or not 1 / MAX_RATIO <= ratio <= MAX_RATIO:
        problem = f"the sign is frames {start} to {end} of {known}, the poses have {frames}"
        raise StudyError(f"{problem}; make the poses again, from the same file")
    first = min(round(start * ratio), frames - 1)
    return slice(first, max(round(end * ratio), first + 1))


def shorten(clip: np.ndarray, max_frames: int, least: int = 1) -> np.ndarray:
    """Resample a clip of poses evenly to `max_frames` if it is longer, and to `least` if it is shorter."""
    frames = min(max(len(clip), least), max_frames)
    return clip if len(clip) == frames else resample(clip, np.linspace(0, len(clip) - 1, frames))


def trim(clip: np.ndarray) -> np.ndarray:
    """Drop leading and trailing frames without any joint; a clip without joints becomes one empty frame."""
    seen = np.flatnonzero(clip[..., 2].any(1))
    return clip[seen[0] : seen[-1] + 1] if len(seen) else clip[:1]


def pad(clips: list[np.ndarray], multiple: int) -> np.ndarray:
    """Stack clips (frames_i, joints, 3), padded with empty frames to the longest, rounded up to `multiple`."""
    longest = max(map(len, clips))
    batch = np.zeros((len(clips), -(-longest // multiple) * multiple, *clips[0].shape[1:]), np.float32)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
    return batch


def missing_joints(poses: list[np.ndarray], layout: Layout) -> pd.DataFrame:
    """What the detector missed, by part, over all frames of all clips, as shares in [0, 1].

    Columns: joints (share of joints missing), frames (share of frames without any joint of the part), clips (share of
    clips in which the part is never seen). The last row, "all", is the whole pose.
    """
    rows = {}
    for part, where in {**layout.parts, "all": slice(None)}.items():
        present = [clip[:, where, 2] > 0 for clip in poses]
        frames = np.concatenate(present)
        seen = {"joints": frames.mean(), "frames": frames.any(1).mean(), "clips": np.mean([p.any() for p in present])}
        rows[part] = {column: 1 - share for column, share in seen.items()}
    return pd.DataFrame(rows).T.rename_axis("part")


def _choose_signer(people: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Choose one person in each frame that shows one: {frame: (people, joints, 3)} -> {frame: (joints, 3)}.

    The largest person; among people of similar size the one nearest to where the largest one usually is, so that two
    of about the same size do not take turns.
    """
    people = {frame: found[found[..., 2].any(1)] for frame, found in people.items()}
    people = {frame: found for frame, found in people.items() if len(found)}
    if all(len(found) == 1 for found in people.values()):
        return {frame: found[0] for frame, found in people.items()}
    measures = {}  # diagonal of the box around each person's present joints (people,), mean position (people, 2)
    for frame, found in people.items():
        xy, here = found[..., :2], found[..., 2:] > 0
        diagonal = np.where(here, xy, -np.inf).max(1) - np.where(here, xy, np.inf).min(1)
        measures[frame] = np.linalg.norm(diagonal, axis=-1), xy.sum(1) / here.sum(1, dtype=np.float32)
    usual = np.median([places[sizes.argmax()] for sizes, places in measures.values()], axis=0)
    signer = {}
    for frame, (sizes, places) in measures.items():
        away = np.where(sizes >= SIMILAR * sizes.max(), np.linalg.norm(places - usual, axis=-1), np.inf)
        signer[frame] = people[frame][away.argmin()]
    return signer


def keypoint_files(folder: Path) -> dict[int, Path]:
    """The keypoint files of a folder by frame number, ascending."""
    files = {}
    for path in (path for path in folder.glob("*_keypoints.json") if not is_hidden(path.name)):
        match = FRAME_NUMBER.search(path.name)
        if not match or int(match[1]) > MAX_FRAMES:
            raise StudyError(f"{path}: no frame number in the name; expected image_00001_keypoints.json")
        if int(match[1]) in files:
            raise StudyError(f"{path}: frame {int(match[1])} is there twice; remove one of the two files")
        files[int(match[1])] = path
    if not files:
        raise StudyError(f"{folder}: contains no keypoint files such as image_00001_keypoints.json")
    return dict(sorted(files.items()))


def _read_people(path: Path, layout: Layout) -> np.ndarray:
    """All people of one frame: float32 (people, joints, 3)."""
    version = ""
    try:
        content = json.loads(path.read_bytes())
        version = f"version {content.get('version', 'unknown')!r}, " if isinstance(content, dict) else ""
        people = content["people"]
        rows = [_read_person(one, layout) for one in people]
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        problem = f"no OpenPose keypoints ({version}{reason})"
        raise StudyError(f"{path}: {problem}; make them with BODY_25 or COCO, and --write_json") from error
    return np.array(rows, np.float32).reshape(-1, len(layout.joints), 3)


def _read_person(person: dict[str, list[float]], layout: Layout) -> np.ndarray:
    """The joints of a person, (joints, 3), missing ones as zeros."""
    lists = {name.removesuffix("_2d"): values for name, values in person.items()}
    if not any(name in lists for name, _ in OPENPOSE.values()):
        raise ValueError("a person without pose_keypoints_2d")
    parts = []
    for name, numbers in (OPENPOSE[part] for part in layout.parts):
        values = np.array(lists.get(name) or [0.0] * 3 * min(numbers), np.float32)
        if values.ndim != 1 or values.size not in [3 * length for length in numbers]:
            raise ValueError(f"{name} has {values.size} values, expected {' or '.join(str(3 * n) for n in numbers)}")
        parts.append(values.reshape(-1, 3)[numbers[values.size // 3]])
    joints = np.concatenate(parts)
    seen = np.isfinite(joints).all(1) & (joints[:, 2] > 0)
    joints[:, 2] = 1
    joints[~seen] = 0
    return joints
