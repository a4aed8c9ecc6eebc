"""Batches of poses and of stored clips for `fit`, `predict` and `evaluate`.

With `vary` (training), clips are shuffled and augmented anew in each epoch, with random numbers that depend only on
seed, epoch and batch or clip, so a training that resumes sees what it would have seen. Without it (evaluation), batches
contain the clips in the order given, unchanged.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np

from lib.data.augment import ClipAugment, augment_clip, resize
from lib.data.clip_store import read_layers
from lib.data.poses import pad, shorten
from lib.data.video import sample_frames

# A clip, another clip of the same gloss (without labels: the clip itself), random numbers -> the augmented clip.
Vary = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
AHEAD = 2  # batches prepared while another is in use


class Batches(keras.utils.PyDataset):
    """What both kinds share: order, epochs and targets. A subclass reads the clips of a batch in `_read`."""

    def __init__(
        self,
        clips: Sequence[np.ndarray] | Sequence[Path],
        labels: np.ndarray | None,
        num_classes: int,
        batch_size: int,
        *,
        vary: Vary | ClipAugment | None = None,
        seed: int = 0,
        epoch: int = 0,
    ) -> None:
        """Take n clips and their labels (n,), or None for prediction. Raises ValueError for an empty list.

        A batch is (clips,) or, with labels, (clips, one-hot targets), all float32.
        """
        super().__init__()
        if not len(clips):
            raise ValueError("no clips to make batches of")
        self.clips, self.batch_size, self.vary, self.seed = clips, batch_size, vary, seed
        self.labels = labels
        self.targets = None if labels is None else np.eye(num_classes, dtype=np.float32)[labels]
        self.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
        clips = self._read(number)
        return (clips,) if self.targets is None else (clips, self.targets[self.order[number]])

    def on_epoch_end(self) -> None:
        """Go on to the next epoch; Keras calls this."""
        self.set_epoch(self.epoch + 1)

    def set_epoch(self, epoch: int) -> None:
        """Switch to the order and the augmentation of an epoch."""
        self.epoch = epoch
        rows, rng = np.arange(len(self.clips)), np.random.default_rng([self.seed, epoch])
        self.order = self._split(rows) if self.vary is None else self._shuffle(rows, rng)

    def _shuffle(self, rows: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        return self._split(rng.permutation(rows))

    def _split(self, rows: np.ndarray) -> list[np.ndarray]:
        return [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]


class PoseBatches(Batches):
    """Batches of poses, float32 (batch, frames, joints, 3), padded with frames without joints, which models mask.

    In training, clips of similar length share a batch, so there is little padding.
    """

    def __init__(self, clips: list[np.ndarray], *args: Any, max_frames: int, pad_to: int = 8, **options: Any) -> None:
        """Take clips, each (frames, joints, 3), and the other arguments of Batches.

        Longer clips are resampled to `max_frames`; batches are padded to a multiple of `pad_to` frames.
        """
        self.max_frames, self.pad_to = max_frames, pad_to
        self.lengths = np.array([len(clip) for clip in clips])
        super().__init__(clips, *args, **options)
        labels = np.arange(len(clips)) if self.labels is None else self.labels
        self.same_gloss = [np.flatnonzero(labels == label) for label in labels]

    def _shuffle(self, rows: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        # Jittered, so that a clip has other neighbours in every epoch.
        batches = self._split(np.argsort(self.lengths * rng.uniform(0.8, 1.25, len(rows))))
        return [batches[i] for i in rng.permutation(len(batches))]

    def _read(self, number: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, self.epoch, number])
        clips = []
        for row in self.order[number]:
            clip = self.clips[row]
            if self.vary is not None:
                clip = self.vary(clip, self.clips[rng.choice(self.same_gloss[row])], rng)
            clips.append(shorten(clip, self.max_frames))
        return pad(clips, self.pad_to)


class ClipBatches(Batches):
    """Batches of stored clips, float32 (batch, frames, size, size, 3) in [0, 1].

    Evaluation takes the middle frames of even spans and the whole image. Threads prepare the next AHEAD batches while
    one is in use; no more are ever in memory. (Keras' own workers may deliver batches of the previous epoch.)
    """

    def __init__(
        self, clips: Sequence[Path], *args: Any, frames: int = 20, size: int = 224, threads: int = 2, **options: Any
    ) -> None:
        """Take the paths of stored clips and the other arguments of Batches.

        Reading a batch raises StudyError when one of its clips cannot be read.
        """
        self.frames, self.size = frames, size
        self.pool = ThreadPoolExecutor(threads)
        self.begun: dict[tuple[int, int], tuple[np.ndarray, list[Future]]] = {}  # by epoch and number
        super().__init__([Path(path) for path in clips], *args, **options)

    def _read(self, number: int) -> np.ndarray:
        wanted = [(self.epoch, ahead) for ahead in range(number, min(number + 1 + AHEAD, len(self)))]
        self.begun = {key: self.begun.get(key) or self._begin(*key) for key in wanted}
        batch, pending = self.begun.pop(wanted[0])
        for clip in pending:
            clip.result()
        return batch

    def _begin(self, epoch: int, number: int) -> tuple[np.ndarray, list[Future]]:
        """The array of a batch, and the futures of the threads that fill it."""
        rows = self.order[number]
        batch = np.empty((len(rows), self.frames, self.size, self.size, 3), np.float32)
        return batch, [self.pool.submit(self._fill, *pair, epoch) for pair in zip(batch, rows, strict=True)]

    def _fill(self, clip: np.ndarray, row: int, epoch: int) -> None:
        path, how, rng = self.clips[row], self.vary, np.random.default_rng([self.seed, epoch, row])
        jitter = rng if how is not None and rng.random() < how.jitter else None
        least = self.size if how is None else int(self.size / (1 - how.crop))  # the smallest crop is not enlarged
        frames = read_layers(path, lambda n: sample_frames(0, n, self.frames, jitter=jitter), least)
        images = resize(frames, self.size) if how is None else augment_clip(frames, self.size, how, rng)
        for image, given in zip(images, clip, strict=True):
            np.multiply(image, np.float32(1 / 255), out=given)
