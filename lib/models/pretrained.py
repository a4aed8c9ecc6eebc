"""Published weights into a model of the study, whatever they were published for; all but the classifier is taken."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from lib.models import family
from lib.models.weights import WEIGHTS, fetch
from lib.study import StudyError

if TYPE_CHECKING:
    import keras

    from lib.models.movinet import Movinet

PUBLISHED_CLASSES = 600  # of MoViNet's files, Kinetics-600


def load_pretrained(model: keras.Model, name: str, weights: str) -> None:
    """Fill a model made by `build(name, …)` with published weights, a key of `lib.models.weights.WEIGHTS`.

    The layers that name the classes stay as they are. Weights that are not in data/weights/ yet are downloaded.
    Raises StudyError for weights of another model, when they can't be had, and when a layer has no counterpart.
    """
    if weights in WEIGHTS and WEIGHTS[weights].model != name:
        fitting = ", ".join(key for key, published in WEIGHTS.items() if published.model == name)
        raise StudyError(f"the weights '{weights}' are not for {name}; for it there are: {fitting or 'none'}")
    path = fetch(weights)
    kind = family(name)
    if kind == "movinet":
        load_movinet(model, path)
    elif kind == "i3d":
        from lib.models.i3d import load_published_weights

        load_published_weights(model, path)
    else:
        from lib.models.s3d import load_published_weights

        load_published_weights(model, path)


def load_movinet(model: Movinet, path: Path) -> None:
    """Fill all but the classifier from a file of MoViNet: an archive with a checkpoint, or the TFLite file.

    Raises StudyError when a layer of one has no counterpart in the other.
    """
    from lib.models.movinet import build_movinet
    from lib.models.movinet_tflite import load_mobile_tflite
    from lib.models.movinet_weights import load_official_checkpoint

    published = build_movinet(PUBLISHED_CLASSES, clip=(1, 32, 32), **model.config.model_dump())
    if path.suffix == ".tflite":
        load_mobile_tflite(published, path)
    else:
        load_official_checkpoint(published, unpack(path))
    kept = {id(weight) for weight in model.classifier.weights}
    for own, other in zip(model.variables, published.variables, strict=True):
        if id(own) not in kept and not is_random_state(own):
            own.assign(other)


def is_random_state(variable: keras.Variable) -> bool:
    """Whether a variable is the state of dropout, which is the model's own."""
    return variable.name == "seed_generator_state"


def unpack(archive: Path) -> Path:
    """Unpack an archive of a checkpoint beside it, unless that was done. Returns the checkpoint's name, no suffix.

    Raises StudyError when it can't be read or holds no checkpoint.
    """
    folder = archive.with_name(archive.name.removesuffix(".tar.gz"))
    if not find_checkpoint(folder):
        try:
            with tarfile.open(archive) as file:
                file.extractall(folder, filter="data")
        except (OSError, tarfile.TarError, EOFError) as error:
            raise StudyError(f"{archive}: not a readable archive ({error}): delete it and download it again") from None
    found = find_checkpoint(folder)
    if not found:
        raise StudyError(f"{archive}: holds no TensorFlow checkpoint (*.index)")
    return found


def find_checkpoint(folder: Path) -> Path | None:
    """The checkpoint in a folder by its name without suffix, None where there is none."""
    return next((path.with_suffix("") for path in sorted(folder.rglob("*.index"))), None)
