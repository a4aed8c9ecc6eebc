"""MoViNet stream, a0, a2 and a3: a training step and one clip, ours against the official implementation

Ours on TensorFlow and on torch, of which a study takes the faster one; the peer on TensorFlow, with oneDNN on both
sides. In float32, on TensorFlow compiled by tf.function, on random clips of 20 frames × 172². A step is train_on_batch
on 4 clips, with RMSprop as in the published study and trainable batch normalisation: the steps are checked on both
sides to have given all variables gradients and moved all running statistics. A clip is one call with training=False.
Ours computes hard swish and its gradient in one pass each (on TensorFlow by XLA), and the rest by the
libraries' kernels. The peer is PyPI's tf-models-official with Keras 2, in its own environment, data/bench/official.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

from bench.official import CLASSES, CLIP_NORM, EPSILON, MOMENTUM, RATE, NotInstalledError, start, works
from bench.report import compare, machine, versions, write
from bench.sides import Side, alternate

CASES = {"a0": "≤ 0.6", "a2": "≤ 0.7", "a3": "≤ 0.7"}  # targets of a training step
CLIP_TARGET = "≤ 0.6"
BACKENDS = ("tensorflow", "torch")
Row = dict[str, Any]
WARM_UP = 3  # rounds: the blocks' scale starts at 0, so gradients reach what is inside only after a step
TRAINED = "{}: {with_gradient} of {variables} variables with gradients, {moved} of {statistics} statistics moved"


def main(name: str = "movinet", rounds: int = 7, batch: int = 4, frames: int = 20, size: int = 172) -> Path:
    """Measure, and write the report; without the peer if it cannot be installed."""
    where, form = machine(), {"batch": batch, "frames": frames, "size": size}
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    used, rows = versions("tensorflow", "torch", "keras"), []
    for model_id, backend in product(CASES, BACKENDS):
        rows += _measure(model_id, backend, rounds if model_id == "a0" else -(-rounds // 2), form, used)
    return write(name, __doc__, rows, used, where)


def _measure(model_id: str, backend: str, rounds: int, form: dict[str, int], used: dict[str, str]) -> list[Row]:
    """The rows of one size on one backend: a training step and, of a0, a clip. Three sides of a3 need 24 GB."""
    form, problem = {"model_id": model_id, **form}, ""
    with ExitStack() as stack:
        sides = {"ours": stack.enter_context(Side("bench.movinet:ours", backend=backend, **form))}
        try:
            sides["peer"] = stack.enter_context(start("train", **form))
            versions_of_peer = sides["peer"]("versions")["value"]
            used |= {f"{package} (peer)": number for package, number in versions_of_peer.items()}
        except NotInstalledError as error:
            problem = str(error)
        steps = alternate(sides, "step", rounds, WARM_UP)
        clips = alternate(sides, "clip", 3 * rounds, WARM_UP) if model_id == "a0" else {}
        trained = [TRAINED.format(side, **process("trained")["value"]) for side, process in sides.items()]
    label = f"{model_id}, training step, {form['batch']} clips, {backend}"
    note = problem or "; ".join(trained)
    rows = [compare(label, steps["ours"], steps.get("peer", []), CASES[model_id], note=note)]
    if clips:
        taken = clips["ours"], clips.get("peer", [])
        rows.append(compare(f"{model_id}, one clip, {backend}", *taken, CLIP_TARGET, note=problem))
    return rows


def ours(model_id: str, batch: int, frames: int, size: int) -> dict[str, Callable[[], Any]]:
    """Our side."""
    import keras

    from bench.training import compiled
    from lib.models import build
    from lib.recipes import Training

    recipe = Training(optimizer="rmsprop", learning_rate=RATE, momentum=MOMENTUM, epsilon=EPSILON, clip_norm=CLIP_NORM)
    model = compiled(lambda: build(f"movinet-{model_id}", CLASSES, (frames, size, size), stream=True), recipe)
    model.optimizer.build(model.trainable_variables)
    if keras.backend.backend() == "torch":
        import torch

        infer = torch.inference_mode()(lambda clip: model(clip, training=False))
    else:
        import tensorflow as tf

        infer = tf.function(lambda clip: model(clip, training=False))
    return works(model, infer, batch, frames, size)
