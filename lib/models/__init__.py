"""The registry of models, one row per family. Your own model is a module, a row here and a recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Literal

from lib.settings import Settings, StudyError

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Family:
    """One row: a model, or several sizes of one. Code is named as "module:name" and imported on first use.

    name: of the model; with `sizes` the part before the dash, as in "x3d-s".
    builder: function (num_classes, config) that returns a built keras.Model of float32 logits. That of a clip model
        also takes `clip`, (frames, height, width), and has a default for it.
    config: subclass of Settings whose fields are the options of a recipe, by default none. It needs a field `size` in
        a family with sizes, `layout` in a pose model, and `freeze` where stages can be frozen.
    kind: what the model reads, stored clips or poses.
    backends: the Keras backends to train on, of which the one that is faster on the machine does; see lib.backends.
    probe: where there are several, function () that returns a small piece of the network, a keras.Model, to measure.
    notebook: trains and evaluates a run.
    stages: the number of stages that can be frozen, or a function of the size that returns it. The model's attribute
        `stages` lists them from the input on, each a layer or a list of layers.
    classifier: name of the layer whose weights are those of the glosses, for runs that start from another one.
    weights: function (model, path) that loads published weights into all but the classifier.
    published: table of published costs by model, see lib.models.cost.
    pretraining: class (model, share, span, seed) that pre-trains a model.
    """

    name: str
    builder: str
    config: str = "lib.settings:Settings"
    kind: Literal["clips", "poses"] = "clips"
    backends: tuple[Literal["tensorflow", "torch"], ...] = ("torch",)
    probe: str | None = None
    notebook: str = "13_own_model"
    sizes: tuple[str, ...] = ()
    stages: int | str | None = None
    classifier: str = "head"
    weights: str | None = None
    published: str | None = None
    pretraining: str | None = None

    @property
    def models(self) -> list[str]:
        """Names of the models, such as "x3d-s"."""
        return [f"{self.name}-{size}" for size in self.sizes] or [self.name]


_ROWS = (
    Family(
        "i3d",
        builder="lib.models.i3d:build_i3d",
        config="lib.models.i3d:I3DConfig",
        backends=("tensorflow", "torch"),
        probe="lib.models.i3d:probe",
        notebook="05_i3d",
        stages=12,
        weights="lib.models.i3d:load_published_weights",
        published="lib.models.i3d:PUBLISHED",
    ),
    Family(
        "movinet",
        builder="lib.models.movinet:build_movinet",
        config="lib.models.movinet:MovinetConfig",
        backends=("tensorflow", "torch"),
        probe="lib.models.movinet:probe",
        notebook="04_movinet",
        sizes=("a0", "a1", "a2", "a3", "a4", "a5"),
        stages="lib.models.movinet_sizes:count_stages",
        classifier="classifier",
        weights="lib.models.movinet_weights:load_published_weights",
        published="lib.models.movinet:PUBLISHED",
    ),
    Family(
        "s3d",
        builder="lib.models.torch_video:build_s3d",
        config="lib.models.torch_video:S3DConfig",
        notebook="06_s3d",
        stages=16,
        classifier="classifier_1",
        weights="lib.models.torch_video:load_published_weights",
        published="lib.models.torch_video:PUBLISHED",
    ),
    Family(
        "spobet",
        builder="lib.models.spobet:build_spobet",
        config="lib.models.spobet:SpobetConfig",
        kind="poses",
        notebook="08_spobet",
        pretraining="lib.models.spobet:MaskedFrames",
    ),
    Family(
        "x3d",
        builder="lib.models.torch_video:build_x3d",
        config="lib.models.torch_video:X3DConfig",
        notebook="07_x3d",
        sizes=("xs", "s", "m", "l"),
        stages=6,
        classifier="blocks_5_proj",
        weights="lib.models.torch_video:load_published_weights",
        published="lib.models.torch_video:PUBLISHED",
    ),
)
FAMILIES = {family.name: family for family in _ROWS}


def model_names() -> list[str]:
    """Names of all models, as recipes and `build` take them."""
    return [name for family in FAMILIES.values() for name in family.models]


def family_of(name: str) -> Family:
    """The family of a model. Raises StudyError for an unknown name."""
    for family in FAMILIES.values():
        if name in family.models:
            return family
    raise StudyError(f"unknown model {name!r}; there are: {', '.join(model_names())}")


def size_of(name: str) -> str:
    """The size of a model, such as "s"; "" in a family without sizes. Raises StudyError for an unknown name."""
    return name.removeprefix(family_of(name).name).removeprefix("-")


def config_of(name: str) -> type[Settings]:
    """The class of a model's options. Raises StudyError for an unknown name."""
    return resolve_name(family_of(name).config)


def count_stages(name: str) -> int | None:
    """How many stages of a model can be frozen, known without building it; None where none can."""
    stages = family_of(name).stages
    return resolve_name(stages)(size_of(name)) if isinstance(stages, str) else stages


def configure(name: str, options: dict[str, Any]) -> Settings:
    """Validate the options of a model and fill in its size and the defaults.

    Raises pydantic's ValidationError for an unknown or wrong option, and StudyError for an unknown name or more frozen
    stages than the model has.
    """
    size = size_of(name)
    config = config_of(name)(**options, **({"size": size} if size else {}))
    frozen, stages = getattr(config, "freeze", 0), count_stages(name) or 0
    if frozen > stages:
        raise StudyError(f"{name} has {stages} stages to freeze, not {frozen}")
    return config


def build(name: str, num_classes: int, clip: tuple[int, int, int] | None = None, **options: Any) -> keras.Model:
    """Build a model that returns float32 logits (batch, num_classes); weights can be loaded into it at once.

    A clip model reads float32 RGB (batch, frames, height, width, 3) in [0, 1]; `clip` is (frames, height, width),
    by default as published. A pose model reads float32 (batch, frames, joints, 3), x, y and present, with any number
    of frames. `options` are the fields of `config_of(name)`.
    Keras is imported here, so its backend can be chosen until then. S3D and X3D need torch.
    Raises StudyError for an unknown name or a backend that cannot run the model, ValueError for a clip that is too
    small, and as `configure`.
    """
    config = configure(name, options)
    builder: Callable[..., keras.Model] = resolve_name(family_of(name).builder)
    model = builder(num_classes, config) if clip is None else builder(num_classes, config, clip)
    if getattr(config, "freeze", 0):
        freeze(model, config.freeze)
    return model


def freeze(model: keras.Model, stages: int | None) -> None:
    """Freeze the weights and statistics of the first `stages` of a model (None: of all) and make the others trainable.

    Compile the model again afterwards: Keras looks up what is trainable only then.
    Raises StudyError when the model has fewer stages.
    """
    stages = len(model.stages) if stages is None else stages
    if not 0 <= stages <= len(model.stages):
        raise StudyError(f"{model.name} has {len(model.stages)} stages to freeze, not {stages}")
    for number, stage in enumerate(model.stages):
        for layer in stage if isinstance(stage, list) else [stage]:
            layer.trainable = number >= stages
    if getattr(model, "norm_features", None):  # learns with a new head, whose weights would not fit other statistics
        model.norm_features.trainable = stages == len(model.stages)
