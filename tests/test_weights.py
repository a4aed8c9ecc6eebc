"""Published weights: downloaded complete, checked and resumed, or one clear error; and which fit which model."""

import hashlib
import http.server
import re
import socket
import threading

import pytest

from lib.models import build, weights
from lib.models.weights import WEIGHTS, Published, fetch, load_pretrained
from lib.settings import StudyError

CONTENT = bytes(range(256)) * 12_000  # three megabytes, more than one chunk
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT, or misbehaves as its server's `mode` says; notes the Range of every request."""

    def do_GET(self):
        server = self.server
        server.ranges.append(self.headers.get("Range"))
        if server.mode == "404":
            return self.send_error(404)
        start = int(re.findall(r"\d+", self.headers.get("Range") or "0")[0]) if server.mode != "no ranges" else 0
        if start >= len(CONTENT):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start:-1_000_000] if server.mode == "truncated" else CONTENT[start:])

    def log_message(self, *args):
        """Be quiet."""


@pytest.fixture
def server(monkeypatch):
    """A server whose `mode` a test may set; WEIGHTS' entry "model" points to it."""
    monkeypatch.setenv("no_proxy", "*")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.mode, server.ranges = "good", []
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    publish(monkeypatch, server.server_port, SHA256)
    yield server
    server.shutdown()
    server.server_close()


def publish(monkeypatch, port, sha256):
    url = f"http://127.0.0.1:{port}/some/weights.bin"
    monkeypatch.setitem(WEIGHTS, "model", Published("model", "noise", url, "none", sha256))


def visible(folder):
    """Names of the files in a folder, but for locks."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_weights_are_downloaded_once_and_then_found(server, tmp_path):
    folder = tmp_path / "new" / "folder"
    for _ in range(2):
        path = fetch("model", folder)
        assert path == folder / "weights.bin"
        assert path.read_bytes() == CONTENT
    assert server.ranges == [None]
    assert visible(folder) == ["weights.bin"]


def test_a_download_shows_a_progress_bar(server, tmp_path, capsys):
    fetch("model", tmp_path)
    assert re.search(r"weights\.bin: 100%.*3\.07M/3\.07M", capsys.readouterr().err)


def test_weights_lie_in_data_weights_of_the_study_home_by_default(server, tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_HOME", str(tmp_path))
    assert fetch("model") == tmp_path / "data" / "weights" / "weights.bin"


@pytest.mark.parametrize("sha256", [None, SHA256[:8]])
def test_without_a_published_checksum_or_with_its_first_digits_a_whole_file_is_taken(
    server, tmp_path, monkeypatch, sha256
):
    publish(monkeypatch, server.server_port, sha256)
    assert fetch("model", tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_is_an_error_and_leaves_nothing(server, tmp_path, monkeypatch):
    publish(monkeypatch, server.server_port, "0" * 64)
    with pytest.raises(StudyError, match=f"its sha256 is {SHA256}, not 0000.*get it from http"):
        fetch("model", tmp_path)
    assert visible(tmp_path) == []


def test_a_file_put_there_by_hand_is_checked_and_kept(server, tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"something else")
    with pytest.raises(StudyError, match=r"weights\.bin is not the published file.*delete it and get it from"):
        fetch("model", tmp_path)
    assert visible(tmp_path) == ["weights.bin"]
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(StudyError, match="is empty"):
        fetch("model", tmp_path)
    assert server.ranges == []


def assert_says_what_to_do(error, port, folder):
    """The message names the file, its address and its place, in one line."""
    message = str(error.value)
    assert f"get it from http://127.0.0.1:{port}/some/weights.bin and put it at {folder / 'weights.bin'}" in message
    assert message.startswith("weights.bin could not be downloaded (")
    assert "\n" not in message


def test_a_missing_file_is_an_error_that_says_what_to_do(server, tmp_path):
    server.mode = "404"
    with pytest.raises(StudyError, match="Not Found") as error:
        fetch("model", tmp_path)
    assert_says_what_to_do(error, server.server_port, tmp_path)
    assert visible(tmp_path) == []


def test_a_refused_connection_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    publish(monkeypatch, port, SHA256)
    with pytest.raises(StudyError, match="refused") as error:
        fetch("model", tmp_path)
    assert_says_what_to_do(error, port, tmp_path)
    assert visible(tmp_path) == []


def test_a_truncated_download_is_an_error_and_the_next_one_goes_on_from_there(server, tmp_path):
    server.mode = "truncated"
    with pytest.raises(StudyError, match="broke off 1000000 bytes before the end") as error:
        fetch("model", tmp_path)
    assert_says_what_to_do(error, server.server_port, tmp_path)
    assert visible(tmp_path) == ["weights.bin.part"]
    server.mode = "good"
    assert fetch("model", tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={len(CONTENT) - 1_000_000}-"]
    assert visible(tmp_path) == ["weights.bin"]


def test_a_server_that_cannot_resume_sends_the_whole_file_again(server, tmp_path):
    (tmp_path / "weights.bin.part").write_bytes(CONTENT[:1000])
    server.mode = "no ranges"
    assert fetch("model", tmp_path).read_bytes() == CONTENT


def test_a_part_with_no_rest_on_the_server_is_downloaded_anew(server, tmp_path):
    (tmp_path / "weights.bin.part").write_bytes(CONTENT + b"more")
    assert fetch("model", tmp_path).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT) + 4}-", None]


def test_a_corrupt_part_is_thrown_away_so_that_the_attempt_after_it_succeeds(server, tmp_path):
    (tmp_path / "weights.bin.part").write_bytes(b"x" * 1000)
    with pytest.raises(StudyError, match="is not the published file"):
        fetch("model", tmp_path)
    assert fetch("model", tmp_path).read_bytes() == CONTENT


def test_two_downloads_at_once_give_one_whole_file(server, tmp_path):
    threads = [threading.Thread(target=fetch, args=("model", tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "weights.bin").read_bytes() == CONTENT
    assert server.ranges == [None]


def test_an_unknown_name_is_an_error_that_lists_the_known_ones(tmp_path):
    with pytest.raises(StudyError, match=r"'movinet-a9'; there are: movinet-a0-base, movinet-a0-stream, .*x3d-l"):
        fetch("movinet-a9", tmp_path)


def test_the_table_has_every_pretrained_model_with_an_address_of_its_own_and_a_licence():
    movinets = {f"movinet-a{size}-{kind}" for size in range(6) for kind in ("base", "stream")}
    others = {
        "i3d-kinetics",
        "i3d-imagenet",
        "i3d-kinetics-flax",
        "s3d-from-i3d",
        "s3d",
        "x3d-xs",
        "x3d-s",
        "x3d-m",
        "x3d-l",
    }
    assert set(WEIGHTS) == movinets | others | {"movinet-a0-stream-k600-int8"}
    assert len({entry.file for entry in WEIGHTS.values()}) == len(WEIGHTS) - 1  # S3D takes a file of I3D
    for entry in WEIGHTS.values():
        assert re.fullmatch(r"https://[a-z.]+/\S+", entry.url)
        assert re.fullmatch(r"\S+\.(tar\.gz|h5|pth|pyth|tflite|ckpt)", entry.file)
        assert entry.licence in {"Apache-2.0", "BSD-3-Clause"}
        assert entry.sha256 is None or re.fullmatch(r"[0-9a-f]{8,64}", entry.sha256)


def test_the_addresses_are_those_that_the_installed_libraries_download_from():
    from pytorchvideo.models.hub.x3d import checkpoint_paths
    from torchvision.models.video import S3D_Weights

    assert WEIGHTS["s3d"].url == S3D_Weights.KINETICS400_V1.url
    assert {name: WEIGHTS[name.replace("_", "-")].url for name in checkpoint_paths} == checkpoint_paths


def test_the_file_for_phones_has_the_stated_checksum(official_weights):
    entry = WEIGHTS["movinet-a0-stream-k600-int8"]
    assert hashlib.sha256((official_weights / entry.file).read_bytes()).hexdigest() == entry.sha256


def test_the_file_of_i3d_has_the_name_of_the_parity_case(repository):
    folder = repository.parent / "shared" / "weights" / "i3d_rgb"
    if not folder.is_dir():
        pytest.skip("the parity cases are not here")
    assert (folder / WEIGHTS["i3d-imagenet"].file).is_file()


# ---- into a model --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of published weights, empty; nothing can be downloaded."""
    monkeypatch.setenv("STUDY_HOME", str(tmp_path))

    def offline(url, part):
        raise OSError("no network")

    monkeypatch.setattr(weights, "download", offline)
    (tmp_path / "data" / "weights").mkdir(parents=True)
    return tmp_path / "data" / "weights"


def test_weights_of_another_model_are_refused_and_the_fitting_ones_named(folder):
    with pytest.raises(StudyError, match="'s3d' are not for i3d; for it there are: i3d-kinetics, i3d-imagenet"):
        load_pretrained(None, "i3d", "s3d")


def test_weights_that_cannot_be_had_say_which_file_to_get_from_where_and_where_to_put_it(folder):
    with pytest.raises(StudyError) as error:
        load_pretrained(build("i3d", 5, clip=(8, 32, 32)), "i3d", "i3d-imagenet")
    for part in ("no network", "https://github.com/dlpbc", "no_top.h5", str(folder)):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_published_state_of_a_torch_model_goes_into_all_but_the_head(folder, monkeypatch):
    import torch
    from torchvision.models.video import s3d

    torch.manual_seed(1)
    published = s3d(num_classes=400)
    file = folder / "s3d-d76dad2f.pth"
    torch.save(published.state_dict(), file)
    monkeypatch.setitem(weights.WEIGHTS, "s3d", weights.WEIGHTS["s3d"]._replace(sha256=None))
    model = build("s3d", 5, clip=(8, 32, 32))
    head = [weight.detach().clone() for weight in model.head.module.parameters()]
    load_pretrained(model, "s3d", "s3d")
    own = model.blocks[0].module.state_dict()
    for key, value in published.features[0].state_dict().items():
        assert torch.equal(own[key], value)
    assert all(torch.equal(a, b) for a, b in zip(head, model.head.module.parameters(), strict=True))
