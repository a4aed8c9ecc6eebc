"""Three-dimensional networks as two-dimensional ones: the same numbers, and nothing three-dimensional left."""

import pytest
import torch
from torch import nn

from lib.export.network import prepare

THREE = {"conv3d", "max_pool3d", "avg_pool3d", "adaptive_avg_pool3d", "replication_pad3d"}


class Named(nn.Module):
    """A network of clips (batch, channels, frames, height, width) by name, as the exported ones are."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, **inputs):
        return {"logits": self.layers(inputs["clip"])}


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def flatten(*layers, clip=(2, 4, 6, 9, 8)):
    """The greatest difference that flattening makes, and the names of the operations that are left."""
    torch.manual_seed(0)
    network, x = Named(*layers).eval(), torch.randn(clip)
    with torch.no_grad():
        flat, example = prepare(network, {"clip": x})
        wanted, given = network(clip=x)["logits"], flat(**example)["logits"]
        program = torch.export.export(flat, (), example, strict=False)
    left = {str(node.target).split(".")[1] for node in program.graph.nodes if "aten." in str(node.target)}
    assert given.shape == wanted.shape
    assert wanted.std() > 0.01
    return (given - wanted).abs().max().item(), left


UNUSUAL = [
    nn.Conv3d(4, 6, 3, dilation=2, padding=2),
    nn.Conv3d(4, 6, (2, 3, 3), padding="same"),
    nn.Conv3d(4, 4, 3, padding=(2, 1, 1), groups=4),
    nn.MaxPool3d(2, ceil_mode=True),
]


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv3d(4, 6, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
        nn.Conv3d(4, 6, (3, 1, 1), padding=(1, 0, 0), bias=False),
        nn.Conv3d(4, 6, (3, 1, 1), stride=(2, 1, 1)),
        nn.Conv3d(4, 4, (5, 1, 1), padding=(2, 0, 0), groups=4),
        nn.Conv3d(4, 4, 3, stride=(1, 2, 2), padding=1, groups=4),
        nn.Conv3d(4, 6, (2, 1, 1), stride=(2, 2, 2)),
        nn.Conv3d(4, 6, 3, stride=2, padding=(1, 0, 2)),
        nn.Conv3d(4, 6, 3, padding="same"),
        nn.Conv3d(4, 6, 1),
        nn.MaxPool3d(3, stride=1, padding=1),
        nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
        nn.MaxPool3d(2),
        nn.AvgPool3d((2, 3, 3), stride=1),
        nn.AdaptiveAvgPool3d(1),
        nn.Conv3d(4, 4, 3, groups=4),
        nn.Conv3d(4, 8, 3, stride=2, padding=1, groups=2),
        nn.Conv3d(4, 4, (6, 3, 3), padding=(2, 0, 1), groups=4),
        *UNUSUAL,
    ],
    ids=str,
)
def test_every_layer_computes_the_same_and_the_usual_ones_by_images(layer):
    difference, left = flatten(layer)
    assert difference < 1e-5
    assert bool(left & THREE) == (layer in UNUSUAL)


def test_negative_values_at_the_border_are_no_less_than_padding():
    difference, _ = flatten(Lambda(lambda x: -x.abs() - 1), nn.MaxPool3d(3, stride=2, padding=1))
    assert difference == 0


def test_normalisation_activations_joins_and_gates_stay_by_images():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.a, self.b = (
                nn.BatchNorm3d(4),
                nn.Conv3d(4, 3, 1),
                nn.Conv3d(4, 5, (3, 1, 1), padding=(1, 0, 0)),
            )
            self.gate = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Conv3d(8, 8, 1), nn.Sigmoid())
            self.norm.running_mean.uniform_(-1, 1)
            self.norm.running_var.uniform_(0.5, 2)

        def forward(self, x):
            x = nn.functional.silu(self.norm(x))
            x = torch.cat([self.a(x), self.b(x)], 1)
            return nn.functional.relu(x * self.gate(x) + x) * 0.5

    difference, left = flatten(nn.Conv3d(4, 4, 1), Block())
    assert difference < 1e-5
    assert not left & THREE


def test_normalisation_behind_a_convolution_becomes_part_of_it():
    norm = nn.BatchNorm3d(6)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    nn.init.uniform_(norm.weight)
    numbers = torch.tensor([1.0, -2.0, 3.0, 0.5, 2.0, -1.0])
    last = Lambda(lambda x: 2 * (x.permute(0, 2, 3, 4, 1) - numbers).mul_(numbers) + 1)
    difference, left = flatten(nn.Conv3d(4, 6, 3, padding=1), norm, last)
    assert difference < 1e-5
    assert not left & {"batch_norm", "sub", "mul", "mul_", "add"}


def test_normalisation_of_what_others_read_too_stays_by_itself():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv3d(4, 4, 1)

        def forward(self, x):
            y = self.convolution(x)
            return y * 2 + torch.relu(y)

    assert flatten(Twice())[0] < 1e-5


def test_channels_may_lie_last_and_a_number_for_each_channel_finds_its_channel():
    numbers = torch.tensor([1.0, -2.0, 3.0, 0.5])

    def last(x):
        y = nn.functional.conv3d(x, torch.eye(4)[..., None, None, None]).permute(0, 2, 3, 4, 1)
        y = y * numbers + numbers.reshape(1, 1, 1, 1, 4)
        return torch.cat([y, y * 2], -1).permute(0, 4, 1, 2, 3).mean((2, 3, 4))

    difference, _ = flatten(Lambda(last))
    assert difference < 1e-5


def test_padding_that_differs_between_the_sides_is_zeros_or_the_edges():
    for mode in ("constant", "replicate"):
        pad = Lambda(lambda x, mode=mode: nn.functional.pad(x, (0, 1, 2, 0, 1, 1), mode))
        difference, left = flatten(nn.Conv3d(4, 4, 1), pad, nn.Conv3d(4, 2, 3))
        assert difference < 1e-5
        assert not left & THREE


def test_a_matrix_product_of_every_pixel_has_two_axes():
    layer = nn.Linear(4, 3)
    last = Lambda(lambda x: layer(x.movedim(1, -1)).movedim(-1, 1))
    last.layer = layer
    with torch.no_grad():
        flat, example = prepare(Named(last).eval(), {"clip": torch.rand(2, 4, 2, 3, 3)})
        program = torch.export.export(flat, (), example, strict=False)
    ranks = [node.args[0].meta["val"].ndim for node in program.graph.nodes if "linear" in str(node.target)]
    assert ranks == [2]
    assert flatten(last)[0] < 1e-5


def test_what_depends_on_weights_only_is_computed_once():
    weight = nn.Parameter(torch.rand(4))
    scaled = Lambda(lambda x: x * torch.rsqrt(weight**2 + 1)[:, None, None, None])
    scaled.weight = weight
    difference, left = flatten(scaled)
    assert difference < 1e-6
    assert "rsqrt" not in left


def test_weights_lie_in_order_in_memory():
    convolution = nn.Conv3d(4, 6, 3, padding=1).to(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        flat, _ = prepare(Named(convolution).eval(), {"clip": torch.zeros(2, 4, 4, 6, 6)})
    assert not convolution.weight.is_contiguous()
    assert all(buffer.is_contiguous() for buffer in flat.buffers())
    assert sum(buffer.numel() for buffer in flat.buffers()) == 6 * 4 * 27 + 6


def test_the_number_of_clips_stays_open():
    network = Named(nn.Conv3d(4, 6, 3, padding=1), nn.MaxPool3d(2), Lambda(lambda x: x.mean((2, 3, 4)))).eval()
    with torch.no_grad():
        flat, _ = prepare(network, {"clip": torch.zeros(2, 4, 4, 6, 6)})
        clips = torch.randn(3, 4, 4, 6, 6)
        torch.testing.assert_close(flat(clip=clips)["logits"], network(clip=clips)["logits"])
