"""Own video in, sign out: seconds a clip by stage, and frames a second of the camera loop

With the best released model (a pose model in TensorFlow Lite, one thread) and MediaPipe Holistic in one process, on
videos of a data root. "Ours" is the median clip's, the peer is real time: how long the clip lasts, or the rate of its
frames. The last rows are the command, `python -m lib.predict`: on one clip, and per clip of the folder, with all cores.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from bench.report import machine, row, versions, write
from lib.data.find import locate
from lib.data.holistic import Holistic, find_poses, to_layout
from lib.data.video import frames, probe
from lib.machine import cores
from lib.predict.camera import open_camera, watch
from lib.predict.model import Model, open_model
from lib.predict.recordings import pose_recording
from lib.settings import StudyError

CLIPS, WATCHED = 12, 100  # clips to measure, and frames of the camera loop after as many that are not


def main(name: str = "predict", root: str = "") -> Path | None:
    """Measure on clips of `root`, or $DATA, and write the report; None where there are none, or no MediaPipe."""
    where, root = machine(), Path(root or os.environ.get("DATA") or ".")
    try:
        videos = [place.path for place in locate(root, "videos", ())[1]][:CLIPS]
        lasting = [probe(video).frames / (probe(video).fps or 25) for video in videos]
        model = open_model()
        with closing(Holistic()) as holistic:
            holistic.start()
            stages = [stage_seconds(video, model, holistic) for video in videos]
            used = versions("ai-edge-litert", "av") | {"mediapipe": holistic.version}
        rows = [
            row(f"a clip: {stage}", "s", [seconds[stage] for seconds in stages], lasting, threads=1, target="")
            for stage in stages[0]
        ]
        rows.append(row("camera, pose model", "frames/s", *rates(videos[0], model), threads=1, target=""))
        for label, given in (("command, one clip", videos[:1]), (f"command, each of {len(videos)} clips", videos)):
            seconds = timed(subprocess.run, [sys.executable, "-m", "lib.predict", *map(str, given)], check=True)
            rows.append(
                row(label, "s", [seconds / len(given)], [np.mean(lasting[: len(given)])], threads=cores(), target="")
            )
    except StudyError as error:
        print(f"not measured: {error}; DATA=<root> names one", file=sys.stderr)
        return None
    return write(name, __doc__, rows, used, where)


def timed(work: Callable[..., Any], *arguments: Any, **options: Any) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    work(*arguments, **options)
    return time.perf_counter() - start


def stage_seconds(video: Path, model: Model, holistic: Holistic) -> dict[str, float]:
    """Seconds of each stage of naming a clip: its decoding, MediaPipe's part without that, and the model."""
    decoding = timed(lambda: sum(1 for _ in frames(video)))
    start = time.perf_counter()
    poses = to_layout(find_poses(video, holistic), model.layout)
    both = time.perf_counter() - start
    recording = pose_recording(poses, None, str(video), model)
    naming = timed(lambda: model.logits([recording.clip()]))
    return {"decode": decoding, "poses": both - decoding, "model": naming}


def rates(video: Path, model: Model) -> tuple[list[float], list[float]]:
    """Frames a second of the camera loop with a video in the place of the camera, again and again, and the video's."""
    fps = probe(video).fps or 25
    images = [image for _, image in open_camera(str(video))]
    moments = ((number / fps, images[number % len(images)]) for number in range(2 * WATCHED))
    sights = watch(model, moments)
    for _ in islice(sights, WATCHED):
        pass
    return [WATCHED / timed(lambda: sum(1 for _ in sights))], [fps]
