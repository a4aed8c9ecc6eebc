"""The source files that a step of a study depends on, found by following the code's own imports."""

import ast
from functools import cache
from pathlib import Path

import grimp
import nbformat

from lib.paths import REPOSITORY


@cache
def import_graph() -> grimp.ImportGraph:
    """Which module of lib imports which, also inside functions; imports that only type checkers read don't count."""
    return grimp.build_graph("lib", exclude_type_checking_imports=True, cache_dir=None)


def sources(*modules: str) -> list[str]:
    """Files of modules of lib and of all modules that they import, directly or not; editing others changes nothing."""
    graph = import_graph()
    needed = set(modules).union(*(graph.find_upstream_modules(module) for module in modules))
    return sorted(str(_file_of(module)) for module in needed)


def imported_by(notebook: Path) -> list[str]:
    """The modules of lib that the code cells of a notebook import."""
    cells = nbformat.read(notebook, as_version=4).cells
    trees = [ast.parse(cell.source) for cell in cells if cell.cell_type == "code"]
    names: set[str] = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)  # where the name is a module, too
    return sorted(names & import_graph().modules)


def _file_of(module: str) -> Path:
    path = REPOSITORY.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
