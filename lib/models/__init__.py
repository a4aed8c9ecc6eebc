"""The registry: every family of models, one row each. A model of one's own is a module and a row here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from lib.settings import StudyError

if TYPE_CHECKING:
    import keras
    from pydantic import BaseModel


@dataclass(frozen=True)
class Family:
    """One row of the registry.

    A place is "module:name", imported only when it is needed, because families need different frameworks.
    kind: what the models read, stored clips or poses.
    builder: place of a function of the number of classes and the options; of clips also `clip` (frames, height,
        width), of poses `layout`, of a family with sizes `size`.
    config: place of the pydantic model of the options.
    backend: the one that trains the family faster on a processor.
    notebook: the one that trains and evaluates a run of the family.
    sizes: what stands behind the dash in the names of the models.
    stages: how many parts, from the input, can be frozen, or the place of a function of the size that tells.
        A model of such a family has an attribute `stages`, a list of layers or of lists of layers.
    weights: place of a function (model, path) that fills all but the classifier from published weights.
    published: place of the published costs by model name, see lib.models.cost.
    pretraining: place of the model that pre-trains one of the family: (model, share, span, seed).
    """

    name: str
    kind: Literal["clips", "poses"]
    builder: str
    config: str
    backend: Literal["tensorflow", "torch"]
    notebook: str
    sizes: tuple[str, ...] = ()
    stages: int | str | None = None
    weights: str | None = None
    published: str | None = None
    pretraining: str | None = None

    @property
    def models(self) -> list[str]:
        """Names of the models, such as "x3d-s"."""
        return [f"{self.name}-{size}" for size in self.sizes] or [self.name]


FAMILIES = {
    family.name: family
    for family in (
        Family(
            "i3d",
            kind="clips",
            builder="lib.models.i3d:build_i3d",
            config="lib.models.i3d:I3DConfig",
            backend="tensorflow",
            notebook="05_i3d",
            stages=12,
            weights="lib.models.i3d:load_published_weights",
            published="lib.models.i3d:PUBLISHED",
        ),
        Family(
            "movinet",
            kind="clips",
            builder="lib.models.movinet:build_movinet",
            config="lib.models.movinet:MovinetConfig",
            backend="tensorflow",
            notebook="04_movinet",
            sizes=("a0", "a1", "a2", "a3", "a4", "a5"),
            stages="lib.models.movinet:count_stages",
            weights="lib.models.movinet_weights:load_published_weights",
            published="lib.models.movinet:PUBLISHED",
        ),
        Family(
            "s3d",
            kind="clips",
            builder="lib.models.torch_video:build_s3d",
            config="lib.models.torch_video:S3DConfig",
            backend="torch",
            notebook="06_s3d",
            stages=16,
            weights="lib.models.torch_video:load_published_weights",
            published="lib.models.torch_video:PUBLISHED",
        ),
        Family(
            "spobet",
            kind="poses",
            builder="lib.models.spobet:build_spobet",
            config="lib.models.spobet:SpobetConfig",
            backend="torch",
            notebook="08_spobet",
            pretraining="lib.models.spobet:MaskedFrames",
        ),
        Family(
            "x3d",
            kind="clips",
            builder="lib.models.torch_video:build_x3d",
            config="lib.models.torch_video:X3DConfig",
            backend="torch",
            notebook="07_x3d",
            sizes=("xs", "s", "m", "l"),
            stages=6,
            weights="lib.models.torch_video:load_published_weights",
            published="lib.models.torch_video:PUBLISHED",
        ),
    )
}


def model_names() -> list[str]:
    """Names of all models, as recipes and `build` take them."""
    return [name for family in FAMILIES.values() for name in family.models]


def family_of(name: str) -> Family:
    """The row of a model. Raises StudyError for an unknown name."""
    if name not in model_names():
        raise StudyError(f"unknown model {name!r}; there are: {', '.join(model_names())}")
    return FAMILIES[name if name in FAMILIES else name.rpartition("-")[0]]


def size_of(name: str) -> str:
    """The size of a model, "" in a family without sizes."""
    return name.removeprefix(family_of(name).name).removeprefix("-")


def build(name: str, num_classes: int, clip: tuple[int, int, int] | None = None, **options: Any) -> keras.Model:
    """Make a model of logits (batch, num_classes) by its name, built, so that weights can be loaded at once.

    Models of poses read float32 (batch, frames, joints, 3) of x, y, present, of any number of frames. The others read
    float32 (batch, frames, height, width, 3) RGB in [0, 1]; `clip` is (frames, height, width), by default the
    published. `options` are the fields of the model's configuration, such as `lib.models.spobet.SpobetConfig`.
    Keras is imported here, so the backend may be chosen until then; S3D and X3D need torch.
    Raises StudyError for an unknown name or a backend that the model does not run on, and pydantic's ValidationError
    for an unknown or wrong option.
    """
    if size := size_of(name):
        options["size"] = size
    if clip is not None:
        options["clip"] = clip
    return load(family_of(name).builder)(num_classes, **options)


def config_of(name: str) -> type[BaseModel]:
    """The configuration whose fields are the model's options. Raises StudyError for an unknown name."""
    return load(family_of(name).config)


def count_stages(name: str) -> int | None:
    """How many stages `freeze` counts in a model, told without building it; None where none can be frozen."""
    stages = family_of(name).stages
    return load(stages)(size_of(name)) if isinstance(stages, str) else stages


def freeze(model: keras.Model, stages: int | None) -> None:
    """Have the first `stages` of a model (None: all but the head) keep their weights and statistics, others train.

    Compile the model anew afterwards: keras looks at what trains when it compiles.
    Raises ValueError when there are not so many stages.
    """
    stages = len(model.stages) if stages is None else stages
    if not 0 <= stages <= len(model.stages):
        raise ValueError(f"{model.name} has {len(model.stages)} stages to freeze, not {stages}")
    for number, stage in enumerate(model.stages):
        for layer in stage if isinstance(stage, list) else [stage]:
            layer.trainable = number >= stages


def load(place: str) -> Any:
    """Import what a place of the registry names."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
