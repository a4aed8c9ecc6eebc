"""How well a model does what it was not trained for: tell signs that it does not know, and signs in a row."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import logsumexp
from sklearn.metrics import roc_auc_score, roc_curve

from lib.data.find import locate
from lib.data.layouts import SIDES, Layout
from lib.data.sources import find_clips, read_clips
from lib.data.wlasl import read_outside
from lib.few_shot import prototypes
from lib.predict.model import Model, probabilities, score
from lib.predict.naming import open_all
from lib.predict.recordings import Input
from lib.predict.timeline import FPS
from lib.study import Study

RECALL = 0.95  # of known signs, at which unknown ones that pass for known are counted
PAUSE = (10, 31)  # frames between two clips in a row, at least, and one more than at most


class Roc(NamedTuple):
    """Shares of unknown signs let through and of known ones kept, (n,) each, by threshold; and the area under them."""

    false: np.ndarray
    true: np.ndarray
    area: float


def unknown_clips(study: Study, index: pd.DataFrame, splits: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """Clips of glosses beyond the study's, as `read_outside` gives them, and how many more are left out.

    Those are byte for byte a clip of the index, so that the model knows them by another gloss.
    """
    outside = read_outside(study.root, study.subset)
    outside = outside[outside["split"].isin(splits)]
    if outside.empty:
        return outside, 0
    first = study.sources[0]
    contents, known = read_clips(study, first, find_clips(study, first, outside)), {*index["content"]} - {""}
    twins = [video_id for video_id, content in contents.items() if content.sha256 in known]
    return outside[~outside["video_id"].isin(twins)], len(twins)


def logits_of(study: Study, model: Model, ids: Iterable[str]) -> np.ndarray:
    """Logits (n, glosses) of the clips that the source of poses has, each whole; it prints why one cannot be used."""
    return _read(model.logits, study, model, ids)[0]


def embeddings_of(study: Study, model: Model, ids: Iterable[str]) -> tuple[np.ndarray, list[str]]:
    """Embeddings (n, width) of the same clips as `logits_of`, and their ids."""
    return _read(model.embeddings, study, model, ids)


def _read(
    read: Callable[[Iterator[np.ndarray]], np.ndarray], study: Study, model: Model, ids: Iterable[str]
) -> tuple[np.ndarray, list[str]]:
    places, _ = locate(study.root, study.pose_source, ids)
    clips, used = [Input(video_id, study.pose_source, found[0]) for video_id, found in places.items()], []

    def opened() -> Iterator[np.ndarray]:
        for video_id, recording in open_all(model, clips):
            if isinstance(recording, str):
                print(f"left out: {recording}")
            else:
                used.append(video_id)
                yield recording.clip()

    return read(opened()), used


def told_apart(known: np.ndarray, unknown: np.ndarray) -> Roc:
    """How well a score tells known signs (n,) from unknown ones (m,), which should score lower."""
    truth, scores = np.repeat([1, 0], [len(known), len(unknown)]), np.concatenate([known, unknown])
    false, true, _ = roc_curve(truth, scores)
    return Roc(false, true, float(roc_auc_score(truth, scores)))


def class_means(study: Study, model: Model, taught: pd.DataFrame) -> np.ndarray:
    """Prototypes (glosses, width) of the glosses of training clips, rows with video_id and label, in label order."""
    vectors, ids = embeddings_of(study, model, taught["video_id"])
    labels = taught.set_index("video_id").loc[ids, "label"].to_numpy()
    return prototypes(vectors[labels == label] for label in np.unique(labels))


def rate(logits: np.ndarray, vectors: np.ndarray, means: np.ndarray) -> dict[str, np.ndarray]:
    """How surely each of n clips shows a sign that the model knows, by the name of the score.

    logits: (n, glosses). vectors: embeddings (n, width). means: see `class_means`. The first is `lib.predict`'s.
    """
    return {
        "largest logit": score(logits),
        "largest probability": probabilities(logits).max(-1),
        "energy": logsumexp(logits, -1),
        "similarity to class means": (vectors @ means.T).max(-1),
    }


def compare_scores(known: dict[str, dict[str, np.ndarray]], unknown: dict[str, dict[str, np.ndarray]]) -> pd.DataFrame:
    """How well each score tells known signs from unknown ones; both by split, "val" and "test", and score, see `rate`.

    Columns: score; val, test, the areas (see `told_apart`); with the threshold that RECALL of the known signs of
    validation reach: kept, known signs of test, and accepted_val, accepted_test, unknown ones, as shares.
    """
    rows = []
    for name, reached in known["val"].items():
        areas = [told_apart(known[split][name], unknown[split][name]).area for split in ("val", "test")]
        threshold = threshold_at(reached)
        _, of_val = accepted(reached, unknown["val"][name], threshold)
        kept, of_test = accepted(known["test"][name], unknown["test"][name], threshold)
        rows.append([name, *areas, kept, of_val, of_test])
    return pd.DataFrame(rows, columns=["score", "val", "test", "kept", "accepted_val", "accepted_test"])


def accepted(known: np.ndarray, unknown: np.ndarray, threshold: float) -> tuple[float, float]:
    """Shares of known signs (n,) and of unknown ones (m,) whose score is at least the threshold; NaN of none."""
    return tuple(float((scores >= threshold).mean()) if len(scores) else np.nan for scores in (known, unknown))


def threshold_at(known: np.ndarray, recall: float = RECALL) -> float:
    """The highest threshold that at least a share `recall` of known signs (n,) reach: one of their scores."""
    return float(np.sort(known)[::-1][int(np.ceil(recall * len(known))) - 1])


def in_a_row(
    clips: Sequence[np.ndarray], glosses: Sequence[str], layout: Layout, rng: np.random.Generator
) -> tuple[np.ndarray, pd.DataFrame]:
    """Poses of a made video of clips, each (frames, joints, 3), and its signs as a table of start, end and gloss.

    After each clip its last frame is held for PAUSE frames, in half of the pauses without the hands. FPS frames are a
    second.
    """
    parts, signs, at = [], [], 0
    for poses, gloss in zip(clips, glosses, strict=True):
        pause = np.repeat(poses[-1:], rng.integers(*PAUSE), axis=0)
        if rng.random() < 0.5:
            for side in SIDES:
                pause[:, layout.parts[side]] = 0
        parts += [poses, pause]
        signs.append((at / FPS, (at + len(poses)) / FPS, gloss))
        at += len(poses) + len(pause)
    return np.concatenate(parts), pd.DataFrame(signs, columns=["start", "end", "gloss"])
