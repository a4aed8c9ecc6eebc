"""MoViNet-a0 stream: a training step and one clip, ours against the official implementation

Both on TensorFlow, in float32, compiled by tf.function, on random clips of 20 frames × 172². A step is train_on_batch
with 4 clips, RMSprop as the published study has it, batch normalisation learning: after the steps it was counted on
both sides that all variables have had gradients and that all running statistics have moved. A clip is one call with
training=False. Of our step's time, by TensorFlow's profiler, a quarter goes into the 1 × 1 convolutions, a fifth into
depthwise ones, a fifth into batch normalisation, a quarter into hard swish and gates (products, ReLU6 and their
gradients), the rest into sums and padding. The peer is PyPI's tf-models-official with Keras 2, in an environment of its
own, data/bench/official.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lib.bench.official import (
    CLASSES,
    CLIP_NORM,
    EPSILON,
    MOMENTUM,
    RATE,
    NotInstalledError,
    install,
    random_batch,
    works,
)
from lib.bench.report import compare, machine, versions, write
from lib.bench.sides import Side, alternate
from lib.paths import home

TARGET = "≤ 0.7"
WARM_UP = 3  # the blocks' scale starts at 0, so it takes a step until gradients reach what is inside


def main(name: str = "movinet", rounds: int = 7, batch: int = 4, frames: int = 20, size: int = 172) -> Path:
    """Measure, and write the report; without the peer when it can't be installed."""
    where, form = machine(), {"batch": batch, "frames": frames, "size": size}
    used = versions("tensorflow", "keras")
    with ExitStack() as stack:
        sides = {"ours": stack.enter_context(Side("lib.bench.movinet:ours", backend="tensorflow", **form))}
        try:
            python = install(home() / "data" / "bench" / "official")
            sides["peer"] = stack.enter_context(Side("lib.bench.official:official", python=python, **form))
            problem = ""
        except (NotInstalledError, RuntimeError) as error:
            problem = f"the peer could not be installed or started: {' '.join(str(error).split())[:200]}"
        steps = alternate(sides, "step", rounds, WARM_UP)
        clips = alternate(sides, "clip", 3 * rounds, WARM_UP)
        facts = {side: process("facts")["value"] for side, process in sides.items()}
    if "peer" in facts:
        used |= {f"{package} (peer)": number for package, number in facts["peer"]["versions"].items()}
    what = {f"training step, {batch} clips": (steps, problem or said(facts)), "one clip": (clips, problem)}
    rows = [
        compare(label, taken["ours"], taken.get("peer", []), TARGET, note=note) for label, (taken, note) in what.items()
    ]
    return write(name, __doc__, rows, used, where)


def ours(batch: int, frames: int, size: int) -> dict[str, Callable[[], Any]]:
    """Our side, compiled as lib.training.fit does."""
    import keras
    import tensorflow as tf

    from lib.models import build
    from lib.recipes import Training
    from lib.training import make_optimizer, prepare

    recipe = Training(optimizer="rmsprop", learning_rate=RATE, momentum=MOMENTUM, epsilon=EPSILON, clip_norm=CLIP_NORM)
    prepare(recipe, seed=0)
    model = build("movinet-a0", CLASSES, (frames, size, size), stream=True)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(make_optimizer(recipe, 1000), loss, jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return works(model, tf, random_batch(batch, frames, size), {})


def said(facts: dict[str, dict[str, int]]) -> str:
    """What each side has trained, in words."""
    counts = "{with_gradient} of {variables} variables with gradients, {moved} of {statistics} statistics moved"
    return "; ".join(f"{side}: {counts.format(**fact)}" for side, fact in facts.items())
