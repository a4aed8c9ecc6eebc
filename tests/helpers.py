"""Helpers that several test modules share."""

import av
import numpy as np
import pandas as pd


def encode_video(path, images):
    """Write images, uint8 (height, width, 3) each, as H.264 with little loss. Returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "4", "preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = *images[0].shape[:2], "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def numbered_images(count, first=0, height=96, width=128):
    """Images whose brightness says their number."""
    return [np.full((height, width, 3), 40 + 5 * (first + number), np.uint8) for number in range(count)]


def numbers_of(images):
    """The numbers of `numbered_images`."""
    return np.round((np.asarray(images, float).mean(axis=(1, 2, 3)) - 40) / 5).astype(int).tolist()


def walker(count, height=96, width=128, at=(80, 40), side=20):
    """Images of a white square that moves a little about `at` in front of a still background."""
    background = np.random.default_rng(0).integers(60, 120, (height, width, 3)).astype(np.uint8)
    images = [background.copy() for _ in range(count)]
    for number, image in enumerate(images):
        x = at[0] + round(8 * np.sin(number))
        image[at[1] : at[1] + side, x : x + side] = 230
    return images


def index_of_videos(**videos):
    """An index of videos: video_id -> path, or a dict with the columns that differ."""
    rows = [row if isinstance(row, dict) else {"path": row} for row in videos.values()]
    fixed = {"status": "present", "frame_start": 0, "frame_end": -1, "bbox": None}
    return pd.DataFrame(
        [fixed | row | {"video_id": name, "path": str(row["path"])} for name, row in zip(videos, rows, strict=True)]
    )
