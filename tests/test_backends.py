import subprocess
from types import SimpleNamespace

import pytest

from lib import backends
from lib.models import FAMILIES

SEVERAL = [family for family in FAMILIES.values() if len(family.backends) > 1]


@pytest.mark.parametrize("family", SEVERAL, ids=lambda family: family.name)
def test_a_family_that_may_train_on_several_backends_has_a_probe_that_trains(family):
    assert 0 < backends.step_seconds(family) < 30


def test_the_faster_backend_comes_first(monkeypatch):
    taken = {"tensorflow": "0.5\n", "torch": "0.25\n"}
    monkeypatch.setattr(
        subprocess, "run", lambda command, env, **_: SimpleNamespace(stdout=taken[env["KERAS_BACKEND"]])
    )
    assert list(backends.measure(FAMILIES["i3d"]).items()) == [("torch", 0.25), ("tensorflow", 0.5)]
