"""The files that set up the environment, held together."""

import re
import subprocess
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement

HOSTS = re.compile(r"--(extra-)?(index-url|find-links)[ =]|(?<![\w.])(localhost|\d+\.\d+\.\d+\.\d+):\d+")


@pytest.fixture
def direct(repository):
    """Direct dependencies by name, each with its line in pyproject.toml."""
    text = (repository / "pyproject.toml").read_text()
    requirements = tomllib.loads(text)["project"]["dependencies"]
    return {r: next(line for line in text.splitlines() if f'"{r}"' in line) for r in requirements}


@pytest.fixture
def pins(repository):
    """Pins of the lock: name -> requirements, several where the markers differ."""
    pins = {}
    for line in (repository / "requirements.lock").read_text().splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            requirement = Requirement(line)
            pins.setdefault(canonical(requirement.name), []).append(requirement)
    return pins


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_lock_pins_every_requirement_exactly_once_for_this_machine(pins):
    for name, requirements in pins.items():
        for requirement in requirements:
            assert [s.operator for s in requirement.specifier] == ["=="], requirement
        here = [r for r in requirements if r.marker is None or r.marker.evaluate()]
        assert len(here) <= 1, name


def test_lock_holds_every_direct_dependency_at_a_version_it_allows(direct, pins):
    for requirement in map(Requirement, direct):
        here = [r for r in pins[canonical(requirement.name)] if r.marker is None or r.marker.evaluate()]
        assert len(here) == 1, requirement
        version = next(iter(here[0].specifier)).version
        assert requirement.specifier.contains(version, prereleases=True), (requirement, version)


def test_every_direct_dependency_says_what_it_is_for(direct):
    assert [r for r, line in direct.items() if not re.search(r"#\s*\S+", line)] == []


def test_conda_environment_is_the_lock_on_a_python_that_the_project_supports(repository):
    environment = yaml.safe_load((repository / "environment.yml").read_text())
    *packages, pip = environment["dependencies"]
    assert pip == {"pip": ["-r requirements.lock"]}
    assert packages == ["python=3.11", "pip"]
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"


def test_no_file_names_a_package_index_or_a_host_of_one_machine(repository):
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=repository, capture_output=True, text=True, check=True,
    )  # fmt: skip
    wrong = []
    for name in listed.stdout.splitlines():
        path = repository / name
        if path == repository / "tests" / "test_setup.py" or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        wrong += [f"{name}: {match.group()}" for match in HOSTS.finditer(text)]
    assert wrong == []


def test_make_lists_the_commands_of_the_study(repository):
    result = subprocess.run(["make", "help"], cwd=repository, capture_output=True, text=True, check=True)
    commands = re.findall(r"make ([\w-]+)", result.stdout)
    assert {"study", "tune", "test", "lab", "notebooks", "bench", "slurm", "data-wlasl"} <= set(commands)
