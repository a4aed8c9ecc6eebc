import os
from pathlib import Path

import pytest
import yaml
from hypothesis import settings

from helpers import CLIP_RECIPE, DRAWN_RECIPE, RECIPE, make_study, make_trained

os.environ.setdefault("KERAS_BACKEND", "torch")  # before anything imports keras; one framework per process
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for models this small, threads cost more than they save
REPOSITORY = Path(__file__).parents[1]
# The same examples every time, so that a failure is the change's own; `--hypothesis-profile=default` draws others.
# No deadline: how long an example takes says how busy the machine is.
settings.register_profile("study", deadline=None, derandomize=True)
settings.load_profile("study")


@pytest.fixture(scope="session")
def wlasl_root():
    """The real WLASL data beside the repository; tests that need them are skipped where they are absent."""
    root = REPOSITORY.parent / "shared" / "wlasl"
    if not root.is_dir():
        pytest.skip("the real WLASL data are not here")
    return root


@pytest.fixture(scope="session")
def official_weights():
    """Checkpoints of the official code with random weights, and the logits that it gives; skipped where absent."""
    root = REPOSITORY.parent / "shared" / "weights"
    if not root.is_dir():
        pytest.skip("the parity cases are not here")
    return root


@pytest.fixture
def repository():
    """Root of the repository."""
    return REPOSITORY


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    """A folder of recipes that holds small.yaml; returns a function that writes another one."""
    monkeypatch.setattr("lib.paths.RECIPES", tmp_path)

    def write(name, content):
        text = content if isinstance(content, str) else yaml.safe_dump(content)
        (tmp_path / f"{name}.yaml").write_text(text)

    write("small", RECIPE)
    return write


@pytest.fixture
def study(tmp_path, monkeypatch, recipes):
    """See `make_study`."""
    monkeypatch.setenv("STUDY_HOME", str(tmp_path / "home"))
    return make_study(tmp_path)


@pytest.fixture(scope="session")
def of_hands(tmp_path_factory):
    """A run of a pose model on hands, with its float32 files; see `helpers.Trained`."""
    return make_trained(tmp_path_factory.mktemp("of_hands"), "hands", layout="hands-42")


@pytest.fixture(scope="session")
def of_videos(tmp_path_factory):
    """A run of a stream model on videos, with its float32 files; see `helpers.Trained`."""
    clips = {"size": 48, "margin": 0.2}
    return make_trained(tmp_path_factory.mktemp("of_videos"), "videos", recipe=CLIP_RECIPE, clips=clips)


@pytest.fixture(scope="session")
def of_drawn(tmp_path_factory):
    """A run of the same model on drawn hands, with its float32 files; see `helpers.Trained`."""
    return make_trained(tmp_path_factory.mktemp("of_drawn"), "hands", recipe=DRAWN_RECIPE, layout="hands-42")
