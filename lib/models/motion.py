"""What changes in a clip, as the input of a network in place of what is seen."""

from __future__ import annotations

from typing import Any

from keras import ops

DIFFERENCES = "read what changes from frame to frame, in which clothes and rooms are not seen (arXiv 1608.00859)"


def frame_differences(frames: Any, before: Any = None, seen: Any = None) -> Any:
    """Each frame less the one before, and 0 for the first of a clip.

    frames: float (batch, frames, height, width, 3), as is the result. Where a clip goes on, `before` is its last frame
    so far, (batch, 1, height, width, 3), and `seen`, (batch, 1), how many there were; with none, `before` is not used.
    The "RGB difference" of Wang et al. 2016 (Temporal Segment Networks, section 3.2), there as a stream of its own.
    """
    first = frames[:, :1]
    if before is None:
        before = first
    else:
        goes_on = ops.reshape(ops.minimum(seen, 1.0), (-1, 1, 1, 1, 1))
        before = first + goes_on * (before - first)
    if frames.shape[1] > 1:
        before = ops.concatenate([before, frames[:, :-1]], axis=1)
    return frames - before
