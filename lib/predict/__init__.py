"""Own video in, sign out: `name_sign` for one clip, `python -m lib.predict --help` for many, and for longer videos."""

from pathlib import Path

import numpy as np
import pandas as pd

from lib.predict.model import Model, open_model, probabilities
from lib.predict.recordings import find_inputs, pose_recording, recorder
from lib.settings import StudyError


def name_sign(clip: str | Path | np.ndarray, model: str | Path | None = None, top: int = 5) -> pd.Series:
    """The likeliest glosses of a clip of one sign with their probabilities, in order.

    clip: a video, a folder of OpenPose keypoints or a file of landmarks; or poses, float (frames, joints, 3) of x, y,
    in any unit, and 1, or 0 for a joint that was not seen. The joints are those listed in the model's card, and a joint
    with a value that is not finite counts as not seen; `lib.data.hands.order_hands` makes this of MediaPipe's hands.
    model: see `open_model`; by default the best released one.
    Raises StudyError when either cannot be read, the model reads something else, or nobody is seen in the clip.
    """
    opened = open_model(model)
    return pd.Series(probabilities(opened.logits([read_clip(clip, opened)]))[0], opened.glosses).nlargest(top)


def read_clip(clip: str | Path | np.ndarray, model: Model) -> np.ndarray:
    """What a model reads of a clip, which is as `name_sign` takes it: float32 (frames, …).

    Raises StudyError when the clip cannot be read, the model reads something else, or nobody is seen in it.
    """
    if isinstance(clip, str | Path):
        found = find_inputs(str(clip))
        if len(found) > 1:
            raise StudyError(f"{clip}: holds {len(found)} clips; name one, or use `python -m lib.predict`")
        with recorder(model, videos=int(found[0].form == "videos")) as record:
            return record(found[0]).clip()
    poses = np.asarray(clip, np.float32)
    joints = len(model.layout.joints) if model.layout else 0
    if poses.ndim != 3 or poses.shape[1:] != (joints, 3):
        reads = f"poses (frames, {joints}, 3)" if joints else "videos"
        raise StudyError(f"{model.name} reads {reads}, not an array {poses.shape}")
    seen = np.isfinite(poses).all(-1, keepdims=True) & (poses[..., 2:] > 0)
    poses = np.where(seen, np.concatenate([poses[..., :2], seen], -1), 0).astype(np.float32)
    return pose_recording(poses, None, "the clip", model).clip()
