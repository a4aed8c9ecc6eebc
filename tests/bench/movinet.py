"""MoViNet-a0 stream: a training step and one clip, ours against the official implementation

Both on TensorFlow, in float32, compiled by tf.function, on random clips of 20 frames × 172². A step is train_on_batch
on 4 clips, with RMSprop as in the published study and trainable batch normalisation: the steps are checked on both
sides to have given all variables gradients and moved all running statistics. A clip is one call with training=False.
According to TensorFlow's profiler, our step spends a quarter of its time on 1 × 1 convolutions, a fifth on depthwise
ones, a fifth on batch normalisation, a quarter on hard swish and gates (products, ReLU6 and their gradients), the rest
on sums and padding. The peer is PyPI's tf-models-official with Keras 2, in its own environment, data/bench/official.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.official import CLASSES, CLIP_NORM, EPSILON, MOMENTUM, RATE, NotInstalledError, start, works
from bench.report import compare, machine, versions, write
from bench.sides import Side, alternate

TARGET = "≤ 0.7"
WARM_UP = 3  # rounds: the blocks' scale starts at 0, so gradients reach what is inside only after a step
TRAINED = "{}: {with_gradient} of {variables} variables with gradients, {moved} of {statistics} statistics moved"


def main(name: str = "movinet", rounds: int = 7, batch: int = 4, frames: int = 20, size: int = 172) -> Path:
    """Measure, and write the report; without the peer if it cannot be installed."""
    where, form = machine(), {"batch": batch, "frames": frames, "size": size}
    used, problem = versions("tensorflow", "keras"), ""
    with ExitStack() as stack:
        sides = {"ours": stack.enter_context(Side("bench.movinet:ours", backend="tensorflow", **form))}
        try:
            sides["peer"] = stack.enter_context(start("train", **form))
            used |= {f"{name} (peer)": number for name, number in sides["peer"]("versions")["value"].items()}
        except NotInstalledError as error:
            problem = str(error)
        steps = alternate(sides, "step", rounds, WARM_UP)
        clips = alternate(sides, "clip", 3 * rounds, WARM_UP)
        trained = "; ".join(TRAINED.format(side, **process("trained")["value"]) for side, process in sides.items())
    rows = [
        compare(label, taken["ours"], taken.get("peer", []), TARGET, note=note)
        for label, taken, note in (
            (f"training step, {batch} clips", steps, problem or trained),
            ("one clip", clips, problem),
        )
    ]
    return write(name, __doc__, rows, used, where)


def ours(batch: int, frames: int, size: int) -> dict[str, Callable[[], Any]]:
    """Our side."""
    import tensorflow as tf

    from bench.training import compiled
    from lib.models import build
    from lib.recipes import Training

    recipe = Training(optimizer="rmsprop", learning_rate=RATE, momentum=MOMENTUM, epsilon=EPSILON, clip_norm=CLIP_NORM)
    model = compiled(lambda: build("movinet-a0", CLASSES, (frames, size, size), stream=True), recipe)
    model.optimizer.build(model.trainable_variables)
    return works(model, tf, batch, frames, size)
