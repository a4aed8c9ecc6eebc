# /// script
# requires-python = ">=3.9,<3.13"
# dependencies = ["mediapipe==0.10.21", "numpy<2", "opencv-contrib-python-headless"]
#
# [tool.uv]
# override-dependencies = [
#   "jax; python_version < '0'", "jaxlib; python_version < '0'", "opencv-contrib-python; python_version < '0'",
# ]
# ///
"""The worker of `lib.data.holistic`: MediaPipe Holistic, frame by frame, in an environment of its own.

MediaPipe 0.10.21 is the last release whose wheel carries the models; it needs numpy 1, protobuf 4 and Python 3.12 at
most, so it cannot live with the study's packages. `uv run --script` makes its environment from the lines above, without
JAX, which only other parts of MediaPipe use (500 MB), and with the OpenCV that needs no libraries of a display.

    uv run --script workflow/holistic.py [--face]     --face: the finer model of the face, with the irises

On stdin: for each frame its height, its width and 1 if it begins a clip, else 0 (uint32, little-endian); then its
pixels, uint8 (height, width, 3) RGB. On stdout: a line of JSON, {"mediapipe": version}, once the models are loaded;
then for each frame float32 (little-endian), NaN where nothing was found: 33 joints of the body (x, y, z, visibility),
21 of the signer's left and 21 of the right hand, and 478 points of the face (x, y, z).
"""

import json
import os
import struct
import sys

import numpy as np

SIZES = {"pose": (33, 4), "left_hand": (21, 3), "right_hand": (21, 3), "face": (478, 3)}


def main(face: bool) -> None:
    """Answer frames until stdin ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever MediaPipe prints does not get among the answers
    import mediapipe

    with mediapipe.solutions.holistic.Holistic(refine_face_landmarks=face) as holistic:
        answers.write(json.dumps({"mediapipe": mediapipe.__version__}).encode() + b"\n")
        answers.flush()
        begun = False
        while head := sys.stdin.buffer.read(12):
            height, width, first = struct.unpack("<III", head)
            if first and begun:
                holistic.reset()
            begun = True
            pixels = sys.stdin.buffer.read(3 * height * width)
            found = holistic.process(np.frombuffer(pixels, np.uint8).reshape(height, width, 3))
            parts = [values(getattr(found, f"{part}_landmarks"), *SIZES[part]) for part in SIZES]
            answers.write(np.concatenate(parts).astype("<f4").tobytes())
            answers.flush()


def values(found: "NormalizedLandmarkList | None", points: int, columns: int) -> np.ndarray:  # noqa: F821
    """The values of a part, point by point; those that were not found are NaN (so are the irises without --face)."""
    table = np.full((points, columns), np.nan, np.float32)
    for row, point in enumerate(found.landmark if found else ()):
        table[row] = (point.x, point.y, point.z, point.visibility)[:columns]
    return table.ravel()


if __name__ == "__main__":
    main("--face" in sys.argv[1:])
