"""Where published pretrained weights come from, and how they get here: whole, checked, resumed where broken off."""

from __future__ import annotations

import hashlib
import http.client
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lib.models import family_of, load
from lib.net import download, reason
from lib.paths import home, locked
from lib.settings import StudyError

if TYPE_CHECKING:
    import keras


MOVINET = "https://storage.googleapis.com/tf_model_garden/vision/movinet"  # links of the official README
# Not reached from where this was written; the checksum is that of the file at hand.
MOBILE = (
    "https://tfhub.dev/google/lite-model/movinet/a0/stream/kinetics-600/classification/tflite/int8/1?lite-format=tflite"
)
MOBILE_SHA256 = "6125b36e2485eeb5cc1fd6206cf5e5d70235593fbc84610d1dce97fe3aa9c2ac"
I3D = "https://github.com/dlpbc/keras-kinetics-i3d/releases/download/v0.2"  # of its i3d_inception.py
X3D = "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics"  # pytorchvideo.models.hub.x3d
S3D = "https://download.pytorch.org/models"  # torchvision.models.video.S3D_Weights


class Published(NamedTuple):
    """One file of published weights. `sha256`: its first digits, as far as known; None where nothing is published."""

    model: str
    trained_on: str
    url: str
    licence: str
    sha256: str | None = None
    name: str | None = None

    @property
    def file(self) -> str:
        """Name of the file: `name`, or the last part of the address."""
        return self.name or self.url.rsplit("/", 1)[1]


def _table() -> dict[str, Published]:
    table = {}
    for size in ("a0", "a1", "a2", "a3", "a4", "a5"):
        for kind in ("base", "stream"):
            url = f"{MOVINET}/movinet_{size}_{kind}.tar.gz"
            table[f"movinet-{size}-{kind}"] = Published(f"movinet-{size}", "Kinetics-600", url, "Apache-2.0")
    table["movinet-a0-stream-k600-int8"] = Published(
        "movinet-a0", "Kinetics-600", MOBILE, "Apache-2.0", MOBILE_SHA256, "movinet_a0_stream_k600_int8.tflite"
    )
    for name, file, data in (
        ("i3d-kinetics", "kinetics_only", "Kinetics-400"),
        ("i3d-imagenet", "imagenet_and_kinetics", "ImageNet and Kinetics-400"),
    ):
        url = f"{I3D}/rgb_inception_i3d_{file}_tf_dim_ordering_tf_kernels_no_top.h5"
        table[name] = Published("i3d", data, url, "Apache-2.0")  # DeepMind's, converted
    # torchvision names a file by the first eight digits of its checksum and checks these.
    table["s3d"] = Published("s3d", "Kinetics-400", f"{S3D}/s3d-d76dad2f.pth", "BSD-3-Clause", "d76dad2f")
    for size in ("xs", "s", "m", "l"):
        name = f"x3d-{size}"
        table[name] = Published(name, "Kinetics-400", f"{X3D}/X3D_{size.upper()}.pyth", "Apache-2.0")
    return table


WEIGHTS = _table()


def fetch(name: str, folder: Path | None = None) -> Path:
    """Give the path of the weights `name`, a key of WEIGHTS, downloading them to `folder` unless they lie there.

    folder: by default data/weights under `lib.paths.home()`. A broken download is kept as <file>.part and the next one
    goes on from there; the file itself appears whole and checked, or not at all. Shows a progress bar.
    Raises StudyError, saying which file to get from where and where to put it, when it can't be downloaded, and when
    its checksum is not the published one.
    """
    if name not in WEIGHTS:
        raise StudyError(f"no weights are known by the name {name!r}; there are: {', '.join(WEIGHTS)}")
    published = WEIGHTS[name]
    path = (folder or home() / "data" / "weights") / published.file
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock")):  # runs in parallel must not write one partial file together
        if path.exists():
            check(path, published)
        else:
            get(published, path)
    return path


def get(published: Published, path: Path) -> None:
    """Download and check a file; see `fetch`."""
    part = path.with_name(f"{path.name}.part")
    try:
        download(published.url, part)
    except (OSError, http.client.HTTPException) as error:  # URLError and HTTPError are OSErrors
        raise StudyError(
            f"{path.name} could not be downloaded ({reason(error)}): get it from {published.url} and put it at {path}"
        ) from None
    try:
        check(part, published)
    except StudyError:
        part.unlink()  # nothing in it can be trusted, so the next attempt begins anew
        raise
    part.replace(path)


def check(path: Path, published: Published) -> None:
    """Raise StudyError when a file is empty or its checksum does not begin as the published one."""
    if path.stat().st_size == 0:
        raise StudyError(f"{path} is empty: delete it and get it from {published.url}")
    found = checksum(path)
    if published.sha256 and not found.startswith(published.sha256):
        raise StudyError(
            f"{path} is not the published file: its sha256 is {found}, not {published.sha256}…; "
            f"delete it and get it from {published.url}"
        )


def checksum(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_pretrained(model: keras.Model, name: str, weights: str) -> None:
    """Fill a model made by `build(name, …)` with published weights, a key of `lib.models.weights.WEIGHTS`.

    The layers that name the classes stay as they are. Weights that are not in data/weights/ yet are downloaded.
    Raises StudyError for weights of another model, when they can't be had, and when a layer has no counterpart.
    """
    if weights in WEIGHTS and WEIGHTS[weights].model != name:
        fitting = ", ".join(key for key, published in WEIGHTS.items() if published.model == name)
        raise StudyError(f"the weights '{weights}' are not for {name}; for it there are: {fitting or 'none'}")
    load(family_of(name).weights)(model, fetch(weights))
