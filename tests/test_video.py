"""Probing, decoding and clipping video files, whole and broken, of every form that people have."""

import io
import math
import re
from contextlib import suppress
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import walker
from lib.data import picture
from lib.data.person import find_mover
from lib.data.video import SUFFIXES, _stated_size, frames, frames_at, probe, read_clip, sample_frames, square
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


def encode(path, images, codec="libx264", pix_fmt="yuv420p", rotation=0, times=None, matrix=None, sound=0, **options):
    """Write images, each (height, width, 3), losslessly enough; `times` are their moments in 1/30 s, `sound` seconds.

    `matrix` is a, b, c, d: a pixel at (x, y) is shown at (a x + c y, b x + d y).
    """
    to = options.pop("to", {})
    if codec == "libx264":
        options = {"crf": "0", "preset": "ultrafast", **options}
    with av.open(path if isinstance(path, io.IOBase) else str(path), "w", **to) as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.height, stream.width, stream.pix_fmt = *images[0].shape[:2], pix_fmt
        if codec in ("mpeg4", "flv", "mjpeg", "wmv1", "wmv2", "mpeg1video", "mpeg2video"):
            stream.codec_context.qmin = stream.codec_context.qmax = 2
        if rotation:
            stream.set_display_rotation(rotation)
        if matrix:
            a, b, c, d = (value << 16 for value in matrix)
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        if sound:
            _add_sound(container, sound)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = (times or range(len(images)))[number], Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _add_sound(container, seconds):
    stream = container.add_stream("mp3", rate=16000, layout="mono")
    for number in range(round(seconds * 16000 / 576)):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 576), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, 576 * number, Fraction(1, 16000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def numbered(count, height=48, width=64):
    """Images whose brightness says their number."""
    return [np.full((height, width, 3), 20 + 4 * number, np.uint8) for number in range(count)]


def numbers_of(clip):
    """The numbers of `numbered` images, read back from a clip."""
    return [round((float(image.mean()) - 20) / 4) for image in clip]


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


FAST = {"libvpx": {"deadline": "realtime"}, "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"}}
SPARSE = {
    "every third": range(0, 60, 3),
    "gaps": [0, 1, 2, 30, 31, 60, 90, 91, 200, 201],
    "slower": [0, 1, 2, 4, 8, 16],
}


@pytest.mark.parametrize("times", SPARSE.values(), ids=SPARSE)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".mov", ".wmv", ".flv"])
def test_dropped_frames_and_variable_rates_are_no_damage_and_the_rate_is_that_of_the_times(tmp_path, suffix, times):
    codec = {".mp4": "libx264", ".mkv": "libx264", ".wmv": "wmv2", ".flv": "flv"}.get(suffix, "mpeg4")
    path = encode(tmp_path / f"clip{suffix}", numbered(len(times)), codec=codec, times=list(times))
    info = probe(path)
    rate = 30 * (len(times) - 1) / (times[-1] - times[0])
    assert (info.frames, info.fps) == (len(times), pytest.approx(rate, rel=0.11))
    with av.open(str(path)) as container:  # mp4 states the average, others the nominal rate
        stream = container.streams.video[0]
        stated = float(stream.average_rate or stream.guessed_rate)
    told = abs(rate / stated - 1) > 0.11
    assert info.notes == (f"{info.fps:.4g} frames a second by their times, not {stated:.4g}" if told else "")
    assert numbers_of(read_clip(path, frames=len(times), size=16)) == list(range(len(times)))


def test_frames_dropped_at_the_end_of_a_capture_are_no_damage(tmp_path):
    path = encode(tmp_path / "clip.avi", numbered(21), codec="mpeg4", times=[*range(20), 59], g="1")
    content = bytearray(path.read_bytes())
    entry, chunk = content.rindex(b"00dc"), content.rindex(b"00dc", 0, content.index(b"idx1"))
    size = int.from_bytes(content[chunk + 4 : chunk + 8], "little")
    content[entry + 12 : entry + 16] = bytes(4)  # the last of the index is empty, too
    content[chunk + 4 : chunk + 16] = bytes(4) + b"JUNK" + (size - 8).to_bytes(4, "little")
    path.write_bytes(content)
    assert probe(path) == (30, 20, 64, 48, "")
    assert numbers_of(read_clip(path, frames=20, size=16)) == list(range(20))


def test_readme_lists_the_suffixes(repository):
    listed = (
        (repository / "data" / "README.md").read_text().partition("Videos with a suffix")[2].partition("They are")[0]
    )
    assert sorted(re.findall(r"\.\w+", listed)) == sorted(SUFFIXES)


def test_two_frames_do_not_say_another_rate(tmp_path):
    path = encode(tmp_path / "clip.m1v", numbered(2, 96, 128), codec="mpeg1video")
    assert probe(path).notes == ""


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".avi", ".wmv", ".ts", ".mpg"])
def test_longer_sound_is_no_damage_but_a_cut_file_with_it_is_found(tmp_path, suffix):
    codec = {".wmv": "wmv2", ".ts": "mpeg2video", ".mpg": "mpeg1video"}.get(suffix, "mpeg4")
    path = encode(tmp_path / f"clip{suffix}", numbered(30), codec=codec, sound=3)
    assert probe(path)[1:] == (30, 64, 48, "")
    assert numbers_of(read_clip(path, frames=5, size=16)) == [3, 9, 15, 21, 27]
    if suffix not in (".ts", ".mpg"):  # these state neither size nor length
        with pytest.raises(StudyError, match=rf"clip{suffix}: "):
            probe(cut(path, 0.3))


@pytest.fixture(scope="module")
def wholes(tmp_path_factory):
    """A folder with files of 50 frames that all need about the same number of bytes."""
    noise, folder = np.random.default_rng(0), tmp_path_factory.mktemp("whole")
    images = [image + noise.integers(0, 30, image.shape, dtype=np.uint8) for image in numbered(50)]
    codecs = {".mp4": "libx264", ".mov": "mpeg4", ".mkv": "mpeg4", ".avi": "mpeg4", ".wmv": "wmv2", ".webm": "libvpx"}
    codecs |= {".swf": "flv", ".flv": "flv", ".ts": "mpeg2video", ".mpg": "mpeg1video", ".gif": "gif"}
    for suffix, codec in codecs.items():
        options = {"to": {"options": {"movflags": "faststart"}}} if suffix in (".mp4", ".mov") else {}
        encode(folder / f"clip{suffix}", images, codec, "gray" if codec == "gif" else "yuv420p", g="1", **options)
    return folder


@settings(max_examples=80)
@given(suffix=st.sampled_from([".mp4", ".mov", ".mkv", ".avi", ".wmv", ".webm", ".swf"]), share=st.floats(0, 0.999))
def test_cut_file_is_refused_or_told_wherever_it_is_cut(wholes, suffix, share):
    content, path = (wholes / f"clip{suffix}").read_bytes(), wholes / f"cut{suffix}"
    path.write_bytes(content[: int(share * len(content))])
    try:
        info = probe(path)
    except StudyError:
        return
    assert info.frames == 50 or info.notes
    assert info.frames >= 44
    assert len(set(info.notes.split("; "))) == len(info.notes.split("; "))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".webm"])
def test_file_whose_second_half_never_arrived_is_refused(wholes, suffix):
    """Some programs reserve the whole length first; the rest of the file is zeros."""
    content, path = (wholes / f"clip{suffix}").read_bytes(), wholes / f"reserved{suffix}"
    tail = 4000 if suffix == ".avi" else 0  # its index stands there
    half = len(content) // 2
    path.write_bytes(content[:half] + bytes(len(content) - half - tail) + content[len(content) - tail :])
    with pytest.raises(StudyError, match=rf"reserved{suffix}: (damaged|cut short)"):
        probe(path)


def test_cut_in_the_last_packet_is_told_once(tmp_path):
    path = encode(tmp_path / "clip.avi", numbered(50), codec="libx264", g="1")
    with av.open(str(path)) as container:
        *_, last = (packet for packet in container.demux(video=0) if packet.size)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: last.pos + 12])  # too little to make up a frame
    cut_off = f"cut off near its end, {path.stat().st_size} of {size} bytes are there"
    assert probe(path).notes == f"{cut_off}; 1 of 50 packets are damaged, 49 frames are left"


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".ts", "mpeg2video"), (".mpg", "mpeg1video"), (".flv", "flv"), (".flv", "libvpx-vp9")]
)
def test_incomplete_last_packet_is_told_where_a_file_states_no_size(tmp_path, suffix, codec):
    whole, path, noise = tmp_path / f"whole{suffix}", tmp_path / f"short{suffix}", np.random.default_rng(0)
    images = [image + noise.integers(0, 30, image.shape, dtype=np.uint8) for image in numbered(50)]
    encode(whole, images, codec, g="1", **FAST.get(codec, {}))
    with av.open(str(whole)) as container:
        *_, last = (packet for packet in container.demux(video=0) if packet.size)
    path.write_bytes(whole.read_bytes()[: last.pos + last.size // 2])
    info = probe(path)
    assert info.frames in (49, 50)
    assert info.notes == f"1 of {info.frames} packets are damaged, {info.frames} frames are left"


def test_stated_size_is_read_from_the_header(tmp_path):
    path, matroska = tmp_path / "file", b"\x1a\x45\xdf\xa3\x82ab"
    windows = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes(14)
    properties = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365") + bytes(24)
    cases = {
        b"RIFF\x0c\0\0\0AVI 12345678": 20,
        matroska + b"\x18\x53\x80\x67\x40\x09": 22,
        matroska + b"\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff": 0,  # streamed
        matroska + b"\x18\x53\x80\x67": 0,
        matroska: 0,
        b"FWS\x05\x10\x01\0\0": 272,
        b"CWS\x05\x10\x01\0\0": 0,
        windows + properties + b"\x38" + bytes(7): 56,
        windows: 0,
        b"": 0,
        b"....ftypisom": 0,
    }
    for content, size in cases.items():
        path.write_bytes(content)
        assert _stated_size(path) == size, content


def copy(source, target, keep):
    """Copy the packets of a file for whose number `keep` says yes, without decoding them."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(packet for packet in old.demux(video=0) if packet.size):
            if keep(number):
                packet.stream = stream
                new.mux(packet)
    return target


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("suffix", "codec"), [(".webm", "libvpx"), (".mkv", "libx264"), (".avi", "mpeg4"), (".nut", "ffv1")]
)
def test_few_frames_whose_durations_are_not_stated_are_no_damage(tmp_path, suffix, codec, count):
    whole = encode(tmp_path / f"whole{suffix}", numbered(count), codec=codec)
    path = copy(whole, tmp_path / f"clip{suffix}", lambda number: True)
    assert numbers_of(frames(path)) == list(range(count))


@pytest.mark.parametrize("lost", [1, 3, 9])
@pytest.mark.parametrize(("suffix", "codec"), [(".webm", "libvpx"), (".webm", "libvpx-vp9"), (".mkv", "libx264")])
def test_file_without_its_first_key_frame_is_read_from_the_next_one_on(tmp_path, suffix, codec, lost):
    whole = encode(tmp_path / f"whole{suffix}", numbered(30), codec=codec, g="10", crf="4", **FAST.get(codec, {}))
    path = copy(whole, tmp_path / f"clip{suffix}", lambda number: number >= 10 - lost)
    info = probe(path)
    assert (info.frames, info.fps) == (20, 30)
    assert info.notes == f"read from its first key frame: {lost} packets before it are lost"
    assert numbers_of(frames(path)) == list(range(10, 30))
    assert numbers_of(read_clip(path, frames=1, size=16)) == [20]  # the middle of what there is
    assert numbers_of(read_clip(path, frames=4, size=16, start=1, end=5)) == [11, 12, 13, 14]


def test_frames_that_a_decoder_makes_up_before_the_first_key_frame_are_counted_as_a_player_does_and_told(tmp_path):
    path = encode(tmp_path / "whole.mkv", numbered(30), codec="mpeg4", g="10", sc_threshold="1000000000")
    info = probe(copy(path, tmp_path / "clip.mkv", lambda number: number >= 7))
    assert info.frames == 23
    assert info.notes == "its first 3 frames need a key frame that is missing"


@pytest.mark.parametrize("damaged", [(20, 21), (30,), (47, 48)])
@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9"])
def test_frames_beside_damaged_packets_are_the_same_with_every_number_of_threads(tmp_path, codec, damaged):
    whole = encode(tmp_path / "whole.mkv", numbered(50), codec=codec, g="5", **FAST.get(codec, {}))
    content = bytearray(whole.read_bytes())
    with av.open(str(whole)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for number in damaged:
        position, size = packets[number]
        content[position + 8 : position + size] = bytes(size - 8)
    path = tmp_path / "clip.mkv"
    path.write_bytes(content)
    info = probe(path)
    alone = [frame.to_ndarray(format="gray") for _, frame in frames_at(path, range(50), threads=1)]
    for threads in (0, 2, 7, 16):
        images = {number: frame.to_ndarray(format="gray") for number, frame in frames_at(path, range(50), threads)}
        assert list(images) == list(range(info.frames))
        assert all((images[number] == alone[number]).all() for number in images)
    assert 45 <= info.frames < 50  # without a key frame, H.264 also loses the frames that need it
    assert info.notes == f"{len(damaged)} of 50 packets are damaged, {info.frames} frames are left"


def edited(path, start, length):
    """Rewrite the edit list of an mp4, which showed its whole picture: `length` frames of 1/30 s from `start` on."""
    content = bytearray(path.read_bytes())
    at = content.index(b"elst") + 12  # after the version and the number of entries
    with av.open(str(path)) as container:
        tick = container.streams.video[0].time_base
    delay = int.from_bytes(content[at + 4 : at + 8], "big")  # of reordered frames
    content[at : at + 4] = round(length * 1000 / 30).to_bytes(4, "big")
    content[at + 4 : at + 8] = (delay + round(start / 30 / tick)).to_bytes(4, "big")
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("start", "length"), [(0, 40), (25, 15), (1, 39), (13, 1), (39, 1)])
@pytest.mark.parametrize("bframes", ["0", "2"])
def test_frames_that_an_edit_list_hides_are_left_out(tmp_path, start, length, bframes):
    options = {"preset": "veryfast", "bf": bframes, "g": "12"}
    path = edited(encode(tmp_path / "clip.mp4", numbered(40), **options), start, length)
    shown = list(range(start, start + length))
    assert probe(path) == (30, length, 64, 48, "")
    assert numbers_of(frames(path)) == shown
    assert numbers_of(read_clip(path, frames=length, size=16)) == shown
    assert numbers_of(read_clip(path, frames=1, size=16)) == [shown[length // 2]]


def test_cut_file_with_an_edit_list_is_found(tmp_path):
    path = encode(tmp_path / "clip.mp4", numbered(40), g="1", to={"options": {"movflags": "faststart"}})
    with pytest.raises(StudyError, match=r"clip.mp4: cut short, \d+ of 2\d frames are in the file"):
        probe(cut(edited(path, 10, 20), 0.6))


def signal(light, transfer):
    """What PQ (SMPTE ST 2084) or HLG (ARIB STD-B67) write for light of so many cd/m², grey, as a share of the range."""
    if transfer == "PQ":
        power = (light / 10_000) ** 0.1593017578125
        return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    scene = (light / 1000) ** (1 / 1.2)  # back through the system gamma of a display of 1,000 cd/m²
    return math.sqrt(3 * scene) if scene <= 1 / 12 else 0.17883277 * math.log(12 * scene - 0.28466892) + 0.55991073


@pytest.mark.parametrize(("name", "transfer"), {"PQ": 16, "HLG": 18}.items())
@pytest.mark.parametrize("light", [2, 10, 26, 80, 150, 203, 600, 1000])
def test_hdr_comes_in_the_usual_range_and_is_told(tmp_path, name, transfer, light):
    level = round(64 + 876 * signal(light, name))  # of 10 bits, limited range
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        coder = stream.codec_context
        coder.color_trc, coder.color_primaries, coder.colorspace, coder.color_range = transfer, 9, 9, 1
        planes = np.full((72, 64), 512, "<u2")  # of grey, U and V are the same everywhere
        planes[:48] = level
        frame = av.VideoFrame.from_ndarray(planes, "yuv420p10le")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert probe(path).notes == f"HDR ({name}) brought to the usual range"
    expected = 255 * min(light / 203, 1) ** (1 / 2.4)  # on a display of BT.1886
    image = read_clip(path, frames=1, size=16)[0]
    assert np.ptp(image) <= 1  # grey
    assert abs(image.mean() - expected) < (5 if light <= 150 else 15)  # white is where highlights begin to roll off
    assert abs(next(frames(path)).mean() - image.mean()) < 10


def test_hdr_colours_keep_their_hue_and_their_order():
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    for transfer in (16, 18):
        grey = picture._usual_range(np.repeat(ramp, 3).reshape(1, 64, 3), transfer)
        assert (np.diff(grey[0].astype(int), axis=0) >= 0).all()
        assert grey[0, 0].max() < 3
        assert len(np.unique(grey[grey > 245])) >= 3  # highlights are not cut off
        red, green, blue = picture._usual_range(np.uint8([[[180, 90, 90], [90, 180, 90], [90, 90, 180]]]), transfer)[0]
        assert [int(colour.argmax()) for colour in (red, green, blue)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("suffix", "codec"),
    {
        ".m4v": "mpeg4", ".mpg": "mpeg1video", ".mpeg": "mpeg2video", ".wmv": "wmv2", ".asf": "wmv1", ".3gp": "mpeg4",
        ".gif": "gif", ".flv": "flv", ".ts": "mpeg2video", ".mts": "libx264", ".m2ts": "libx264", ".vob": "mpeg2video",
        ".ogv": "libvpx", ".mxf": "mpeg2video", ".nut": "ffv1", ".mjpeg": "mjpeg",
    }.items(),
)  # fmt: skip
def test_other_suffixes_that_ffmpeg_reads_are_read(tmp_path, suffix, codec):
    assert suffix in SUFFIXES
    pix_fmt = {"gif": "gray", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    options = {"crf": "4", "b": "4M"} if codec == "libvpx" else {}
    path = encode(tmp_path / f"clip{suffix}", numbered(20), codec=codec, pix_fmt=pix_fmt, **options)
    assert probe(path)[1:4] == (20, 64, 48)
    assert numbers_of(read_clip(path, frames=20, size=16)) == list(range(20))


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


QUARTERS = np.array([["red", "green"], ["blue", "black"]])
MATRICES = {  # a, b, c, d: where the stored quarters are shown
    (1, 0, 0, 1): QUARTERS, (-1, 0, 0, 1): QUARTERS[:, ::-1], (1, 0, 0, -1): QUARTERS[::-1],
    (-1, 0, 0, -1): QUARTERS[::-1, ::-1], (0, 1, 1, 0): QUARTERS.T, (0, 1, -1, 0): np.rot90(QUARTERS, -1),
    (0, -1, 1, 0): np.rot90(QUARTERS), (0, -1, -1, 0): np.rot90(QUARTERS, 2).T,
}  # fmt: skip


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v", ".3gp"])
def test_picture_is_turned_and_mirrored_as_a_player_shows_it_and_mirrors_are_told(tmp_path, matrix, suffix):
    codec = "mpeg4" if suffix == ".3gp" else "libx264"
    path = encode(tmp_path / f"clip{suffix}", [quarters(48, 64)] * 3, codec=codec, matrix=matrix)
    shown = MATRICES[matrix].ravel().tolist()
    assert corners(read_clip(path, frames=1, size=32)[0]) == shown
    image = next(frames(path))
    assert corners(cv2.resize(np.ascontiguousarray(image), (32, 32))) == shown
    info, (a, b, c, d) = probe(path), matrix
    assert image.shape == (info.height, info.width, 3) == ((48, 64, 3) if a else (64, 48, 3))
    assert info.notes == ("mirrored by its display matrix" if a * d - b * c < 0 else "")


@pytest.mark.parametrize("matrix", MATRICES)
def test_box_and_mover_lie_in_the_mirrored_picture(tmp_path, matrix):
    """A white square that moves about x 70, y 25 of the picture, wherever that is in the stored one."""
    a, b, c, d = matrix
    images = walker(20, height=96, width=128, at=(60, 15))
    stored = [image[:: b or d, :: a or c] for image in images]
    stored = [np.ascontiguousarray(image if a else image.swapaxes(0, 1)) for image in stored]
    path = encode(tmp_path / "clip.mov", stored, pix_fmt="yuv444p", matrix=matrix)
    for image, shown in zip(images, frames(path), strict=True):
        assert np.abs(image.astype(int) - shown).mean() < 3
    xmin, ymin, xmax, ymax = find_mover(path, 0, 20)
    assert np.hypot((xmin + xmax) / 2 - 70, (ymin + ymax) / 2 - 25) < 8
    square_of_first = read_clip(path, frames=1, size=20, start=0, end=1, bbox=(60, 15, 80, 35), margin=0)[0]
    assert np.abs(square_of_first.astype(int) - images[0][15:35, 60:80]).mean() < 6


@pytest.mark.parametrize("matrix", MATRICES)
def test_orientation_is_kept_where_a_frame_has_side_data_of_a_kind_that_pyav_does_not_know(tmp_path, matrix):
    path = encode(tmp_path / "clip.mov", [quarters(48, 64)] * 3, codec="tiff", pix_fmt="rgb24", matrix=matrix)
    with av.open(str(path)) as container, pytest.raises(ValueError, match="31 is not a valid Type"):  # EXIF
        next(container.decode(video=0)).side_data.get("DISPLAYMATRIX")
    assert corners(read_clip(path, frames=1, size=32)[0]) == MATRICES[matrix].ravel().tolist()


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


def test_cover_image_before_the_video_is_not_taken_for_it(tmp_path):
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        cover, video = container.add_stream("mjpeg", rate=1), container.add_stream("libx264", rate=30)
        cover.disposition = av.stream.Disposition.attached_pic
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for stream, images in ((cover, numbered(1, 32, 32)), (video, numbered(10))):
            for frame in [*(av.VideoFrame.from_ndarray(image, format="rgb24") for image in images), None]:
                container.mux(stream.encode(frame))
    content = path.read_bytes()
    track, tags = content.index(b"trak") - 4, content.index(b"udta") - 4  # both in the header, at the end of the file
    path.write_bytes(content[:track] + content[tags:] + content[track:tags])
    with av.open(str(path)) as container:
        assert [stream.codec_context.name for stream in container.streams.video] == ["mjpeg", "h264"]
    assert probe(path)[:4] == (30, 10, 64, 48)


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


@settings(max_examples=200)
@given(
    suffix=st.sampled_from([".mp4", ".mov", ".mkv", ".avi", ".wmv", ".webm", ".swf", ".flv", ".ts", ".mpg", ".gif"]),
    content=st.binary(max_size=400),
    where=st.floats(0, 1),
)
def test_any_damage_gives_a_clip_or_a_study_error(wholes, suffix, content, where):
    damaged = bytearray((wholes / f"clip{suffix}").read_bytes())
    at = int(where**3 * len(damaged))  # mostly in the header
    damaged[at : at + len(content)] = content
    path = wholes / f"damaged{suffix}"
    path.write_bytes(damaged)
    with suppress(StudyError):
        assert read_clip(path, frames=4, size=16).shape == (4, 16, 16, 3)
    with suppress(StudyError):
        assert probe(path).frames > 0


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
