"""The official MoViNet (PyPI tf-models-official) as the peer: its environment, and its side, which runs in there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

PINNED = "tf-models-official==2.20.0"
REPOSITORY = Path(__file__).parents[2]
CLASSES = 100
# The published training of WLASL (RMSprop); the norm of all gradients together is clipped, on both sides.
RATE, MOMENTUM, EPSILON, CLIP_NORM = 0.01, 0.9, 1.0, 1.0

# MoViNet-A0-Stream, as the published study builds it.
FORM = {
    "model_id": "a0",
    "causal": True,
    "conv_type": "2plus1d",
    "se_type": "2plus3d",
    "activation": "hard_swish",
    "gating_activation": "hard_sigmoid",
    "use_positional_encoding": False,
}
BASE = {"causal": False, "conv_type": "3d", "se_type": "3d", "activation": "swish", "gating_activation": "sigmoid"}


class NotInstalledError(Exception):
    """Why the official package could not be installed."""


def install(folder: Path) -> Path:
    """Make the environment at `folder`, if it is not there. Returns its Python.

    It has TensorFlow and Keras of its own, which the study's environment can't hold beside its own.
    Raises NotInstalledError, for example without uv or network.
    """
    python, done = folder / "bin" / "python", folder / ".done"
    if done.exists() and done.read_text() == PINNED:
        return python
    uv = shutil.which("uv") or REPOSITORY / ".uv" / "bin" / "uv"
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        for command in (
            ["venv", "--quiet", "--allow-existing", "--python", sys.executable, folder],
            ["pip", "install", "--quiet", "--python", python, PINNED],
        ):
            subprocess.run([uv, *command], check=True, capture_output=True, text=True)
    except OSError as error:
        raise NotInstalledError(f"uv: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        raise NotInstalledError(" ".join(error.stderr.split())[:200]) from error
    done.write_text(PINNED)
    return python


def official(batch: int, frames: int, size: int) -> dict[str, Callable[[], Any]]:
    """The side of MoViNet-a0 stream as the published study builds it, on TensorFlow with Keras 2."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow as tf
    import tf_keras
    from official.projects.movinet.modeling import movinet, movinet_model

    backbone = movinet.Movinet(**FORM)
    model = movinet_model.MovinetClassifier(backbone, num_classes=CLASSES)
    model.build([None, frames, size, size, 3])
    model.compile(
        tf_keras.optimizers.RMSprop(RATE, momentum=MOMENTUM, epsilon=EPSILON, global_clipnorm=CLIP_NORM),
        tf_keras.losses.CategoricalCrossentropy(from_logits=True),
    )
    packages = ("tf-models-official", "tensorflow", "tf-keras")
    return works(model, tf, random_batch(batch, frames, size), {name: version(name) for name in packages})


def export(path: str, size: int) -> dict[str, Callable[[], Any]]:
    """Write the float32 TensorFlow Lite file of the same network, frame by frame, as the package's own export does."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow as tf
    from official.projects.movinet.tools.export_saved_model import build_and_export_saved_model

    with tempfile.TemporaryDirectory() as folder:
        build_and_export_saved_model(
            folder,
            **FORM,
            num_classes=CLASSES,
            input_shape=(1, 1, size, size, 3),
            bundle_input_init_states_fn=False,
        )
        Path(path).write_bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())
    return {}


def counted(size: str, form: str) -> dict[str, Callable[[], float]]:
    """The side that counts the multiply-adds (1e9) of a network, "a0" and "base" or "stream", on the published clip.

    By the counter that counts ours.
    """
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow as tf
    from official.projects.movinet.modeling import movinet, movinet_model

    from lib.models.cost import operations_of
    from lib.models.movinet_sizes import SIZES

    clip = (1, *SIZES[size].clip, 3)
    backbone = movinet.Movinet(**{**(FORM if form == "stream" else BASE), "model_id": size})
    model = movinet_model.MovinetClassifier(backbone, num_classes=600)
    model.build(clip)
    function = tf.function(lambda clips: model(clips, training=False))
    graph = function.get_concrete_function(tf.TensorSpec(clip)).graph
    return {"count": lambda: sum(operations_of(*node) for node in nodes(graph)) / 2e9}


def nodes(graph: Any, shape: Sequence[int] | None = None) -> Iterator[tuple[Any, Sequence[int] | None]]:
    """Nodes of a graph, and of the functions it calls with the shape of the call's result.

    Keras 2 makes a function of each 3-D convolution, in which the sizes of the clip are not known.
    """
    for node in graph.get_operations():
        if node.type in ("PartitionedCall", "StatefulPartitionedCall"):
            called = graph._get_function(node.get_attr("f").name).graph
            yield from nodes(called, shape or node.outputs[0].shape)
        else:
            yield node, shape


def random_batch(batch: int, frames: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Random clips float32 (batch, frames, size, size, 3) in [0, 1] and one-hot labels; the time is that of any."""
    clips = np.random.default_rng(0).random((batch, frames, size, size, 3), np.float32)
    return clips, np.eye(CLASSES, dtype=np.float32)[:batch]


def works(model: Any, tf: Any, data: tuple[np.ndarray, np.ndarray], used: dict[str, str]) -> dict[str, Callable]:
    """Work of a compiled keras model, of Keras 2 or 3: `step`, `clip`, and `facts` about what the steps have done."""
    first = tf.constant(data[0][:1])
    infer = tf.function(lambda clip: model(clip, training=False))
    statistics = moving(model)
    return {
        "step": lambda: float(model.train_on_batch(*data)),
        "clip": lambda: float(infer(first)[0, 0]),
        "facts": lambda: {**trained(model, statistics), "versions": used},
    }


def moving(model: Any) -> list[np.ndarray]:
    """The running means and variances of a model's normalisations."""
    return [
        np.array(value) for value in model.non_trainable_variables if "moving" in getattr(value, "path", value.name)
    ]


def trained(model: Any, before: Sequence[np.ndarray]) -> dict[str, int]:
    """Count what training has reached: variables that have had a gradient, statistics that are not as `before`.

    RMSprop keeps a mean of each gradient's square.
    """
    seen = [bool(np.any(np.array(value) > 0)) for value in model.optimizer._velocities]
    moved = [not np.array_equal(old, new) for old, new in zip(before, moving(model), strict=True)]
    counts = {"variables": len(model.trainable_variables), "with_gradient": sum(seen)}
    return {**counts, "statistics": len(moved), "moved": sum(moved), "parameters": model.count_params()}
