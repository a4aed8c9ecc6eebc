"""SPOBET and SPOBET-plus: a training epoch, ours against the published network and batches, and against plain torch

As published (github.com/Kojk-AI/spobet): every clip padded to 250 frames, padding not masked, float32, 128 clips a
batch. Ours: the recipe `spobet`: leading and trailing frames without joints trimmed, clips of similar length in a
batch, padding masked, bfloat16 where keras considers it safe, and clips augmented as the recipe says, which theirs here
are not. Both are written in keras, run on torch and have the same optimiser. Clips are random numbers: the time does
not depend on them. Their lengths follow those of the WLASL100 hand landmarks, without the few longest: 15 to 143
frames, median 65, with joints in about 60 % of them: median 39 after trimming.

SPOBET-plus: the recipe on our side. Peer: the same network of torch.nn modules in its own loop, float32, AdamW,
gradients clipped, features computed beforehand, clips trimmed and shortened as ours but not augmented, weights not
averaged; 32 clips a batch in random order, padded to the longest, the padding masked.
"""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras import layers

from bench.report import compare, machine, versions, write
from bench.sides import Side, alternate
from bench.training import compiled
from lib.data.layouts import LAYOUTS
from lib.data.loaders import PoseBatches
from lib.data.poses import trim
from lib.models import build, configure
from lib.recipes import PoseRecipe, read_recipe

CLIPS, CLASSES, PUBLISHED_FRAMES = 748, 100, 250
LAYOUT = LAYOUTS["hands-42"]


def main(name: str = "spobet", rounds: int = 3, clips: int = CLIPS) -> Path:
    """Time both with all cores, after one epoch of warm-up, and write the report."""
    where = machine()
    form, rows = {"threads": where["cores"], "clips": clips}, []
    for label, which, target in (("spobet", "published", ""), ("spobet-plus", "plain", "≤ 0.6")):
        with (
            Side("bench.spobet:side", which=label, **form) as ours,
            Side("bench.spobet:side", which=which, **form) as peer,
        ):
            taken = alternate({"ours": ours, "peer": peer}, "epoch", rounds)
        measured = f"training epoch of {label}, {clips} clips"
        rows.append(compare(measured, taken["ours"], taken["peer"], target, threads=where["cores"]))
    return write(name, __doc__, rows, versions("torch", "keras"), where)


def side(which: str, clips: int) -> dict[str, Callable[[], None]]:
    """One of the two sides."""
    if which == "plain":
        return {"epoch": plain(*make_clips(clips))}
    model, data = (
        published(*make_clips(clips)) if which == "published" else ours(*make_clips(clips), read_recipe(which))
    )

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


def ours(poses: list[np.ndarray], labels: np.ndarray, config: PoseRecipe) -> tuple[keras.Model, PoseBatches]:
    """A recipe as a run trains it, augmentation included."""
    data = PoseBatches(
        [trim(clip) for clip in poses],
        labels,
        CLASSES,
        config.train.batch_size,
        max_frames=config.max_frames,
        vary=config.augment,
        layout=LAYOUT,
    )
    options = {"layout": LAYOUT.name, "normalisation": "robust", **config.options}
    return compiled(lambda: build("spobet", CLASSES, **options), config.train, 10 * len(data)), data


def plain(poses: list[np.ndarray], labels: np.ndarray) -> Callable[[], None]:
    """An epoch of SPOBET-plus in plain torch; the network itself is in bench.plain_spobet."""
    import torch

    from bench.plain_spobet import PlainSpobet
    from lib.data.poses import shorten
    from lib.models.spobet import PoseFeatures

    config = read_recipe("spobet-plus")
    features = PoseFeatures(configure(config.model, {**config.options, "layout": LAYOUT.name}))
    clips = [features(shorten(trim(clip), config.max_frames)[None]) for clip in poses]
    clips = [(values[0].cpu(), mask[0].cpu()) for values, mask in clips]
    targets = torch.tensor(labels)
    network = PlainSpobet(clips[0][0].shape[-1], CLASSES, config.options).train()
    recipe = config.train
    optimizer = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)

    def epoch() -> None:
        for rows in torch.randperm(len(clips)).split(recipe.batch_size):
            parts = zip(*(clips[i] for i in rows), strict=True)
            logits = network(*(torch.nn.utils.rnn.pad_sequence(part, True) for part in parts))
            loss = torch.nn.functional.cross_entropy(logits, targets[rows], label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
            optimizer.step()

    return epoch
