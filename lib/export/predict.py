"""An exported file names a sign: one's own landmarks to glosses, without training anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import softmax

from lib.data.loaders import pad, shorten, trim
from lib.export.files import open_model, read_metadata
from lib.export.network import CLIP
from lib.export.stream import LOGITS
from lib.settings import StudyError


def predict(path: Path, poses: np.ndarray, top: int = 5) -> pd.Series:
    """Give the `top` likeliest glosses of a clip of landmarks with their probabilities, the likeliest first.

    path: a .tflite or .onnx file of a pose model, such as those in reports/<study>/models/.
    poses: float (frames, joints, 3) of x, y, in any unit, and 1, or three zeros where a joint was not seen; the joints
    as the file's card lists them. `lib.data.hands.order_hands` makes this of MediaPipe's hands.
    Raises StudyError when the file can't be read, reads something else, or no joint is seen in any frame.
    """
    model, (description, labels) = open_model(path), read_metadata(path)
    shape = description["input"].get(CLIP, {}).get("shape", [])
    if poses.shape[1:] != tuple(shape[2:]):
        raise StudyError(f"{path} reads clips of {shape[2:]} behind the frames, not {list(poses.shape[1:])}")
    if not poses[..., 2].any():
        raise StudyError("no joint is seen in any frame of the clip: nothing to name")
    clip = pad([shorten(trim(poses), shape[1])], shape[1])
    return pd.Series(softmax(model({CLIP: clip})[LOGITS][0]), labels).nlargest(top)
