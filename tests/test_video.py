"""Probing and decoding video files, whole and broken."""

import av
import numpy as np
import pytest

from lib.data.video import frames, probe
from lib.study import StudyError


def write_video(path, n_frames=30, rate=30, codec="mpeg4", options=None):
    """A video of a bright square moving over noise; frame i is brighter at column i."""
    noise = np.random.default_rng(0)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(n_frames):
            image = noise.integers(0, 60, (48, 64, 3), dtype=np.uint8)
            image[10:40, number : number + 8] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".mov"])
def test_probe_reports_rate_frames_and_size(tmp_path, suffix):
    info = probe(write_video(tmp_path / f"clip{suffix}"))
    assert (info.fps, info.frames, info.width, info.height) == (30.0, 30, 64, 48)


def test_frames_come_in_order_as_rgb(tmp_path):
    images = list(frames(write_video(tmp_path / "clip.mp4")))
    assert len(images) == 30
    assert images[0].shape == (48, 64, 3)
    assert images[0].dtype == np.uint8
    columns = [image[20:30].mean(axis=(0, 2)).argmax() for image in images]
    assert all(number - 1 <= column <= number + 8 for number, column in enumerate(columns))
    assert columns[29] > columns[15] > columns[0]


def test_file_without_its_header_cannot_be_opened(tmp_path):
    path = cut(write_video(tmp_path / "clip.mp4"), 0.5)  # an mp4's header stands at its end
    with pytest.raises(StudyError, match=r"clip.mp4: cannot be opened as a video"):
        probe(path)


def test_file_cut_mid_stream_says_how_many_frames_are_there(tmp_path):
    path = cut(write_video(tmp_path / "clip.mp4", options={"movflags": "faststart"}), 0.6)
    with pytest.raises(StudyError, match=r"clip.mp4: cut short, \d+ of 30 frames are in the file"):
        probe(path)


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_other_containers_cut_mid_stream_are_refused(tmp_path, suffix):
    path = cut(write_video(tmp_path / f"clip{suffix}", n_frames=60), 0.6)
    with pytest.raises(StudyError, match=rf"clip{suffix}: "):
        probe(path)


def test_frames_of_a_cut_file_end_in_the_same_error(tmp_path):
    path = cut(write_video(tmp_path / "clip.mp4", options={"movflags": "faststart"}), 0.6)
    with pytest.raises(StudyError, match="cut short"):
        list(frames(path))


def test_absent_file_and_text_file_are_named(tmp_path):
    with pytest.raises(StudyError, match=r"none.mp4: cannot be opened as a video \(No such file"):
        probe(tmp_path / "none.mp4")
    (tmp_path / "page.mp4").write_text("<html>404</html>" * 100)
    with pytest.raises(StudyError, match=r"page.mp4: cannot be opened as a video"):
        probe(tmp_path / "page.mp4")


def test_zeroed_middle_is_refused(tmp_path):
    path = write_video(tmp_path / "clip.mp4", options={"movflags": "faststart"})
    content = bytearray(path.read_bytes())
    content[len(content) // 4 :] = bytes(len(content) - len(content) // 4)
    path.write_bytes(content)
    with pytest.raises(StudyError, match=r"clip.mp4: damaged, \d+ of 30 packets"):
        probe(path)


def test_real_clip_whose_last_packet_is_damaged_stays_readable(wlasl_root):
    assert probe(wlasl_root / "videos" / "69366.mp4").frames == 64
