"""Batches of poses and of stored clips for `fit`, `predict` and `evaluate`.

With `vary` (training), clips are shuffled and augmented anew in each epoch, with random numbers that depend only on
seed, epoch and batch or clip, so a training that resumes sees what it would have seen. Without it (evaluation), batches
contain the clips in the order given, unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from lib.data.augment import ClipAugment, PoseAugment, augment_clip, resize
from lib.data.clip_store import read_layers
from lib.data.drawing import Drawing, Pen
from lib.data.layouts import Layout
from lib.data.poses import pad, shorten
from lib.data.video import sample_frames

if TYPE_CHECKING:
    import torch

AHEAD = 2  # batches prepared while another is in use


class Batches(keras.utils.PyDataset):
    """What both kinds share: order, epochs and targets. A subclass reads the clips of a batch in `_read`.

    on_gpu: whether batches are made on a GPU.
    """

    on_gpu = False

    def __init__(
        self,
        clips: Sequence[np.ndarray] | Sequence[Path],
        labels: np.ndarray | None,
        num_classes: int,
        batch_size: int,
        *,
        vary: PoseAugment | ClipAugment | None = None,
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
        self.one_hot = np.eye(num_classes, dtype=np.float32)
        self.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
        clips = self._read(number)
        return (clips,) if self.labels is None else (clips, self._targets(number))

    def _targets(self, number: int) -> np.ndarray:
        return self.one_hot[self.labels[self.order[number]]]

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

    In training, batches are torch tensors, made on the device that Keras uses, where all clips are kept; so they need
    the torch backend. Clips of similar length share a batch, so there is little padding.
    """

    on_cpu = False  # always

    def __init__(
        self,
        clips: list[np.ndarray],
        *args: Any,
        max_frames: int,
        least: int = 1,
        pad_to: int = 8,
        layout: Layout | None = None,
        **options: Any,
    ) -> None:
        """Take clips, each (frames, joints, 3), and the other arguments of Batches; `vary` needs `layout`.

        Longer clips are resampled to `max_frames`, shorter ones to `least`; batches are padded to a multiple of
        `pad_to` frames.
        """
        self.least, self.max_frames, self.pad_to = least, max_frames, pad_to
        self.lengths = np.array([len(clip) for clip in clips])
        super().__init__(clips, *args, **options)
        self.teach: Callable[[Any, Any], Any] | None = None  # poses, targets -> the targets instead; see lib.transfer
        if self.vary is not None:
            self._move_to_device(layout)

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        batch = super().__getitem__(number)
        return batch if self.teach is None else (batch[0], self.teach(*batch))

    def _move_to_device(self, layout: Layout) -> None:
        import torch

        from lib.data.pose_augment import AugmentedPoses

        device = torch.device("cpu") if self.on_cpu else keras.ops.zeros(()).device
        self.on_gpu = device.type == "cuda"
        form = {"max_frames": self.max_frames, "least": self.least, "pad_to": self.pad_to}
        self.augmented = AugmentedPoses(self.clips, self.vary, layout, device, **form)
        self.one_hot = torch.from_numpy(self.one_hot).to(device)
        # The clips in order of their glosses, and where each gloss begins. Without labels each clip is alone.
        labels = np.arange(len(self.clips)) if self.labels is None else self.labels
        _, self.gloss, self.count = np.unique(labels, return_inverse=True, return_counts=True)
        self.by_gloss, self.begin = np.argsort(self.gloss, kind="stable"), np.cumsum(self.count) - self.count

    def _shuffle(self, rows: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        # Jittered, so that a clip has other neighbours in every epoch.
        batches = self._split(np.argsort(self.lengths * rng.uniform(0.8, 1.25, len(rows))))
        return [batches[i] for i in rng.permutation(len(batches))]

    def _read(self, number: int) -> np.ndarray | torch.Tensor:
        rows = self.order[number]
        if self.vary is None:
            return pad([shorten(self.clips[row], self.max_frames, self.least) for row in rows], self.pad_to)
        rng, gloss = np.random.default_rng([self.seed, self.epoch, number]), self.gloss[rows]
        others = self.by_gloss[self.begin[gloss] + rng.integers(self.count[gloss])]
        return self.augmented.batch(rows, others, rng)

    def _targets(self, number: int) -> np.ndarray | torch.Tensor:
        if self.vary is None:
            return super()._targets(number)
        labels = self.labels[self.order[number]]
        return self.one_hot[self.augmented.to_device(labels)]


class DrawnBatches(PoseBatches):
    """Batches of drawn poses, float32 (batch, frames, size, size, 3) in [0, 1], on every backend.

    The poses are varied before they are drawn, and all clips are resampled to `frames` frames.
    """

    on_cpu = True
    _shuffle = Batches._shuffle

    def __init__(
        self, clips: list[np.ndarray], *args: Any, frames: int, size: int, drawing: Drawing, layout: Layout, **more: Any
    ) -> None:
        """Take clips, each (frames', joints, 3) in `layout`, and the other arguments of Batches."""
        self.pen, self.size = Pen(drawing, layout), size
        super().__init__(clips, *args, max_frames=frames, least=frames, pad_to=1, layout=layout, **more)

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
        poses, *targets = map(np.asarray, super().__getitem__(number))
        images = np.empty((*poses.shape[:2], self.size, self.size, 3), np.float32)
        for clip, drawn in zip(poses, images, strict=True):
            self.pen.draw(clip, self.size, drawn)
        return images, *targets


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
