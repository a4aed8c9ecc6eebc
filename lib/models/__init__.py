"""Every model by name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    from pydantic import BaseModel

MOVINETS = tuple(f"movinet-a{size}" for size in range(6))
MODELS = ("i3d", *MOVINETS, "s3d", "spobet", *(f"x3d-{size}" for size in ("xs", "s", "m", "l")))
VARIANTS = {"movinet": "size", "x3d": "size"}  # what the builder calls the part of the name after the dash
CONFIGS = {
    "i3d": "I3DConfig",
    "movinet": "MovinetConfig",
    "s3d": "S3DConfig",
    "x3d": "X3DConfig",
    "spobet": "SpobetConfig",
}


def build(name: str, num_classes: int, clip: tuple[int, int, int] | None = None, **options: Any) -> keras.Model:
    """Make a model of logits (batch, num_classes) by its name, built, so that weights can be loaded at once.

    `spobet` reads poses float32 (batch, frames, joints, 3) of x, y, present, of any number of frames. The others read
    float32 (batch, frames, height, width, 3) RGB in [0, 1]; `clip` is (frames, height, width), by default the
    published. `options` are the fields of the model's own configuration, such as `lib.models.spobet.SpobetConfig`.
    Keras is imported here, so the backend may be chosen until then; S3D and X3D need torch.
    Raises ValueError for an unknown name, pydantic's ValidationError for an unknown option, and StudyError for a
    backend that the model does not run on.
    """
    kind, variant = family(name), name.partition("-")[2]
    if variant:
        options[VARIANTS[kind]] = variant
    if clip is not None:
        options["clip"] = clip
    return getattr(import_module(f"lib.models.{kind}"), f"build_{kind}")(num_classes, **options)


def family(name: str) -> str:
    """The family of a model: i3d, movinet, s3d, x3d or spobet. Raises ValueError for an unknown name."""
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; there are: {', '.join(MODELS)}")
    return name.partition("-")[0]


def config_of(name: str) -> type[BaseModel]:
    """The configuration whose fields are the model's options. Raises ValueError for an unknown name."""
    kind = family(name)
    return getattr(import_module(f"lib.models.{kind}"), CONFIGS[kind])


def freeze(name: str, model: keras.Model, stages: int | None) -> None:
    """Let the first `stages` of a model made by `build(name, …)` keep their weights; None: all but the head.

    A stage is what the family freezes as one: a bottleneck of MoViNet, a mixed block of I3D, a block of S3D or X3D.
    Compile the model anew afterwards. Raises ValueError when there are not so many stages.
    """
    import_module(f"lib.models.{family(name)}").freeze(model, stages)


def count_stages(name: str) -> int | None:
    """How many stages `freeze` counts in a model; None for a family that freezes none. Raises ValueError as `family`.

    Said without building the model, so that a search can check its space before any work.
    """
    kind, variant = family(name), name.partition("-")[2]
    count = getattr(import_module(f"lib.models.{kind}"), "count_stages", None)
    return count and count(variant)
