"""What a model costs to run: floating-point operations."""

from __future__ import annotations

import keras
import numpy as np


def gflops(model: keras.Model, example: np.ndarray) -> float | None:
    """Count the operations of one forward pass over `example`, in 1e9; None on a backend other than torch.

    example: a batch as the model reads it, usually of one clip. A multiply-add counts as two operations; only those
    of matrix products and convolutions count, not normalisation, activations or additions. Padding is work, too.
    """
    if keras.backend.backend() != "torch":
        return None
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # The counter knows nothing of the CPU's fused attention; the plain kernel is matrix products, which it counts.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(example, training=False)  # a first call builds what is not built yet, and that would be counted, too
        with FlopCounterMode(display=False) as counter:
            model(example, training=False)
    return counter.get_total_flops() / 1e9
