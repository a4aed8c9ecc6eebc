"""The trained keras model as the torch network that is exported: named inputs to named outputs."""

from __future__ import annotations

from typing import Any

import keras
import torch
from torch import nn

from lib.export.flatten import flattened
from lib.export.stream import IMAGE, LOGITS, NEXT
from lib.models.movinet import Movinet

CLIP = "clip"

Example = dict[str, torch.Tensor]


class Whole(nn.Module):
    """{"clip": …} to {"logits": …}."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Any) -> dict[str, Any]:
        """Logits of whole clips."""
        return {LOGITS: self.model(inputs[CLIP], training=False)}


class Streaming(nn.Module):
    """{"image": one frame, buffers by name} to {"logits": of all frames so far, "next_" and each name: buffers}."""

    def __init__(self, model: Movinet) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Any) -> dict[str, Any]:
        """image: (batch, 1, height, width, 3); the buffers go into the next call."""
        buffers = {name: value for name, value in inputs.items() if name != IMAGE}
        logits, after = self.model.run(inputs[IMAGE], buffers)
        return {LOGITS: logits, **{NEXT + name: value for name, value in after.items()}}


def whole(model: keras.Model, example: Any) -> tuple[nn.Module, Example]:
    """The network of whole clips, and example inputs of two: torch takes an axis of one for a constant.

    example: one clip, (1, …). The keras model runs on torch.
    """
    clips = torch.as_tensor(example, dtype=torch.float32).cpu()
    return prepare(Whole(model), {CLIP: clips.repeat(2, *[1] * (clips.ndim - 1))})


def streaming(model: Movinet) -> tuple[nn.Module, Example]:
    """The network that goes frame by frame, and example inputs, as `whole`. Raises ValueError for a base model."""
    if not model.config.stream:
        raise ValueError(f"{model.name} looks ahead and cannot go frame by frame: build it with stream=True")
    image = torch.zeros(2, 1, *model.clip[1:], 3)
    with torch.no_grad():
        buffers = model.run(image, {})[1]
    return prepare(
        Streaming(model), {IMAGE: image, **{name: torch.zeros_like(value) for name, value in buffers.items()}}
    )


def prepare(network: nn.Module, example: Example) -> tuple[nn.Module, Example]:
    """Record the network with an open number of clips, and flatten it; `example` has two clips."""
    clips = torch.export.Dim("clips", min=1, max=4096)
    shapes = {"inputs": {name: {0: clips} for name in example}}
    with torch.no_grad():
        program = torch.export.export(network.eval(), (), example, dynamic_shapes=shapes, strict=False)
    return flattened(program), example


def of_one(example: Example) -> Example:
    """Example inputs of one clip."""
    return {name: value[:1] for name, value in example.items()}
