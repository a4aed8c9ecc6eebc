import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError

from lib.paths import RECIPES, STUDIES, home
from lib.settings import StudyError, explain
from lib.study import RunSpec, Study, load_study

VALID = {
    "title": "Ten glosses",
    "subset": 10,
    "sources": ["keypoints"],
    "split": "official",
    "layout": "openpose-54",
    "runs": [{"recipe": "spobet"}, {"recipe": "spobet-plus", "seeds": [0, 2], "set": {"train.epochs": 5}}],
}

SEARCH = {"name": "tuned", "recipe": "spobet-plus", "space": "spobet-wide"}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a study file, given as keys or as text, and return its path."""
    monkeypatch.setenv("STUDY_HOME", str(tmp_path / "home"))

    def write(content):
        path = tmp_path / "ten.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return str(path)

    return write


def problem(path, data="wlasl"):
    with pytest.raises(StudyError) as error:
        load_study(path, data, require_data=False)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_runs_are_named_by_recipe_and_seed_in_the_order_of_the_file(write):
    study = load_study(write(VALID), "wlasl", require_data=False)
    assert study.run_names() == ["spobet", "spobet-plus-s0", "spobet-plus-s2"]
    spec, seed = study.find_run("spobet-plus-s2")
    assert (spec.recipe, seed, spec.set) == ("spobet-plus", 2, {"train.epochs": 5})
    assert study.find_run("spobet")[1] == 0


def test_unknown_run_is_refused_with_the_runs_there_are(write):
    study = load_study(write(VALID), "wlasl", require_data=False)
    with pytest.raises(StudyError, match="no run 'i3d'; its runs: spobet, spobet-plus-s0, spobet-plus-s2"):
        study.find_run("i3d")


def test_models_of_videos_and_poses_are_fusible_unless_they_build_on_other_runs(write):
    own = [{"recipe": "spobet", "seeds": [0, 2]}, {"recipe": "movinet-a0"}]
    learnt = [
        {"recipe": "spobet-plus", "name": "student", "set": {"distil": {"teachers": "ten/spobet", "seeds": [0]}}},
        {"recipe": "spobet-plus", "name": "transferred", "set": {"start": "large/spobet-plus"}},
    ]
    sources = {"sources": ["videos", "hands"], "layout": "hands-42"}
    study = load_study(write(VALID | sources | {"runs": own + learnt}), "wlasl", require_data=False)
    assert study.fusible() == {"poses": ["spobet-s0", "spobet-s2"], "clips": ["movinet-a0"]}
    for runs in (own[:1] + learnt, own[1:] + learnt):
        assert load_study(write(VALID | sources | {"runs": runs}), "wlasl", require_data=False).fusible() == {}


def test_files_of_a_study_lie_under_home_by_its_name(write, tmp_path):
    study = load_study(write(VALID), "wlasl", require_data=False)
    assert study.paths.index == tmp_path / "home" / "data" / "ten" / "index.parquet"
    assert study.paths.poses == tmp_path / "home" / "data" / "ten" / "poses.npz"
    assert study.paths.report == tmp_path / "home" / "reports" / "ten"


def test_relative_data_root_starts_at_home_and_an_absolute_one_stays(write, tmp_path):
    path = write(VALID)
    assert load_study(path, "../wlasl", require_data=False).root == tmp_path / "wlasl"
    assert load_study(path, tmp_path / "elsewhere", require_data=False).root == tmp_path / "elsewhere"


def test_synthetic_study_has_a_data_root_of_its_own(write, tmp_path):
    study = load_study(write(VALID | {"synthetic": True}), require_data=False)
    assert study.root == tmp_path / "home" / "data" / "ten" / "wlasl"


def test_home_is_the_repository_unless_set(monkeypatch, repository):
    monkeypatch.delenv("STUDY_HOME", raising=False)
    assert home() == repository


def test_absent_data_root_is_named(write, tmp_path):
    path = write(VALID)
    assert "DATA=<root>" in problem(path, data="")
    with pytest.raises(StudyError, match="nowhere does not exist: correct DATA"):
        load_study(path, tmp_path / "nowhere")
    load_study(path, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spilt": "official"}, "unknown key 'spilt' (did you mean 'split'?)"),
        ({"zzz": 1}, "unknown key 'zzz'; the keys are title, synthetic, subset,"),
        ({"name": "x"}, "unknown key 'name'"),
        ({"root": "/data"}, "unknown key 'root'"),
        ({"subset": "10"}, "key 'subset': Input should be a valid integer, got '10'"),
        ({"subset": 10.5}, "key 'subset'"),
        ({"synthetic": "yes"}, "key 'synthetic'"),
        ({"split": "random"}, "key 'split': Input should be 'official' or 'signer-disjoint', got 'random'"),
        ({"sources": ["video"]}, "key 'sources[0]'"),
        ({"sources": []}, "key 'sources'"),
        ({"sources": ["keypoints", "videos"]}, "key 'sources': put 'videos' first"),
        (
            {"sources": ["clips"]},
            "key 'sources': 'clips' (one's own videos) have no annotations or poses; remove key",
        ),
        ({"sources": ["clips", "hands"], "layout": None}, "key 'sources': 'clips' (one's own videos) have no"),
        ({"sources": ["hands"], "layout": None}, "key 'layout' is missing; add it"),
        ({"sources": ["poses", "clips"]}, "key 'sources': put 'clips' first"),
        (
            {"sources": ["keypoints", "hands"], "layout": "body-hands"},
            "key 'layout': hands and keypoints do not hold 'body-hands'",
        ),
        ({"clips": {"size": 8}}, "key 'clips.size'"),
        ({"clips": {"find_persn": True}}, "unknown key 'find_persn' in clips (did you mean 'find_person'?)"),
        ({"runs": [{"recipe": "a"}, {"recipe": "a"}]}, "run 'a' appears twice"),
        ({"runs": [{"recipe": "a", "seeds": [1, 1]}]}, "run 'a-s1' appears twice"),
        ({"runs": [{"recipe": "a"}], "exports": ["b"]}, "key 'exports': there is no run 'b'; there are a"),
        ({"runs": [{"recipe": "a"}], "release": ["a"]}, "key 'release': there is no run 'a'; there are none"),
        ({"runs": [{"recipe": "a"}], "predict": "b"}, "key 'predict': there is no run 'b'; there are a"),
        ({"runs": [{"recipe": "a"}], "new_signs": "b"}, "key 'new_signs': there is no run 'b'; there are a"),
        ({"runs": [{"recipe": "a"}], "precisions": ["float32"]}, "key 'precisions': add int8"),
        ({"runs": [{"recipe": "a", "seed": [1]}]}, "unknown key 'seed' in runs[0] (did you mean 'seeds'?)"),
        ({"runs": [{"recipe": "a", "seeds": [-1]}]}, "key 'runs[0].seeds[0]'"),
        ({"runs": [{"recipe": "../a"}]}, "key 'runs[0].recipe'"),
        ({"runs": [{}]}, "key 'recipe' is missing in runs[0]"),
        ({"searches": [{}]}, "key 'recipe' is missing in searches[0]"),
        ({"searches": [SEARCH | {"tuner": "random"}]}, "unknown key 'tuner' in searches[0] (did you mean 'tuners'?)"),
        ({"searches": [SEARCH | {"tuners": ["grid"]}]}, "key 'searches[0].tuners[0]'"),
        ({"searches": [SEARCH | {"tuners": []}]}, "key 'searches[0].tuners'"),
        ({"searches": [SEARCH | {"trials": 0}]}, "key 'searches[0].trials'"),
        ({"searches": [SEARCH, SEARCH]}, "search 'tuned' has the name of another search"),
        ({"searches": [SEARCH | {"name": "i3d"}]}, "search 'i3d' has the name of a recipe in workflow/recipes/"),
    ],
)
def test_wrong_key_or_type_is_one_line_that_names_file_and_key(write, change, message):
    path = write(VALID | change)
    assert problem(path).startswith(f"{path}: {message}")


@pytest.mark.parametrize("key", ["title", "subset", "sources", "split", "layout", "runs"])
def test_missing_key_is_named(write, key):
    path = write({k: v for k, v in VALID.items() if k != key})
    assert problem(path) == f"{path}: key '{key}' is missing; add it"


@pytest.mark.parametrize("source", ["clips", "videos"])
def test_study_without_poses_needs_no_layout(write, source):
    keys = {k: v for k, v in VALID.items() if k != "layout"}
    study = load_study(write(keys | {"sources": [source]}), "own", require_data=False)
    assert (study.sources, study.layout) == ([source], None)


def test_made_up_data_are_no_clips_of_ones_own(write):
    keys = {k: v for k, v in VALID.items() if k != "layout"} | {"sources": ["clips"], "synthetic": True}
    assert "needs data: pass DATA=<root>" in problem(write(keys), data="")


def test_model_of_a_run_is_that_of_its_recipe_or_of_the_study(monkeypatch, tmp_path):
    monkeypatch.setattr("lib.paths.RECIPES", tmp_path)
    (tmp_path / "a.yaml").write_text("model: spobet")
    (tmp_path / "b.yaml").write_text("train: {}")
    assert (RunSpec(recipe="a").model(), RunSpec(recipe="a").family().kind) == ("spobet", "poses")
    other = RunSpec(recipe="a", set={"model": "movinet-a0"})
    assert (other.model(), other.family().kind) == ("movinet-a0", "clips")
    with pytest.raises(StudyError, match="no recipe 'c'; workflow/recipes/ has a, b"):
        RunSpec(recipe="c").model()
    with pytest.raises(StudyError, match=r"b.yaml: key 'model' is missing; add it"):
        RunSpec(recipe="b").model()
    with pytest.raises(StudyError, match=r"a.yaml: unknown model 'movinet-a9'; there are: i3d"):
        RunSpec(recipe="a", set={"model": "movinet-a9"}).family()


def test_broken_yaml_names_file_and_line(write):
    path = write("title: [1\nsubset: 10")
    assert f"{path}: is not valid YAML" in problem(path)
    assert "line 2" in problem(path)


def test_misspelt_study_is_answered_with_the_nearest():
    assert "no study 'smaple' (did you mean 'sample'?)" in problem("smaple")


def test_unknown_key_of_a_nested_model_is_answered_with_its_own_keys():
    class Inner(BaseModel):
        model_config = ConfigDict(extra="forbid")
        epochs: int = 1

    class Outer(BaseModel):
        inner: Inner | None = None

    with pytest.raises(ValidationError) as error:
        Outer.model_validate({"inner": {"epoch": 2}})
    assert explain(error.value, Outer) == "unknown key 'epoch' in inner (did you mean 'epochs'?)"


KEYS = st.sampled_from([*VALID, "synthetic", "recipe", "seeds"]) | st.text(max_size=3) | st.integers()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=st.dictionaries(KEYS, VALUES, max_size=3), text=st.none() | st.text(max_size=20))
def test_any_file_is_a_study_or_a_one_line_error(write, change, text):
    path = write(VALID | change if text is None else text)
    try:
        outcome = load_study(path, "wlasl", require_data=False)
    except StudyError as error:
        outcome = str(error)
    assert isinstance(outcome, Study) or (outcome.startswith(path) and len(outcome.splitlines()) == 1)


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_study_is_valid_and_says_what_it_costs(path):
    study = load_study(path.stem, "wlasl", require_data=False)
    assert study.name == path.stem
    comment = path.read_text().split("\ntitle:")[0]
    for part in ("# Reproduces:", "# Expected time:", "# Expected accuracy:", "# Command: make study"):
        assert part in comment


def test_the_study_of_drawn_gestures_trains_the_models_of_videos_as_gestures_does():
    one, both = (load_study(name, "data", require_data=False) for name in ("gestures", "gestures-drawn"))
    assert both.clips == one.clips
    for name in ("movinet-a0-k600", "movinet-a0-scratch"):
        specs = [next(spec for spec in study.runs if spec.title == name) for study in (one, both)]
        assert specs[0] == specs[1].model_copy(update={"seeds": None})


def test_the_study_of_whole_pictures_differs_from_gestures_in_nothing_but_the_crop():
    crop, whole = (load_study(name, "data", require_data=False) for name in ("gestures", "gestures-uncropped"))
    assert crop.clips == whole.clips.model_copy(update={"find_person": True})
    assert whole.runs == [spec for spec in crop.runs if spec.recipe == "i3d-scratch"]
    assert (crop.subset, crop.sources, crop.split) == (whole.subset, whole.sources, whole.split)


def test_a_recipe_trained_in_two_ways_has_two_names():
    spec = {"recipe": "movinet-a0-scratch", "set": {"model": "movinet-a3"}}
    named = RunSpec(**spec, name="movinet-a3-scratch", seeds=[0, 2])
    assert list(named.runs()) == [("movinet-a3-scratch-s0", 0), ("movinet-a3-scratch-s2", 2)]
    assert named.model() == "movinet-a3"
    assert list(RunSpec(**spec).runs()) == [("movinet-a0-scratch", 0)]
    with pytest.raises(ValidationError, match="pattern"):
        RunSpec(**spec, name="../elsewhere")


def test_a_run_may_train_what_a_search_finds_and_is_of_the_model_that_is_searched(write, tmp_path):
    runs = [{"recipe": "tuned", "seeds": [0, 1]}, {"recipe": "spobet"}]
    study = load_study(write(VALID | {"searches": [SEARCH], "runs": runs}), "wlasl", require_data=False)
    assert study.run_names() == ["tuned-s0", "tuned-s1", "spobet"]
    assert [study.origin(spec).recipe for spec in study.runs] == ["spobet-plus", "spobet"]
    assert study.origin(study.runs[0]).family().kind == "poses"
    assert study.recipe_path("tuned") == tmp_path / "home" / "reports" / "ten" / "recipes" / "tuned.yaml"
    assert study.recipe_path("spobet") == RECIPES / "spobet.yaml"
    assert study.find_search("tuned").tuners == ["bayesian", "hyperband", "random"]
    with pytest.raises(StudyError, match="study ten has no search 'tune'; its searches: tuned"):
        study.find_search("tune")
