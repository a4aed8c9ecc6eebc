"""Every model by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

FAMILIES = ("spobet",)


def build(name: str, num_classes: int, **options: Any) -> keras.Model:
    """Make a model of logits by its name; keras is imported here, so the backend may be chosen until then.

    `spobet`: poses float32 (batch, frames, joints, 3) of x, y, present to logits (batch, num_classes); `options` are
    the fields of `lib.models.spobet.SpobetConfig`. Built, so weights can be loaded at once.
    Raises ValueError for an unknown name and pydantic's ValidationError for an unknown option.
    """
    if name not in FAMILIES:
        raise ValueError(f"unknown model {name!r}; there are: {', '.join(FAMILIES)}")
    from lib.models.spobet import build_spobet

    return build_spobet(num_classes, **options)
