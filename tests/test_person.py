"""Finding the person who moves."""

import numpy as np
import pytest

from helpers import encode_video, walker
from lib.data.person import find_mover


def test_mover_is_found_and_a_still_scene_has_none(tmp_path):
    video = encode_video(tmp_path / "a.mp4", walker(30))
    xmin, ymin, xmax, ymax = find_mover(video, 0, 30)
    assert xmin <= 76
    assert ymin <= 42
    assert xmax >= 104
    assert ymax >= 58
    assert (xmax - xmin) == pytest.approx(ymax - ymin)
    assert xmax - xmin < 70
    assert find_mover(encode_video(tmp_path / "b.mp4", [walker(1)[0]] * 20), 0, 20) is None
    assert find_mover(video, 4, 5) is None


def test_noise_alone_is_nobody_and_somebody_in_noise_is_found(tmp_path):
    noise = np.random.default_rng(1)
    moving, still = (
        [np.clip(image + noise.normal(0, 12, image.shape), 0, 255).astype(np.uint8) for image in images]
        for images in (walker(40), [walker(1)[0]] * 40)
    )
    assert find_mover(encode_video(tmp_path / "still.mp4", still), 0, 40) is None
    xmin, ymin, xmax, ymax = find_mover(encode_video(tmp_path / "moving.mp4", moving), 0, 40)
    assert xmin <= 80 <= 100 <= xmax
    assert ymin <= 42 <= 58 <= ymax
