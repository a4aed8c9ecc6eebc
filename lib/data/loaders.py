"""Batches of pose clips: length-bucketed, padded as little as possible, the same for the same seed and epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np

from lib.data.augment import ClipAugment, augment_clip, resample, resize
from lib.data.clip_store import read_stored
from lib.data.video import sample_frames

# A clip, another one of the same gloss (without labels: the clip itself), random numbers -> the clip, varied.
Vary = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


class PoseBatches(keras.utils.PyDataset):
    """What `fit`, `predict` and `evaluate` read: poses float32 (batch, frames, joints, 3) and one-hot labels.

    Clips of similar length share a batch, so little is padded; the padding is frames without joints, which every
    model masks. With `vary` (training) clips are shuffled and varied anew in each epoch, drawing from
    (seed, epoch, batch): an interrupted training that starts again at an epoch sees what it would have seen.
    Without it (evaluation) the order is that of the clips given.
    """

    def __init__(
        self,
        clips: list[np.ndarray],
        labels: np.ndarray | None,
        num_classes: int,
        batch_size: int,
        *,
        max_frames: int,
        vary: Vary | None = None,
        seed: int = 0,
        epoch: int = 0,
        pad_to: int = 8,
    ) -> None:
        """Hold the clips, each (frames, joints, 3), and their labels (n,) or None for prediction.

        Clips longer than `max_frames` are resampled to that length. Raises ValueError for an empty list.
        """
        super().__init__()
        if not clips:
            raise ValueError("no clips to make batches of")
        self.clips = clips
        self.targets = None if labels is None else np.eye(num_classes, dtype=np.float32)[labels]
        numbers = np.arange(len(clips))
        self.alike = numbers[:, None] if labels is None else [np.flatnonzero(labels == label) for label in labels]
        self.batch_size, self.max_frames, self.pad_to = batch_size, max_frames, pad_to
        self.vary, self.seed, self.epoch = vary, seed, epoch
        self.lengths = np.array([len(clip) for clip in clips])
        self.order = self._order()

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
        rows = self.order[number]
        rng = np.random.default_rng([self.seed, self.epoch, number])
        poses = pad([self._clip(row, rng) for row in rows], self.pad_to)
        return (poses,) if self.targets is None else (poses, self.targets[rows])

    def on_epoch_end(self) -> None:
        """Go on to the next epoch; keras calls this."""
        self.set_epoch(self.epoch + 1)

    def set_epoch(self, epoch: int) -> None:
        """Take the order, and the variations, of this epoch."""
        self.epoch = epoch
        self.order = self._order()

    def _clip(self, row: int, rng: np.random.Generator) -> np.ndarray:
        clip = self.clips[row]
        if self.vary is not None:
            clip = self.vary(clip, self.clips[rng.choice(self.alike[row])], rng)
        return shorten(clip, self.max_frames)

    def _order(self) -> list[np.ndarray]:
        if self.vary is None:
            return _split(np.arange(len(self.clips)), self.batch_size)
        rng = np.random.default_rng([self.seed, self.epoch])
        # Sorted by a jittered length: like with like in a batch, yet other neighbours in every epoch.
        jittered = self.lengths * rng.uniform(0.8, 1.25, len(self.lengths))
        batches = _split(np.argsort(jittered), self.batch_size)
        return [batches[i] for i in rng.permutation(len(batches))]


def shorten(clip: np.ndarray, max_frames: int) -> np.ndarray:
    """Resample a clip evenly to `max_frames` when it is longer."""
    return clip if len(clip) <= max_frames else resample(clip, np.linspace(0, len(clip) - 1, max_frames))


def trim(clip: np.ndarray) -> np.ndarray:
    """Cut off leading and trailing frames without any joint; a clip without joints becomes one empty frame."""
    seen = np.flatnonzero(clip[..., 2].any(1))
    return clip[seen[0] : seen[-1] + 1] if len(seen) else clip[:1]


def pad(clips: list[np.ndarray], multiple: int) -> np.ndarray:
    """Stack clips (frames_i, joints, 3), padded with missing frames to the longest, rounded up to `multiple`."""
    longest = max(map(len, clips))
    batch = np.zeros((len(clips), -(-longest // multiple) * multiple, *clips[0].shape[1:]), np.float32)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
    return batch


def _split(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]


AHEAD = 2  # batches made while another is in use


class ClipBatches(keras.utils.PyDataset):
    """What `fit`, `predict` and `evaluate` read: float32 (batch, frames, size, size, 3) in [0, 1], one-hot labels.

    With `vary` (training) clips are shuffled and varied anew in each epoch, drawing from (seed, epoch, clip): an
    interrupted training that starts again at an epoch sees what it would have seen. Without it (evaluation) the order
    is that of the clips given, with the middle frames and the whole image.
    Threads make the next AHEAD batches while one is in use (keras' own workers may hand on batches of the epoch
    before). No more than these are ever in memory.
    """

    def __init__(
        self,
        clips: Sequence[Path],
        labels: np.ndarray | None,
        num_classes: int,
        batch_size: int,
        *,
        frames: int = 20,
        size: int = 224,
        vary: ClipAugment | None = None,
        seed: int = 0,
        epoch: int = 0,
        threads: int = 2,
    ) -> None:
        """Take the paths of stored clips (n,) and their labels (n,), or None for prediction.

        Raises ValueError for an empty list; reading a batch raises StudyError when one of its clips cannot be read.
        """
        super().__init__()
        if not len(clips):
            raise ValueError("no clips to make batches of")
        self.clips = [Path(path) for path in clips]
        self.targets = None if labels is None else np.eye(num_classes, dtype=np.float32)[labels]
        self.batch_size, self.frames, self.size = batch_size, frames, size
        self.vary, self.seed = vary, seed
        self.pool = ThreadPoolExecutor(threads)
        self.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
        wanted = range(number, min(number + 1 + AHEAD, len(self)))
        self.begun = {ahead: self.begun.get(ahead) or self._begin(ahead) for ahead in wanted}
        batch, pending = self.begun.pop(number)
        for clip in pending:
            clip.result()
        return (batch,) if self.targets is None else (batch, self.targets[self.order[number]])

    def on_epoch_end(self) -> None:
        """Go on to the next epoch; keras calls this."""
        self.set_epoch(self.epoch + 1)

    def set_epoch(self, epoch: int) -> None:
        """Take the order, and the variations, of this epoch."""
        self.epoch = epoch
        self.begun: dict[int, tuple[np.ndarray, list[Future]]] = {}
        rows = np.arange(len(self.clips))
        if self.vary is not None:
            rows = np.random.default_rng([self.seed, epoch]).permutation(rows)
        self.order = [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]

    def _begin(self, number: int) -> tuple[np.ndarray, list[Future]]:
        """The array of a batch and the threads' work on its clips."""
        rows = self.order[number]
        batch = np.empty((len(rows), self.frames, self.size, self.size, 3), np.float32)
        return batch, [self.pool.submit(self._fill, *pair, self.epoch) for pair in zip(batch, rows, strict=True)]

    def _fill(self, clip: np.ndarray, row: int, epoch: int) -> None:
        images = self._read(self.clips[row], np.random.default_rng([self.seed, epoch, row]))
        np.multiply(images, np.float32(1 / 255), out=clip)

    def _read(self, path: Path, rng: np.random.Generator) -> np.ndarray:
        """One clip, uint8 (frames, size, size, 3)."""
        if self.vary is None:
            return resize(read_stored(path, lambda n: sample_frames(0, n, self.frames), self.size), self.size)
        jitter = rng if rng.random() < self.vary.jitter else None
        least = int(self.size / (1 - self.vary.crop))  # so that a crop need not be enlarged more than the whole
        images = read_stored(path, lambda n: sample_frames(0, n, self.frames, jitter=jitter), least)
        return augment_clip(images, self.size, self.vary, rng)
