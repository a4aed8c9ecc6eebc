"""X3D: pytorchvideo's expanded networks in sizes xs, s, m and l (Feichtenhofer 2020, arXiv 2004.04730).

Runs on keras' torch backend only.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lib.models.flat import flatten_convolutions, over_time
from lib.models.motion import DIFFERENCES
from lib.models.s3d import (
    TorchVideoModel,
    check_clip,
    freeze,
    load_published_weights,
    need_torch,
    set_momentum,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["CLIPS", "PUBLISHED", "X3DConfig", "build_x3d", "freeze", "load_published_weights"]

MEAN, STD = (0.45,) * 3, (0.225,) * 3  # pytorch.org/hub/facebookresearch_pytorchvideo_x3d
BLOCKS = 6  # stem, four stages, projected pooling

# pytorchvideo.models.hub.x3d: frames, height, width of each size, and how much deeper than the base its stages are.
CLIPS = {"xs": (4, 160, 160), "s": (13, 160, 160), "m": (16, 224, 224), "l": (16, 312, 312)}
DEPTHS = {"xs": 2.2, "s": 2.2, "m": 2.2, "l": 5.0}

# Multiply-adds of one clip in 1e9, parameters with `classes` outputs.
SOURCE = "parameters: pytorchvideo's model zoo; multiply-adds: PySlowFast's, which has them for the trained clip size"
PUBLISHED = {
    "x3d-xs": {"parameters": 3.79e6, "classes": 400, "multiply_adds": 0.60, "clip": CLIPS["xs"], "source": SOURCE},
    "x3d-s": {"parameters": 3.79e6, "classes": 400, "multiply_adds": 1.96, "clip": CLIPS["s"], "source": SOURCE},
    "x3d-m": {"parameters": 3.79e6, "classes": 400, "multiply_adds": 4.73, "clip": CLIPS["m"], "source": SOURCE},
    "x3d-l": {"parameters": 6.15e6, "classes": 400, "multiply_adds": 18.37, "clip": CLIPS["l"], "source": SOURCE},
}


class X3DConfig(BaseModel):
    """Which size, and what may differ from the published network; the defaults are its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Literal["xs", "s", "m", "l"] = "s"
    dropout: float = Field(0.5, ge=0, lt=1, description="of the pooled features before the head")
    momentum: float = Field(0.9, ge=0, lt=1, description="share of the running mean and variance that a step keeps")
    freeze: int = Field(0, ge=0, le=BLOCKS, description="blocks, from the input, that do not train")
    differences: bool = Field(False, description=DIFFERENCES)


def count_stages(_variant: str) -> int:
    """How many blocks there are, in any size."""
    return BLOCKS


def build_x3d(num_classes: int, clip: tuple[int, int, int] | None = None, **options: Any) -> TorchVideoModel:
    """Make a model of clips float32 (batch, frames, height, width, 3) in [0, 1] to logits (batch, num_classes).

    clip: frames, height and width, each at least 1, by default the size's published ones; `options` are fields of
    X3DConfig. Raises StudyError on another backend than torch, ValueError for a clip without frames or pixels and
    pydantic's ValidationError for an unknown or wrong option.
    """
    config = X3DConfig(**options)
    name, clip = f"x3d-{config.size}", clip or CLIPS[config.size]
    need_torch(name)
    check_clip(name, clip, (1, 1, 1))
    *blocks, head = make_network(num_classes, config).blocks
    named = {f"blocks.{index}": block for index, block in enumerate(blocks)}
    model = TorchVideoModel(
        {**named, "blocks.5.pool": head.pool},
        ("blocks.5.proj", pointwise(head.proj)),
        dropout=config.dropout,
        colours=(MEAN, STD),
        differences=config.differences,
        name=name,
    )
    return model.ready(clip, config.freeze)


def make_network(num_classes: int, config: X3DConfig) -> nn.Module:
    """Make pytorchvideo's network, pooling whatever clip comes in as the published one pools its own.

    Its window is the whole of the features of the published clip, so the mean over all of them is the same pooling.
    """
    from pytorchvideo.models.x3d import create_x3d
    from torch import nn

    network = create_x3d(model_num_class=num_classes, depth_factor=DEPTHS[config.size], head_activation=None)
    network.blocks[-1].pool.pool = nn.AdaptiveAvgPool3d(1)
    set_momentum(network, config.momentum)
    quicken(network)
    flatten_convolutions(network)
    return network


def quicken(network: nn.Module) -> None:
    """Put faster modules that compute the same in the place of pytorchvideo's swish and depthwise convolutions.

    torch has a swish of its own, which needs fewer passes.
    """
    from pytorchvideo.layers.swish import Swish
    from torch import nn

    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Swish):
                setattr(parent, name, nn.SiLU())
            if isinstance(child, nn.Conv3d) and child.groups == child.in_channels:
                child.__class__ = depthwise_class()


@cache
def depthwise_class() -> type[nn.Conv3d]:
    """Make the class of depthwise convolutions that train on a processor by two-dimensional ones.

    The gradient of torch 2.14's own takes up to ten times as long there. Elsewhere, and to predict, it is torch's.
    """
    from torch import nn
    from torch.nn import functional

    class DepthwiseConv3d(nn.Conv3d):
        def forward(self, x: Tensor) -> Tensor:
            if not self.training or x.device.type != "cpu":
                return super().forward(x)
            if self.kernel_size[1:] == (1, 1):
                kernel, how = self.weight[..., 0], (None, 1, (self.kernel_size[0] // 2, 0), 1, self.groups)
                return over_time(x, lambda pictures: functional.conv2d(pictures, kernel, *how))
            return shifted(x, self.weight, self.stride[1])

    return DepthwiseConv3d


def shifted(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """A depthwise convolution t × k × k as t of them over single frames, each shifted in time, added up.

    stride: over height and width. One of 2 is computed in float32, as its gradient in bfloat16 is slow.
    """
    import torch
    from torch.nn import functional

    batch, channels, frames = x.shape[:3]
    flat = x.permute(0, 2, 1, 3, 4).flatten(0, 1)
    with torch.autocast("cpu", torch.bfloat16, enabled=stride == 1 and torch.is_autocast_enabled("cpu")):
        flat = flat if stride == 1 else flat.float()
        taps = [functional.conv2d(flat, tap, None, stride, tap.shape[-1] // 2, 1, channels) for tap in weight.unbind(2)]
    # With the channels last, as they lie in memory: else torch turns every gradient around.
    clips = [tap.permute(0, 2, 3, 1).unflatten(0, (batch, frames)) for tap in taps]
    middle = len(clips) // 2
    total = clips[middle]
    for shift, clip in enumerate(clips, start=-middle):
        if shift:
            inside = clip[:, max(shift, 0) : frames + min(shift, 0)]
            total = total + functional.pad(inside, (0,) * 6 + (max(-shift, 0), max(shift, 0)))
    return total.to(x.dtype).permute(0, 4, 1, 2, 3)


def pointwise(linear: nn.Linear) -> nn.Linear:
    """Make a linear layer over the channels of (batch, channels, frames, height, width), of the same weights."""
    from torch import nn

    class Pointwise(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.movedim(1, -1)).movedim(-1, 1)

    layer = Pointwise(linear.in_features, linear.out_features)
    layer.load_state_dict(linear.state_dict())
    return layer
