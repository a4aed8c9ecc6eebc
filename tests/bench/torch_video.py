"""{title}: a training step of ours against plain torch

Ours: the published network as lib.models wraps it, trained through keras on torch, in bfloat16 where the processor
computes in it and torch's autocast considers it safe, in `channels_last_3d`, convolutions over space or time alone as
two-dimensional ones, the colours normalised inside. Peer: the same network of {package}, in its own loop: float32,
torch's default memory layout, torch.optim.RMSprop, the clips normalised beforehand. All layers train, on {batch} random
clips of {frames} frames × {size}²; one thread each.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bench.report import compare, machine, versions, write
from bench.sides import Side, alternate

CLASSES, RATE = 100, 0.01


class Case(NamedTuple):
    """What is measured: title, model, package of the published network, batch × frames × size², target of the ratio."""

    title: str
    model: str
    package: str
    batch: int
    frames: int
    size: int
    target: str


CASES = {
    "s3d": Case("S3D", "s3d", "torchvision", 2, 20, 224, "≤ 1.0"),
    "x3d": Case("X3D-S", "x3d-s", "pytorchvideo", 4, 13, 160, "≤ 0.5"),
}


def main(name: str, rounds: int = 5) -> Path:
    """Measure one of CASES, and write the report."""
    where, case = machine(), CASES[name]
    form = {"model": case.model, "batch": case.batch, "frames": case.frames, "size": case.size}
    with Side("bench.torch_video:ours", **form) as ours, Side("bench.torch_video:published", **form) as peer:
        taken = alternate({"ours": ours, "peer": peer}, "step", rounds)
        precision = ours("precision")["value"]
    row = compare(f"training step, {case.batch} clips", taken["ours"], taken["peer"], case.target, note=precision)
    return write(name, __doc__.format(**case._asdict()), [row], versions("torch", "keras", case.package), where)


def ours(model: str, batch: int, frames: int, size: int) -> dict[str, Callable[[], Any]]:
    """Our side."""
    import numpy as np

    from bench.training import compiled
    from lib.models import build
    from lib.recipes import Training

    recipe = Training(optimizer="rmsprop", learning_rate=RATE, mixed_precision=True)
    network = compiled(lambda: build(model, CLASSES, (frames, size, size)), recipe)
    clips = np.random.default_rng(0).random((batch, frames, size, size, 3), np.float32)
    labels = np.eye(CLASSES, dtype=np.float32)[:batch]
    return {
        "step": lambda: float(network.train_on_batch(clips, labels)),
        "parameters": network.count_params,
        "precision": lambda: f"ours: {network.compute_dtype}",
    }


def published(model: str, batch: int, frames: int, size: int) -> dict[str, Callable[[], Any]]:
    """The peer's side: the published module with its own defaults."""
    import torch
    from pytorchvideo.models.x3d import create_x3d
    from torchvision.models.video import s3d

    torch.manual_seed(0)
    if model == "s3d":
        network = s3d(num_classes=CLASSES)
    else:
        form = {"input_clip_length": frames, "input_crop_size": size, "depth_factor": 2.2, "head_activation": None}
        network = create_x3d(model_num_class=CLASSES, **form)
    optimizer = torch.optim.RMSprop(network.train().parameters(), RATE)
    clips, labels = torch.rand(batch, 3, frames, size, size), torch.arange(batch)

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(clips), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return {"step": step, "parameters": lambda: sum(p.numel() for p in network.parameters())}
