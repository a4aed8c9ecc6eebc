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
import pandas as pd
import pytest
import yaml
from run_notebook import tidy, to_page

from lib.data.index import present, read_index
from lib.data.poses import PoseStore
from lib.evaluation import write_metrics
from lib.paths import REPOSITORY
from lib.predictions import Predictions
from lib.settings import StudyError
from lib.study import load_study

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
COMPARISON = REPOSITORY / "notebooks" / "11_comparison.ipynb"
FUSION = REPOSITORY / "notebooks" / "16_fusion.ipynb"
COMPARED = "nbval-check-output"
CLIPS = 120  # of made predictions
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


def run_cells(path, **parameters):
    """Run the code cells of a notebook in this process. Returns the names that they define."""
    first, *cells = (cell.source for cell in code_cells(path))
    names = {}
    exec(first, names)
    names |= parameters
    for source in cells:
        exec(source, names)
    return names


def test_08_runs_to_its_end_where_the_first_clips_show_no_joint(study, tmp_path):
    store, index = PoseStore.load(study.paths.poses), read_index(study)
    empty = {present(index, split)["video_id"].iloc[0] for split in ("val", "test")}
    for video_id, clip in zip(store.video_id, store.poses, strict=True):
        clip[:] = 0 if video_id in empty else clip
    store.save(study.paths.poses)
    file = tmp_path / f"{study.name}.yaml"
    file.write_text(yaml.safe_dump(study.model_dump(mode="json", exclude={"name", "root"})))
    path = REPOSITORY / "notebooks" / "08_spobet.ipynb"
    names = run_cells(path, study=str(file), data=str(study.root), run="small-s0")
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


# ---- notebooks 11 and 16 on models of videos that read drawn poses -------------------------------------


def write_run(study, run, facts, right, sure=2.0):
    """Predictions of a run whose clips of these numbers are right; the others are taken for the next gloss."""
    label = np.arange(CLIPS) % study.subset
    logits = np.random.default_rng(len(run)).normal(0, 0.3, (CLIPS, study.subset))
    logits[np.arange(CLIPS), np.where(np.isin(np.arange(CLIPS), right), label, (label + 1) % study.subset)] += sure
    names, glosses = ([f"{what} {number}" for number in range(count)] for what, count in (("c", CLIPS), ("g", 100)))
    for split in ("val", "test"):
        predictions = Predictions(np.array(names), label, logits, np.array(glosses))
        predictions.save(study.paths.predictions(run, split))
        write_metrics(study.paths.metrics(run, split), predictions, 0, split=split, **facts)


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """A study of WLASL100 with I3D, MoViNet-A0 and S3D on drawn hands, and a pose model with two seeds."""
    monkeypatch.setenv("STUDY_HOME", str(tmp_path))
    runs = [{"recipe": "x3d-s-drawn", "name": name, "set": {"model": name}} for name in ("i3d", "movinet-a0", "s3d")]
    content = {"title": "Drawn", "subset": 100, "sources": ["hands"], "split": "official", "layout": "hands-42"}
    runs.append({"recipe": "spobet-plus", "seeds": [0, 1]})
    (tmp_path / "drawn.yaml").write_text(yaml.safe_dump(content | {"runs": runs}))
    study = load_study(str(tmp_path / "drawn.yaml"), "data", require_data=False)
    facts = {"recipe": "x3d-s-drawn", "input": "drawn", "frames": 16, "size": 112, "weights": "scratch", "seed": 0}
    facts |= {"backend": "torch", "params_m": 1.0, "gflops": None, "train_seconds": 1.0, "epochs": 1}
    write_run(study, "i3d", facts | {"model": "i3d", "variant": "drawn"}, np.arange(30, 110))
    write_run(study, "movinet-a0", facts | {"model": "movinet", "variant": "a0-drawn"}, np.arange(60))
    write_run(study, "s3d", facts | {"model": "s3d", "variant": "drawn"}, np.arange(50))
    for seed in (0, 1):
        pose = facts | {"model": "spobet", "variant": "plus", "input": "hands-42", "seed": seed}
        write_run(study, f"spobet-plus-s{seed}", pose, np.arange(90 + seed), sure=2.5)
    return tmp_path / "drawn.yaml"


def test_11_says_which_models_change_places_on_drawn_hands_and_which_loses_most(drawn):
    names = run_cells(COMPARISON, study=str(drawn))
    assert "`movinet-a0`, `i3d`, is not kept on drawn hands: Kendall's τ = -1.00" in names["finding"]
    p_value = names["paired_test"](names["predictions"]["i3d"], names["predictions"]["movinet-a0"])["p_value"]
    assert f"change places, by more than chance (p = {p_value:.2g})" in names["finding"]
    assert "Nothing is published for `s3d`" in names["finding"]
    assert names["least"].startswith("**`movinet-a0` loses most**: 50.0% (41% to 59%) instead of the published 53.5%")
    assert (drawn.parent / "reports/drawn/figures/published.png").is_file()


def test_16_fuses_the_best_of_both_kinds_and_the_seeds_of_each(drawn):
    names = run_cells(FUSION, study=str(drawn))
    assert names["two"] == ["i3d", "spobet-plus-s1"]
    table = pd.read_csv(drawn.parent / "reports/drawn/tables/fusion.csv").set_index("fusion")
    fused = ["i3d + spobet-plus-s1", "all 3 runs"]
    assert table.index.tolist() == ["i3d", "spobet-plus-s1", fused[0], "spobet-plus (mean of 2)", fused[1]]
    assert (table.loc[fused, "top1"] == table.loc[fused, "val_top1"]).all()  # made of the same clips
    assert table["val_loss"].idxmin() in fused
    assert any("**On test**" in sentence for sentence in names["found"])
    assert any("**With all seeds**" in sentence for sentence in names["found"])


def test_16_fuses_a_pair_that_is_named(drawn):
    names = run_cells(FUSION, study=str(drawn), pair="s3d movinet-a0")
    assert names["two"] == ["s3d", "movinet-a0"]
    assert len(names["results"]) == 3
    with pytest.raises(StudyError, match="name two runs as `pair`"):
        run_cells(FUSION, study=str(drawn), pair="s3d")


# ---- nbval on notebooks 11 and 16, which need predictions only -----------------------------------------


@pytest.fixture
def sample(tmp_path):
    """A home with the committed reports of the sample, and copies of notebooks 11 and 16 beside it."""
    shutil.copytree(REPOSITORY / "reports" / "sample", tmp_path / "reports" / "sample")
    (tmp_path / "notebooks").mkdir()
    for path in (COMPARISON, FUSION):
        shutil.copy(path, tmp_path / "notebooks")
    return tmp_path


def compared_with_nbval(home, lib=REPOSITORY, notebook=COMPARISON):
    """The numbers of the code cells of a notebook whose outputs nbval finds changed."""
    options = ["-p", "no:cacheprovider", "--nbval-lax", "--nbval-sanitize-with", REPOSITORY / "tests" / "nbval.cfg"]
    environment = os.environ | {"STUDY_HOME": str(home), "PYTHONPATH": str(lib)}
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-rf", *options, home / "notebooks" / notebook.name],
        cwd=home, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    failed = [int(number) for number in re.findall(r"^FAILED .*::Cell (\d+)", result.stdout, re.MULTILINE)]
    assert result.returncode == bool(failed), result.stdout[-3000:]
    return failed


def cell_with(text):
    """The number of the compared code cell of notebook 11 with this text."""
    (found,) = [number for number, cell in enumerate(code_cells(COMPARISON)) if text in cell.source and tags(cell)]
    return found


@pytest.mark.parametrize("notebook", [COMPARISON, FUSION], ids=lambda path: path.stem)
def test_nbval_is_green_on_the_committed_predictions(sample, notebook):
    assert compared_with_nbval(sample, notebook=notebook) == []


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
