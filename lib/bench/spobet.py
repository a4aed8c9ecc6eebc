"""The benchmark: one training epoch of SPOBET as published, against ours, on the same clips in the same process.

    python -m lib.bench [clips] [rounds]

As published (github.com/Kojk-AI/spobet): every clip padded to 250 frames, padding not masked, float32, 128 clips a
batch. Ours: the recipe `spobet`: frames without joints trimmed at both ends, clips of like length in a batch, padding
masked, bfloat16 where keras deems it safe, and clips varied as the recipe says, which theirs here are not. Both are
written in keras, run on torch and have the same optimiser. Clips are random numbers: the time does not depend on
them. Their lengths are made like those of the WLASL100 hand landmarks, without the few longest: 15 to 143 frames,
median 65, of which joints are seen over about 60 %: median 39 after trimming.
"""

from __future__ import annotations

import os
import sys
import time

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import pandas as pd
from keras import layers

from lib.data.augment import augment
from lib.data.batches import PoseBatches, trim
from lib.data.layouts import LAYOUTS
from lib.files import replacing
from lib.models import build
from lib.recipes import read_config
from lib.study import home
from lib.training import make_optimizer, prepare

CLIPS, CLASSES, PUBLISHED_FRAMES = 748, 100, 250
LAYOUT = LAYOUTS["hands-42"]


def main(clips: int = CLIPS, rounds: int = 3) -> pd.DataFrame:
    """Time both, alternating, after one epoch of warming up; print and write reports/bench/spobet.csv and .md."""
    poses, labels = make_clips(clips)
    trained = {"as published": published(poses, labels), "ours": ours(poses, labels)}
    seconds = {name: [] for name in trained}
    for turn in range(rounds + 1):
        for name, (model, data) in trained.items():
            start = time.perf_counter()
            model.fit(data, epochs=1, verbose=0)
            if turn:
                seconds[name].append(time.perf_counter() - start)
    table = pd.DataFrame({"seconds per epoch": {name: np.median(times) for name, times in seconds.items()}})
    table["times faster"] = table["seconds per epoch"]["as published"] / table["seconds per epoch"]
    table["clips"], table["cores"] = clips, os.cpu_count()
    write(table)
    return table


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
    recipe = read_config("spobet").train
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
    config = read_config("spobet")
    prepare(config.train, seed=0)
    model = build("spobet", CLASSES, layout=LAYOUT.name, normalisation="robust", **config.options)
    data = PoseBatches(
        [trim(clip) for clip in poses],
        labels,
        CLASSES,
        config.train.batch_size,
        max_frames=config.max_frames,
        vary=lambda clip, other, rng: augment(clip, config.augment, LAYOUT, rng, other),
    )
    return compiled(model, len(data)), data


def compiled(model: keras.Model, steps: int) -> keras.Model:
    """Ready to train with the recipe's optimiser, the same for both."""
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(make_optimizer(read_config("spobet").train, 10 * steps), loss)
    return model


def write(table: pd.DataFrame) -> None:
    """Print the table and keep it under reports/bench/."""
    text = table.to_markdown(floatfmt=("", ".2f", ".2f", ".0f", ".0f"))
    print(text)
    folder = home() / "reports" / "bench"
    with replacing(folder / "spobet.csv") as path:
        table.to_csv(path, index_label="training")
    with replacing(folder / "spobet.md") as path:
        path.write_text(f"# SPOBET: seconds per training epoch\n\n{__doc__.split(chr(10) * 2, 2)[2]}\n{text}\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
