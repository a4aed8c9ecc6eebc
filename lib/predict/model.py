"""A trained model with all that it takes to name a sign: a run of a study, or an exported file."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from lib.data.drawing import Drawing, Pen
from lib.data.layouts import LAYOUTS, Layout
from lib.data.poses import pad
from lib.export import CLIP, EMBEDDING, IMAGE
from lib.export.files import FORMATS, Stream, embed_clip, read_metadata, run_clip
from lib.export.files import open_model as open_file
from lib.paths import REPOSITORY, Paths, home, replacing
from lib.settings import StudyError
from lib.study import ClipStore, Study, load_study

BATCH = 16  # clips that a trained run reads at once
PAD_TO = 8  # frames, as `PoseBatches` pads


@dataclass(frozen=True)
class Model:
    """A model that names signs, and how it wants to see them.

    name: "<study>/<run>". glosses: in the order of the logits. layout: of the poses that it reads, None if it reads
    videos. pen: draws them for a video model of drawn poses. frames: how many a video model reads; the most that a pose
    model does. size: pixels on a side of a video model's clip, 0 of a pose model. store: how videos are cropped and
    stored first where it reads them. known_from: the least score (see `score`) of a sign that the model knows; -inf
    where that was not measured. own_signs_from: the same of a clip's similarity to signs of one's own (see
    lib.few_shot), which files state. run: float32 (1 or more, frames, …) to logits. stream: of a file
    that reads frame by frame, for cameras. embed: as `run`, to embeddings; None where the model gives none. checksum:
    SHA-256 of the trained weights, the same for a run and all its files; "" where embed is None.
    """

    name: str
    glosses: list[str]
    layout: Layout | None
    frames: int
    size: int
    store: ClipStore
    known_from: float
    run: Callable[[np.ndarray], np.ndarray]
    batch: int = 1
    pad_to: int = 1
    stream: Stream | None = None
    embed: Callable[[np.ndarray], np.ndarray] | None = None
    checksum: str = ""
    own_signs_from: float = -np.inf
    pen: Pen | None = None

    def logits(self, clips: Iterable[np.ndarray]) -> np.ndarray:
        """Logits float32 (n, glosses) of clips as `Recording.read` gives them, each float32 (frames, …)."""
        none = np.zeros((0, len(self.glosses)), np.float32)
        return np.concatenate([none, *map(self.run, self._batches(clips))])

    def embeddings(self, clips: Iterable[np.ndarray]) -> np.ndarray:
        """Embeddings float32 (n, width) of one clip or more as `logits` reads them, each of length 1.

        Raises StudyError for a model that gives none.
        """
        if self.embed is None:
            raise StudyError(f"{self.name} gives no embeddings of clips: take a pose model, exported by this version")
        return np.concatenate([*map(self.embed, self._batches(clips))])

    def _batches(self, clips: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        remaining = iter(clips)
        while waiting := [*islice(remaining, self.batch)]:
            yield np.stack(waiting) if self.size else pad(waiting, self.pad_to)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Probabilities of the glosses, float32 (n, glosses)."""
    return softmax(logits, axis=-1)


def score(logits: np.ndarray) -> np.ndarray:
    """How surely a clip shows one of the glosses, (n,): its largest logit.

    Hendrycks et al. 2022 (https://arxiv.org/abs/1911.11132) compare it with the largest probability; notebook 12 does
    on signs that the model does not know.
    """
    return logits.max(-1)


def open_model(which: str | Path | None = None, threads: int = 1) -> Model:
    """Open a .tflite or .onnx file, or "<study>/<run>" trained on this machine; by default `best_released`.

    Raises StudyError when there is none, or it is not one of this study's.
    """
    which = best_released() if which is None else which
    if Path(which).suffix in FORMATS or Path(which).is_file():
        return _open_file(Path(which), threads)
    study, _, run = str(which).rpartition("/")
    if not study:
        raise StudyError(f"{which}: a model is a .tflite or .onnx file, or <study>/<run>, such as sample/spobet-plus")
    return _open_run(study, run)


def best_released() -> Path:
    """The TensorFlow Lite file in reports/*/models/ that knows the most signs, and of these the most accurate.

    Raises StudyError when there is none.
    """
    files = sorted((REPOSITORY / "reports").glob("*/models/*.tflite"))
    if not files:
        raise StudyError("no model is released in reports/*/models/; name one with --model")

    def worth(path: Path) -> tuple[int, float]:
        """Number of signs, and top-1 on test."""
        signs = len(path.with_name(f"{path.stem}-labels.txt").read_text().splitlines())
        return signs, json.loads(Paths(path.parts[-3], REPOSITORY).metrics(path.stem).read_text())["top1"]

    return max(files, key=worth)


def _open_file(path: Path, threads: int) -> Model:
    runner, (description, glosses) = open_file(path, threads), read_metadata(path)
    if missing := {"name", "frames", "input"} - description.keys():
        raise StudyError(f"{path}: does not say its {', '.join(sorted(missing))}; export it again")
    about: dict[str, Any] = description["input"].get(CLIP) or description["input"][IMAGE]
    layout = next((layout for layout in LAYOUTS.values() if list(layout.joints) == about.get("joints")), None)
    if not layout and "joints" in about:
        raise StudyError(f"{path}: reads joints of no known layout; export it again")
    store = {key: value for key, value in about.items() if key in ("margin", "find_person")}
    embeds = EMBEDDING in runner.outputs and "checksum" in description
    return Model(
        name=description["name"],
        glosses=glosses,
        layout=layout,
        pen=Pen(Drawing(**about["drawing"]), layout) if "drawing" in about else None,
        frames=description["frames"],
        size=about["shape"][-2] if "drawing" in about or not layout else 0,
        store=ClipStore(size=about.get("stored", ClipStore().size), **store),
        known_from=_known_from(description["name"]),
        run=lambda clips: np.concatenate([run_clip(runner, clip[None]) for clip in clips]),
        pad_to=description["frames"],
        stream=Stream(path, threads) if IMAGE in description["input"] and not layout else None,
        embed=(lambda clips: np.concatenate([embed_clip(runner, clip[None]) for clip in clips])) if embeds else None,
        checksum=description["checksum"] if embeds else "",
        own_signs_from=description.get("own_signs_from", -np.inf),
    )


def _open_run(study_name: str, run_name: str) -> Model:
    study = load_study(study_name, Path(), require_data=False)  # nothing of its data is read
    study.find_run(run_name)  # says what there is, before anything is read
    try:
        backend = json.loads(study.paths.metrics(run_name).read_text())["backend"]
    except FileNotFoundError:
        raise StudyError(
            f"run {run_name} of {study.name} is not trained here: `make study STUDY={study.name}`"
        ) from None
    os.environ.setdefault("KERAS_BACKEND", backend)  # before Keras is imported, here
    from lib.runs import embed_batch, open_run, predict_batch

    run = open_run(study, run_name)
    model, config = run.trained(), run.config
    layout, drawing = LAYOUTS[study.layout] if config.reads == "poses" else None, getattr(config, "drawing", None)
    return Model(
        name=f"{study.name}/{run_name}",
        glosses=run.glosses,
        layout=layout,
        pen=Pen(drawing, layout) if drawing else None,
        frames=config.frames if hasattr(config, "frames") else config.max_frames,
        size=getattr(config, "size", 0),
        store=study.clips,
        known_from=_known_from(f"{study.name}/{run_name}"),
        run=lambda clips: predict_batch(model, clips),
        batch=BATCH,
        pad_to=PAD_TO,
        embed=(lambda clips: embed_batch(model, clips)) if hasattr(model, "embed") else None,
        checksum=run.checksum() if hasattr(model, "embed") else "",
    )


def save_known_from(study: Study, run: str, threshold: float) -> None:
    """Keep from which score on a sign counts as known, for `open_model` to find."""
    with replacing(study.paths.known(run)) as partial:
        partial.write_text(json.dumps({"known_from": threshold}) + "\n")


def _known_from(name: str) -> float:
    """The threshold that notebook 12 has chosen for a run, "<study>/<run>"; -inf if it has not."""
    study, run = name.split("/")
    path = Paths(study, home()).known(run)
    return json.loads(path.read_text())["known_from"] if path.is_file() else -np.inf
