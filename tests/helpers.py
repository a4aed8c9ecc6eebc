"""Helpers that several test modules share."""

import av
import numpy as np
import pandas as pd

from lib.data.poses import PoseStore
from lib.study import Study

RECIPE = {
    "model": "spobet",
    "variant": "small",
    "options": {"normalisation": "robust", "width": 8, "depth": 1, "heads": 2, "feed_forward": 16},
    "max_frames": 12,
    "pretrain": {"epochs": 2, "batch_size": 4},
    "train": {"epochs": 3, "batch_size": 4, "learning_rate": 0.01},
    "augment": {"rotation": 10, "splice": 0.5},
}

# Split, label and status of each clip, in index order: sorted neither by split nor by label.
CLIPS = [
    ("test", 1, "present"), ("train", 0, "present"), ("train", 2, "present"), ("val", 2, "present"),
    ("test", 0, "missing"), ("train", 1, "present"), ("test", 2, "present"), ("val", 0, "unreadable: cut off"),
    ("train", 0, "present"), ("test", 0, "present"), ("val", 1, "present"), ("train", 2, "missing"),
    ("train", 1, "present"), ("test", 1, "present"), ("val", 0, "present"), ("test", 2, "dropped: twice"),
]  # fmt: skip
GLOSSES = ["book", "drink", "computer"]


def clip_of(number):
    """Hands at random places that say which clip it is; an empty frame at both ends."""
    rng = np.random.default_rng(number)
    clip = np.ones((5 + 2 * number, 42, 3), np.float32)
    clip[..., :2] = rng.random((1, 42, 2)) + 0.1 * rng.random((len(clip), 42, 2))
    clip[[0, -1]] = 0
    return clip


def make_study(root):
    """A study of 16 clips with its index and pose store, as notebooks 01 and 03 leave them."""
    study = Study(
        title="Three glosses", subset=3, sources=["hands"], split="official", layout="hands-42", name="three",
        root=root, runs=[{"recipe": "small", "seeds": [0, 4], "set": {"train.epochs": 2}}],
    )  # fmt: skip
    index = pd.DataFrame(CLIPS, columns=["split", "label", "status"])
    index.insert(0, "video_id", [f"{number:05d}" for number in range(len(CLIPS))])
    index["content"] = index["video_id"]
    index["gloss"] = [GLOSSES[label] for label in index["label"]]
    study.paths.data.mkdir(parents=True)
    index.to_parquet(study.paths.index)
    present = index.index[index["status"] == "present"]
    PoseStore(index["video_id"][present].to_numpy(str), [clip_of(n) for n in present]).save(study.paths.poses)
    return study


def encode_video(path, images, matrix=None):
    """Write images, uint8 (height, width, 3) each, as H.264 with little loss. Returns the path.

    `matrix` is a, b, c, d of the display matrix: a pixel at (x, y) is shown at (a x + c y, b x + d y).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "4", "preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = *images[0].shape[:2], "yuv420p"
        if matrix:
            a, b, c, d = (value << 16 for value in matrix)
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def numbered_images(count, first=0, height=96, width=128):
    """Images whose brightness says their number."""
    return [np.full((height, width, 3), 40 + 5 * (first + number), np.uint8) for number in range(count)]


def numbers_of(images):
    """The numbers of `numbered_images`."""
    return np.round((np.asarray(images, float).mean(axis=(1, 2, 3)) - 40) / 5).astype(int).tolist()


def walker(count, height=96, width=128, at=(80, 40), side=20):
    """Images of a white square that moves a little about `at` in front of a still background."""
    background = np.random.default_rng(0).integers(60, 120, (height, width, 3)).astype(np.uint8)
    images = [background.copy() for _ in range(count)]
    for number, image in enumerate(images):
        x = at[0] + round(8 * np.sin(number))
        image[at[1] : at[1] + side, x : x + side] = 230
    return images


def index_of_videos(**videos):
    """An index of videos: video_id -> path, or a dict with the columns that differ."""
    rows = [row if isinstance(row, dict) else {"path": row} for row in videos.values()]
    fixed = {"status": "present", "frame_start": 0, "frame_end": -1, "bbox": None}
    return pd.DataFrame(
        [fixed | row | {"video_id": name, "path": str(row["path"])} for name, row in zip(videos, rows, strict=True)]
    )
