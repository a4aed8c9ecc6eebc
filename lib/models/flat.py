"""Convolutions and poolings over time alone or over frames alone, computed on a processor as two-dimensional ones.

In torch's layout channels_last_3d a clip (batch, channels, frames, height, width) is, without a copy, a batch of
frames, and a batch of pictures of frames × pixels. torch 2.14 takes a slow path through convolutions over time, and
computes wrong gradients of those over few frames (values of 1e30 and more, from memory that nobody wrote: seen of 2
frames and kernels of 3 in bfloat16, and of 7 and 7 in float32). Elsewhere than on a processor, and to predict, these
modules are torch's own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def flatten_convolutions(network: nn.Module) -> None:
    """Have every convolution of t × 1 × 1 or 1 × k × k, and every pooling by the maximum, go the quick way."""
    from torch import nn

    for module in network.modules():
        if isinstance(module, nn.MaxPool3d):
            module.__class__ = pooling_class()
        elif isinstance(module, nn.Conv3d) and is_flat(module):
            module.__class__ = convolution_class()


def is_flat(convolution: nn.Conv3d) -> bool:
    """Whether it mixes all channels of one frame, or of one pixel over time."""
    size = convolution.kernel_size
    return convolution.groups == 1 and (size[0] == 1 or size[1:] == (1, 1))


@cache
def convolution_class() -> type[nn.Conv3d]:
    """The class of those convolutions, not dilated and padded with zeros."""
    from torch import nn
    from torch.nn import functional

    class FlatConv3d(nn.Conv3d):
        def forward(self, x: Tensor) -> Tensor:
            if not self.training or x.device.type != "cpu":
                return super().forward(x)
            if self.kernel_size[0] == 1:
                kernel, how = self.weight[:, :, 0], (self.bias, self.stride[1:], self.padding[1:])
                return over_frames(x, lambda pictures: functional.conv2d(pictures, kernel, *how))
            kernel, how = self.weight[..., 0], (self.bias, (self.stride[0], 1), (self.padding[0], 0))
            return over_time(x, lambda pictures: functional.conv2d(pictures, kernel, *how))

    return FlatConv3d


@cache
def pooling_class() -> type[nn.MaxPool3d]:
    """The class of poolings by the maximum, of each frame and then over time."""
    from torch import nn
    from torch.nn import functional

    class FlatMaxPool3d(nn.MaxPool3d):
        def forward(self, x: Tensor) -> Tensor:
            if not self.training or x.device.type != "cpu":
                return super().forward(x)
            size, stride, padding = (threefold(value) for value in (self.kernel_size, self.stride, self.padding))
            x = over_frames(x, lambda pictures: functional.max_pool2d(pictures, size[1:], stride[1:], padding[1:]))
            if size[0] == stride[0] == 1:
                return x
            columns = (size[0], 1), (stride[0], 1), (padding[0], 0)
            return over_time(x, lambda pictures: functional.max_pool2d(pictures, *columns))

    return FlatMaxPool3d


def threefold(value: int | tuple[int, int, int]) -> tuple[int, int, int]:
    """A size for each of frames, height and width, which torch lets one number stand for."""
    return (value,) * 3 if isinstance(value, int) else value


def over_frames(x: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
    """What a layer of pictures makes of every frame of (batch, channels, frames, height, width)."""
    return layer(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)


def over_time(x: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
    """What a layer of pictures makes of frames × pixels; the number of pixels stays."""
    return layer(x.flatten(3)).unflatten(3, x.shape[3:])
