"""What a model costs: parameters and operations of one forward pass, beside the published figures."""

from collections.abc import Sequence
from contextlib import nullcontext
from math import prod
from pkgutil import resolve_name
from typing import Any

import keras
import numpy as np
import pandas as pd

from lib.models import build, family_of


def costs(name: str, **options: Any) -> pd.DataFrame:
    """Compare the published cost of a model with that of ours, for the published clip and number of classes.

    Two rows, "parameters" and "multiply-adds, 1e9", and the columns published, ours and ratio; the source is
    `attrs["source"]`. Missing values: our multiply-adds on a backend that `gflops` cannot count on, and the published
    figures of MoViNet's mobile form. `options` as for `build`.
    """
    published = resolve_name(family_of(name).published)[name]
    known = [published["parameters_stream" if options.get("stream") else "parameters"], published["multiply_adds"]]
    # On torch's meta device, where arrays have a shape and no content, nothing is computed.
    with keras.device("meta") if keras.backend.backend() == "torch" else nullcontext():
        model = build(name, published["classes"], clip=published["clip"], **options)
        operations = gflops(model, np.zeros((1, *published["clip"], 3), np.float32))
    table = pd.DataFrame(
        {
            "published": [None, None] if options.get("mobile") else known,
            "ours": [model.count_params(), None if operations is None else operations / 2],
        },
        index=["parameters", "multiply-adds, 1e9"],
    ).astype(float)
    table["ratio"] = table["ours"] / table["published"]
    table.attrs["source"] = published["source"]
    return table


def gflops(model: keras.Model, example: np.ndarray) -> float | None:
    """Count the operations of one forward pass in 1e9; None on a backend other than torch and TensorFlow.

    example: a batch as the model reads it, usually of one clip. A multiply-add counts as two operations. Only matrix
    products and convolutions count, including their padding; normalisation, activations and additions do not.
    """
    count = {"torch": _torch_operations, "tensorflow": _tensorflow_operations}.get(keras.backend.backend())
    return None if count is None else count(model, example) / 1e9


def _torch_operations(model: keras.Model, example: np.ndarray) -> int:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # The counter does not know the fused attention of a CPU; the plain one is matrix products, which it counts.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(example, training=False)  # builds what is not built yet, which would be counted too
        with FlopCounterMode(display=False) as counter:
            model(example, training=False)
    return counter.get_total_flops()


def _tensorflow_operations(model: keras.Model, example: np.ndarray) -> int:
    import tensorflow as tf

    function = tf.function(lambda clips: model(clips, training=False))
    graph = function.get_concrete_function(tf.TensorSpec(example.shape, example.dtype)).graph
    return sum(operations_of(node) for node in graph.get_operations())  # the graph is traced but never run


def operations_of(node: Any, shape: Sequence[int] | None = None) -> int:
    """Operations of a node of a TensorFlow graph: two for each weight that contributes to each output value.

    shape: of the node's output, where the node itself does not know it, as in a function called with any size of clip.
    """
    kernel = node.inputs[1].shape if len(node.inputs) > 1 else ()
    if node.type in ("Conv2D", "Conv3D"):
        products = prod(kernel[:-1])
    elif node.type == "DepthwiseConv2dNative":
        products = prod(kernel[:2])
    elif node.type in ("MatMul", "BatchMatMulV2"):
        transposed = node.get_attr("transpose_a" if node.type == "MatMul" else "adj_x")
        products = node.inputs[0].shape[-2 if transposed else -1]
    else:
        return 0
    return 2 * prod(shape or node.outputs[0].shape) * products
