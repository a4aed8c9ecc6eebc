"""The notebooks as articles: what each must have, what none may have, and that nbval notices a change."""

import ast
import copy
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from itertools import combinations

import nbformat
import numpy as np
import pytest
import yaml
from run_notebook import tidy, to_page

from lib.data.index import present, read_index
from lib.data.poses import PoseStore
from lib.paths import REPOSITORY
from lib.predictions import Predictions

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
COMPARISON = REPOSITORY / "notebooks" / "11_comparison.ipynb"
COMPARED = "nbval-check-output"
SHORT = 10  # characters; shorter lines, such as brackets, say nothing about what two notebooks share
MACHINE = re.compile(rb"(?<![\w.~-])/(home|root|tmp|work|Users)/|[A-Z]:\\\\[A-Za-z]")
PICTURE = re.compile(rb'"image/\w+": *"[^"]*"|data:image/\w+;base64,[^"]*')  # base64 may spell anything
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def tags(cell):
    return cell.metadata.get("tags", [])


def imports(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


@every_notebook
def test_parameters_come_first_then_the_imports_in_one_cell(path):
    cells = code_cells(path)
    assert [number for number, cell in enumerate(cells) if "parameters" in tags(cell)] == [0]
    trees = [ast.parse(cell.source) for cell in cells]
    assert len(imports(trees[1])) == len(trees[1].body) > 0
    assert [number for number, tree in enumerate(trees) if imports(tree)] == [1]


@every_notebook
def test_at_least_three_cells_are_compared(path):
    compared = [cell for cell in code_cells(path) if COMPARED in tags(cell)]
    assert len(compared) >= 3
    assert all(cell.outputs for cell in compared)


def test_08_runs_to_its_end_where_the_first_clips_show_no_joint(study, tmp_path):
    store, index = PoseStore.load(study.paths.poses), read_index(study)
    empty = {present(index, split)["video_id"].iloc[0] for split in ("val", "test")}
    for video_id, clip in zip(store.video_id, store.poses, strict=True):
        clip[:] = 0 if video_id in empty else clip
    store.save(study.paths.poses)
    file = tmp_path / f"{study.name}.yaml"
    file.write_text(yaml.safe_dump(study.model_dump(mode="json", exclude={"name", "root"})))
    parameters, *cells = (cell.source for cell in code_cells(REPOSITORY / "notebooks" / "08_spobet.ipynb"))
    names = {}
    exec(parameters, names)
    names |= {"study": str(file), "data": str(study.root), "run": "small-s0"}
    for source in cells:
        exec(source, names)
    assert empty <= set(names["test"].video_id) | set(present(index, "val")["video_id"])
    assert names["clip_id"] not in empty
    assert names["clip"][..., 2].any()


@every_notebook
def test_saving_and_showing_are_one_call(path):
    source = "\n".join(cell.source for cell in code_cells(path))
    assert not re.search(r"set_uuid|with replacing\(", source)


def lines(path):
    """The lines of code of a notebook without its imports and without short lines, as often as they occur."""
    found = Counter()
    for cell in code_cells(path):
        ranges = [range(node.lineno, node.end_lineno + 1) for node in imports(ast.parse(cell.source))]
        numbered = enumerate(map(str.strip, cell.source.splitlines()), 1)
        found.update(text for number, text in numbered if not any(number in r for r in ranges) and len(text) > SHORT)
    return found


def test_no_two_notebooks_share_more_than_two_thirds_of_their_code():
    code = {path.stem: lines(path) for path in NOTEBOOKS}
    shares = {
        (a, b): (code[a] & code[b]).total() / min(code[a].total(), code[b].total()) for a, b in combinations(code, 2)
    }
    assert {pair: round(share, 2) for pair, share in shares.items() if share > 2 / 3} == {}


def test_nothing_that_is_committed_names_a_folder_of_a_machine():
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "notebooks", "reports"]
    names = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split("\n")
    wrong = {}
    for path in (REPOSITORY / name for name in names if name):
        if path.is_file() and path.suffix not in (".png", ".npz"):
            content = PICTURE.sub(b"", path.read_bytes())
            if match := MACHINE.search(content):
                wrong[str(path.relative_to(REPOSITORY))] = content[match.start() - 40 : match.end() + 40]
    assert wrong == {}


# ---- nbval on notebook 11, which needs predictions only ------------------------------------------------


@pytest.fixture
def sample(tmp_path):
    """A home with the committed reports of the sample, and a copy of notebook 11 beside it."""
    shutil.copytree(REPOSITORY / "reports" / "sample", tmp_path / "reports" / "sample")
    (tmp_path / "notebooks").mkdir()
    shutil.copy(COMPARISON, tmp_path / "notebooks")
    return tmp_path


def compared_with_nbval(home, lib=REPOSITORY):
    """The numbers of the code cells of notebook 11 whose outputs nbval finds changed."""
    options = ["-p", "no:cacheprovider", "--nbval-lax", "--nbval-sanitize-with", REPOSITORY / "tests" / "nbval.cfg"]
    environment = os.environ | {"STUDY_HOME": str(home), "PYTHONPATH": str(lib)}
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-rf", *options, home / "notebooks" / COMPARISON.name],
        cwd=home, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    failed = [int(number) for number in re.findall(r"^FAILED .*::Cell (\d+)", result.stdout, re.MULTILINE)]
    assert result.returncode == bool(failed), result.stdout[-3000:]
    return failed


def cell_with(text):
    """The number of the compared code cell of notebook 11 with this text."""
    (found,) = [number for number, cell in enumerate(code_cells(COMPARISON)) if text in cell.source and tags(cell)]
    return found


def test_nbval_is_green_on_the_committed_predictions(sample):
    assert compared_with_nbval(sample) == []


def test_a_changed_metric_turns_nbval_red(sample):
    for folder in ("lib", "workflow"):
        shutil.copytree(REPOSITORY / folder, sample / folder, ignore=shutil.ignore_patterns("__pycache__"))
    path = sample / "lib" / "evaluation.py"
    code = path.read_text()
    path.write_text(code.replace("np.clip((k - above) / tied, 0.0, 1.0)", "np.clip((k - above) / tied, 0.0, 0.9)"))
    assert path.read_text() != code
    assert cell_with("comparison_markdown(study") in compared_with_nbval(sample, lib=sample)


def test_a_changed_count_turns_nbval_red(sample):
    for path in sample.rglob("predictions-test*.npz"):
        one = Predictions.load(path)
        Predictions(*(np.delete(array, 0, 0) for array in (one.video_id, one.label, one.logits)), one.glosses).save(
            path
        )
    assert cell_with("glosses, {clips} test clips") in compared_with_nbval(sample)


def test_a_changed_default_turns_nbval_red(sample):
    shutil.copytree(REPOSITORY / "reports" / "sample-full", sample / "reports" / "sample-full")
    path = sample / "notebooks" / COMPARISON.name
    content = nbformat.read(path, as_version=4)
    (parameters,) = [cell for cell in content.cells if "parameters" in tags(cell)]
    parameters.source = parameters.source.replace('study = "sample"', 'study = "sample-full"')
    nbformat.write(content, path)
    assert cell_with("glosses, {clips} test clips") in compared_with_nbval(sample)


@every_notebook
def test_pages_show_equations_without_a_script_and_fit_a_phone(path):
    notebook = nbformat.read(path, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    prose = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
    equations = re.findall(r"\$\$.+?\$\$|\$[^$\n]+\$", prose, re.DOTALL)
    page = to_page(notebook, path.stem)
    assert page.count("<math") == len(equations)
    assert "<script" not in page
    assert "width=device-width" in page


COMMITTED = [*NOTEBOOKS, *sorted(REPOSITORY.glob("reports/*/notebooks/*.ipynb"))]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_committed_notebooks_are_tidy(path):
    committed = nbformat.read(path, as_version=4)
    assert tidy(copy.deepcopy(committed)) == committed
