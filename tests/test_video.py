"""Probing, decoding and clipping video files, whole and broken, of every form that people have."""

import io
from contextlib import suppress
from fractions import Fraction
from functools import cache

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.video import frames, probe, read_clip, sample_frames, square
from lib.settings import StudyError

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


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


def encode(path, images, codec="libx264", pix_fmt="yuv420p", rotation=0, times=None, **options):
    """Write images, each (height, width, 3), losslessly enough; `times` are their moments in 1/30 s."""
    to = options.pop("to", {})
    if codec == "libx264":
        options = {"crf": "0", "preset": "ultrafast", **options}
    with av.open(path if isinstance(path, io.IOBase) else str(path), "w", **to) as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.height, stream.width, stream.pix_fmt = *images[0].shape[:2], pix_fmt
        if codec in ("mpeg4", "flv", "mjpeg"):
            stream.codec_context.qmin = stream.codec_context.qmax = 2
        if rotation:
            stream.set_display_rotation(rotation)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = (times or range(len(images)))[number], Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def numbered(count, height=48, width=64):
    """Images whose brightness says their number."""
    return [np.full((height, width, 3), 20 + 4 * number, np.uint8) for number in range(count)]


def numbers_of(clip):
    """The numbers of `numbered` images, read back from a clip."""
    return np.round((clip.mean(axis=(1, 2, 3)) - 20) / 4).astype(int).tolist()


def quarters(height=48, width=64):
    """One image: red upper left, green upper right, blue lower left, black lower right."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = RED, GREEN
    image[height // 2 :, : width // 2] = BLUE
    return image


def corners(image):
    """Which colour stands in the middle of each quarter of a square image, in reading order."""
    quarter = len(image) // 4
    names = {RED: "red", GREEN: "green", BLUE: "blue", (0, 0, 0): "black"}
    return [
        next((name for colour, name in names.items() if np.abs(image[y, x].astype(int) - colour).max() < 40), "?")
        for y in (quarter, 3 * quarter)
        for x in (quarter, 3 * quarter)
    ]


FORMS = {
    ".mp4": {},
    ".mkv": {},
    ".mov": {"codec": "mpeg4"},
    ".avi": {"codec": "mpeg4"},
    ".webm": {"codec": "libvpx-vp9", "crf": "10", "deadline": "realtime", "cpu-used": "8"},
    ".swf": {"codec": "flv"},
}


@pytest.mark.parametrize("suffix", FORMS)
def test_clip_of_every_container_holds_the_middle_frame_of_each_span(tmp_path, suffix):
    path = encode(tmp_path / f"clip{suffix}", numbered(40), **FORMS[suffix])
    clip = read_clip(path, frames=5, size=32)
    assert (clip.shape, clip.dtype) == ((5, 32, 32, 3), np.uint8)
    assert numbers_of(clip) == [4, 12, 20, 28, 36]


def test_segment_is_half_open_and_counts_from_0(tmp_path):
    path = encode(tmp_path / "clip.mp4", numbered(40))
    assert numbers_of(read_clip(path, frames=4, size=16, start=7, end=11)) == [7, 8, 9, 10]
    assert numbers_of(read_clip(path, frames=3, size=16, start=37)) == [37, 38, 39]
    assert numbers_of(read_clip(path, frames=3, size=16, start=37, end=-1)) == [37, 38, 39]


def test_end_past_the_files_end_means_the_files_end(tmp_path):
    path = encode(tmp_path / "clip.mp4", numbered(12))
    assert numbers_of(read_clip(path, frames=4, size=16, start=4, end=500)) == [5, 7, 9, 11]


def test_segment_behind_the_file_is_an_error_that_names_the_file(tmp_path):
    path = encode(tmp_path / "clip.mp4", numbered(12))
    with pytest.raises(StudyError, match=r"clip.mp4: the segment starts at frame 12, the file has 12"):
        read_clip(path, start=12, end=20)
    with pytest.raises(StudyError, match=r"clip.mp4: the segment starts at frame 50"):
        read_clip(path, start=50)


def test_short_segment_repeats_frames_and_is_never_black(tmp_path):
    path = encode(tmp_path / "clip.mp4", numbered(12))
    assert numbers_of(read_clip(path, frames=6, size=16, start=5, end=7)) == [5, 5, 5, 6, 6, 6]


def test_one_frame_fills_the_clip(tmp_path):
    path = encode(tmp_path / "clip.mp4", [np.full((48, 64, 3), 100, np.uint8)])
    assert numbers_of(read_clip(path, frames=20, size=24)) == [20] * 20


def test_variable_frame_rate_counts_frames_and_not_time(tmp_path):
    times = [0, 1, 2, 30, 31, 60, 90, 91, 200, 201]
    path = encode(tmp_path / "clip.mp4", numbered(10), times=times)
    assert numbers_of(read_clip(path, frames=10, size=16)) == list(range(10))


def test_file_without_a_duration_in_its_header_is_read_to_its_end(tmp_path):
    class Pipe(io.RawIOBase):
        """What cannot be wound back, so that the writer never fills in the header."""

        content = b""

        def writable(self):
            return True

        def write(self, data):
            self.content += bytes(data)
            return len(data)

    pipe = Pipe()
    encode(pipe, numbered(20), to={"format": "matroska"})
    path = tmp_path / "clip.mkv"
    path.write_bytes(pipe.content)
    with av.open(str(path)) as container:
        assert container.duration is None
        assert container.streams.video[0].frames == 0
    assert numbers_of(read_clip(path, frames=5, size=16)) == [2, 6, 10, 14, 18]


@pytest.mark.parametrize(("height", "width"), [(37, 51), (51, 37), (15, 17), (49, 50)])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p"])
def test_odd_sizes_keep_their_colours_in_place(tmp_path, height, width, pix_fmt):
    side = min(height, width)
    image = quarters(side, side)
    left, top = (width - side) // 2, (height - side) // 2
    wide = np.pad(image, ((top, height - side - top), (left, width - side - left), (0, 0)), mode="edge")
    path = encode(tmp_path / "clip.mkv", [wide] * 2, codec="ffv1", pix_fmt=pix_fmt)
    clip = read_clip(path, frames=2, size=32)
    assert clip.shape == (2, 32, 32, 3)
    assert corners(clip[0]) == ["red", "green", "blue", "black"]


@pytest.mark.parametrize("pix_fmt", ["gray", "gray10le"])
def test_grey_video_comes_as_three_equal_channels(tmp_path, pix_fmt):
    clip = read_clip(encode(tmp_path / "clip.mkv", numbered(10), codec="ffv1", pix_fmt=pix_fmt), frames=10, size=16)
    assert numbers_of(clip) == list(range(10))
    assert (clip == clip[..., :1]).all()


# The stored image, turned anticlockwise by the angle.
TURNED = {
    90: ["green", "black", "red", "blue"],
    180: ["black", "blue", "green", "red"],
    -90: ["blue", "red", "black", "green"],
}


@pytest.mark.parametrize("rotation", TURNED)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_rotation_in_the_metadata_is_applied(tmp_path, rotation, suffix):
    path = encode(tmp_path / f"clip{suffix}", [quarters(48, 48)] * 3, rotation=rotation)
    assert corners(read_clip(path, frames=1, size=32)[0]) == TURNED[rotation]
    assert corners(next(frames(path))) == TURNED[rotation]


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_box_lies_in_the_upright_image(tmp_path, rotation):
    """A white square at x 50..60, y 20..30 of the upright image, wherever that is in the stored one."""
    upright = np.zeros((48, 80, 3), np.uint8) + 60
    upright[20:30, 50:60] = 250
    stored = np.ascontiguousarray(np.rot90(upright, -rotation // 90))
    path = encode(tmp_path / "clip.mkv", [stored] * 2, codec="ffv1", pix_fmt="yuv444p", rotation=rotation)
    assert (probe(path).width, probe(path).height) == (80, 48)
    image = read_clip(path, frames=1, size=40, bbox=(50, 20, 60, 30), margin=0)[0]
    assert image.min() > 240
    image = read_clip(path, frames=1, size=40, bbox=(50, 20, 60, 30), margin=0.5)[0]
    assert image[12:28, 12:28].min() > 220
    assert max(image[:8].max(), image[-8:].max(), image[:, :8].max(), image[:, -8:].max()) < 80


@settings(max_examples=300)
@given(
    box=st.tuples(*[st.integers(-50, 900)] * 4),
    width=st.integers(1, 800),
    height=st.integers(1, 800),
    margin=st.floats(0, 2),
)
def test_square_lies_in_the_image_and_holds_the_box_where_it_can(box, width, height, margin):
    left, top = max(box[0], 0), max(box[1], 0)
    right, bottom = min(box[2], width), min(box[3], height)
    if left >= right or top >= bottom:
        with pytest.raises(ValueError, match="lies outside the"):
            square(box, width, height, margin)
        return
    x, y, side = square(box, width, height, margin)
    assert side >= 1
    assert 0 <= x <= width - side
    assert 0 <= y <= height - side
    if max(right - left, bottom - top) <= min(width, height):
        assert x <= left
        assert y <= top
        assert x + side >= right
        assert y + side >= bottom
    else:
        assert side == min(width, height)


def test_square_moves_inwards_at_an_edge_rather_than_shrink_or_pad():
    assert square((0, 40, 20, 60), 100, 100, margin=0.25) == (0, 35, 30)
    assert square((40, 40, 60, 50), 100, 100, margin=0) == (40, 35, 20)


@pytest.mark.parametrize("box", [(70, 0, 90, 40), (30, 30, 20, 40), (0, 0, float("nan"), 5), (1, 2, 3)])
def test_box_that_holds_nothing_is_an_error_that_names_the_file(tmp_path, box):
    path = encode(tmp_path / "clip.mp4", numbered(3))
    with pytest.raises(StudyError, match=r"clip.mp4: cannot be cropped"):
        read_clip(path, bbox=box)


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"size": 0}, {"start": -1}, {"start": 5, "end": 5}])
def test_senseless_requests_are_value_errors(tmp_path, wrong):
    path = encode(tmp_path / "clip.mp4", numbered(3))
    with pytest.raises(ValueError, match="need"):
        read_clip(path, **wrong)


def test_clip_of_what_is_no_whole_video_is_an_error_that_names_the_file(tmp_path):
    (tmp_path / "page.mp4").write_text("<html>404</html>" * 100)
    cases = {"none.mp4": "cannot be opened", "page.mp4": "cannot be opened", "cut.mp4": "cut short"}
    cut(write_video(tmp_path / "cut.mp4", options={"movflags": "faststart"}), 0.6)
    for name, reason in cases.items():
        with pytest.raises(StudyError, match=rf"{name}: {reason}"):
            read_clip(tmp_path / name)


def test_sound_alone_is_no_clip(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(StudyError, match=r"sound.mp4: contains no video stream"):
        read_clip(path)


@cache
def whole_video():
    file = io.BytesIO()
    encode(file, numbered(20), to={"format": "matroska"})
    return file.getvalue()


@settings(max_examples=60)
@given(content=st.binary(max_size=400), where=st.floats(0, 1))
def test_any_damage_gives_a_clip_or_a_study_error(tmp_path_factory, content, where):
    damaged = bytearray(whole_video())
    at = int(where * len(damaged))
    damaged[at : at + len(content)] = content
    path = tmp_path_factory.getbasetemp() / "damaged.mkv"
    path.write_bytes(damaged)
    with suppress(StudyError):
        assert read_clip(path, frames=4, size=16).shape == (4, 16, 16, 3)


@settings(max_examples=200)
@given(start=st.integers(0, 10**6), length=st.integers(1, 10**6), count=st.integers(1, 300), seed=st.integers(0, 99))
def test_sampled_frames_are_sorted_inside_the_segment_and_one_of_each_span(start, length, count, seed):
    for jitter in (None, np.random.default_rng(seed)):
        chosen = sample_frames(start, start + length, count, jitter=jitter)
        assert chosen.dtype == np.int64
        assert chosen.shape == (count,)
        assert (np.diff(chosen) >= 0).all()
        assert start <= chosen[0]
        assert chosen[-1] < start + length
        spans = np.floor((chosen - start + 0.5) / length * count)
        assert np.abs(spans - np.arange(count)).max() <= 1 + count / length


def test_real_clips_give_as_many_frames_as_asked(wlasl_root):
    for path in sorted((wlasl_root / "videos").glob("*.mp4"))[:8]:
        clip = read_clip(path, frames=20, size=64)
        assert clip.shape == (20, 64, 64, 3)
        assert clip.std() > 10
