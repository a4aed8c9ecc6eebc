"""What a model costs: parameters, and operations of one forward pass; its own beside the published."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import keras
import numpy as np
import pandas as pd

from lib.models import build, family_of, load


def costs(name: str, **options: Any) -> pd.DataFrame:
    """Parameters and multiply-adds (1e9, one clip) of a model as published and as built here, with their ratio.

    Both with the published number of classes on the published clip; `options` as for `build`. Two rows, parameters and
    multiply-adds, the latter without own value where they can't be counted; and the source as `attrs["source"]`.
    Of MoViNet's form for phones (`mobile`) neither is published.
    """
    published = load(family_of(name).published)[name]
    clip, stream = published["clip"], bool(options.get("stream"))
    known = [published["parameters_stream" if stream else "parameters"], published["multiply_adds"]]
    model = build(name, published["classes"], clip=clip, **options)
    operations = gflops(model, np.zeros((1, *clip, 3), np.float32))
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
    """Count the operations of one forward pass over `example`, in 1e9; None on a backend other than torch, TensorFlow.

    example: a batch as the model reads it, usually of one clip. A multiply-add counts as two operations; only those
    of matrix products and convolutions count, not normalisation, activations or additions. Padding is work, too.
    """
    count = {"torch": torch_operations, "tensorflow": tensorflow_operations}.get(keras.backend.backend())
    return None if count is None else count(model, example) / 1e9


def torch_operations(model: keras.Model, example: np.ndarray) -> int:
    """Operations by torch's own counter."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # The counter knows nothing of the CPU's fused attention; the plain kernel is matrix products, which it counts.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(example, training=False)  # a first call builds what is not built yet, and that would be counted, too
        with FlopCounterMode(display=False) as counter:
            model(example, training=False)
    return counter.get_total_flops()


def tensorflow_operations(model: keras.Model, example: np.ndarray) -> int:
    """Operations of the graph, which is made but not run."""
    import tensorflow as tf

    function = tf.function(lambda clips: model(clips, training=False))
    graph = function.get_concrete_function(tf.TensorSpec(example.shape, example.dtype)).graph
    return sum(operations_of(node) for node in graph.get_operations())


def operations_of(node: Any, shape: Sequence[int] | None = None) -> int:
    """Operations of one node of a TensorFlow graph: two for each weight that goes into each output value.

    shape: of the result, for a node that does not know it, as in a function that is called with clips of any size.
    """
    if node.type in ("Conv2D", "Conv3D"):
        return 2 * prod(shape or node.outputs[0].shape) * prod(node.inputs[1].shape[:-1])
    if node.type == "DepthwiseConv2dNative":
        return 2 * prod(shape or node.outputs[0].shape) * prod(node.inputs[1].shape[:2])
    if node.type in ("MatMul", "BatchMatMulV2"):
        inner = node.inputs[0].shape[-2 if transposed(node) else -1]
        return 2 * prod(shape or node.outputs[0].shape) * inner
    return 0


def transposed(node: Any) -> bool:
    """Whether a matrix product turns its first matrix."""
    return node.get_attr("transpose_a" if node.type == "MatMul" else "adj_x")
