"""S3D of torchvision (Xie et al. 2018, arXiv 1712.04851) and X3D of pytorchvideo (Feichtenhofer 2020, arXiv
2004.04730), as Keras models on the torch backend.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np
from keras import layers, ops
from pydantic import Field

from lib.models.i3d import MIXED, read_flax
from lib.models.layers import ClipConfig, frame_differences
from lib.models.weights import assign
from lib.settings import StudyError

if TYPE_CHECKING:
    from torch import Tensor, nn

# Mean and standard deviation of red, green and blue in Kinetics-400.
S3D_COLOURS = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)  # transforms._presets.VideoClassification
X3D_COLOURS = (0.45,) * 3, (0.225,) * 3  # pytorch.org/hub/facebookresearch_pytorchvideo_x3d

# Frames, height, width. 17 pixels leave something after five halvings, of which one rounds down. With fewer frames than
# the 7 of the first kernel, torch 2.14 writes outside its memory in the backward pass on a CPU (seen with 5 frames).
SMALLEST = (7, 17, 17)
LIFT = 2.0  # standard deviations
# Where the units of a mixed block of I3D are in S3D's; torchvision.models.video.s3d.SepInceptionBlock3D.
BRANCHES = {"0a_1x1": "0", "1a_1x1": "1.0", "1b_3x3": "1.1", "2a_1x1": "2.0", "2b_3x3": "2.1", "3b_1x1": "3.1"}
S3D_POOL = (2, 7, 7)  # window of the published average pooling
X3D_DEPTHS = {"xs": 2.2, "s": 2.2, "m": 2.2, "l": 5.0}  # depth factor of each size, pytorchvideo.models.hub.x3d

# Parameters with `classes` outputs; multiply-adds in 1e9 of one clip (frames, height, width).
PUBLISHED = {
    "s3d": {
        "parameters": 8_320_048, "classes": 400, "multiply_adds": 17.979, "clip": (16, 224, 224),
        "source": "torchvision 0.29, S3D_Weights.KINETICS400_V1.meta",
    }
} | {
    f"x3d-{size}": {
        "parameters": parameters, "classes": 400, "multiply_adds": cost, "clip": clip,
        "source": "parameters: pytorchvideo's model zoo; multiply-adds: PySlowFast's, which has them for the trained "
        "clip size",
    }
    for size, parameters, cost, clip in (
        ("xs", 3.79e6, 0.60, (4, 160, 160)),
        ("s", 3.79e6, 1.96, (13, 160, 160)),
        ("m", 3.79e6, 4.73, (16, 224, 224)),
        ("l", 6.15e6, 18.37, (16, 312, 312)),
    )
}  # fmt: skip


class S3DConfig(ClipConfig):
    """Options; the defaults are the published network's."""

    norm_features: bool = Field(False, description="before the head, by their mean and variance in the head step")
    dropout: float = Field(0.2, ge=0, lt=1, description="of the pooled features before the head")
    momentum: float = Field(0.999, ge=0, lt=1, description="share of the running mean and variance kept at each step")


class X3DConfig(ClipConfig):
    """Options; the defaults are the published network's."""

    size: Literal["xs", "s", "m", "l"] = "s"
    dropout: float = Field(0.5, ge=0, lt=1, description="of the pooled features before the head")
    momentum: float = Field(0.9, ge=0, lt=1, description="share of the running mean and variance kept at each step")
    residual: float = Field(0.0, ge=0, description="initial scale of each block's residual branch; learned")


def build_s3d(num_classes: int, config: S3DConfig, clip: tuple[int, int, int] | None = None) -> TorchVideoModel:
    """Build S3D for clips of at least SMALLEST, by default of the published size; see lib.models.build."""
    clip = clip or PUBLISHED["s3d"]["clip"]
    _check("s3d", clip, SMALLEST)
    from torchvision.models.video import s3d

    from lib.models.frames import flatten_convolutions

    network = s3d(num_classes=num_classes)
    _set_momentum(network, config.momentum)
    flatten_convolutions(network)
    blocks = {f"features.{index}": block for index, block in enumerate(network.features)}
    head = "classifier.1", network.classifier[1]
    model = TorchVideoModel("s3d", blocks, head, config, S3D_COLOURS, pool=_average_pool)
    model(ops.zeros((1, *clip, 3)), training=False)
    return model


def _average_pool(x: Tensor) -> Tensor:
    """The published average pooling, with a window no larger than x."""
    from torch.nn import functional

    window = [min(side, size) for side, size in zip(S3D_POOL, x.shape[2:], strict=True)]
    return functional.avg_pool3d(x, window, stride=1)


def build_x3d(num_classes: int, config: X3DConfig, clip: tuple[int, int, int] | None = None) -> TorchVideoModel:
    """Build X3D for clips of any size, by default the published one; see lib.models.build."""
    name = f"x3d-{config.size}"
    clip = clip or PUBLISHED[name]["clip"]
    _check(name, clip, (1, 1, 1))
    from pytorchvideo.layers.swish import Swish
    from pytorchvideo.models.x3d import create_x3d
    from torch import nn

    from lib.models.frames import flatten_convolutions

    network = create_x3d(model_num_class=num_classes, depth_factor=X3D_DEPTHS[config.size], head_activation=None)
    *blocks, head = network.blocks
    head.pool.pool = nn.AdaptiveAvgPool3d(1)  # the published window spans all features of the published clip
    _set_momentum(network, config.momentum)
    for module in network.modules():
        if getattr(module, "block_final_bn", False):
            nn.init.constant_(module.weight, config.residual)
    for parent in list(network.modules()):
        for key, child in parent.named_children():
            if isinstance(child, Swish):
                setattr(parent, key, nn.SiLU())  # computes the same in fewer passes
    flatten_convolutions(network)
    blocks = {f"blocks.{index}": block for index, block in enumerate(blocks)} | {"blocks.5.pool": head.pool}
    model = TorchVideoModel(name, blocks, ("blocks.5.proj", _pointwise(head.proj)), config, X3D_COLOURS)
    model(ops.zeros((1, *clip, 3)), training=False)
    return model


def _check(name: str, clip: tuple[int, int, int], smallest: tuple[int, int, int]) -> None:
    backend = keras.backend.backend()
    if backend != "torch":
        raise StudyError(f"{name} is a torch network, but the Keras backend is {backend}: set KERAS_BACKEND=torch")
    if any(side < least for side, least in zip(clip, smallest, strict=True)):
        frames, height, width = smallest
        raise ValueError(f"{name} needs clips of at least {frames} frames of {height} × {width}, not {tuple(clip)}")


def _set_momentum(network: nn.Module, momentum: float) -> None:
    """Set the share of the running statistics that every normalisation keeps; torch states the share it replaces."""
    from torch import nn

    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.momentum = 1 - momentum


def _pointwise(linear: nn.Linear) -> nn.Linear:
    """The same linear layer, applied to the channels of (batch, channels, frames, height, width)."""
    from torch import nn

    class Pointwise(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.movedim(1, -1)).movedim(-1, 1)

    layer = Pointwise(linear.in_features, linear.out_features)  # its draws are part of what a seed gives in training
    layer.load_state_dict(linear.state_dict())
    return layer


class TorchVideoModel(keras.Model):
    """A torch network of blocks and a head as a Keras model: clips (batch, frames, height, width, 3) to logits.

    Clips are float32 in [0, 1] and are normalised inside. Under the policy mixed_bfloat16 the blocks compute under
    torch's autocast; the weights, the head and the logits stay float32.
    """

    def __init__(
        self,
        name: str,
        blocks: dict[str, nn.Module],
        head: tuple[str, nn.Module],
        config: S3DConfig | X3DConfig,
        colours: tuple[tuple[float, ...], tuple[float, ...]],
        pool: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """blocks, in order, and head: by their names in the published state dict.

        colours: mean and standard deviation of red, green and blue. pool: applied to the output of the last block.
        """
        super().__init__(name=name)
        mean, std = colours
        # Not Keras' Normalization: built inside a model, its mean is uninitialised memory on torch.
        scale = [1 / value for value in std]
        offset = [-value * factor for value, factor in zip(mean, scale, strict=True)]
        self.normalise = layers.Rescaling(scale, offset, dtype="float32", name="normalise")
        self.differences, self.pool = config.differences, pool
        self.blocks = [_wrapped(key, module) for key, module in blocks.items()]
        self.fixed, self.norm_features = config.fix_norm, None
        if getattr(config, "norm_features", False):
            self.norm_features = layers.BatchNormalization(
                1, config.momentum, center=False, scale=False, dtype="float32"
            )
        self.dropout = layers.Dropout(config.dropout, dtype="float32", name="dropout")
        self.head = _wrapped(*head)

    @property
    def stages(self) -> list[layers.Layer]:
        """The blocks, from the input on."""
        return self.blocks

    def call(self, clips: Any, training: bool = False) -> Any:
        import torch

        x = self.normalise(clips)
        x = frame_differences(x) if self.differences else x
        # This view already has torch's channels_last_3d layout, in which convolutions on a CPU are fastest.
        x = x.permute(0, 4, 1, 2, 3)
        mixed = self.compute_dtype == "bfloat16"
        # Without mixed precision no autocast at all, so that an export keeps the one around it.
        with torch.autocast(x.device.type, torch.bfloat16) if mixed else nullcontext():
            for block in self.blocks:
                # A frozen block keeps its statistics.
                x = block(x, training=training and block.trainable and not self.fixed)
            x = x if self.pool is None else self.pool(x)
        features = ops.cast(x, "float32")
        features = features if self.norm_features is None else self.norm_features(features, training=training)
        features = self.dropout(features, training=training)
        return ops.mean(self.head(features, training=training), axis=(2, 3, 4))

    def learn_statistics(self, batches: Iterable[Any]) -> None:
        """Set the mean and variance of all normalisations to those in these batches of clips."""
        import torch

        norms = [
            part for block in self.blocks for part in block.module.modules() if isinstance(part, torch.nn.BatchNorm3d)
        ]
        momentum, fixed, self.fixed = [norm.momentum for norm in norms], self.fixed, False
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
        with torch.no_grad():
            for clips in batches:
                self(clips, training=True)
        self.fixed = fixed
        for norm, kept in zip(norms, momentum, strict=True):
            norm.momentum = kept


def _wrapped(key: str, module: nn.Module) -> layers.TorchModuleWrapper:
    """A Keras layer, named by the key in the state dict without its dots; autocast sets its precision, not Keras."""
    import torch

    module = module.to(memory_format=torch.channels_last_3d)
    return layers.TorchModuleWrapper(module, name=key.replace(".", "_"), autocast=False)


def load_published_weights(model: TorchVideoModel, path: Path, *, head: bool = False) -> None:
    """Load a state dict of torchvision or pytorchvideo (there under the key model_state) into all but the head.

    S3D takes I3D's Flax weights (….ckpt), too; see `separated`. The statistics of its normalisations are to be learned
    then. head: whether to load the head, too, which needs a model with the file's number of classes.
    Raises StudyError and leaves the model unchanged when the file cannot be read or does not fit. Runs no code of it.
    """
    own = {
        f"{part.name.replace('_', '.')}.{key}": value
        for part in (*model.blocks, model.head)
        for key, value in part.module.state_dict().items()
    }
    try:
        state = own | separated(read_flax(path)) if path.suffix == ".ckpt" else _read_state(path)
    except KeyError as error:
        raise StudyError(f"{path}: these are not weights of I3D; {error} is missing") from None
    # The entries of a state dict are the module's own tensors.
    assign(own, state, path, model.name, without=None if head else model.head.name.replace("_", ".") + ".")


def _read_state(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise StudyError(f"{path}: not a readable torch state dict: {error}") from None
    state = state.get("model_state", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise StudyError(f"{path}: not a torch state dict of tensors")
    return state


def separated(published: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Weights of S3D, by their names in torchvision, from those of I3D, which differs in its convolutions over time.

    S3D has each of them as one over the image and one over time, with a normalisation and a ReLU between them (Xie et
    al. 2018, section 4). Of each kernel of I3D, the nearest product of an image and a curve over time takes their
    place: for DeepMind's weights, .64 to .88 of the squared norm. The normalisation adds LIFT, so that little is cut
    off. The means and variances are not I3D's, and are left out.
    """
    import torch

    units = {"1a_7x7": "0", "2b_1x1": "2", "2c_3x3": "3"}
    for index, block in zip((5, 6, 8, 9, 10, 11, 12, 14, 15), MIXED, strict=True):
        units |= {f"{block}_{unit}": f"{index}.branch{place}" for unit, place in BRANCHES.items()}
    state = {}
    for unit, place in units.items():
        kernel = torch.from_numpy(published[f"Conv3d_{unit}_conv/kernel"])
        kernel = kernel.permute(4, 0, 3, 1, 2)  # channels out, time, channels in, image
        beta = torch.from_numpy(published[f"Conv3d_{unit}_bn/beta"])
        if unit == "1a_7x7":  # I3D reads colours in [-1, 1]
            kernel = kernel * 2 * torch.tensor(S3D_COLOURS[1])[:, None, None]
        parts = [(f"features.{place}", kernel.transpose(1, 2), beta)]
        if kernel.shape[1] > 1:
            curves, norms, images = torch.linalg.svd(kernel.flatten(2), full_matrices=False)
            sign = 1 - 2.0 * (curves[:, :, 0].sum(1, keepdim=True) < 0)
            over_image = (sign * norms[:, :1] * images[:, 0]).reshape(kernel[:, :1].shape).transpose(1, 2)
            over_time = torch.diag_embed((sign * curves[:, :, 0]).T).permute(1, 2, 0)[..., None, None]
            lift = torch.full_like(beta, LIFT)
            parts = [(f"features.{place}.0", over_image, lift), (f"features.{place}.1", over_time, beta)]
        for name, weight, bias in parts:
            state |= {f"{name}.0.weight": weight, f"{name}.1.weight": torch.ones_like(bias), f"{name}.1.bias": bias}
    return state
