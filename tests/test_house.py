"""The shape of the house: small files, imports in one direction, and every fact in one place."""

import ast
import re
import statistics
from graphlib import TopologicalSorter

import grimp
import pytest

from lib.models import FAMILIES, model_names
from lib.paths import REPOSITORY

SOURCES = sorted((REPOSITORY / "lib").rglob("*.py"))
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
OVERRIDES = {"build", "call", "forward", "compute_output_shape", "call_function", "output"}  # keras' and torch's


@pytest.fixture(scope="module")
def imports():
    return grimp.build_graph("lib", exclude_type_checking_imports=True, cache_dir=None)


def trees(paths=SOURCES):
    return {path: ast.parse(path.read_text()) for path in paths}


def functions():
    return [node for tree in trees().values() for node in ast.walk(tree) if isinstance(node, FUNCTION)]


def test_lib_is_small():
    lines = {path.relative_to(REPOSITORY): len(path.read_text().splitlines()) for path in SOURCES}
    assert len(lines) <= 82
    assert sum(lines.values()) <= 13900
    assert {path: count for path, count in lines.items() if count > 400} == {}


def test_functions_are_short():
    lengths = sorted(node.end_lineno - node.lineno + 1 for node in functions())
    assert statistics.median(lengths) <= 10
    assert lengths[int(0.9 * len(lengths))] <= 30
    assert lengths[-1] <= 60


def test_what_is_public_is_documented():
    bare = [
        f"{path.relative_to(REPOSITORY)}:{node.lineno} {node.name}"
        for path, tree in trees().items()
        for parent in (tree, *(node for node in tree.body if isinstance(node, ast.ClassDef)))
        for node in parent.body
        if isinstance(node, FUNCTION | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
        and not (isinstance(parent, ast.ClassDef) and node.name in OVERRIDES)
    ]
    assert bare == []


def test_no_module_imports_itself_through_others(imports):
    TopologicalSorter(
        {module: imports.find_modules_directly_imported_by(module) for module in imports.modules}
    ).prepare()


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("lib.runs", {"lib.evaluation", "lib.report", "lib.figures", "lib.tuning", "lib.models.spobet"}),
        ("lib.evaluation", {"lib.study", "lib.runs", "lib.report", "lib.models"}),
        ("lib.report", {"lib.runs", "lib.training", "lib.data.index"}),
        ("lib.study", {"lib.runs", "lib.training", "lib.data.index"}),
    ],
)
def test_imports_go_one_way(imports, module, forbidden):
    assert not imports.find_upstream_modules(module) & forbidden - {module}


def test_data_knows_nothing_of_models_but_their_registry(imports):
    below = {module for module in imports.modules if module.startswith("lib.data.")}
    reached = set().union(*(imports.find_upstream_modules(module) for module in below)) - below
    assert {module for module in reached if module.startswith("lib.models")} <= {"lib.models"}
    assert not reached & {"lib.runs", "lib.training", "lib.evaluation", "lib.report"}


def test_only_the_registry_and_the_models_themselves_know_models_by_name():
    names = {*FAMILIES, *model_names()}
    paths = [path for path in SOURCES if path.parent.name != "models"]
    found = [
        f"{path.relative_to(REPOSITORY)}:{node.lineno}"
        for path, tree in trees([*paths, *(REPOSITORY / "workflow").glob("*.py")]).items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in names
    ]
    assert found == []
    assert not re.search(rf"[\"']({'|'.join(names)})[\"']", (REPOSITORY / "workflow" / "Snakefile").read_text())


def test_test_modules_import_nothing_from_each_other():
    tests = {path.stem for path in (REPOSITORY / "tests").glob("test_*.py")}
    for path, tree in trees((REPOSITORY / "tests").glob("test_*.py")).items():
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not imported & tests, path
