"""TensorFlow Lite: convert torch networks to files of built-in operations, quantise and run them."""

import io
import json
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from lib.export import DESCRIPTION, LABELS, Inputs
from lib.settings import StudyError

SIGNATURE = "serving_default"
PRECISIONS = ("float32", "float16", "int8-dynamic", "int8")
LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")  # in int8; everything else is faster in float32


def convert(network: Any, example: dict[str, Any]) -> bytes:
    """Convert a network to a float32 file for one clip."""
    os.environ["LITERT_TORCH_SHOW_PROGRESS"] = "n"  # it prints every step, in notebooks as rich output
    import litert_torch

    example = {name: value[:1] for name, value in example.items()}
    try:
        content = litert_torch.convert(network, sample_kwargs=example).model_content()
    except Exception as error:  # the compiler's errors share no class
        raise StudyError(f"TensorFlow Lite cannot hold this network: {shorten(str(error), 300)}") from error
    if unknown := custom_ops(content):
        raise StudyError(f"TensorFlow Lite has no built-in operation for: {', '.join(sorted(unknown))}")
    return content


def quantise(content: bytes, precision: str, calibration: Iterable[Inputs] = (), kept: float = 0) -> bytes:
    """Convert a float32 file to one of PRECISIONS."""
    from ai_edge_quantizer import quantizer, recipe
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName as Operation

    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; there are: {', '.join(PRECISIONS)}")
    if precision == "float32":
        return content
    maker, ranges = quantizer.Quantizer(bytearray(content)), None
    if precision == "float16":
        maker.add_weight_only_config(".*", Operation.ALL_SUPPORTED, 16, algorithm_key=AlgorithmName.FLOAT_CASTING)
    elif precision == "int8-dynamic":
        maker.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    else:
        for layer in LAYERS:
            maker.add_static_config(".*", Operation[layer], activation_num_bits=8, weight_num_bits=8)
        ranges = _measure(content, maker.get_quantization_recipe(), require_calibration(calibration))
    layers = [result.name.decode() for kind, result in _operators(content) if kind in LAYERS]
    for name in layers[: round(kept * len(layers))]:
        maker.update_quantization_recipe(
            f"^{re.escape(name)};", Operation.ALL_SUPPORTED, None, AlgorithmName.NO_QUANTIZE
        )
    return bytes(maker.quantize(ranges, enable_progress_report=False).quantized_model)


def require_calibration(calibration: Iterable[Inputs]) -> list[Inputs]:
    """The calibration data as a list. Raises StudyError when they are empty."""
    if not (inputs := list(calibration)):
        raise StudyError("int8 needs clips to measure the ranges of values on: there is no calibration set")
    return inputs


def _measure(content: bytes, recipe: list[dict[str, Any]], inputs: list[Inputs]) -> dict[str, Any]:
    """The lowest and highest value of each tensor over all inputs.

    The quantiser's own `calibrate` takes a moving average, which hardly looks beyond the first input.
    """
    from ai_edge_quantizer.calibrator import Calibrator
    from ai_edge_quantizer.recipe_manager import RecipeManager
    from ai_edge_quantizer.utils.qsv_utils import min_max_update

    manager = RecipeManager()
    manager.load_quantization_recipe(recipe)
    calibrator = Calibrator(content, num_threads=1, qsv_update_func=min_max_update)
    calibrator.calibrate({SIGNATURE: inputs}, manager)
    return calibrator.get_model_qsvs()


class Runner:
    """Runs a file on one clip."""

    def __init__(self, content: bytes, threads: int = 1) -> None:
        self.content = content  # the interpreter reads it without keeping it alive
        try:
            self.interpreter = Interpreter(model_content=content, num_threads=threads)
            with _silent():
                self.interpreter.allocate_tensors()
            self.run = self.interpreter.get_signature_runner(SIGNATURE)
        except (ValueError, RuntimeError) as error:
            raise StudyError(f"not a TensorFlow Lite model that can be run: {shorten(str(error), 300)}") from None

    def __call__(self, inputs: Inputs) -> Inputs:
        return self.run(**inputs)

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return [*self.run.get_output_details()]

    def zeros(self) -> Inputs:
        """Zeros for every input of one clip, by name."""
        details = self.run.get_input_details()
        return {name: np.zeros(detail["shape"], detail["dtype"]) for name, detail in details.items()}


@contextmanager
def _silent() -> Iterator[None]:
    """Without stderr, where TensorFlow Lite greets when it first allocates: commands complain there."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def operations(content: bytes) -> Counter[str]:
    """Count the operations of a file by name; those that are not built in are called "custom <name>"."""
    return Counter(kind for kind, _ in _operators(content))


def result_types(content: bytes) -> Counter[tuple[str, str]]:
    """Count the operations of a file by name and by the type of their result: ("CONV_2D", "INT8")."""
    types = {code: name for name, code in vars(schema.TensorType).items()}
    return Counter((kind, types[result.type]) for kind, result in _operators(content))


def custom_ops(content: bytes) -> dict[str, int]:
    """Count the operations that are not built in, such as TensorFlow's ("Flex")."""
    return {name: count for name, count in operations(content).items() if name.startswith(("custom ", "STABLEHLO"))}


def parse(content: bytes) -> schema.ModelT:
    """Parse a file into the objects of its schema."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))


def _operators(content: bytes) -> list[tuple[str, schema.TensorT]]:
    """The name of each operation, and its first output."""
    model, builtin = parse(content), schema.BuiltinOperator
    names = {code: name for name, code in vars(builtin).items() if not name.startswith("_")}
    kinds = [
        f"custom {code.customCode.decode()}" if code.builtinCode == builtin.CUSTOM else names[code.builtinCode]
        for code in model.operatorCodes
    ]
    return [
        (kinds[operator.opcodeIndex], graph.tensors[operator.outputs[0]])
        for graph in model.subgraphs
        for operator in graph.operators
    ]


def add_metadata(content: bytes, description: dict[str, Any], labels: list[str]) -> bytes:
    """Append description and labels as a zip archive, as TensorFlow Lite's own metadata are."""
    about = json.dumps(description, indent=1, ensure_ascii=False)
    texts = {f"{LABELS}.txt": "\n".join(labels) + "\n", f"{DESCRIPTION}.json": about}
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), text)  # a fixed time: the same bytes again
    return file.getvalue()


def read_metadata(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Read description and labels from the archive."""
    with zipfile.ZipFile(path) as file:
        labels, description = (file.read(name).decode() for name in (f"{LABELS}.txt", f"{DESCRIPTION}.json"))
    return json.loads(description), labels.split("\n")[:-1]
