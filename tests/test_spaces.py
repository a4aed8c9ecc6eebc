"""Search spaces: what their files may say, and that the shipped ones are what was published."""

import math

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lib.paths
from lib.paths import SPACES
from lib.recipes import Dimension, Space
from lib.settings import StudyError
from lib.study import SearchSpec, read_space

VALID = {"families": ["spobet"], "space": {"train.learning_rate": {"min": 0.001, "max": 0.1, "log": True}}}
SPEC = SearchSpec(name="found", recipe="spobet", space="mine")


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a space file, given as keys or as text."""
    monkeypatch.setattr(lib.paths, "SPACES", tmp_path)

    def write(content):
        (tmp_path / "mine.yaml").write_text(content if isinstance(content, str) else yaml.safe_dump(content))

    return write


def problem(spec=SPEC):
    with pytest.raises(StudyError) as error:
        read_space(spec)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"min": 0, "max": 0.5, "step": 0.1}, [0, 0.1, 0.2, 0.3, 0.4, 0.5]),
        ({"min": 0, "max": 1, "step": 0.3}, [0, 0.3, 0.6, 0.9]),
        ({"min": 1, "max": 7, "step": 3}, [1, 4, 7]),
        ({"choices": ["a", "b"]}, ["a", "b"]),
        ({"min": 0, "max": 17}, None),
        ({"min": 0.0001, "max": 0.01, "log": True}, None),
    ],
)
def test_steps_go_from_the_first_to_the_last_value_and_are_not_off_by_rounding(given, values):
    assert Dimension(**given).values() == values


@pytest.mark.parametrize(
    ("given", "value", "place"),
    [
        ({"min": 0.0001, "max": 0.01, "log": True}, 0.001, 0.5),
        ({"min": 0, "max": 0.5, "step": 0.1}, 0.3, 0.6),
        ({"min": 0, "max": 17}, 17, 1),
        ({"choices": [96, 144, 288]}, 144, 0.5),
    ],
)
def test_a_value_has_its_place_on_the_scale_that_is_searched(given, value, place):
    assert Dimension(**given).place(value) == pytest.approx(place)


def test_whole_numbers_are_those_of_which_nothing_is_given_as_a_fraction():
    assert Dimension(min=0, max=17).whole
    assert not Dimension(min=0, max=20.0).whole
    assert Dimension(min=1, max=7, step=2).whole
    assert not Dimension(min=0, max=1, step=0.5).whole


def test_what_rounding_took_beyond_an_end_comes_back_to_it_and_choices_keep_their_type():
    assert Dimension(min=0.001, max=0.1, log=True).inside(0.1 + 1e-17) == 0.1
    assert Dimension(min=1, max=4).inside(5) == 4
    assert Dimension(choices=[False, True]).inside(1) is True


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (
            "movinet-published",
            {
                "options.stochastic_depth": [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1],
                "options.dropout": [0, 0.1, 0.2, 0.3, 0.4, 0.5],
                "options.freeze": (0, 17, False),
                "train.learning_rate": (1e-4, 1e-2, True),
            },
        ),
        (
            "i3d-published",
            {
                "options.dropout": [0, 0.1, 0.2, 0.3, 0.4, 0.5],
                "options.freeze": (0, 12, False),
                "train.learning_rate": (1e-4, 1e-2, True),
            },
        ),
    ],
)
def test_published_space_has_exactly_the_published_ranges(space, expected):
    recipe, stages = ("movinet-a0", 17) if space.startswith("movinet") else ("i3d", 12)
    dimensions = read_space(SearchSpec(name="x", recipe=recipe, space=space)).dimensions(stages)
    assert {key: d.values() or (d.min, d.max, d.log) for key, d in dimensions.items()} == expected


@pytest.mark.parametrize("path", sorted(SPACES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_spaces_are_valid_for_each_of_their_families(path):
    recipes = {"movinet": "movinet-a0", "i3d": "i3d", "s3d": "s3d", "x3d": "x3d-l", "spobet": "spobet-plus"}
    for family in Space.model_validate(yaml.safe_load(path.read_text())).families:
        read_space(SearchSpec(name="x", recipe=recipes[family], space=path.stem))


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ({**VALID, "famlies": []}, ["unknown key 'famlies' (did you mean 'families'?)"]),
        ({"families": ["spobet"]}, ["key 'space' is missing"]),
        ({**VALID, "families": ["resnet"]}, ["key 'families[0]'", "got 'resnet'"]),
        ({**VALID, "families": ["i3d", "x3d"]}, ["space 'mine' is for i3d, x3d; recipe 'spobet' trains spobet"]),
        ({**VALID, "space": {}}, ["key 'space'"]),
        ("families: [spobet", ["is not valid YAML"]),
        ("- spobet", ["key 'families' is missing"]),
    ],
)
def test_a_wrong_space_file_is_one_line_that_names_file_and_key(write, content, parts):
    write(content)
    message = problem()
    assert "mine" in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("dimension", "part"),
    [
        ({"min": 0, "max": 1, "stp": 0.1}, "unknown key 'stp' (did you mean 'step'?)"),
        ({"min": 0}, "give 'min' and 'max', or 'choices'"),
        ({}, "give 'min' and 'max', or 'choices'"),
        (5, "should be a valid dictionary"),
        ({"min": 1, "max": 0}, "'min' must be below 'max'"),
        ({"min": 1, "max": 1}, "'min' must be below 'max'"),
        ({"min": "1e-4", "max": 1}, "key 'min': Value error, must be a number (with a point"),
        ({"min": True, "max": 2}, "key 'min'"),
        ({"min": 0, "max": math.inf}, "key 'max': Value error, must be finite"),
        ({"min": 0, "max": 1, "log": True}, "'log' needs a 'min' above 0"),
        ({"min": 0.1, "max": 1, "log": True, "step": 0.1}, "'log' needs a 'min' above 0 and no 'step'"),
        ({"min": 0, "max": 1, "log": "yes"}, "key 'log'"),
        ({"min": 0, "max": 1, "step": 0}, "'step' must fit"),
        ({"min": 0, "max": 1, "step": 2}, "'step' must fit"),
        ({"min": 0, "max": 1, "step": -0.1}, "'step' must fit"),
        ({"min": 0, "max": 1, "step": 1e-9}, "'step' must fit"),
        ({"choices": [1]}, "key 'choices'"),
        ({"choices": [1, 1]}, "appears twice"),
        ({"choices": [0.5, 1]}, "different types (write 1.0 for 1 among 0.5)"),
        ({"choices": [1, 2], "min": 0}, "'choices' cannot be combined"),
        ({"min": 0, "max": "all"}, "only options.freeze goes up to 'all'"),
        ({"min": 0, "max": "most"}, "key 'max'"),
    ],
)
def test_a_wrong_range_is_one_line_that_names_the_setting(write, dimension, part):
    write({**VALID, "space": {"train.warmup": dimension}})
    message = problem()
    assert "space of 'train.warmup': " in message
    assert part in message


def test_a_space_that_begins_above_what_the_model_can_freeze_is_refused(write):
    write({**VALID, "space": {"options.freeze": {"min": 13, "max": "all"}}})
    with pytest.raises(StudyError, match="'min' must be below 'max'"):
        read_space(SPEC).dimensions(12)


def test_an_absent_space_is_answered_with_those_there_are(write):
    write(VALID)
    message = problem(SearchSpec(name="found", recipe="spobet", space="yours"))
    assert message == "search found: there is no space 'yours'; workflow/spaces/ has mine"


KEYS = st.sampled_from(["families", "space", "min", "max", "step", "log", "choices", "options.freeze"]) | st.text(
    max_size=3
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["all", "spobet"]) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=6,
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dimension=st.dictionaries(KEYS, VALUES, max_size=4), more=st.dictionaries(KEYS, VALUES, max_size=2))
def test_any_file_is_a_space_whose_values_lie_in_it_or_a_one_line_error(write, dimension, more):
    write({**VALID, "space": {"options.freeze": dimension}, **more})
    dimensions, message = {}, "one line"
    try:
        dimensions = read_space(SPEC).dimensions(12)
    except StudyError as error:
        message = str(error)
    assert len(message.splitlines()) == 1
    for dimension in dimensions.values():
        first, last = dimension.ends()
        assert (dimension.place(first), dimension.place(last)) == (0, 1)
