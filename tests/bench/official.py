"""The official MoViNet (PyPI tf-models-official) as the peer: its environment, and its sides, which run in there."""

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

from bench.sides import REPOSITORY, Side
from lib.paths import home

PACKAGE, RELEASE = "tf-models-official", "2.20.0"
REQUIREMENTS = [f"{PACKAGE}=={RELEASE}", "pydantic"]  # the latter for lib.models, whose counter `count` uses
CLASSES = 100
# The published training of WLASL (RMSprop); both sides clip the global norm of the gradients.
RATE, MOMENTUM, EPSILON, CLIP_NORM = 0.01, 0.9, 1.0, 1.0

# MoViNet-A0-Stream as the published study builds it.
STREAM = {
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
    """Why the official package could not be installed or started."""


def start(work: str, **options: Any) -> Side:
    """Start the side `work` of this file in the official package's environment, which is created if necessary.

    Raises NotInstalledError, for example without uv or network.
    """
    try:
        python = install(home() / "data" / "bench" / "official")
        return Side(f"bench.official:{work}", python=python, backend="tensorflow", **options)
    except (NotInstalledError, RuntimeError) as error:
        why = " ".join(str(error).split())[:200]
        raise NotInstalledError(f"the peer could not be installed or started: {why}") from None


def install(folder: Path) -> Path:
    """Create the environment `folder` if it is not there. Returns its Python.

    It has its own TensorFlow and Keras, which cannot be installed beside the study's. Raises NotInstalledError.
    """
    python, done, wanted = folder / "bin" / "python", folder / ".done", " ".join(REQUIREMENTS)
    if done.exists() and done.read_text() == wanted:
        return python
    uv = shutil.which("uv") or REPOSITORY / ".uv" / "bin" / "uv"
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        for command in (
            ["venv", "--quiet", "--allow-existing", "--python", sys.executable, folder],
            ["pip", "install", "--quiet", "--python", python, *REQUIREMENTS],
        ):
            subprocess.run([uv, *command], check=True, capture_output=True, text=True)
    except OSError as error:
        raise NotInstalledError(f"uv: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        raise NotInstalledError(error.stderr) from error
    done.write_text(wanted)
    return python


def train(model_id: str, batch: int, frames: int, size: int) -> dict[str, Callable[[], Any]]:
    """The side of a MoViNet stream, on TensorFlow with Keras 2."""
    form = {**STREAM, "model_id": model_id, "use_positional_encoding": model_id >= "a3"}
    tf, model = _classifier((None, frames, size, size, 3), CLASSES, form)
    import tf_keras

    model.compile(
        tf_keras.optimizers.RMSprop(RATE, momentum=MOMENTUM, epsilon=EPSILON, global_clipnorm=CLIP_NORM),
        tf_keras.losses.CategoricalCrossentropy(from_logits=True),
    )
    infer = tf.function(lambda clip: model(clip, training=False))
    packages = (PACKAGE, "tensorflow", "tf-keras")
    return works(model, infer, batch, frames, size) | {"versions": lambda: {name: version(name) for name in packages}}


def export(path: str, size: int) -> dict[str, Callable[[], Any]]:
    """Write the float32 TensorFlow Lite file of the same network, frame by frame, as the package's own export does."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow as tf
    from official.projects.movinet.tools.export_saved_model import build_and_export_saved_model

    with tempfile.TemporaryDirectory() as folder:
        build_and_export_saved_model(
            folder,
            **STREAM,
            num_classes=CLASSES,
            input_shape=(1, 1, size, size, 3),
            bundle_input_init_states_fn=False,
        )
        Path(path).write_bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())
    return {}


def count(size: str, form: str) -> dict[str, Callable[[], float]]:
    """The side that counts the multiply-adds (1e9) of a network, "a0" and "base" or "stream", on the published clip.

    The counter is the one that counts ours.
    """
    from lib.models.cost import operations_of
    from lib.models.movinet_sizes import SIZES

    clip = (1, *SIZES[size].clip, 3)
    tf, model = _classifier(clip, 600, {**(STREAM if form == "stream" else BASE), "model_id": size})
    function = tf.function(lambda clips: model(clips, training=False))
    graph = function.get_concrete_function(tf.TensorSpec(clip)).graph
    return {"count": lambda: sum(operations_of(*node) for node in nodes(graph)) / 2e9}


def _classifier(clip: tuple[int | None, ...], classes: int, form: dict[str, Any]) -> tuple[Any, Any]:
    """TensorFlow, and the official classifier built for clips of that shape."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow as tf
    from official.projects.movinet.modeling import movinet, movinet_model

    model = movinet_model.MovinetClassifier(movinet.Movinet(**form), num_classes=classes)
    model.build(list(clip))
    return tf, model


def nodes(graph: Any, shape: Sequence[int] | None = None) -> Iterator[tuple[Any, Sequence[int] | None]]:
    """Nodes of a graph, and of the functions it calls with the shape of the call's result.

    Keras 2 makes a function of each 3-D convolution, in which the size of the clip is unknown.
    """
    for node in graph.get_operations():
        if node.type in ("PartitionedCall", "StatefulPartitionedCall"):
            called = graph._get_function(node.get_attr("f").name).graph
            yield from nodes(called, shape or node.outputs[0].shape)
        else:
            yield node, shape


def works(model: Any, infer: Callable[[Any], Any], batch: int, frames: int, size: int) -> dict[str, Callable[[], Any]]:
    """Work of a compiled model of Keras 2 or 3 on random clips: `step`, `clip`, and `trained`, what the steps reached.

    infer: the logits of clips without training.

    `trained` counts the variables that have had a gradient, and the running statistics that have moved.
    """
    clips = np.random.default_rng(0).random((batch, frames, size, size, 3), np.float32)
    labels = np.eye(CLASSES, dtype=np.float32)[:batch]
    before = _statistics(model)

    def trained() -> dict[str, int]:
        moved = [not np.array_equal(old, new) for old, new in zip(before, _statistics(model), strict=True)]
        seen = [bool(np.any(np.array(mean) > 0)) for mean in model.optimizer._velocities]  # of the squared gradient
        counts = {"variables": len(model.trainable_variables), "with_gradient": sum(seen)}
        return {**counts, "statistics": len(moved), "moved": sum(moved)}

    return {
        "step": lambda: float(model.train_on_batch(clips, labels)),
        "clip": lambda: float(infer(clips[:1])[0, 0]),
        "trained": trained,
    }


def _statistics(model: Any) -> list[np.ndarray]:
    """The running means and variances of a model's batch normalisations."""
    variables = model.non_trainable_variables
    return [np.array(value) for value in variables if "moving" in getattr(value, "path", value.name)]
