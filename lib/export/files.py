"""What an exported file says about itself, and opening one.

A TensorFlow Lite file carries its labels and its description as associated files: a zip archive behind the model, as
TensorFlow Lite's own metadata do, which any unzipper reads. An ONNX file has them among its metadata_props.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any, Protocol

from google.protobuf.message import DecodeError

from lib.export.tflite import Inputs
from lib.settings import StudyError

LABELS, DESCRIPTION = "labels.txt", "description.json"


class Runner(Protocol):
    """What runs a file, of either format."""

    def __call__(self, inputs: Inputs) -> Inputs:
        """Inputs to outputs, float32, by name."""

    def zeros(self) -> Inputs:
        """The inputs of one clip by name, all zero."""


def add_metadata(content: bytes, suffix: str, description: dict[str, Any], labels: list[str]) -> bytes:
    """Put a description (anything JSON holds) and the labels, in the order of the logits, into a file."""
    parts = {LABELS: "\n".join(labels) + "\n", DESCRIPTION: json.dumps(description, indent=1, ensure_ascii=False)}
    if suffix == ".tflite":
        return content + archive(parts, len(content))
    import onnx

    model = onnx.load_from_string(content)
    onnx.helper.set_model_props(model, {Path(name).stem: text for name, text in parts.items()})
    return model.SerializeToString()


def archive(parts: dict[str, str], start: int) -> bytes:
    """A zip archive that begins at byte `start` of a file; with fixed times, so that it is the same every time."""
    file = io.BytesIO()
    file.write(bytes(start))  # the offsets in an archive count from the beginning of the file
    with zipfile.ZipFile(file, "a") as into:
        for name, text in parts.items():
            into.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), text)
    return file.getvalue()[start:]


def read_metadata(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The description and the labels of a file. Raises StudyError when there are none."""
    try:
        if path.suffix == ".tflite":
            with zipfile.ZipFile(path) as file:
                labels, description = (file.read(name).decode() for name in (LABELS, DESCRIPTION))
        else:
            import onnx

            properties = {prop.key: prop.value for prop in onnx.load(path).metadata_props}
            labels, description = (properties[Path(name).stem] for name in (LABELS, DESCRIPTION))
    except (OSError, KeyError, zipfile.BadZipFile, ValueError, DecodeError) as error:
        raise StudyError(f"{path}: no exported model of this study: {error}") from None
    return json.loads(description), labels.split("\n")[:-1]


def open_model(path: Path, threads: int = 1) -> Runner:
    """Make a runner of a .tflite or .onnx file. Raises StudyError when it can't be read or is neither."""
    try:
        return runner_of(path.suffix, path.read_bytes(), threads)
    except OSError as error:
        raise StudyError(f"{path}: cannot be read: {error.strerror}") from None


def runner_of(suffix: str, content: bytes, threads: int = 1) -> Runner:
    """Make a runner of the content of a file. Raises StudyError when it is no model or the suffix is of neither."""
    if suffix == ".tflite":
        from lib.export.tflite import Runner as TFLiteRunner

        return TFLiteRunner(content, threads)
    if suffix == ".onnx":
        from lib.export.onnx import Runner as ONNXRunner

        return ONNXRunner(content, threads)
    raise StudyError(f"a model has the suffix .tflite or .onnx, not {suffix!r}")
