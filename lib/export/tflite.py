"""TensorFlow Lite: torch networks to files of built-in operations, their precisions, and what such a file holds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from lib.settings import StudyError

if TYPE_CHECKING:
    import torch

SIGNATURE = "serving_default"
PRECISIONS = ("float32", "float16", "int8-dynamic", "int8")
LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")  # what int8 is for; all else is quicker in float32, too

Inputs = dict[str, np.ndarray]  # the inputs of a file by name


def convert(network: torch.nn.Module, example: dict[str, torch.Tensor]) -> bytes:
    """Convert a network in float32; inputs and outputs of the file have the names of `example` and of what it returns.

    Raises StudyError when an operation has no counterpart among the built-in ones.
    """
    import litert_torch

    try:
        with redirect_stdout(StringIO()):  # a line for each of its steps
            content = litert_torch.convert(network, sample_kwargs=example).model_content()
    except Exception as error:  # whatever its compiler raises: it has no class of errors of its own
        raise StudyError(f"TensorFlow Lite cannot hold this network: {first_line(error)}") from error
    if strange := custom_ops(content):
        raise StudyError(f"TensorFlow Lite has no built-in operation for: {', '.join(sorted(strange))}")
    return content


def quantise(content: bytes, precision: str, calibration: Iterable[Inputs] = (), kept: float = 0) -> bytes:
    """Make a float32 file one of PRECISIONS; the inputs and outputs stay float32.

    float16: the weights only, computed in float32. int8-dynamic: weights in int8 for each channel, values of each clip
    measured as it comes. int8: what LAYERS read and give, too, in ranges measured on `calibration`; coordinates, masks
    and what a stream adds up need more than 256 steps and stay float32. So does, of whichever precision, the share
    `kept` of LAYERS, the first ones.
    Raises StudyError for int8 without calibration, and ValueError for an unknown precision.
    """
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
        ranges = measure(content, maker.get_quantization_recipe(), needed(calibration))
    nothing = (Operation.ALL_SUPPORTED, None, AlgorithmName.NO_QUANTIZE)
    for name in first_layers(content, kept):
        maker.update_quantization_recipe(f"^{re.escape(name)};", *nothing)
    return bytes(maker.quantize(ranges, enable_progress_report=False).quantized_model)


def first_layers(content: bytes, share: float) -> list[str]:
    """The first LAYERS of a file, so large a share of them all, by the names of what they give."""
    model = parse(content)
    codes = code_names(model)
    names = [
        graph.tensors[operator.outputs[0]].name.decode()
        for graph in model.subgraphs
        for operator in graph.operators
        if codes[operator.opcodeIndex] in LAYERS
    ]
    return names[: round(share * len(names))]


def measure(content: bytes, recipe: list[dict[str, Any]], clips: list[Inputs]) -> dict[str, Any]:
    """The least and the greatest value of each tensor over all clips, by its name.

    The quantiser's own `calibrate` takes a moving average instead, which hardly looks beyond the first clip.
    """
    from ai_edge_quantizer.calibrator import Calibrator
    from ai_edge_quantizer.recipe_manager import RecipeManager
    from ai_edge_quantizer.utils.qsv_utils import min_max_update

    manager = RecipeManager()
    manager.load_quantization_recipe(recipe)
    calibrator = Calibrator(content, num_threads=1, qsv_update_func=min_max_update)
    calibrator.calibrate({SIGNATURE: clips}, manager)
    return calibrator.get_model_qsvs()


def needed(calibration: Iterable[Inputs]) -> list[Inputs]:
    """The clips to measure on. Raises StudyError when there is none."""
    clips = list(calibration)
    if not clips:
        raise StudyError("int8 needs clips to measure the ranges of values on: there is no calibration set")
    return clips


def parse(content: bytes) -> schema.ModelT:
    """The parts of a file."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))


def code_names(model: schema.ModelT) -> list[str]:
    """Names of the kinds of operation in a file; those that are not built in are called "custom <name>"."""
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    custom = schema.BuiltinOperator.CUSTOM
    return [
        f"custom {code.customCode.decode()}" if code.builtinCode == custom else names[code.builtinCode]
        for code in model.operatorCodes
    ]


class Runner:
    """Runs a file: inputs by name to outputs by name."""

    def __init__(self, content: bytes, threads: int = 1) -> None:
        """Raises StudyError when it is no model of TensorFlow Lite."""
        self.content = content  # which the interpreter reads, and does not keep
        try:
            self.interpreter = Interpreter(model_content=content, num_threads=threads)
            self.run = self.interpreter.get_signature_runner(SIGNATURE)
        except (ValueError, RuntimeError) as error:
            raise StudyError(f"not a model of TensorFlow Lite that can be run: {first_line(error)}") from None

    def __call__(self, inputs: Inputs) -> Inputs:
        """Inputs and outputs float32, by name."""
        return self.run(**inputs)

    def zeros(self) -> Inputs:
        """The inputs of one clip by name, all zero."""
        details = self.run.get_input_details()
        return {name: np.zeros(detail["shape"], detail["dtype"]) for name, detail in details.items()}


def operations(content: bytes) -> Counter[str]:
    """Count the operations of a file by name; those that are not built in are called "custom <name>"."""
    model = parse(content)
    codes = code_names(model)
    return Counter(codes[operator.opcodeIndex] for graph in model.subgraphs for operator in graph.operators)


def custom_ops(content: bytes) -> dict[str, int]:
    """The operations that are not built in, of TensorFlow ("Flex") or anyone else, with how often they occur."""
    return {name: count for name, count in operations(content).items() if name.startswith(("custom ", "STABLEHLO"))}


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
