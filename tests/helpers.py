"""Helpers that several test modules share. Keras is imported inside functions, after conftest.py's settings."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import strategies as st

from lib.data.audit import audit
from lib.data.holistic import FORM, VALUES
from lib.data.poses import PoseStore
from lib.data.twins import pair_up
from lib.predictions import Predictions
from lib.study import Study, load_study

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
# Clips of any lengths, and how their batches are cut and padded.
ANY_BATCH = {
    "lengths": st.lists(st.integers(1, 60), min_size=1, max_size=12),
    "max_frames": st.integers(1, 40),
    "pad_to": st.integers(1, 16),
}


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


# ---- MediaPipe's process -------------------------------------------------------------------------------

# A stand-in for it. Each value it answers is the mean brightness of the frame, and in a frame with a picture a place
# about it. White frames crash it, black ones show nobody.
WORKER = f"""
import json, os, struct, sys
import numpy as np
with open(os.environ["STARTS"], "a") as file:
    print(*sys.argv[1:], file=file)
answers, first = sys.stdout.buffer, []
answers.write(json.dumps({{"mediapipe": "stand-in"}}).encode() + b"\\n")
answers.flush()
while head := sys.stdin.buffer.read(12):
    height, width, begins = struct.unpack("<III", head)
    image = np.frombuffer(sys.stdin.buffer.read(3 * height * width), np.uint8)
    if image.min() > 240:
        print("W0000 00:00 inference.cc] nothing of interest", file=sys.stderr)
        print("ValueError: too white", file=sys.stderr)
        sys.exit(3)
    places = image.mean() + image.std() * np.sin(np.arange({VALUES}) * image.mean())
    values = np.full({VALUES}, np.nan) if image.max() < 20 else places
    values[3] += begins - values[3]
    answers.write(values.astype("<f4").tobytes())
    answers.flush()
"""


def stand_in(folder, patch, line=None):
    """Put a script, by default one that starts the stand-in, in the place of uv. Returns the log of its starts."""
    (folder / "worker.py").write_text(WORKER)
    uv = folder / "uv"
    uv.write_text("#!/bin/sh\n" + (line or f'exec "{sys.executable}" "{folder / "worker.py"}" "$@"') + "\n")
    uv.chmod(0o755)
    patch.setenv("UV", str(uv))
    patch.setenv("STARTS", str(folder / "starts.txt"))
    return folder / "starts.txt"


# ---- trained runs, and clips as people have them -------------------------------------------------------

FRAMES, SIZE = 4, 32  # of the video model
RUN = "tiny"
SPREAD = 0.2  # standard deviation of the logits; a larger one would magnify float32's rounding in random weights
SPLITS = ("train", "val", "test", "test")  # of each gloss's clips
POSE_RECIPE = {name: value for name, value in RECIPE.items() if name != "pretrain"}
CLIP_RECIPE = {
    "model": "movinet-a0",
    "options": {"stream": True, "residual": 0.5, "differences": True},
    "frames": FRAMES,
    "size": SIZE,
    "train": {"batch_size": 4},
}


@dataclass
class Trained:
    """A run of a study with all that a trained one leaves, and its float32 files by form, "tflite" and so on.

    Its weights are random ones that tell the clips apart, as training would cost time and prove nothing here.
    """

    folder: Path
    name: str  # <study>/<run>
    index: pd.DataFrame
    predictions: Predictions  # of the test clips
    files: dict[str, Path]

    @property
    def root(self):
        """The data root."""
        return self.folder / "root"

    def here(self, patch):
        """Have the study found, its files and the small model; returns the run's name."""
        patch.setenv("STUDY_HOME", str(self.folder / "home"))
        patch.setattr("lib.paths.STUDIES", self.folder)
        patch.setattr("lib.paths.RECIPES", self.folder)
        small_movinet(patch)
        return self.name


def small_movinet(patch):
    """Have a network of a few layers in the place of MoViNet-A0, which takes a minute to convert."""
    from lib.models.movinet_sizes import SIZES, Block, Size

    blocks = Block(8, (16,), "15", 2), Block(12, (24, 24), "53 33", 2)
    patch.setitem(SIZES, "a0", Size(stem=8, project=16, clip=(FRAMES, SIZE, SIZE), blocks=blocks))


def make_trained(folder, source, *, export=True, **settings):
    """A run on twelve clips of three glosses in one source: videos, hands, keypoints or poses. See Trained."""
    videos = source == "videos"
    write_root(folder / "root", source)
    (folder / f"{RUN}.yaml").write_text(yaml.safe_dump(CLIP_RECIPE if videos else POSE_RECIPE))
    fields = {"title": "Three", "subset": 3, "sources": [source], "split": "official", "runs": [{"recipe": RUN}]}
    (folder / f"{source}.yaml").write_text(yaml.safe_dump(fields | settings))
    trained = Trained(folder, f"{source}/{RUN}", None, None, {})
    with pytest.MonkeyPatch.context() as patch:
        trained.here(patch)
        study = load_study(source, folder / "root")
        trained.index = _build_stores(study, videos)
        run, model = _leave_weights(study)
        trained.predictions = Predictions.load(study.paths.predictions(RUN))
        if export:
            trained.files = _export(run, model)
    return trained


def _build_stores(study, videos):
    """What the notebooks 01 to 03 write; returns the index."""
    from lib.data.clip_store import build_clips
    from lib.data.poses import build_poses
    from lib.data.sources import build_index

    index = build_index(study)
    study.paths.data.mkdir(parents=True)
    index.to_parquet(study.paths.index)
    if videos:
        how = study.clips.model_dump()
        build_clips(index, study.paths.clips, **how, workers=1).to_parquet(study.paths.clips_table, index=False)
    else:
        store, table = build_poses(study, index)
        store.save(study.paths.poses)
        table.to_parquet(study.paths.poses_table)
    return index


def _leave_weights(study):
    """What training and evaluation write."""
    from lib.evaluation import write_metrics
    from lib.runs import open_run
    from lib.training import BEST

    run = open_run(study, RUN)
    model, rng = run.build(), np.random.default_rng(0)
    for variable in model.trainable_variables:
        values = np.asarray(variable.numpy())
        variable.assign(values + 0.5 * values.std() * rng.standard_normal(values.shape))
    logits, (kernel, bias) = run.predict(model, "test").logits, model.trainable_variables[-2:]  # of the last layer
    scale = SPREAD / logits.std(0)
    kernel.assign(np.asarray(kernel.numpy()) * scale)
    bias.assign((np.asarray(bias.numpy()) - logits.mean(0)) * scale)
    (run.folder / "train").mkdir(parents=True)
    model.save_weights(run.folder / "train" / BEST)
    write_metrics(study.paths.metrics(RUN), run.predict(model, "test"), **run.facts(model, "test"))
    return run, model


def _export(run, model):
    """The float32 files of notebook 10, by form."""
    from lib.export.files import FORMATS
    from lib.export.run import clips, describe, record

    files = {}
    for kind, recorded in record(model, next(clips(run, "test"))).items():
        for suffix, maker in FORMATS.items():
            form = suffix[1:] + kind
            path = files[form] = run.study.paths.exported(RUN, form, "float32")
            path.parent.mkdir(parents=True, exist_ok=True)
            content = maker.convert(*recorded)
            outputs = maker.Runner(content).outputs
            about = describe(run, form, "float32", outputs)
            path.write_bytes(maker.add_metadata(content, about, run.glosses))
    return files


def write_root(root, source):
    """A data root with twelve clips of three glosses in one source; the signs begin and end inside the clips."""
    glosses, number = [], 0
    for gloss in GLOSSES:
        instances = []
        for split in SPLITS:
            clip = {"video_id": f"{number:05d}", "split": split, "fps": 25, "frame_start": 1 + number % 3}
            clip |= {"frame_end": 9 + number if number % 2 else -1}
            clip |= {"bbox": [10 + number, 8, 70 + number, 60]} if number % 3 else {}
            instances.append(clip)
            number += 1
        glosses.append({"gloss": gloss, "instances": instances})
    (root / "annotations").mkdir(parents=True)
    (root / "annotations" / "WLASL3.json").write_text(json.dumps(glosses))
    (root / source).mkdir()
    if source == "hands":
        np.savez(root / "hands" / "hands.npz", **{f"{n:05d}": landmarks_of(n) for n in range(number)})
    for n in range(number if source != "hands" else 0):
        path = root / source / f"{n:05d}"
        {"videos": write_video_of, "keypoints": write_keypoints_of, "poses": write_poses_of}[source](path, n)


def landmarks_of(number):
    """The hands of `clip_of` in the form of WLASL's archives, float32 (frames, 2, 21, 3), -1 where missing."""
    clip = clip_of(number)
    return np.where(clip[..., 2:] > 0, clip, -1).reshape(-1, 2, 21, 3).astype(np.float32)


def write_keypoints_of(folder, number):
    """A folder of OpenPose's files whose hands are those of `clip_of`, in pixels; empty frames have nobody."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(number)
    body = 400 * rng.random((25, 3)) + [0, 0, 1]
    for frame, hands in enumerate(clip_of(number), start=1):
        values = (hands * [640, 480, 0.8]).reshape(2, -1).tolist()
        person = {
            "pose_keypoints_2d": (body + rng.random((25, 3))).ravel().tolist(),
            "hand_left_keypoints_2d": values[0],
            "hand_right_keypoints_2d": values[1],
        }
        people = [person] if hands.any() else []
        (folder / f"image_{frame:05d}_keypoints.json").write_text(json.dumps({"people": people}))


def found_in(number, fps=50.0):
    """What a file of poses holds: joints about places of their own, some hidden or not found; nobody at both ends."""
    rng, frames = np.random.default_rng(number), 5 + 2 * number
    found = {part: rng.random(shape) + 0.1 * rng.random((frames, *shape)) for part, shape in FORM.items()}
    found["body"][..., 3] = rng.random((frames, 33)) + 0.3
    for part in FORM:
        found[part][[0, -1]] = np.nan
    found["hands"][1, 0] = np.nan
    found = {part: values.astype(np.float32) for part, values in found.items()}
    return found | {"fps": fps, "width": 200 + number, "height": 100}


def write_poses_of(path, number):
    """A file of poses."""
    np.savez(path.with_suffix(".npz"), **found_in(number))


def signing(number, frames, height=72, width=96):
    """Images of a bright square on a path of its own before a background of its own, after a black image."""
    rng = np.random.default_rng(number)
    background = rng.integers(40, 160, (height // 8, width // 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    images, colour = [np.zeros_like(background)], rng.integers(170, 255, 3)
    for frame in range(1, frames):
        image = background.copy()
        x = 30 + round(20 * np.sin(0.7 * frame + number))
        y = 25 + round(12 * np.cos((0.2 + 0.1 * (number % 5)) * frame))
        image[y : y + 16, x : x + 16] = colour
        images.append(image)
    return images


def write_video_of(path, number):
    """A video of `signing`."""
    encode_video(path.with_suffix(".mp4"), signing(number, 10 + number))


def audited(index: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The audit of an index whose only twins are its identical clips, by check."""
    return audit(index, study, pair_up(index, [], index["video_id"])).set_index("check")
