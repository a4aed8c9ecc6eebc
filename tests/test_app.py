"""The folder of the page and its server; tests/test_app_page.py opens the page itself."""

import json
import re
import threading
import urllib.request

import pytest

from lib.app import build
from lib.app.__main__ import main, server
from lib.app.build import NEEDED, PINNED, SOURCES, assemble
from lib.app.skeletons import FRAMES
from lib.predict.model import best_released
from lib.settings import StudyError


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Stand-ins for the files of the npm packages, as `npm ci` leaves them; returns their folder."""
    folder = tmp_path / "npm"
    for package, names in NEEDED.items():
        for name in (*names, "package.json", "more.js"):
            path = folder / "node_modules" / package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text('{"version": "1.2.3", "license": "MIT"}' if name == "package.json" else name)
    (folder / "done").write_text("".join((SOURCES / name).read_text() for name in PINNED))
    monkeypatch.setattr(build, "PACKAGES", folder)
    monkeypatch.setenv("STUDY_HOME", str(tmp_path / "home"))  # this machine's pose stores play no part
    return folder


def test_the_folder_holds_what_the_page_needs_and_no_more(packages, tmp_path):
    assemble(tmp_path / "app")
    files = {path.relative_to(tmp_path / "app").as_posix() for path in (tmp_path / "app").rglob("*") if path.is_file()}
    models = {name for name in files if name.endswith(".onnx")}
    vendor = {f"vendor/{name.rpartition('/')[2]}" for names in NEEDED.values() for name in names}
    page = {path.name for path in SOURCES.iterdir() if path.suffix in (".html", ".css", ".js", ".svg")}
    assert files == page | vendor | models | {"files.js", "models/released.json", "vendor/NOTICE.txt"}
    kept = json.loads(re.search(r"FILES = (.*);", (tmp_path / "app" / "files.js").read_text())[1])
    assert {*kept} == (files - {"sw.js", "files.js"}) | {"./"}
    assert "onnxruntime-web 1.2.3, licence MIT" in (tmp_path / "app" / "vendor" / "NOTICE.txt").read_text()


def test_the_best_released_model_comes_first_with_what_was_measured(packages, tmp_path, of_hands):
    assemble(tmp_path / "app")
    best = best_released()
    first, *_ = listed = json.loads((tmp_path / "app" / "models" / "released.json").read_text())
    metrics = json.loads((best.parents[1] / "runs" / best.stem / "metrics.json").read_text())
    assert first["name"] == f"{best.parts[-3]}/{best.stem}"
    assert first["top1"] == metrics["top1"]
    assert (tmp_path / "app" / first["address"]).read_bytes() == best.with_suffix(".onnx").read_bytes()
    assemble(tmp_path / "app", of_hands.files["onnx"])
    other, *rest = json.loads((tmp_path / "app" / "models" / "released.json").read_text())
    assert other["name"] == of_hands.name
    assert sorted(rest, key=str) == sorted(listed, key=str)
    assert "top1" not in other


def test_a_stream_is_taken_and_a_model_of_whole_videos_or_of_another_format_refused(packages, tmp_path, of_videos):
    assemble(tmp_path / "app", of_videos.files["onnx-stream"])
    first, *_ = json.loads((tmp_path / "app" / "models" / "released.json").read_text())
    assert first["name"] == of_videos.name
    with pytest.raises(StudyError, match="reads neither two hands nor single frames"):
        assemble(tmp_path / "app", of_videos.files["onnx"])
    with pytest.raises(StudyError, match="the page reads ONNX files"):
        assemble(tmp_path / "app", of_videos.files["tflite"])


def test_skeletons_are_there_where_the_pose_store_of_the_model_is(packages, tmp_path, of_hands, monkeypatch):
    listed = {}
    for place in (tmp_path / "none", of_hands.folder / "home"):
        monkeypatch.setenv("STUDY_HOME", str(place))
        assemble(tmp_path / "app", of_hands.files["onnx"])
        listed[place.name], *others = json.loads((tmp_path / "app" / "models" / "released.json").read_text())
        assert not any("skeletons" in other for other in others)
    assert "skeletons" not in listed["none"]
    address = listed["home"]["skeletons"]["address"]
    assert (tmp_path / "app" / address).stat().st_size == 3 * (4 + FRAMES * 42 * 2)
    assert address in (tmp_path / "app" / "files.js").read_text()  # kept for use without a network


def test_the_version_of_the_folder_changes_with_any_file(packages, tmp_path):
    def version():
        assemble(tmp_path / "app")
        return (tmp_path / "app" / "files.js").read_text()

    first = version()
    assert version() == first
    (packages / "node_modules" / "@mediapipe" / "hands" / "hands.js").write_text("other")
    assert version() != first


def test_a_folder_that_is_too_large_is_not_left(packages, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "LARGEST", 1000)
    with pytest.raises(StudyError, match="more than 1,000"):
        assemble(tmp_path / "app")
    assert not (tmp_path / "app").exists()


def test_without_npm_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build, "PACKAGES", tmp_path / "npm")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("STUDY_HOME", str(tmp_path))
    assert main(["--only"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "install Node.js" in line


def test_packages_are_pinned_by_version_and_hash_and_not_by_address():
    package = json.loads((SOURCES / "package.json").read_text())
    assert {*package["dependencies"]} == {*NEEDED}
    wanted = package["dependencies"] | package["devDependencies"]
    assert all(re.fullmatch(r"[\d.]+", version) for version in wanted.values())
    text = (SOURCES / "package-lock.json").read_text()
    assert "://" not in text
    locked = {name: one for name, one in json.loads(text)["packages"].items() if name}
    assert all(one["integrity"].startswith("sha512-") for one in locked.values())
    assert {name: locked[f"node_modules/{name}"]["version"] for name in wanted} == wanted


def test_the_server_serves_this_machine_alone_with_a_policy(tmp_path):
    (tmp_path / "index.html").write_text("page")
    (tmp_path / "a.wasm").write_bytes(b"")
    (tmp_path / "b.mjs").write_bytes(b"")
    with server(tmp_path, 0) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        assert serving.server_address[0] == "127.0.0.1"
        types = {}
        for name in ("", "a.wasm", "b.mjs"):
            with urllib.request.urlopen(f"http://127.0.0.1:{serving.server_port}/{name}") as answer:
                types[name] = answer.headers["Content-Type"]
                rules = answer.headers["Content-Security-Policy"].split("; ")
                assert "default-src 'self'" in rules
                assert not any("http" in rule or "*" in rule or "'unsafe-" in rule for rule in rules)
        assert types == {"": "text/html", "a.wasm": "application/wasm", "b.mjs": "text/javascript"}
        with pytest.raises(StudyError, match=f"port {serving.server_port} cannot be used"):
            server(tmp_path, serving.server_port)
        serving.shutdown()


def test_the_page_names_no_address_but_its_own():
    for path in SOURCES.iterdir():
        if path.suffix in build.PAGE:
            found = [url for url in re.findall(r"https?://[^\s\"'<)]+", path.read_text()) if "www.w3.org" not in url]
            assert found == [], path.name
