"""Work on a GPU as CUDA graphs: the GPU repeats what was recorded and does not wait for Python to ask for each kernel.

A training step of SPOBET-plus is over a thousand kernels, each of which takes less time than Keras needs to ask for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    import keras

FEW = 8  # numbers, such as the shape of a batch
WARM_UP = 3  # runs before the recording, in which libraries choose their kernels (torch.cuda.make_graphed_callables)


@contextmanager
def numbers_made_on_device() -> Iterator[None]:
    """Have Keras' operations make a tensor of a number on the GPU, instead of copying it there.

    For a copy the CPU waits until the GPU has finished everything, and a recording does not allow it.
    """
    as_tensor = torch.as_tensor

    def make(data: Any, dtype: torch.dtype | None = None, device: Any = None) -> torch.Tensor:
        if isinstance(data, torch.Tensor) or None in (dtype, device) or np.size(data) > FEW:
            return as_tensor(data, dtype=dtype, device=device)
        numbers = [torch.full((), number, dtype=dtype, device=device) for number in np.ravel(data).tolist()]
        return torch.stack(numbers).reshape(np.shape(data))

    torch.as_tensor = make
    try:
        yield
    finally:
        torch.as_tensor = as_tensor


class Recorded:
    """A function of tensors, recorded once for each shape of its arguments; on a CPU it is the function itself.

    It may change variables in place, but not look at a value. What it returns holds until it is called again. Where
    the GPU refuses a recording (seen when ten trainings began on one GPU at a time), the function is called instead.
    """

    def __init__(self, function: Callable[..., Any], changed: Callable[[], list[torch.Tensor]] = list) -> None:
        """changed: function () that returns the tensors that `function` changes in place; they survive the warm-up."""
        self.function, self.changed, self.pool = function, changed, None
        self.recordings: dict[tuple, tuple[torch.cuda.CUDAGraph, list[torch.Tensor], Any] | None] = {}

    def __call__(self, *arguments: torch.Tensor) -> Any:
        if not arguments[0].is_cuda:
            return self.function(*arguments)
        shapes = tuple(argument.shape for argument in arguments)
        if shapes not in self.recordings:
            try:
                self.recordings[shapes] = self._record([argument.clone() for argument in arguments])
            except RuntimeError as error:
                print(f"not recorded, so that the GPU waits for Python: {' '.join(str(error).split())}")
                self.recordings[shapes] = None
        if self.recordings[shapes] is None:
            return self.function(*arguments)
        graph, places, results = self.recordings[shapes]
        for place, argument in zip(places, arguments, strict=True):
            place.copy_(argument)
        graph.replay()
        return results

    def _record(self, arguments: list[torch.Tensor]) -> tuple[torch.cuda.CUDAGraph, list[torch.Tensor], Any]:
        kept = [tensor.clone() for tensor in self.changed()]
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self.function(*arguments)
        current.wait_stream(stream)
        for tensor, value in zip(self.changed(), kept, strict=True):
            tensor.copy_(value)
        graph = torch.cuda.CUDAGraph()
        # One pool for all shapes, as only one of them runs at a time. Other threads may go on with their own work.
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            results = self.function(*arguments)
        self.pool = graph.pool()
        return graph, arguments, results


def recorded_step(model: keras.Model) -> Callable[[Any], dict[str, Any]]:
    """The training step of a compiled model, recorded up to its gradients; for `model.train_function`.

    It does what Keras' own step does, with (clips, targets) that are on the GPU already.
    """

    def passes(clips: torch.Tensor, targets: torch.Tensor) -> tuple[dict[str, Any], list[torch.Tensor]]:
        logits = model(clips, training=True)
        model.zero_grad()
        loss = model._compute_loss(x=clips, y=targets, y_pred=logits, training=True)
        model._loss_tracker.update_state(loss, sample_weight=len(clips))
        loss.backward()
        gradients = [weight.value.grad for weight in model.trainable_weights]
        with torch.no_grad():
            return model.compute_metrics(clips, targets, logits), gradients

    def changed() -> list[torch.Tensor]:
        return [variable.value for variable in [*model.non_trainable_variables, *model.metrics_variables]]

    recorded = Recorded(passes, changed)

    def step(data: Any) -> dict[str, Any]:
        logs, gradients = recorded(*data[0])
        with torch.no_grad():
            model.optimizer.apply(gradients, model.trainable_weights)
        return logs

    return step
