"""The folder of the page: its sources, the files of two npm packages, the released models, and skeletons of signs."""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

from lib.app.skeletons import FRAMES, LAYOUT, write_skeletons
from lib.export import CLIP, IMAGE
from lib.export.files import read_metadata
from lib.paths import REPOSITORY, Paths, home, locked
from lib.predict.model import best_released
from lib.settings import StudyError

SOURCES = Path(__file__).parent
PAGE = (".html", ".css", ".js", ".svg")  # suffixes of the sources that the page is made of
PINNED = ("package.json", "package-lock.json")
# What the page needs of each package: of MediaPipe the build for browsers with SIMD, which onnxruntime needs as well,
# and the full model of the hand; of onnxruntime the smallest build.
NEEDED = {
    "@mediapipe/hands": (
        "hands.js",
        "hands.binarypb",
        "hand_landmark_full.tflite",
        "hands_solution_packed_assets.data",
        "hands_solution_packed_assets_loader.js",
        "hands_solution_simd_wasm_bin.js",
        "hands_solution_simd_wasm_bin.wasm",
    ),
    "onnxruntime-web": (
        "dist/ort.wasm.min.mjs",
        "dist/ort-wasm-simd-threaded.mjs",
        "dist/ort-wasm-simd-threaded.wasm",
    ),
}
FACTS = ("top1", "top5", "top1_ci95", "n", "n_missing", "known_from")  # of a released run
PACKAGES = REPOSITORY / "data" / "npm"  # they are the same whatever page is built
LARGEST = 60_000_000  # bytes of the folder


def assemble(folder: Path, model: Path | None = None) -> None:
    """Write the page to a folder, in the place of what was there.

    model: an ONNX file that the page opens first, of hands or a stream; by default the best released one. The released
    ones are there as well, each with skeletons where `home()` has the pose store of its study.

    Raises StudyError when there is no npm, it cannot fetch the packages, there is no model or one that the page cannot
    use, or all is too large.
    """
    with locked(PACKAGES / "lock"):
        packages = _packages(PACKAGES)
    partial = folder.with_name(f"{folder.name}-partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "vendor").mkdir(parents=True)
    for source in SOURCES.iterdir():
        if source.suffix in PAGE:
            shutil.copy(source, partial)
    for package, names in NEEDED.items():
        for name in names:
            shutil.copyfile(packages / package / name, partial / "vendor" / Path(name).name)
    (partial / "vendor" / "NOTICE.txt").write_text(_notice(packages))
    _add_models(partial / "models", model)
    _list_files(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def policy() -> str:
    """The Content-Security-Policy of the page, as its head says it: no address but the page's own."""
    return re.search(r'http-equiv="Content-Security-Policy"\s+content="([^"]+)"', _text("index.html"))[1]


def _text(name: str) -> str:
    return (SOURCES / name).read_text(encoding="utf-8")


def _packages(folder: Path) -> Path:
    """Fetch the pinned packages, unless they are here; npm checks their hashes. Returns the folder that holds them."""
    packages, done = folder / "node_modules", folder / "done"
    pins = "".join(map(_text, PINNED))
    if done.is_file() and done.read_text() == pins:
        return packages
    npm = shutil.which("npm")
    if not npm:
        raise StudyError("the page needs two npm packages: install Node.js, which brings npm, and run make app again")
    folder.mkdir(parents=True, exist_ok=True)
    for name in PINNED:
        shutil.copy(SOURCES / name, folder)
    options = ["--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    ran = subprocess.run([npm, "ci", *options], cwd=folder, capture_output=True, text=True)
    if ran.returncode:
        raise StudyError(f"npm cannot fetch the page's packages: {' '.join(ran.stderr.split())[-300:]}")
    done.write_text(pins)
    return packages


def _notice(packages: Path) -> str:
    """What the files of others are, and under which licences."""
    lines = ["The files in this folder are parts of npm packages, unchanged:\n"]
    for package in NEEDED:
        about = json.loads((packages / package / "package.json").read_text(encoding="utf-8"))
        lines.append(f"{package} {about['version']}, licence {about['license']}\n")
    return "".join(lines)


def _add_models(folder: Path, first: Path | None) -> None:
    """Copy the models, and list them in released.json with what their files do not say of them."""
    first = first or best_released().with_suffix(".onnx")
    if first.suffix != ".onnx":
        raise StudyError(f"{first}: the page reads ONNX files, not {first.suffix!r}")
    released = (REPOSITORY / "reports").glob("*/models/*.onnx")
    listed = []
    for model in dict.fromkeys([first, *sorted(released)]):
        description, labels = read_metadata(model)
        hands = description["input"].get(CLIP, {}).get("joints") == list(LAYOUT.joints)
        if not hands and IMAGE not in description["input"]:
            if model == first:
                raise StudyError(f"{model}: reads neither two hands nor single frames, and the page gives no others")
            continue
        study, run = description["name"].split("/")
        address = f"models/{study}/{run}"
        file = folder.parent / f"{address}.onnx"
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model, file)
        about = {"address": f"{address}.onnx", "name": description["name"], "glosses": len(labels)}
        paths = Paths(study, REPOSITORY)
        for path in (paths.metrics(run), paths.known(run)):
            if path.is_file():
                facts = json.loads(path.read_text())
                about |= {key: facts[key] for key in FACTS if key in facts}
        if hands and write_skeletons(file.with_suffix(".skeletons"), labels, Paths(study, home())):
            about["skeletons"] = {"address": f"{address}.skeletons", "frames": FRAMES}
        listed.append(about)
    (folder / "released.json").write_text(json.dumps(listed, indent=1))


def _list_files(folder: Path) -> None:
    """Write files.js: what the service worker keeps, and a version that changes with any of it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    size = sum(path.stat().st_size for path in files)
    if size > LARGEST:
        raise StudyError(f"the page has {size:,} bytes, more than {LARGEST:,}")
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    names = ["./", *(path.relative_to(folder).as_posix() for path in files if path.name != "sw.js")]
    text = f"self.VERSION = {json.dumps(digest.hexdigest()[:16])};\nself.FILES = {json.dumps(names)};\n"
    (folder / "files.js").write_text(text)
