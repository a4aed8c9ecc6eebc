"""TensorFlow Lite: torch networks to files of built-in operations, their precisions, and what such a file holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.qtyping import TFLOperationName

from lib.study import StudyError

SIGNATURE = "serving_default"
PRECISIONS = ("float32", "float16", "int8-dynamic", "int8")
ALL = TFLOperationName.ALL_SUPPORTED

Inputs = dict[str, np.ndarray]  # the inputs of a file by name


def convert(network: torch.nn.Module, example: dict[str, torch.Tensor]) -> bytes:
    """Convert a network in float32; inputs and outputs of the file have the names of `example` and of what it returns.

    Raises StudyError when an operation has no counterpart among the built-in ones.
    """
    import litert_torch

    try:
        content = litert_torch.convert(network, sample_kwargs=example).model_content()
    except Exception as error:  # whatever its compiler raises: it has no class of errors of its own
        raise StudyError(f"TensorFlow Lite cannot hold this network: {first_line(error)}") from error
    if strange := custom_ops(content):
        raise StudyError(f"TensorFlow Lite has no built-in operation for: {', '.join(sorted(strange))}")
    return content


def quantise(
    content: bytes, precision: str, calibration: Iterable[Inputs] = (), float_ops: Sequence[str] = ()
) -> bytes:
    """Make a float32 file one of PRECISIONS; the inputs and outputs stay float32.

    float16: the weights only, computed in float32. int8-dynamic: weights in int8 for each channel, values of each clip
    measured as it comes. int8: values, too, in ranges measured on `calibration`. float_ops: regular expressions of
    names; what makes such a value stays float32.
    Raises StudyError for int8 without calibration, and ValueError for an unknown precision.
    """
    if precision == "float32":
        return content
    maker = quantizer.Quantizer(bytearray(content))
    if precision == "float16":
        maker.add_weight_only_config(".*", ALL, 16, algorithm_key=AlgorithmName.FLOAT_CASTING)
        return finish(maker)
    if precision == "int8-dynamic":
        maker.load_quantization_recipe(recipe.dynamic_wi8_afp32())
        return finish(maker)
    if precision != "int8":
        raise ValueError(f"unknown precision {precision!r}; there are: {', '.join(PRECISIONS)}")
    calibration = list(calibration)
    if not calibration:
        raise StudyError("int8 needs clips to measure the ranges of values on: there is no calibration set")
    maker.load_quantization_recipe(recipe.static_wi8_ai8())
    for operation in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
        maker.update_quantization_recipe(".*", operation, algorithm_key=AlgorithmName.NO_QUANTIZE)
    for name in float_ops:
        maker.update_quantization_recipe(name, ALL, algorithm_key=AlgorithmName.NO_QUANTIZE)
    return finish(maker, maker.calibrate({SIGNATURE: calibration}, num_threads=1))


def finish(maker: quantizer.Quantizer, ranges: Any = None) -> bytes:
    """Write the quantised file."""
    return bytes(maker.quantize(ranges, enable_progress_report=False).quantized_model)


class Runner:
    """Runs a file: inputs by name to outputs by name."""

    def __init__(self, content: bytes, threads: int = 1) -> None:
        """Raises StudyError when it is no model of TensorFlow Lite."""
        try:
            self.interpreter = Interpreter(model_content=content, num_threads=threads)
            self.run = self.interpreter.get_signature_runner(SIGNATURE)
        except (ValueError, RuntimeError) as error:
            raise StudyError(f"not a model of TensorFlow Lite that can be run: {first_line(error)}") from None

    def __call__(self, inputs: Inputs) -> Inputs:
        """Inputs and outputs float32, by name."""
        return self.run(**inputs)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the inputs by name."""
        return {name: tuple(detail["shape"]) for name, detail in self.run.get_input_details().items()}


def operations(content: bytes) -> Counter[str]:
    """Count the operations of a file by name; those that are not built in are called "custom <name>"."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    custom = schema.BuiltinOperator.CUSTOM
    codes = [
        f"custom {code.customCode.decode()}" if code.builtinCode == custom else names[code.builtinCode]
        for code in model.operatorCodes
    ]
    return Counter(codes[operator.opcodeIndex] for graph in model.subgraphs for operator in graph.operators)


def custom_ops(content: bytes) -> dict[str, int]:
    """The operations that are not built in, of TensorFlow ("Flex") or anyone else, with how often they occur."""
    return {name: count for name, count in operations(content).items() if name.startswith(("custom ", "STABLEHLO"))}


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
