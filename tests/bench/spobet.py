"""SPOBET: a training epoch, ours against the published network and batches

As published (github.com/Kojk-AI/spobet): every clip padded to 250 frames, padding not masked, float32, 128 clips a
batch. Ours: the recipe `spobet`: leading and trailing frames without joints trimmed, clips of similar length in a
batch, padding masked, bfloat16 where keras considers it safe, and clips augmented as the recipe says, which theirs here
are not. Both are written in keras, run on torch and have the same optimiser. Clips are random numbers: the time does
not depend on them. Their lengths follow those of the WLASL100 hand landmarks, without the few longest: 15 to 143
frames, median 65, with joints in about 60 % of them: median 39 after trimming.
"""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras import layers

from bench.report import compare, machine, versions, write
from bench.sides import Side, alternate
from bench.training import compiled
from lib.data.augment import augment_poses
from lib.data.layouts import LAYOUTS
from lib.data.loaders import PoseBatches, trim
from lib.models import build
from lib.recipes import read_recipe

CLIPS, CLASSES, PUBLISHED_FRAMES = 748, 100, 250
LAYOUT = LAYOUTS["hands-42"]


def main(name: str = "spobet", rounds: int = 3, clips: int = CLIPS) -> Path:
    """Time both with all cores, after one epoch of warm-up, and write the report."""
    where = machine()
    form = {"threads": where["cores"], "clips": clips}
    with (
        Side("bench.spobet:side", which="ours", **form) as ours,
        Side("bench.spobet:side", which="published", **form) as peer,
    ):
        taken = alternate({"ours": ours, "peer": peer}, "epoch", rounds)
    row = compare(f"training epoch, {clips} clips", taken["ours"], taken["peer"], threads=where["cores"])
    return write(name, __doc__, [row], versions("torch", "keras"), where)


def side(which: str, clips: int) -> dict[str, Callable[[], None]]:
    """One of the two sides."""
    model, data = {"ours": ours, "published": published}[which](*make_clips(clips))

    def epoch() -> None:
        model.fit(data, epochs=1, verbose=0)

    return {"epoch": epoch}


def make_clips(count: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Random clips (frames, joints, 3) with the lengths of WLASL, with joints from about 20 % to 80 % of the frames."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.normal(67, 25, count), 15, 195).astype(int)
    poses = [rng.random((length, len(LAYOUT.joints), 3), np.float32) for length in lengths]
    for clip in poses:
        clip[..., 2] = 1
        clip[: len(clip) // 5] = clip[len(clip) * 4 // 5 :] = 0
    return poses, rng.integers(0, CLASSES, count)


def published(poses: list[np.ndarray], labels: np.ndarray) -> tuple[keras.Model, PoseBatches]:
    """The published network and its batches, padded to 250 frames."""
    recipe = read_recipe("spobet").train.model_copy(update={"mixed_precision": False})
    data = PoseBatches(poses, labels, CLASSES, recipe.batch_size, max_frames=250, pad_to=PUBLISHED_FRAMES)
    return compiled(_published_network, recipe, 10 * len(data)), data


def _published_network() -> keras.Model:
    inputs = layers.Input((PUBLISHED_FRAMES, len(LAYOUT.joints), 3))
    x = layers.Dense(64, activation="relu")(layers.Reshape((PUBLISHED_FRAMES, -1))(inputs))
    for _ in range(6):
        attended, _ = layers.MultiHeadAttention(4, 16)(x, x, return_attention_scores=True)
        x = layers.LayerNormalization(epsilon=1e-6)(x + layers.Dropout(0.1)(attended))
        forward = layers.Dense(64)(layers.Dense(512, activation="relu")(x))
        x = layers.LayerNormalization(epsilon=1e-6)(x + layers.Dropout(0.1)(forward))
    return keras.Model(inputs, layers.Dense(CLASSES)(x[:, 0]))


def ours(poses: list[np.ndarray], labels: np.ndarray) -> tuple[keras.Model, PoseBatches]:
    """The recipe `spobet` as a run trains it, augmentation included."""
    config = read_recipe("spobet")
    data = PoseBatches(
        [trim(clip) for clip in poses],
        labels,
        CLASSES,
        config.train.batch_size,
        max_frames=config.max_frames,
        vary=lambda clip, other, rng: augment_poses(clip, config.augment, LAYOUT, rng, other),
    )
    options = {"layout": LAYOUT.name, "normalisation": "robust", **config.options}
    return compiled(lambda: build("spobet", CLASSES, **options), config.train, 10 * len(data)), data
