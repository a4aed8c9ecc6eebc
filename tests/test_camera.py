"""Signs as a camera shows them; video files and made-up frames stand in for the camera."""

import weakref
from dataclasses import replace

import cv2
import numpy as np
import pytest

from helpers import FRAMES, GLOSSES, SIZE, encode_video, numbered_images, numbers_of, stand_in
from lib.data.layouts import LAYOUTS
from lib.predict import camera as module
from lib.predict.__main__ import main
from lib.predict.camera import EVERY, HOLD, RECENT, SPAN, open_camera, watch
from lib.predict.model import Model
from lib.settings import StudyError

FPS = 25


def video_model(run, **changes):
    """A model of clips that answers what `run` says of each."""
    model = Model("a/b", GLOSSES, None, FRAMES, SIZE, None, -np.inf, lambda clips: np.stack([*map(run, clips)]))
    return replace(model, **changes)


def moments(count, fps=FPS):
    """Frames of a camera whose brightness says their number."""
    return ((number / fps, image) for number, image in enumerate(numbered_images(1) * count))


def test_a_file_in_the_place_of_a_camera_gives_its_frames_at_its_times(tmp_path):
    path = encode_video(tmp_path / "a.mp4", numbered_images(6))
    seen = list(open_camera(str(path)))
    assert [seconds for seconds, _ in seen] == [number / 25 for number in range(6)]
    assert numbers_of([image for _, image in seen]) == list(range(6))
    with pytest.raises(StudyError, match=r"none\.mp4: "):
        next(open_camera(str(tmp_path / "none.mp4")))


class Device:
    """In the place of OpenCV's camera: three frames, then none."""

    def __init__(self, number):
        self.number, self.left, self.released = number, [np.full((4, 6, 3), (10, 20, 30), np.uint8)] * 3, False
        Device.last = self

    def isOpened(self):  # noqa: N802, OpenCV's name
        return self.number == 7

    def read(self):
        return (True, self.left.pop()) if self.left else (False, None)

    def release(self):
        self.released = True


def test_a_camera_gives_rgb_frames_at_rising_times_until_it_stops(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Device)
    seen = []
    with pytest.raises(StudyError, match="camera 7 has stopped"):
        seen.extend(open_camera("7"))
    camera = open_camera("7")
    seen += [next(camera), next(camera)]
    assert seen[0][0] <= seen[1][0]
    assert seen[0][1][0, 0].tolist() == [30, 20, 10]
    camera.close()
    assert Device.last.released


def test_a_camera_that_cannot_be_opened_is_one_line(of_videos, capfd):
    assert main(["--camera", "99", "--model", str(of_videos.files["tflite"])]) == 1
    out, err = capfd.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("error: camera 99 cannot be opened: is it connected")
    assert out == ""


def test_a_clip_model_reads_the_last_seconds_as_a_clip_every_so_often():
    given = []

    def run(clip):
        given.append(clip)
        return np.zeros(3, np.float32)

    images = numbered_images(40, height=80, width=100)
    shown = [(number / 8, image) for number, image in enumerate(images)]  # five seconds
    list(watch(video_model(run), shown))
    assert all(clip.shape == (FRAMES, SIZE, SIZE, 3) and clip.dtype == np.float32 for clip in given)
    read = [numbers_of(clip * 255) for clip in given]
    asked = range(2, 40, 2)  # the first frame is no clip
    assert len(read) == len(asked)
    for numbers, last in zip(read, asked, strict=True):
        first = max(0, last - round(8 * SPAN))
        assert numbers[0] >= first
        assert numbers[-1] <= last
        assert np.diff(numbers).max() <= np.ceil((last + 1 - first) / FRAMES)
        assert numbers[-1] - numbers[0] >= (last - first) // 2


def test_an_answer_is_steady_after_as_many_equal_ones():
    answers = iter([0, 0, 1, 1, 1, 1, 2, 1])
    model = video_model(lambda clip: 5.0 * np.eye(3)[next(answers)])
    sights = list(watch(model, ((number * EVERY * 1.01, image) for number, image in enumerate(numbered_images(9)))))
    assert [sight.gloss for sight in sights] == [
        "",
        *["book", "book", "drink", "drink", "drink", "drink", "computer", "drink"],
    ]
    assert [number for number, sight in enumerate(sights) if sight.steady] == [5, 6]
    assert HOLD == 3
    assert sights[1].share == pytest.approx(np.exp(5) / (np.exp(5) + 2))


def test_between_two_answers_the_last_one_stands():
    asked = []
    model = video_model(lambda clip: asked.append(1) or np.array([3.0, 0, 0]))
    sights = list(watch(model, moments(50)))
    assert len(sights) == 50
    assert len(asked) == pytest.approx(50 / FPS / EVERY, abs=2)
    assert {sight.gloss for sight in sights[10:]} == {"book"}


def test_a_sign_that_the_model_does_not_know_is_none():
    model = video_model(lambda clip: np.array([3.0, 0, 0]), known_from=3.1)
    assert {(sight.gloss, sight.share, sight.steady) for sight in watch(model, moments(50))} == {("", 0, False)}


def test_the_rate_is_that_of_the_last_frames(monkeypatch):
    clock = iter([*np.arange(10) / 10, *1 + np.arange(RECENT) / 50])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    sights = list(watch(video_model(lambda clip: np.zeros(3)), moments(10 + RECENT)))
    assert sights[0].rate == 0
    assert sights[9].rate == pytest.approx(10)
    assert sights[-1].rate == pytest.approx(50)


def test_frames_are_not_kept_for_ever(monkeypatch):
    kept, most, picture = [], 0, module._picture

    def watched(*given):
        made = picture(*given)
        kept.append(weakref.ref(made))
        return made

    monkeypatch.setattr(module, "_picture", watched)
    model = video_model(lambda clip: np.zeros(3))
    for _ in watch(model, ((number / 10, image) for number, image in enumerate(numbered_images(20) * 5))):
        most = max(most, sum(reference() is not None for reference in kept))
    assert len(kept) == 100
    assert most <= 10 * SPAN + 3


def test_a_pose_model_reads_the_last_seconds_alone(tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch)
    lengths, parts = [], module.parts_of
    monkeypatch.setattr(module, "parts_of", lambda values: lengths.append(len(values)) or parts(values))
    model = replace(video_model(lambda clip: np.zeros(3)), layout=LAYOUTS["hands-42"], frames=9)
    for _ in watch(model, ((number / 10, image) for number, image in enumerate(numbered_images(20) * 5))):
        pass
    assert lengths[0] == 1
    assert lengths[-1] == max(lengths) == 10 * SPAN + 1
