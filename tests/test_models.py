"""The registry: what its rows name exists, and a row of two fields is a model."""

import keras
import pytest
from keras import layers
from pydantic import ValidationError

from lib import models
from lib.models import FAMILIES, Family, build, configure, count_stages, freeze, resolve_name
from lib.settings import Settings, StudyError

on_torch = pytest.mark.skipif(keras.backend.backend() != "torch", reason="S3D and X3D need torch")
every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)


@every_family
def test_all_that_a_row_names_exists_and_its_models_have_the_fields_that_they_need(family):
    fields = resolve_name(family.config).model_fields
    assert callable(resolve_name(family.builder))
    assert family.weights is None or callable(resolve_name(family.weights))
    assert family.published is None or set(family.models) <= set(resolve_name(family.published))
    assert ("size" in fields) == bool(family.sizes)
    assert ("freeze" in fields) == bool(family.stages)
    assert ("layout" in fields) == (family.kind == "poses")


@on_torch
@pytest.mark.parametrize("name", ["i3d", "movinet-a0", "s3d", "x3d-s"])
def test_as_many_stages_can_be_frozen_as_the_row_says_and_then_only_the_head_trains(name):
    model = build(name, 3, (8, 32, 32), freeze=count_stages(name))
    assert len(model.stages) == count_stages(name)
    assert 0 < len(model.trainable_variables) <= 4
    freeze(model, 0)
    assert len(model.trainable_variables) > 50
    with pytest.raises(StudyError, match=f"{name} has {count_stages(name)} stages to freeze, not 99"):
        build(name, 3, freeze=99)


def test_every_size_of_movinet_has_its_own_number_of_stages():
    assert [count_stages(name) for name in FAMILIES["movinet"].models] == [17, 26, 28, 35, 49, 61]
    assert count_stages("spobet") is None


def build_tiny(num_classes, config, clip=(2, 8, 8)):
    return keras.Sequential([keras.Input((*clip, 3)), layers.Flatten(), layers.Dense(num_classes)])


def test_a_row_of_two_fields_is_a_clip_model_without_options(monkeypatch):
    monkeypatch.setitem(FAMILIES, "tiny", Family("tiny", f"{__name__}:build_tiny"))
    family = models.family_of("tiny")
    assert (family.kind, family.backends, family.notebook) == ("clips", ("torch",), "13_own_model")
    assert "tiny" in models.model_names()
    assert build("tiny", 5).output_shape == (None, 5)
    assert build("tiny", 5, (3, 9, 9)).input_shape == (None, 3, 9, 9, 3)
    assert configure("tiny", {}) == Settings()
    with pytest.raises(ValidationError, match="width"):
        build("tiny", 5, width=3)


def test_the_size_of_a_model_is_part_of_its_options():
    assert configure("x3d-l", {"dropout": 0.1}).size == "l"
    assert models.size_of("x3d-l") == "l"
    assert models.size_of("spobet") == ""
