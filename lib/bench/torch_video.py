"""{title}: a training step of ours against plain torch

Ours: the published network as lib.models wraps it, trained through keras on torch, in bfloat16 where the processor
computes in it and torch's autocast deems it safe, in `channels_last_3d`, convolutions over frames or over time alone as
two-dimensional ones, mean and deviation of the colours taken off inside. Peer: the same network of
{package}, in its own loop: float32, torch's default memory layout, torch.optim.RMSprop, the clips normalised
beforehand. All layers train, on {batch} random clips of {frames} frames × {size}²; one thread each.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from lib.bench.report import compare, machine, versions, write
from lib.bench.sides import Side, alternate

CLASSES, RATE = 100, 0.01


class Case(NamedTuple):
    """What is measured: the title, the package with the network, batch × frames × size², and the ratio wanted."""

    title: str
    package: str
    batch: int
    frames: int
    size: int
    target: str


CASES = {
    "s3d": Case("S3D", "torchvision", 2, 20, 224, "≤ 1.0"),
    "x3d": Case("X3D-S", "pytorchvideo", 4, 13, 160, "≤ 0.5"),
}


def main(name: str, rounds: int = 5, **smaller: int) -> Path:
    """Measure one of CASES, and write the report. smaller: another batch, frames or size."""
    where, case = machine(), CASES[name]._replace(**smaller)
    form = {"name": name, "batch": case.batch, "frames": case.frames, "size": case.size}
    with Side("lib.bench.torch_video:ours", **form) as ours, Side("lib.bench.torch_video:published", **form) as peer:
        taken = alternate({"ours": ours, "peer": peer}, "step", rounds)
        precision = ours("precision")["value"]
    row = compare(f"training step, {case.batch} clips", taken["ours"], taken["peer"], case.target, note=precision)
    return write(name, __doc__.format(**case._asdict()), [row], versions("torch", "keras", case.package), where)


def ours(name: str, batch: int, frames: int, size: int) -> dict[str, Callable[[], Any]]:
    """Our side, compiled as lib.training.fit does."""
    import keras
    import numpy as np

    from lib.models import build
    from lib.recipes import Training
    from lib.training import make_optimizer, prepare

    recipe = Training(optimizer="rmsprop", learning_rate=RATE, mixed_precision=True)
    prepare(recipe, seed=0)
    model = build({"x3d": "x3d-s"}.get(name, name), CLASSES, (frames, size, size))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(make_optimizer(recipe, 1000), loss, jit_compile=False)
    clips = np.random.default_rng(0).random((batch, frames, size, size, 3), np.float32)
    labels = np.eye(CLASSES, dtype=np.float32)[:batch]
    return {
        "step": lambda: float(model.train_on_batch(clips, labels)),
        "parameters": model.count_params,
        "precision": lambda: f"ours: {model.compute_dtype}",
    }


def published(name: str, batch: int, frames: int, size: int) -> dict[str, Callable[[], Any]]:
    """The peer's side."""
    import torch

    torch.manual_seed(0)
    network = published_network(name, frames, size).train()
    optimizer = torch.optim.RMSprop(network.parameters(), RATE)
    clips, labels = torch.rand(batch, 3, frames, size, size), torch.arange(batch)

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(clips), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return {"step": step, "parameters": lambda: sum(p.numel() for p in network.parameters())}


def published_network(name: str, frames: int, size: int) -> Any:
    """The published module, with its own defaults: a torch.nn.Module of (batch, 3, frames, size, size) to logits."""
    if name == "s3d":
        from torchvision.models.video import s3d

        return s3d(num_classes=CLASSES)
    from pytorchvideo.models.x3d import create_x3d

    return create_x3d(
        input_clip_length=frames, input_crop_size=size, model_num_class=CLASSES, depth_factor=2.2, head_activation=None
    )
