"""Helpers that several test modules share."""

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
    index["gloss"] = [GLOSSES[label] for label in index["label"]]
    study.paths.data.mkdir(parents=True)
    index.to_parquet(study.paths.index)
    present = index.index[index["status"] == "present"]
    PoseStore(index["video_id"][present].to_numpy(str), [clip_of(n) for n in present]).save(study.paths.poses)
    return study
