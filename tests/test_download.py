"""Downloading WLASL's videos: politely, complete or not at all, with a report; from local servers."""

import errno
import http.server
import json
import re
import threading
import types

import av
import numpy as np
import pandas as pd
import pytest

import download as downloading
import sites
from download import LICENCE, cut_out, download_videos, main, summary
from lib.data.sources import to_file_frames
from lib.data.video import frames, probe
from lib.data.wlasl import read_annotations
from lib.settings import StudyError
from sites import AGENT, LONGEST_WAIT, site_of

STALL = 0.4  # seconds before a stalling server is given up


def write_video(path, n_frames=12, codec="mpeg4", rate=25, noise=20):
    """A video of a bright bar at column i in frame i, over noise, which makes the file long enough."""
    values = np.random.default_rng(0).integers(0, noise, (48, 64, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(n_frames):
            image = values.copy()
            image[:, number : number + 8] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4")


class Clock:
    """Time that passes only by sleeping; `slept` lists every sleep, in seconds."""

    def __init__(self):
        self.now, self.slept = 0.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves its server's `files`, path -> bytes, as `modes` says: path -> what to do with each request in turn."""

    def do_GET(self):
        server = self.server
        mode = server.modes[self.path].pop(0) if server.modes.get(self.path) else "good"
        server.requests.append((self.path, self.headers.get("Range"), server.clock()))
        server.agents.add(self.headers["User-Agent"])
        getattr(self, mode.split(" ")[0])(*mode.split(" ")[1:])

    def good(self, content_type="video/mp4"):
        content = self.server.files[self.path]
        start = int(re.findall(r"\d+", self.headers.get("Range") or "0")[0])
        if start >= len(content):
            return self.send_error(416)
        self.begin(206 if start else 200, len(content) - start, content_type)
        self.wfile.write(content[start:])

    def status(self, code, retry_after=""):
        self.send_response(int(code))
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.end_headers()

    def half(self, stalling=""):
        """Half of the video, then the connection ends; or stays open, and nothing comes."""
        content = self.server.files[self.path]
        self.begin(200, len(content), "video/mp4")
        self.wfile.write(content[: len(content) // 2])
        if stalling:
            self.wfile.flush()
            self.server.done.wait(5)

    def silent(self):
        self.server.done.wait(5)

    def moved(self):
        self.send_response(302)
        self.send_header("Location", self.path + ".moved")
        self.end_headers()

    def no_ranges(self):
        content = self.server.files[self.path]
        self.begin(200, len(content), "video/mp4")
        self.wfile.write(content)

    def page(self, content_type="text/html"):
        text = b"<!doctype html><title>Sorry</title><p>This video is gone." * 20
        self.begin(200, len(text), content_type)
        self.wfile.write(text)

    def begin(self, code, length, content_type):
        self.send_response(code)
        self.send_header("Content-Length", str(length))
        self.send_header("Content-Type", content_type)
        self.end_headers()

    def log_message(self, *args):
        """Be quiet."""


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """The downloader's clock, so that no test really waits, except for STALL where a server stalls."""
    clock = Clock()
    monkeypatch.setattr(sites, "monotonic", clock)
    monkeypatch.setattr(sites, "sleep", clock.sleep)
    monkeypatch.setattr(sites, "ATTEMPTS", 3)
    return clock


@pytest.fixture
def serve(monkeypatch, clock):
    """Starts a server and returns it; all stop with the test."""
    monkeypatch.setenv("no_proxy", "*")
    servers = []

    def start(handler=Handler):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.files, server.modes, server.requests, server.agents = {}, {}, [], set()
        server.clock, server.done, server.daemon_threads = clock, threading.Event(), True
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.done.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def server(serve):
    return serve()


@pytest.fixture
def book(server, video, tmp_path):
    """A server that has the video of the only clip, 00001, that the annotations under tmp_path list."""
    server.files["/book.mp4"] = video
    annotate(tmp_path, [("00001", f"{server.url}/book.mp4", {})])
    return server


def annotate(root, clips, subset=1):
    """Write <root>/annotations/WLASL<subset>.json with one gloss, "book", and clips: (video_id, url, other fields)."""
    instances = [
        {"video_id": video_id, "url": url, "split": "train", "frame_start": 1, "frame_end": -1, "fps": 25} | other
        for video_id, url, other in clips
    ]
    folder = root / "annotations"
    folder.mkdir(exist_ok=True)
    (folder / f"WLASL{subset}.json").write_text(json.dumps([{"gloss": "book", "instances": instances}]))


def outcome(report):
    """video_id -> reason, "" where present."""
    assert set(report["status"][report["reason"] == ""]) <= {"present"}
    assert set(report["status"][report["reason"] != ""]) <= {"failed"}
    return dict(zip(report["video_id"], report["reason"], strict=True))


def fetch(root):
    """Download, and return the outcome."""
    return outcome(download_videos(root, 1))


def names(root):
    return sorted(path.name for path in (root / "videos").iterdir() if path.name != ".download.lock")


def numbers(path, source):
    """For each frame of a file, the number of the frame of `source` that it looks most like."""
    originals = np.stack(list(frames(source))).astype(int)
    return [int(np.abs(originals - image).mean((1, 2, 3)).argmin()) for image in frames(path)]


def test_a_video_is_downloaded_whole_and_a_second_run_asks_for_nothing(book, video, tmp_path):
    for _ in range(2):
        assert fetch(tmp_path) == {"00001": ""}
        assert (tmp_path / "videos" / "00001.mp4").read_bytes() == video
        assert names(tmp_path) == ["00001.mp4"]
    assert book.requests == [("/book.mp4", None, 0.0)]
    assert book.agents == {AGENT}


@pytest.mark.parametrize(
    ("modes", "reason", "requests", "slept"),
    [
        (["status 404"], "404 Not Found", 1, []),
        (["status 403"], "403 Forbidden", 1, []),
        (["status 500", "status 503"], "", 3, [2.0, 4.0]),
        (["status 500"] * 3, "500 Internal Server Error", 3, [2.0, 4.0]),
        (["status 429 30"], "", 2, [30.0]),
        (["status 429 99999"], "", 2, [LONGEST_WAIT]),
        (["moved"], "", 2, []),
        (["page"], "the server sent a web page instead of the file", 1, []),
        (["page video/mp4"], r"cannot be opened as a video \(.*\)", 1, []),
        (["half"], "", 2, [2.0]),
        (["half stalling"], "", 2, [2.0]),
        (["silent"], "", 2, [2.0]),
        (["silent"] * 3, "timed out", 3, [2.0, 4.0]),
    ],
)  # fmt: skip
def test_attempts_and_reason_depend_on_what_the_server_does(
    book, video, clock, tmp_path, monkeypatch, modes, reason, requests, slept
):
    book.files["/book.mp4.moved"] = video
    book.modes["/book.mp4"] = list(modes)
    if modes[0] in ("silent", "half stalling"):
        monkeypatch.setattr(sites, "TIMEOUT", STALL)
    assert re.fullmatch(reason, fetch(tmp_path)["00001"])
    assert len(book.requests) == requests
    assert clock.slept == slept
    assert names(tmp_path) == ([] if reason else ["00001.mp4"])
    assert reason or (tmp_path / "videos" / "00001.mp4").read_bytes() == video


@pytest.mark.parametrize("stalling", ["", " stalling"])
def test_an_interrupted_download_resumes_where_it_stopped(book, video, tmp_path, monkeypatch, stalling):
    book.modes["/book.mp4"] = [f"half{stalling}", "good"]
    monkeypatch.setattr(sites, "TIMEOUT", STALL)
    fetch(tmp_path)
    assert [asked for _, asked, _ in book.requests] == [None, f"bytes={len(video) // 2}-"]
    assert (tmp_path / "videos" / "00001.mp4").read_bytes() == video


def test_what_arrived_before_a_failure_is_kept_for_the_next_run(book, video, tmp_path):
    book.modes["/book.mp4"] = ["half", "status 500", "page"]  # a web page must not replace what is there
    assert fetch(tmp_path) == {"00001": "the server sent a web page instead of the file"}
    assert (tmp_path / "videos" / "00001.part").read_bytes() == video[: len(video) // 2]
    assert fetch(tmp_path) == {"00001": ""}
    assert book.requests[-1][1] == f"bytes={len(video) // 2}-"
    assert names(tmp_path) == ["00001.mp4"]


@pytest.mark.parametrize("modes", [["no_ranges"], ["good"]])
def test_a_partial_file_that_the_server_cannot_continue_is_downloaded_again(book, video, tmp_path, modes):
    book.modes["/book.mp4"] = list(modes)
    (tmp_path / "videos").mkdir()
    kept = video[:1000] if modes == ["no_ranges"] else video + b"more"  # longer than the file on the server
    (tmp_path / "videos" / "00001.part").write_bytes(kept)
    assert fetch(tmp_path) == {"00001": ""}
    assert (tmp_path / "videos" / "00001.mp4").read_bytes() == video


def test_a_corrupt_partial_file_is_discarded_so_the_next_run_succeeds(book, video, tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "00001.part").write_bytes(b"x" * 1000)
    assert "cannot be opened as a video" in fetch(tmp_path)["00001"]
    assert names(tmp_path) == []
    assert fetch(tmp_path) == {"00001": ""}


def test_a_file_that_ends_early_on_the_server_is_not_kept(book, tmp_path):
    content = write_video(tmp_path / "whole.mkv", n_frames=40, noise=200)
    book.files["/book.mp4"] = content[: int(0.6 * len(content))]
    assert re.fullmatch(r"cut short, \d+ of \d+ frames are in the file", fetch(tmp_path)["00001"])
    assert names(tmp_path) == []


def test_requests_to_one_site_are_spaced_out(server, video, clock, tmp_path):
    paths = [f"/{number}.mp4" for number in range(5)]
    server.files = dict.fromkeys(paths, video)
    server.modes["/2.mp4"] = ["status 500", "status 404"]
    annotate(tmp_path, [(f"0000{number}", server.url + path, {}) for number, path in enumerate(paths)])
    download_videos(tmp_path, 1)
    assert [time for *_, time in server.requests] == [0.0, 1.0, 2.0, 4.0, 5.0, 6.0]  # 2 s before the second attempt
    assert clock.slept == [1.0, 1.0, 2.0, 1.0, 1.0]


def test_the_number_of_simultaneous_connections_is_limited(serve, video, tmp_path, monkeypatch):
    meeting = threading.Barrier(2, timeout=5)  # breaks, and a request fails, unless two are under way together
    busy, peak, lock = 0, [], threading.Lock()

    class Meeting(Handler):
        def good(self):
            nonlocal busy
            with lock:
                busy += 1
                peak.append(busy)
            meeting.wait()
            with lock:
                busy -= 1
            super().good()

    servers = [serve(Meeting) for _ in range(4)]
    for server in servers:
        server.files["/book.mp4"] = video
    annotate(tmp_path, [(f"0000{number}", f"{server.url}/book.mp4", {}) for number, server in enumerate(servers)])
    monkeypatch.setattr(sites, "ATTEMPTS", 1)
    monkeypatch.setattr(downloading, "CONNECTIONS", 2)
    assert set(fetch(tmp_path).values()) == {""}
    assert max(peak) == 2


def test_only_a_site_that_does_not_answer_is_left_alone(serve, video, tmp_path):
    dead, alive = serve(), serve()
    clips = [(f"1000{number}", f"{dead.url}/{number}.mp4", {}) for number in range(6)]
    dead.modes = {f"/{number}.mp4": ["status 503"] * 3 for number in range(6)}
    alive.files["/book.mp4"] = video
    annotate(tmp_path, [*clips, ("20000", f"{alive.url}/book.mp4", {})])
    found = fetch(tmp_path)
    assert [found[f"1000{number}"] for number in range(3)] == ["503 Service Unavailable"] * 3
    left = f"{site_of(dead.url)} did not answer 3 times in a row; run again later"
    assert [found[f"1000{number}"] for number in range(3, 6)] == [left] * 3
    assert len(dead.requests) == 9
    assert found["20000"] == ""


def test_missing_files_do_not_make_a_site_unresponsive(server, video, tmp_path):
    server.modes = {f"/{number}.mp4": ["status 404"] for number in range(5)}
    server.files["/5.mp4"] = video
    annotate(tmp_path, [(f"0000{number}", f"{server.url}/{number}.mp4", {}) for number in range(6)])
    assert list(fetch(tmp_path).values()) == ["404 Not Found"] * 5 + [""]


def test_an_address_shared_by_several_clips_is_fetched_once(server, video, tmp_path):
    server.files["/book.mp4"] = video
    url = f"{server.url}/book.mp4"
    annotate(tmp_path, [("00001", url, {}), ("00002", url, {}), ("00003", url, {"split": "test"})])
    assert set(fetch(tmp_path).values()) == {""}
    assert [(tmp_path / "videos" / name).read_bytes() == video for name in names(tmp_path)] == [True] * 3
    assert len(server.requests) == 1
    (tmp_path / "videos" / "00001.mp4").unlink()
    assert fetch(tmp_path) == {"00001": "", "00002": "", "00003": ""}
    assert len(server.requests) == 2


def test_a_sign_is_cut_out_of_a_compilation(server, tmp_path):
    server.files["/many.mp4"] = write_video(tmp_path / "many.mp4", n_frames=40, rate=30)
    url = f"{server.url}/many.mp4"
    segments = {"00001": (6, 10), "00002": (21, 30), "00003": (500, 520)}
    annotate(tmp_path, [(clip, url, {"frame_start": a, "frame_end": b}) for clip, (a, b) in segments.items()])
    found = fetch(tmp_path)
    assert found == {"00001": "", "00002": "", "00003": "has 0 of the annotated frames 599 to 624"}
    assert names(tmp_path) == ["00001.mp4", "00002.mp4"]
    # At 30 frames per second the annotated 6..10 of 25 are 6..11, half-open and from 0.
    assert numbers(tmp_path / "videos" / "00001.mp4", tmp_path / "many.mp4") == list(range(6, 12))
    assert numbers(tmp_path / "videos" / "00002.mp4", tmp_path / "many.mp4") == list(range(24, 36))
    info = probe(tmp_path / "videos" / "00002.mp4")
    assert info.fps == 30
    assert to_file_frames(21, 30, fps=25, file_fps=info.fps, n_frames=info.frames) == (
        0,
        12,
    )  # the index takes it whole


@pytest.mark.parametrize(("width", "height"), [(64, 48), (65, 49)])
@pytest.mark.parametrize(
    ("pix_fmt", "colours"),
    [
        ("yuv420p", (1, 1)), ("yuv420p", (2, 5)), ("yuv422p", (1, 6)), ("yuv444p", (1, 1)), ("yuv444p", (2, 1)),
        ("yuv410p", (1, 5)), ("gray", (2, 2)), ("bgr0", (2, 0)), ("yuva420p", (1, 1)), ("yuv420p10le", (1, 9)),
        ("yuv444p12le", (1, 1)),
    ],
)  # fmt: skip
def test_a_sign_is_cut_out_of_a_source_of_any_format_and_size(tmp_path, pix_fmt, colours, width, height):
    y, x = np.mgrid[:height, :width]
    source, target = tmp_path / "many.mkv", tmp_path / "sign.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.color_range, stream.codec_context.colorspace = colours
        stream.set_display_matrix([-1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30])
        for number in range(12):
            image = np.stack([60 + x, 60 + 2 * y, np.full_like(x, 40 + 10 * number)], axis=-1).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame.reformat(format=pix_fmt, dst_color_range=colours[0])))
        container.mux(stream.encode())
    cut_out(source, target, start=4, end=9, fps=25)
    assert probe(target)[:4] == (25, 6, width, height)
    for whole, sign in zip(list(frames(source))[3:9], frames(target), strict=True):
        assert np.abs(whole.astype(int) - sign).mean() < 3


@pytest.mark.parametrize(("suffix", "codec"), [(".swf", "flv"), (".mov", "mpeg4"), (".webm", "vp8"), (".SWF", "flv")])
def test_a_file_keeps_a_known_suffix_of_its_address(server, tmp_path, suffix, codec):
    codec = "libvpx" if codec == "vp8" else codec
    server.files[f"/book{suffix}"] = write_video(tmp_path / f"clip{suffix.lower()}", codec=codec)
    server.modes[f"/book{suffix}"] = ["good application/x-shockwave-flash"]
    annotate(tmp_path, [("00001", f"{server.url}/book{suffix}", {})])
    assert fetch(tmp_path) == {"00001": ""}
    assert names(tmp_path) == [f"00001{suffix.lower()}"]


def test_an_address_without_a_known_suffix_gives_an_mp4(server, video, tmp_path):
    server.files["/a%20sign.php?v=7"] = video
    annotate(tmp_path, [("00001", f"{server.url}/a sign.php?v=7", {})])
    assert fetch(tmp_path) == {"00001": ""}
    assert names(tmp_path) == ["00001.mp4"]


def test_a_readable_file_of_any_suffix_is_kept(book, tmp_path):
    (tmp_path / "videos").mkdir()
    content = write_video(tmp_path / "videos" / "00001.mkv")
    assert fetch(tmp_path) == {"00001": ""}
    assert (tmp_path / "videos" / "00001.mkv").read_bytes() == content
    assert book.requests == []


def test_an_unreadable_file_is_replaced_only_by_a_readable_one(server, tmp_path):
    server.files["/book.swf"] = write_video(tmp_path / "clip.swf", codec="flv")
    server.modes["/book.swf"] = ["status 404"]
    annotate(tmp_path, [("00001", f"{server.url}/book.swf", {})])
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "00001.mp4").write_bytes(b"broken")
    assert fetch(tmp_path) == {"00001": "404 Not Found"}
    assert names(tmp_path) == ["00001.mp4"]
    assert fetch(tmp_path) == {"00001": ""}
    assert names(tmp_path) == ["00001.swf"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (None, "the annotations give no address"),
        ("", "the annotations give no address"),
        ("book.mp4", "its address is not a web address"),
        ("file:///etc/hostname", "its address is not a web address"),
        ("http://[1/book.mp4", "its address is not a web address"),
        ("http://127.0.0.1:port/book.mp4", "Failed to parse: '127.0.0.1:port' is not a valid host or port"),
    ],
)
def test_one_bad_entry_stops_nothing(server, video, tmp_path, url, reason):
    server.files["/book.mp4"] = video
    annotate(
        tmp_path, [("00001", url, {}), ("../00002", f"{server.url}/x.mp4", {}), ("3", f"{server.url}/book.mp4", {})]
    )
    assert fetch(tmp_path) == {
        "../00002": "its video_id is not a file name",
        "00001": reason,
        "3": "",
    }


def test_an_unexpected_error_becomes_a_reason(server, video, tmp_path, monkeypatch):
    server.files["/a.mp4"] = server.files["/b.mp4"] = video
    annotate(tmp_path, [("00001", f"{server.url}/a.mp4", {}), ("00002", f"{server.url}/b.mp4", {})])

    def probe_oddly(path):
        if "00001" in path.name:
            raise ZeroDivisionError("odd\nfile")

    monkeypatch.setattr(downloading, "probe", probe_oddly)
    assert fetch(tmp_path) == {"00001": "ZeroDivisionError: odd file", "00002": ""}


def test_a_full_disk_stops_the_run_and_earlier_videos_are_reported(server, video, tmp_path, monkeypatch):
    server.files = {f"/{number}.mp4": video for number in range(3)}
    annotate(tmp_path, [(f"0000{number}", f"{server.url}/{number}.mp4", {}) for number in range(3)])
    copy = downloading.shutil.copyfile

    def fill(source, target):
        if "00001" in target.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        copy(source, target)

    monkeypatch.setattr(downloading.shutil, "copyfile", fill)
    with pytest.raises(StudyError, match=r"videos: cannot be written \(No space left on device\); make room"):
        download_videos(tmp_path, 1)
    report = pd.read_csv(tmp_path / "coverage.csv", dtype=str)
    assert list(report["status"]) == ["present", "failed", "failed"]
    assert set(report["reason"][1:]) == {"not tried because the run was stopped; run again"}
    assert len(server.requests) == 2
    assert (tmp_path / "videos" / "00001.part").read_bytes() == video  # nothing is lost


def test_an_interrupted_run_loses_nothing(server, video, clock, tmp_path, monkeypatch):
    server.files = {f"/{number}.mp4": video for number in range(3)}
    server.modes["/1.mp4"] = ["half"]
    annotate(tmp_path, [(f"0000{number}", f"{server.url}/{number}.mp4", {}) for number in range(3)])

    def interrupt(seconds):
        clock.sleep(seconds)
        if seconds > 1:  # the wait after a broken download
            raise KeyboardInterrupt

    monkeypatch.setattr(sites, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download_videos(tmp_path, 1)
    monkeypatch.setattr(sites, "sleep", clock.sleep)
    assert names(tmp_path) == ["00000.mp4", "00001.part"]
    assert list(pd.read_csv(tmp_path / "coverage.csv")["status"]) == ["present", "failed", "failed"]
    assert set(fetch(tmp_path).values()) == {""}
    assert [path for path, *_ in server.requests] == ["/0.mp4", "/1.mp4", "/1.mp4", "/2.mp4"]
    assert server.requests[2][1] == f"bytes={len(video) // 2}-"


def test_the_report_and_its_summary_have_a_row_for_every_official_clip(server, video, tmp_path, capsys):
    server.files["/a.mp4"] = video
    server.modes["/b.mp4"] = ["status 404"]
    clips = [
        ("00002", f"{server.url}/b.mp4", {}),
        ("00001", f"{server.url}/a.mp4", {}),
        ("00003", f"{server.url}/a.mp4", {"split": "test"}),
    ]
    annotate(tmp_path, clips)
    nslt = {
        clip: {"subset": "val" if clip == "00004" else "train", "action": [0, 1, 9]}
        for clip in ("00001", "00002", "00004")
    }
    nslt["00003"] = {"subset": "test", "action": [0, 1, 9]}
    (tmp_path / "annotations" / "nslt_1.json").write_text(json.dumps(nslt))
    report = download_videos(tmp_path, 1)
    rows = [
        ("00001", "book", "train", f"{server.url}/a.mp4", "present", ""),
        ("00002", "book", "train", f"{server.url}/b.mp4", "failed", "404 Not Found"),
        ("00003", "book", "test", f"{server.url}/a.mp4", "present", ""),
        ("00004", "book", "val", "", "failed", "the annotations give no address"),
    ]
    assert list(report.itertuples(index=False, name=None)) == rows
    written = pd.read_csv(tmp_path / "coverage.csv", dtype=str, keep_default_na=False)
    assert list(written) == ["video_id", "gloss", "split", "url", "status", "reason"]
    assert list(written.itertuples(index=False, name=None)) == rows
    assert summary(report).splitlines() == [
        "train      1 of 2 clips (50.0%)",
        "val        0 of 1 clips (0.0%)",
        "test       1 of 1 clips (100.0%)",
        "all        2 of 4 clips (50.0%)",
        "           1 × 404 Not Found",
        "           1 × the annotations give no address",
    ]
    assert re.search(r"videos: 100%.* 3/3 ", capsys.readouterr().err)


def test_without_yt_dlp_youtube_is_reported_without_waiting(server, video, clock, tmp_path, monkeypatch):
    monkeypatch.setattr(sites, "yt_dlp", None)
    server.files["/book.mp4"] = video
    clips = [("00001", "https://www.youtube.com/watch?v=abc", {}), ("00002", "https://youtu.be/abc", {})]
    annotate(tmp_path, [*clips, ("00003", f"{server.url}/book.mp4", {})])
    assert fetch(tmp_path) == {
        "00001": "needs yt-dlp", "00002": "needs yt-dlp", "00003": "",
    }  # fmt: skip
    assert clock.slept == []


@pytest.fixture
def youtube(monkeypatch):
    """A yt_dlp that writes `content`, or raises the next of `errors`; `asked` lists the addresses."""
    utils = types.SimpleNamespace(DownloadError=type("DownloadError", (Exception,), {}))
    fake = types.SimpleNamespace(utils=utils, content=b"", errors=[], asked=[])

    class YoutubeDL:
        def __init__(self, options):
            self.options = options

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return False

        def download(self, urls):
            fake.asked += urls
            if fake.errors:
                raise fake.errors.pop(0)
            with open(self.options["outtmpl"]["default"] % {}, "wb") as file:
                file.write(fake.content)

    fake.YoutubeDL = YoutubeDL
    monkeypatch.setattr(sites, "yt_dlp", fake)
    return fake


def test_yt_dlp_fetches_videos_on_youtube(youtube, clock, tmp_path):
    root = tmp_path / "50% of it"
    root.mkdir()
    youtube.content = write_video(tmp_path / "clip.mp4", n_frames=40)
    many, one = "https://www.youtube.com/watch?v=many", "https://youtu.be/one"
    segments = [
        ("00001", many, {"frame_start": 6, "frame_end": 10}),
        ("00002", many, {"frame_start": 31, "frame_end": 38}),
    ]
    annotate(root, [*segments, ("00003", one, {})])
    assert outcome(download_videos(root, 1)) == {"00001": "", "00002": "", "00003": ""}
    assert numbers(root / "videos" / "00002.mp4", tmp_path / "clip.mp4") == list(range(30, 38))
    assert (root / "videos" / "00003.mp4").read_bytes() == youtube.content
    assert names(root) == ["00001.mp4", "00002.mp4", "00003.mp4"]
    assert youtube.asked == [many, one]
    assert clock.slept == [1.0]  # both of its hosts are one site


def test_errors_of_yt_dlp_become_reasons_and_a_refusal_is_retried(youtube, clock, tmp_path):
    error = youtube.utils.DownloadError
    youtube.content = write_video(tmp_path / "clip.mp4")
    youtube.errors = [
        error("ERROR: [youtube] a: Video unavailable"),
        error("ERROR: [youtube] b: Sign in to confirm you’re not a bot."),
        KeyError("formats"),
    ]
    annotate(tmp_path, [(f"0000{n}", f"https://youtu.be/{n}", {}) for n in range(2)])
    assert fetch(tmp_path) == {
        "00000": "[youtube] a: Video unavailable",
        "00001": "KeyError: 'formats'",
    }
    assert clock.slept == [1.0, 2.0]


def test_a_clip_fails_if_yt_dlp_writes_nothing(youtube, tmp_path, monkeypatch):
    monkeypatch.setattr(youtube.YoutubeDL, "download", lambda *_: 0)
    annotate(tmp_path, [("00001", "https://youtu.be/live", {})])
    assert fetch(tmp_path)["00001"].startswith("FileNotFoundError")


@pytest.mark.parametrize(
    ("subset", "accept", "message"),
    [
        ("1", "", "nothing was downloaded: read the terms above and, if you accept them, set ACCEPT=yes"),
        ("1", "no", "nothing was downloaded: read the terms above and, if you accept them, set ACCEPT=yes"),
        ("many", "yes", r"SUBSET is the number of glosses \(100, 300, 1000 or 2000\), not 'many'"),
        ("0", "yes", r"SUBSET is the number of glosses \(100, 300, 1000 or 2000\), not '0'"),
        ("2", "yes", ".*annotations holds neither WLASL_v0.3.json.*WLASL2.json.*"),
    ],
)
def test_nothing_is_downloaded_without_consent_or_with_bad_arguments(server, tmp_path, capsys, subset, accept, message):
    annotate(tmp_path, [("00001", f"{server.url}/book.mp4", {})])
    assert main(str(tmp_path), subset, accept) == 1
    output = capsys.readouterr()
    assert output.out == LICENCE + "\n"
    assert re.fullmatch(f"error: {message}\n", output.err)
    assert not (tmp_path / "videos").exists()
    assert server.requests == []


@pytest.mark.parametrize("data", ["", "absent"])
def test_a_data_root_that_does_not_exist_is_an_error(tmp_path, monkeypatch, capsys, data):
    monkeypatch.chdir(tmp_path)
    assert main(data, "100", "yes") == 1
    assert f"error: the data root '{data}' does not exist: set DATA=<root>" in capsys.readouterr().err


def test_the_licence_text_names_the_terms():
    for words in ("C-UDA 1.0", "computational use only", "no commercial use", "belong to the sites"):
        assert words in LICENCE


def test_with_consent_the_command_downloads_and_prints_a_summary(book, tmp_path, capsys):
    assert main(str(tmp_path), "1", "yes") == 0
    output = capsys.readouterr().out
    assert output.startswith(LICENCE)
    assert "train      1 of 1 clips (100.0%)" in output
    assert output.endswith(f"report: {tmp_path / 'coverage.csv'}\n")


def test_addresses_in_v03_take_precedence(server, video, tmp_path):
    server.files["/new.mp4"] = video
    annotate(tmp_path, [("00001", f"{server.url}/new.mp4", {})])
    (tmp_path / "annotations" / "WLASL1.json").rename(tmp_path / "annotations" / "WLASL_v0.3.json")
    annotate(tmp_path, [("00001", f"{server.url}/old.mp4", {})])
    assert fetch(tmp_path) == {"00001": ""}
    assert [path for path, *_ in server.requests] == ["/new.mp4"]


def test_nslt_alone_has_no_addresses(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "nslt_1.json").write_text('{"1": {"subset": "train", "action": [0, 1, 9]}}')
    (tmp_path / "annotations" / "wlasl_class_list.txt").write_text("0\tbook\n")
    with pytest.raises(StudyError, match=r"neither WLASL_v0\.3\.json nor WLASL1\.json, which say where the videos are"):
        download_videos(tmp_path, 1)


def test_every_clip_of_the_real_annotations_has_an_address_on_a_site(wlasl_root):
    clips = read_annotations(wlasl_root, 300)
    sites = clips["video_id"].map(downloading.read_urls(wlasl_root, 300)).map(site_of)
    assert len(clips) == 5117
    assert (sites != "").all()
    assert (sites == "YouTube").sum() == 1604
    assert sites.nunique() == 12
