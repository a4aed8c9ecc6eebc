"""How well a model does what it was not trained for: tell signs that it does not know, and signs in a row."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score, roc_curve

from lib.data.find import locate
from lib.data.layouts import SIDES, Layout
from lib.data.sources import find_clips, read_clips
from lib.data.wlasl import read_outside
from lib.predict.model import Model
from lib.predict.naming import open_all
from lib.predict.recordings import Input
from lib.predict.timeline import FPS
from lib.study import Study

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
    places, _ = locate(study.root, study.pose_source, ids)
    clips = [Input(video_id, study.pose_source, found[0]) for video_id, found in places.items()]
    opened = [recording for _, recording in open_all(model, clips)]
    for problem in (recording for recording in opened if isinstance(recording, str)):
        print(f"left out: {problem}")
    return model.logits(recording.clip() for recording in opened if not isinstance(recording, str))


def told_apart(known: np.ndarray, unknown: np.ndarray) -> Roc:
    """How well a score tells known signs (n,) from unknown ones (m,), which should score lower."""
    truth, scores = np.repeat([1, 0], [len(known), len(unknown)]), np.concatenate([known, unknown])
    false, true, _ = roc_curve(truth, scores)
    return Roc(false, true, float(roc_auc_score(truth, scores)))


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
