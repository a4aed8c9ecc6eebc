"""SPOBET-plus in plain torch: the peer of bench.spobet."""

from typing import Any

import torch
from torch import nn


class PlainSpobet(nn.Module):
    """Features (batch, frames, values) and mask (batch, frames) to logits, as lib.models.spobet with these options."""

    def __init__(self, values: int, classes: int, options: dict[str, Any]) -> None:
        super().__init__()
        self.stride, width = options["stride"], options["width"]
        self.embed = nn.Linear(self.stride * values, width)
        self.convolutions = nn.ModuleList(PlainConvolution(options) for _ in range(options["depth"]))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                options["heads"],
                options["feed_forward"],
                options["dropout"],
                nn.functional.silu,
                1e-6,
                batch_first=True,
                norm_first=True,
            )
            for _ in range(options["depth"])
        )
        self.norm = nn.LayerNorm(width, 1e-6)
        self.pooled = nn.Linear(2 * width, 2 * width)
        self.dropout = nn.Dropout(options["head_dropout"])
        self.head = nn.Linear(2 * width, classes)

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Every `stride` frames are one token; a token of ones in front is classified."""
        extra = -features.shape[1] % self.stride
        features = nn.functional.pad(features, (0, 0, 0, extra)).unflatten(1, (-1, self.stride)).flatten(2)
        mask = nn.functional.pad(mask, (0, extra)).unflatten(1, (-1, self.stride)).amax(2)
        token, x = self.embed(torch.ones_like(features[:, :1])), self.embed(features)
        unseen = torch.cat([torch.zeros_like(mask[:, :1]), 1 - mask], 1).bool()
        for convolution, block in zip(self.convolutions, self.blocks, strict=True):
            x = block(torch.cat([token, convolution(x, mask)], 1), src_key_padding_mask=unseen)
            token, x = x[:, :1], x[:, 1:]
        token, x = self.norm(token)[:, 0], self.norm(x)
        mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        return self.head(self.dropout(nn.functional.silu(self.pooled(torch.cat([token, mean], 1)))))


class PlainConvolution(nn.Module):
    """Expand, convolve each channel over time, project."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        width, kernel = options["width"], options["kernel"]
        self.norm = nn.LayerNorm(width, 1e-6)
        self.expand = nn.Linear(width, 2 * width)
        self.convolve = nn.Conv1d(2 * width, 2 * width, kernel, padding=kernel // 2, groups=2 * width)
        self.rescale = nn.BatchNorm1d(2 * width, momentum=0.05)
        self.project = nn.Linear(2 * width, width)
        self.drop = nn.Dropout(options["dropout"])

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Masked tokens contribute nothing to their neighbours."""
        y = nn.functional.silu(self.expand(self.norm(x))) * mask[..., None]
        y = nn.functional.silu(self.rescale(self.convolve(y.transpose(1, 2)))).transpose(1, 2)
        return x + self.drop(self.project(y))
