"""SPOBET: a training epoch, ours against the published network and batches

As published (github.com/Kojk-AI/spobet): every clip padded to 250 frames, padding not masked, float32, 128 clips a
batch. Ours: the recipe `spobet`: frames without joints trimmed at both ends, clips of like length in a batch, padding
masked, bfloat16 where keras deems it safe, and clips varied as the recipe says, which theirs here are not. Both are
written in keras, run on torch and have the same optimiser. Clips are random numbers: the time does not depend on
them. Their lengths are made like those of the WLASL100 hand landmarks, without the few longest: 15 to 143 frames,
median 65, of which joints are seen over about 60 %: median 39 after trimming.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import keras
import numpy as np
from keras import layers

from lib.bench.report import compare, machine, versions, write
from lib.bench.sides import Side, alternate
from lib.data.augment import augment_poses
from lib.data.layouts import LAYOUTS
from lib.data.loaders import PoseBatches, trim
from lib.models import build
from lib.recipes import read_recipe
from lib.training import make_optimizer, prepare

CLIPS, CLASSES, PUBLISHED_FRAMES = 748, 100, 250
LAYOUT = LAYOUTS["hands-42"]


def main(name: str = "spobet", rounds: int = 3, clips: int = CLIPS) -> Path:
    """Time both, alternating, after one epoch of warming up, with all cores; write the report."""
    where = machine()
    sides = ("ours", "published")
    with ExitStack() as stack:
        started = {
            side: stack.enter_context(Side(f"lib.bench.spobet:{side}_epoch", threads=where["cores"], clips=clips))
            for side in sides
        }
        taken = alternate(started, "epoch", rounds)
    label = f"training epoch, {clips} clips"
    row = compare(label, taken["ours"], taken["published"], threads=where["cores"])
    return write(name, __doc__, [row], versions("torch", "keras"), where)


def ours_epoch(clips: int) -> dict[str, Callable[[], None]]:
    """Our side."""
    return epochs(*ours(*make_clips(clips)))


def published_epoch(clips: int) -> dict[str, Callable[[], None]]:
    """The peer's side."""
    return epochs(*published(*make_clips(clips)))


def epochs(model: keras.Model, data: PoseBatches) -> dict[str, Callable[[], None]]:
    """The work of a side."""

    def epoch() -> None:
        model.fit(data, epochs=1, verbose=0)

    return {"epoch": epoch}


def make_clips(count: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Random clips (frames, joints, 3) with the lengths of WLASL, seen from about 20 % to 80 % of their frames."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.normal(67, 25, count), 15, 195).astype(int)
    poses = [rng.random((length, len(LAYOUT.joints), 3), np.float32) for length in lengths]
    for clip in poses:
        clip[..., 2] = 1
        clip[: len(clip) // 5] = clip[len(clip) * 4 // 5 :] = 0
    return poses, rng.integers(0, CLASSES, count)


def published(poses: list[np.ndarray], labels: np.ndarray) -> tuple[keras.Model, PoseBatches]:
    """The published network and its batches, padded to 250 frames."""
    recipe = read_recipe("spobet").train
    prepare(recipe.model_copy(update={"mixed_precision": False}), seed=0)
    inputs = layers.Input((PUBLISHED_FRAMES, len(LAYOUT.joints), 3))
    x = layers.Dense(64, activation="relu")(layers.Reshape((PUBLISHED_FRAMES, -1))(inputs))
    for _ in range(6):
        attended, _ = layers.MultiHeadAttention(4, 16)(x, x, return_attention_scores=True)
        x = layers.LayerNormalization(epsilon=1e-6)(x + layers.Dropout(0.1)(attended))
        forward = layers.Dense(64)(layers.Dense(512, activation="relu")(x))
        x = layers.LayerNormalization(epsilon=1e-6)(x + layers.Dropout(0.1)(forward))
    model = keras.Model(inputs, layers.Dense(CLASSES)(x[:, 0]))
    data = PoseBatches(poses, labels, CLASSES, recipe.batch_size, max_frames=250, pad_to=PUBLISHED_FRAMES)
    return compiled(model, len(data)), data


def ours(poses: list[np.ndarray], labels: np.ndarray) -> tuple[keras.Model, PoseBatches]:
    """The recipe `spobet` as a run trains it, augmentation included."""
    config = read_recipe("spobet")
    prepare(config.train, seed=0)
    model = build("spobet", CLASSES, layout=LAYOUT.name, normalisation="robust", **config.options)
    data = PoseBatches(
        [trim(clip) for clip in poses],
        labels,
        CLASSES,
        config.train.batch_size,
        max_frames=config.max_frames,
        vary=lambda clip, other, rng: augment_poses(clip, config.augment, LAYOUT, rng, other),
    )
    return compiled(model, len(data)), data


def compiled(model: keras.Model, steps: int) -> keras.Model:
    """Ready to train with the recipe's optimiser, the same for both."""
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(make_optimizer(read_recipe("spobet").train, 10 * steps), loss)
    return model
