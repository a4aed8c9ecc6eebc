"""Trained models as TensorFlow Lite and ONNX files, and the proof that they are the same models.

`run` makes and times all files of a run and predicts the val and test splits with them; `bundle` scores these
predictions, writes the card beside each file, and releases files. Both formats have a module of the same interface:
PRECISIONS, convert, quantise, Runner, custom_ops, add_metadata, read_metadata.
"""

from pathlib import Path

import numpy as np

from lib.paths import replacing
from lib.settings import StudyError

# Names of inputs and outputs. A file reads whole clips, or one image at a time with its buffers.
CLIP, IMAGE, LOGITS = "clip", "image", "logits"
NEXT = "next_"  # prefix of a buffer among the outputs: in ONNX no two values may share a name
LABELS, DESCRIPTION = "labels", "description"  # the metadata in a file

Inputs = dict[str, np.ndarray]  # inputs or outputs of a file by name, float32


def write(path: Path, content: bytes) -> None:
    """Write a file in one step. Raises StudyError when that fails."""
    try:
        with replacing(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise StudyError(f"{path}: cannot be written: {error.strerror}") from None
