"""What changes in a clip, as the input of a network in place of what is seen."""

from __future__ import annotations

from typing import Any

from keras import ops

DIFFERENCES = "read what changes from frame to frame, in which clothes and rooms are not seen (arXiv 1608.00859)"


def frame_differences(clips: Any) -> Any:
    """Each frame less the one before, and 0 for the first: float (batch, frames, height, width, 3) -> the same.

    The "RGB difference" of Wang et al. 2016 (Temporal Segment Networks, section 3.2), there as a stream of its own.
    """
    after_first = clips[:, 1:] - clips[:, :-1]
    return ops.concatenate([ops.zeros_like(clips[:, :1]), after_first], axis=1)
