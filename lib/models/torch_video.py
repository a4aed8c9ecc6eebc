"""S3D: torchvision's separable Inception (Xie et al. 2018, arXiv 1712.04851), and the keras form of any torch network.

Runs on keras' torch backend only.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import keras
from keras import layers, ops
from pydantic import BaseModel, ConfigDict, Field

from lib.models import freeze
from lib.models.layers import DIFFERENCES, frame_differences
from lib.settings import StudyError

if TYPE_CHECKING:
    from torch import Tensor, nn

# Of Kinetics-400, by torchvision's transforms._presets.VideoClassification.
S3D_COLOURS = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
S3D_CLIP = (16, 224, 224)  # frames, height, width that torchvision counts its operations at
# Frames, height, width. 17 pixels leave something after five halvings, of which one rounds down. Less than the 7 frames
# of the first kernel, and torch 2.14 writes outside its memory in the backward pass on a CPU (seen with 5 frames).
SMALLEST = (7, 17, 17)
S3D_BLOCKS = 16  # torchvision's `features`, of which pools are members
POOL = (2, 7, 7)  # window of the published average pooling

# Multiply-adds of one clip in 1e9, parameters with `classes` outputs.
PUBLISHED = {
    "s3d": {
        "parameters": 8_320_048, "classes": 400, "multiply_adds": 17.979, "clip": S3D_CLIP,
        "source": "torchvision 0.29, S3D_Weights.KINETICS400_V1.meta",
    }
}  # fmt: skip


class S3DConfig(BaseModel):
    """What may differ from the published network; the defaults are its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dropout: float = Field(0.2, ge=0, lt=1, description="of the pooled features before the head")
    momentum: float = Field(0.999, ge=0, lt=1, description="share of the running mean and variance that a step keeps")
    freeze: int = Field(0, ge=0, le=S3D_BLOCKS, description="blocks, from the input, that do not train")
    differences: bool = Field(False, description=DIFFERENCES)


def build_s3d(num_classes: int, clip: tuple[int, int, int] = S3D_CLIP, **options: Any) -> TorchVideoModel:
    """Make a model of clips float32 (batch, frames, height, width, 3) in [0, 1] to logits (batch, num_classes).

    clip: frames, height and width, at least SMALLEST; `options` are fields of S3DConfig.
    Raises StudyError on another backend than torch, ValueError for a smaller clip and pydantic's ValidationError for
    an unknown or wrong option.
    """
    config = S3DConfig(**options)
    need_torch("s3d")
    check_clip("s3d", clip, SMALLEST)
    from torchvision.models.video import s3d

    from lib.models.frames import flatten_convolutions

    network = s3d(num_classes=num_classes)
    set_momentum(network, config.momentum)
    flatten_convolutions(network)
    blocks = {f"features.{index}": block for index, block in enumerate(network.features)}
    model = TorchVideoModel(
        {**blocks, "avgpool": average_pool()},
        ("classifier.1", network.classifier[1]),
        dropout=config.dropout,
        colours=S3D_COLOURS,
        differences=config.differences,
        name="s3d",
    )
    return model.ready(clip, config.freeze)


def average_pool() -> nn.Module:
    """The published average pooling, its window no larger than what comes in."""
    from torch import nn
    from torch.nn import functional

    class AveragePool(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            window = [min(side, size) for side, size in zip(POOL, x.shape[2:], strict=True)]
            return functional.avg_pool3d(x, window, stride=1)

    return AveragePool()


# ---- torch networks in keras -----------------------------------------------------------------------------


class TorchVideoModel(keras.Model):
    """A torch network of blocks and a head as a keras model: clips (batch, frames, height, width, 3) to logits.

    Clips are float32 in [0, 1]; mean and standard deviation of the colours are taken off inside. Under the policy
    mixed_bfloat16 the blocks compute as torch's autocast does; the weights, the head and the logits stay float32.
    """

    def __init__(
        self,
        blocks: dict[str, nn.Module],
        head: tuple[str, nn.Module],
        *,
        dropout: float,
        colours: tuple[tuple[float, ...], tuple[float, ...]],
        differences: bool,
        name: str,
    ) -> None:
        """Blocks, in order, and head go by their names in the published state dict.

        colours: mean and standard deviation of red, green and blue. differences: the blocks read frame_differences of
        them. The head reads and gives torch's layout (batch, channels, frames, height, width).
        """
        super().__init__(name=name)
        mean, std = colours
        # Not keras' Normalization: built inside a model, it keeps uninitialised memory for its mean on torch.
        scale = [1 / value for value in std]
        offset = [-value * factor for value, factor in zip(mean, scale, strict=True)]
        self.normalise = layers.Rescaling(scale, offset, dtype="float32", name="normalise")
        self.differences = differences
        self.blocks = [wrap(key, module) for key, module in blocks.items()]
        self.dropout = layers.Dropout(dropout, dtype="float32", name="dropout")
        self.head = wrap(*head)

    @property
    def stages(self) -> list[layers.Layer]:
        """The blocks, from the input."""
        return self.blocks

    def call(self, clips: Any, training: bool = False) -> Any:
        """Classify a batch."""
        features = ops.cast(self.features(clips, training=training), "float32")
        logits = self.head(self.dropout(features, training=training), training=training)
        return ops.mean(logits, axis=(2, 3, 4))

    def features(self, clips: Any, training: bool = False) -> Any:
        """What the head reads: (batch, channels, frames', height', width')."""
        import torch

        x = self.normalise(clips)
        x = frame_differences(x) if self.differences else x
        # This view has torch's channels_last_3d layout already, in which convolutions on a CPU are fastest.
        x = x.permute(0, 4, 1, 2, 3)
        mixed = self.compute_dtype == "bfloat16"
        with torch.autocast(x.device.type, torch.bfloat16) if mixed else nullcontext():  # an export keeps what is there
            for block in self.blocks:
                x = block(x, training=training and block.trainable)  # a frozen block keeps its statistics
        return x

    def ready(self, clip: tuple[int, int, int], frozen: int) -> TorchVideoModel:
        """Build for clips of this size and freeze the first blocks."""
        self(ops.zeros((1, *clip, 3)), training=False)
        freeze(self, frozen)
        return self


def load_published_weights(model: TorchVideoModel, path: Path, head: bool = False) -> None:
    """Fill a model from a state dict of torchvision or pytorchvideo (there under the key model_state).

    The published head is left out, unless `head`, which needs a model of as many classes.
    Raises StudyError, and leaves the model as it was, when the file can't be read or when an entry of the model or of
    the file has no counterpart of the same shape; all of these are listed.
    """
    published, name = read_state(path), model.head.name
    parts = [*model.blocks, *([model.head] if head else [])]
    if not head:
        published = {key: value for key, value in published.items() if not key.startswith(f"{key_of(name)}.")}
    own = {f"{key_of(part.name)}.{key}": value for part in parts for key, value in part.module.state_dict().items()}
    problems = mismatches({key: value.shape for key, value in own.items()}, published)
    if problems:
        raise StudyError(f"{path}: these are not weights for {model.name}; " + "; ".join(problems))
    for key, value in own.items():
        value.copy_(published[key])  # a state dict's entries are the module's own tensors


def mismatches(own: dict[str, Any], published: dict[str, Any]) -> list[str]:
    """Say what stands in one of two state dicts only or has another shape, sorted. `own` maps names to shapes."""
    problems = [f"only in the model: {key}" for key in own.keys() - published.keys()]
    problems += [f"only in the file: {key}" for key in published.keys() - own.keys()]
    for key in own.keys() & published.keys():
        if published[key].shape != own[key]:
            problems.append(f"{key} is {tuple(published[key].shape)} in the file, {tuple(own[key])} in the model")
    return sorted(problems)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict, by itself or under model_state beside the state of a training. Runs no code of the file."""
    import pickle

    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise StudyError(f"{path}: not a readable torch state dict: {error}") from None
    state = state.get("model_state", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise StudyError(f"{path}: not a torch state dict of tensors")
    return state


def wrap(key: str, module: nn.Module) -> layers.TorchModuleWrapper:
    """Make a keras layer of a block; keras takes no dot in a name, and autocast chooses the precision, not keras."""
    import torch

    module = module.to(memory_format=torch.channels_last_3d)
    return layers.TorchModuleWrapper(module, name=key.replace(".", "_"), autocast=False)


def key_of(name: str) -> str:
    """A block's name in the published state dict, from its name in keras."""
    return name.replace("_", ".")


def set_momentum(network: nn.Module, momentum: float) -> None:
    """Set what share of its running statistics each normalisation keeps; torch states the share it replaces."""
    for norm in norms(network):
        norm.momentum = 1 - momentum


def norms(network: nn.Module) -> Iterable[nn.Module]:
    """Every batch normalisation of a network."""
    from torch import nn

    return (module for module in network.modules() if isinstance(module, nn.BatchNorm3d))


def need_torch(model: str) -> None:
    """Raise StudyError unless keras runs on torch."""
    backend = keras.backend.backend()
    if backend != "torch":
        raise StudyError(f"{model} is a torch network and keras runs on {backend}: set KERAS_BACKEND=torch")


def check_clip(model: str, clip: tuple[int, int, int], smallest: tuple[int, int, int]) -> None:
    """Raise ValueError when a side of the clip is too small for the model."""
    if any(side < least for side, least in zip(clip, smallest, strict=True)):
        frames, height, width = smallest
        raise ValueError(f"{model} needs clips of at least {frames} frames of {height} × {width}, not {tuple(clip)}")


X3D_COLOURS = (0.45,) * 3, (0.225,) * 3  # pytorch.org/hub/facebookresearch_pytorchvideo_x3d
X3D_BLOCKS = 6  # stem, four stages, projected pooling

# pytorchvideo.models.hub.x3d: frames, height, width of each size, and how much deeper than the base its stages are.
X3D_CLIPS = {"xs": (4, 160, 160), "s": (13, 160, 160), "m": (16, 224, 224), "l": (16, 312, 312)}
DEPTHS = {"xs": 2.2, "s": 2.2, "m": 2.2, "l": 5.0}

# Multiply-adds of one clip in 1e9, parameters with `classes` outputs.
SOURCE = "parameters: pytorchvideo's model zoo; multiply-adds: PySlowFast's, which has them for the trained clip size"
PUBLISHED |= {
    "x3d-xs": {"parameters": 3.79e6, "classes": 400, "multiply_adds": 0.60, "clip": X3D_CLIPS["xs"], "source": SOURCE},
    "x3d-s": {"parameters": 3.79e6, "classes": 400, "multiply_adds": 1.96, "clip": X3D_CLIPS["s"], "source": SOURCE},
    "x3d-m": {"parameters": 3.79e6, "classes": 400, "multiply_adds": 4.73, "clip": X3D_CLIPS["m"], "source": SOURCE},
    "x3d-l": {"parameters": 6.15e6, "classes": 400, "multiply_adds": 18.37, "clip": X3D_CLIPS["l"], "source": SOURCE},
}


class X3DConfig(BaseModel):
    """Which size, and what may differ from the published network; the defaults are its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Literal["xs", "s", "m", "l"] = "s"
    dropout: float = Field(0.5, ge=0, lt=1, description="of the pooled features before the head")
    momentum: float = Field(0.9, ge=0, lt=1, description="share of the running mean and variance that a step keeps")
    freeze: int = Field(0, ge=0, le=X3D_BLOCKS, description="blocks, from the input, that do not train")
    differences: bool = Field(False, description=DIFFERENCES)


def build_x3d(num_classes: int, clip: tuple[int, int, int] | None = None, **options: Any) -> TorchVideoModel:
    """Make a model of clips float32 (batch, frames, height, width, 3) in [0, 1] to logits (batch, num_classes).

    clip: frames, height and width, each at least 1, by default the size's published ones; `options` are fields of
    X3DConfig. Raises StudyError on another backend than torch, ValueError for a clip without frames or pixels and
    pydantic's ValidationError for an unknown or wrong option.
    """
    config = X3DConfig(**options)
    name, clip = f"x3d-{config.size}", clip or X3D_CLIPS[config.size]
    need_torch(name)
    check_clip(name, clip, (1, 1, 1))
    *blocks, head = make_network(num_classes, config).blocks
    named = {f"blocks.{index}": block for index, block in enumerate(blocks)}
    model = TorchVideoModel(
        {**named, "blocks.5.pool": head.pool},
        ("blocks.5.proj", pointwise(head.proj)),
        dropout=config.dropout,
        colours=X3D_COLOURS,
        differences=config.differences,
        name=name,
    )
    return model.ready(clip, config.freeze)


def make_network(num_classes: int, config: X3DConfig) -> nn.Module:
    """Make pytorchvideo's network, pooling whatever clip comes in as the published one pools its own.

    Its window is the whole of the features of the published clip, so the mean over all of them is the same pooling.
    """
    from pytorchvideo.layers.swish import Swish
    from pytorchvideo.models.x3d import create_x3d
    from torch import nn

    from lib.models.frames import flatten_convolutions

    network = create_x3d(model_num_class=num_classes, depth_factor=DEPTHS[config.size], head_activation=None)
    network.blocks[-1].pool.pool = nn.AdaptiveAvgPool3d(1)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Swish):
                setattr(parent, name, nn.SiLU())  # computes the same in fewer passes
    set_momentum(network, config.momentum)
    flatten_convolutions(network)
    return network


def pointwise(linear: nn.Linear) -> nn.Linear:
    """Make a linear layer over the channels of (batch, channels, frames, height, width), of the same weights."""
    from torch import nn

    class Pointwise(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.movedim(1, -1)).movedim(-1, 1)

    layer = Pointwise(linear.in_features, linear.out_features)
    layer.load_state_dict(linear.state_dict())
    return layer
