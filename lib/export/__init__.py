"""Trained models as TensorFlow Lite and ONNX files, and the proof that they are the same models.

`run` makes and times all files of a run and predicts the test split with them; `bundle` scores these predictions,
writes the card beside each file, and releases files. The modules of both formats have the same interface:

- convert(network, example) makes a float32 file, whose inputs have the names of `example`, as `network.prepare` gives
  it. Raises StudyError when an operation has no counterpart.
- quantise(content, precision, calibration, kept) makes a float32 file one of PRECISIONS; inputs and outputs stay
  float32. float16: weights in float16, computed in float32. int8-dynamic: weights in int8 per channel, ranges of
  activations measured in each call. int8: inputs and outputs of LAYERS in int8 as well, in ranges measured on the
  inputs `calibration`; the rest stays float32, as coordinates, masks and the sums of a stream need more than 256 steps.
  kept: share of LAYERS, counted from the input, that stay float32. Raises StudyError for int8 without calibration
  data, and ValueError for an unknown precision.
- Runner(content, threads) runs a file: inputs by name to outputs by name, float32; `zeros` gives inputs of one clip,
  `outputs` the names of the outputs. Raises StudyError when the content is not a model.
- custom_ops(content) counts the operations that are not built in, by name.
- add_metadata(content, description, labels) stores a description (JSON) and the labels, in the order of the logits;
  read_metadata(path) reads both. Raises OSError, KeyError, ValueError or BadZipFile when there are none.
"""

from pathlib import Path

import numpy as np

from lib.paths import replacing
from lib.settings import StudyError

# Names of inputs and outputs. A file reads whole clips, or one image at a time with its buffers.
CLIP, IMAGE, LOGITS, EMBEDDING = "clip", "image", "logits", "embedding"
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
