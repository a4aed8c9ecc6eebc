"""Names for clips: the likeliest glosses of each, one clip after another."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from lib.machine import cores
from lib.predict.model import Model, probabilities, score
from lib.predict.recordings import Input, Recording, recorder
from lib.settings import StudyError
from lib.signs import Signs


class Answer(NamedTuple):
    """What a model says of a clip.

    top: the likeliest glosses with their probabilities, or the signs of one's own that are most like the clip with
    their cosine similarities. known: whether the model knows the sign (see `score`), or one's own is like enough.
    frames, seconds: the length of the clip; None where the frames have no rate.
    """

    path: str
    top: list[tuple[str, float]]
    known: bool
    frames: int
    seconds: float | None


def answer(model: Model, path: str, recording: Recording, top: int, signs: Signs | None = None) -> Answer:
    """Name the sign that a recording shows: one of the model's or, with `signs`, one of those, by similarity."""
    seconds = round(recording.frames / recording.fps, 3) if recording.fps else None
    if signs:
        (vector,) = model.embeddings([recording.clip()])
        named = [(gloss, round(float(alike), 4)) for gloss, alike in signs.rank(vector, top).items()]
        return Answer(path, named, named[0][1] >= model.own_signs_from, recording.frames, seconds)
    logits = model.logits([recording.clip()])
    (shares,) = probabilities(logits)
    order = np.argsort(-shares, kind="stable")[:top]
    named = [(model.glosses[number], round(float(shares[number]), 4)) for number in order]
    return Answer(path, named, bool(score(logits)[0] >= model.known_from), recording.frames, seconds)


def open_all(model: Model, clips: Sequence[Input]) -> Iterator[tuple[str, Recording | str]]:
    """Open clips, several at once, and yield each one's path and recording in order, or why it cannot be used.

    A recording may be read until the next is asked for. Several clips show a progress bar on a terminal.
    """

    def attempt(clip: Input) -> Recording | str:
        try:
            return record(clip)
        except StudyError as error:
            return f"{clip.path}: {str(error).removeprefix(f'{clip.path}: ')}"

    videos = sum(clip.form == "videos" for clip in clips)
    workers = max(1, min(cores(), len(clips)))
    with (
        recorder(model, videos) as record,
        ThreadPoolExecutor(workers) as pool,
        closing(pool.map(attempt, clips)) as results,  # whoever wants no more need not wait for the rest
    ):
        # None: where stderr is no terminal, as `tqdm.write` draws bars anew with each answer, delayed ones, too.
        bar = tqdm(results, desc="clips", total=len(clips), delay=2, disable=None if len(clips) > 1 else True)
        for clip, result in zip(clips, bar, strict=True):
            yield clip.path, result
