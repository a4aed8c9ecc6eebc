"""The real Snakefile and launcher, on stand-in notebooks that write the files which the real ones write."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
import yaml

from lib.paths import REPOSITORY, locked

PARAMETERS = 'study = "tiny"\ndata = ""\nrun = ""\nsearch = ""'
IMPORTS = "from pathlib import Path\nfrom lib.settings import StudyError\nfrom lib.study import load_study"
WRITE = """
RUN_FILES = {files}
s = load_study(study, data)
for p in {paths}:
    p.parent.mkdir(parents=True, exist_ok=True)
    p.write_text("made")
"""
STAND_INS = {
    "01_dataset": "[s.paths.index, *(s.paths.table(f'{name}.csv') for name in ('audit', 'coverage', 'twins'))]",
    "02_clips": "[s.paths.clips_table, s.paths.table('clips.csv')]",
    "03_poses": "[s.paths.poses, s.paths.poses_table, s.paths.table('poses-missing.csv')]",
    "04_movinet": "[s.paths.run(run) / f for f in RUN_FILES]",
    "08_spobet": "[s.paths.run(run) / f for f in RUN_FILES]",
    "09_tuning": "[s.recipe_path(search), s.paths.table(f'trials-{search}.csv')]",
    "10_export": "[s.paths.export_table(run)]",
    "11_comparison": "[s.paths.table(f) for f in ('comparison.csv', 'comparison.md', 'paired.csv', 'export.csv')]",
    "12_predict": "[s.paths.known(run), s.paths.table('unknown.csv'), s.paths.table('timeline.csv')]",
    "14_new_signs": "[s.paths.table('new-signs.csv')]",
    "16_fusion": "[s.paths.table('fusion.csv')]",
}
RUN_FILES = ("metrics.json", "metrics-val.json", "predictions-val.npz", "predictions-test.npz", "history.csv")
STUDY = {
    "title": "Tiny",
    "subset": 2,
    "sources": ["hands"],
    "split": "official",
    "layout": "hands-42",
    "runs": [{"recipe": "spobet", "seeds": [0, 1]}],
}


@dataclass
class Bench:
    """A scratch repository: the real workflow/ and lib/, stand-in notebooks, a study and a data root."""

    root: Path
    file: str = "tiny.yaml"

    def notebook(self, step, last_cell="print('epoch 1/1')"):
        cells = [nbformat.v4.new_code_cell(c) for c in (PARAMETERS, IMPORTS, WRITE, last_cell)]
        cells[0].metadata.tags = ["parameters"]
        cells[2].source = WRITE.format(paths=STAND_INS[step], files=RUN_FILES)
        content = nbformat.v4.new_notebook(cells=cells)
        content.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        (self.root / "notebooks").mkdir(exist_ok=True)
        nbformat.write(content, self.root / "notebooks" / f"{step}.ipynb")

    def study(self, **keys):
        (self.root / self.file).write_text(yaml.safe_dump(STUDY | keys))

    def start(self, *options, data="wlasl"):
        """Start the study in a process group of its own, its arguments in the order of the Makefile's."""
        return subprocess.Popen(
            [sys.executable, "workflow/run.py", self.file, data, *options, "--cores", "all"],
            cwd=self.root,
            env=os.environ | {"STUDY_HOME": str(self.root), "PYTHONPATH": str(self.root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def make(self, *options, data="wlasl"):
        """Run the study to its end."""
        process = self.start(*options, data=data)
        out, err = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def files(self):
        """What is in data/<study>/ and reports/, with the time of the last change."""
        folders = [self.root / "data" / "tiny", self.root / "reports"]
        return {p: p.stat().st_mtime_ns for folder in folders for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def bench(tmp_path, repository):
    return make_bench(tmp_path, repository)


def make_bench(tmp_path, repository, **options):
    shutil.copytree(repository / "workflow", tmp_path / "workflow")
    shutil.copytree(repository / "lib", tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "data").mkdir()
    shutil.copy(repository / "data" / "sample.py", tmp_path / "data")
    shutil.rmtree(tmp_path / "workflow" / "recipes", ignore_errors=True)
    (tmp_path / "workflow" / "recipes").mkdir()
    (tmp_path / "workflow" / "recipes" / "spobet.yaml").write_text("model: spobet\ntrain: {}\n")
    (tmp_path / "workflow" / "recipes" / "movinet.yaml").write_text("model: movinet-a0\ntrain: {}\n")
    clip = {"split": "train", "frame_start": 1, "frame_end": -1, "fps": 25}
    glosses = [{"gloss": g, "instances": [clip | {"video_id": g}]} for g in ("book", "drink")]
    (tmp_path / "wlasl" / "annotations").mkdir(parents=True)
    (tmp_path / "wlasl" / "annotations" / "WLASL2.json").write_text(json.dumps(glosses))
    (tmp_path / "wlasl" / "hands").mkdir()
    (tmp_path / "wlasl" / "hands" / "hands.npz").write_bytes(b"stand-in")
    bench = Bench(tmp_path, **options)
    bench.study()
    for step in STAND_INS:
        bench.notebook(step)
    return bench


def test_a_study_with_videos_stores_their_clips_and_others_do_not(bench):
    (bench.root / "wlasl" / "videos").mkdir()
    (bench.root / "wlasl" / "videos" / "00000.mp4").touch()
    target = "reports/tiny/tables/clips.csv"
    bench.study(sources=["videos", "hands"])
    assert bench.make(target).returncode == 0
    assert (bench.root / target).exists()
    bench.study()
    assert "02_clips" not in bench.make("--dry-run", "--forceall").stdout


OWN = {"sources": ["clips"], "layout": None, "runs": [{"recipe": "movinet"}]}


def own_clips(bench):
    """A study on one's own clips, and the clips."""
    bench.study(**OWN)
    for path in ("a/train/no/1.mp4", "a/train/yes/1.mp4", "a/val/yes/1.mp4", "a/test/no/1.mp4"):
        (bench.root / path).parent.mkdir(parents=True, exist_ok=True)
        (bench.root / path).touch()
    return "data/tiny/clips/clips.parquet"


def test_own_clips_are_indexed_and_stored_without_poses_and_again_when_one_is_added(bench):
    target = own_clips(bench)
    result = bench.make(target, data="a")
    assert result.returncode == 0, result.stderr
    made = (bench.root / "reports" / "tiny" / "notebooks").glob("*.ipynb")
    assert sorted(path.stem for path in made) == ["01_dataset", "02_clips"]
    assert "Nothing to be done" in bench.make(target, data="a").stderr
    time.sleep(0.01)
    (bench.root / "a/test/yes").mkdir()
    (bench.root / "a/test/yes/1.mp4").touch()
    assert re.search(r"^dataset +1$", bench.make("--dry-run", target, data="a").stdout, re.MULTILINE)


@pytest.mark.parametrize(("epochs", "backend"), [(20, "tensorflow"), (19, "torch")])
def test_the_backend_that_was_found_faster_trains_and_torch_where_that_is_short(bench, epochs, backend):
    own_clips(bench)
    bench.study(**OWN | {"runs": [{"recipe": "movinet", "set": {"train.epochs": epochs}}]})
    bench.notebook("04_movinet", "import os; Path('trained_on').write_text(os.environ['KERAS_BACKEND'])")
    found = bench.root / "data" / "backends" / "movinet.txt"
    found.parent.mkdir()
    found.write_text("tensorflow\ntensorflow 0.1 s, torch 0.2 s\n")
    result = bench.make(data="a")
    assert result.returncode == 0, result.stderr
    assert "measuring" not in result.stderr
    assert (bench.root / "notebooks" / "trained_on").read_text() == backend


@pytest.mark.parametrize("folder", ['it\'s a Stüdy of "signs" (1) $HOME', "a;b & c #d %20 *?[e]"])
def test_a_study_runs_in_a_folder_of_any_name(tmp_path, repository, folder):
    (tmp_path / folder).mkdir()
    bench = make_bench(tmp_path / folder, repository, file="tiny.yml")
    (bench.root / "wlasl").rename(bench.root / "my data's root")
    result = bench.make(data="my data's root")
    assert result.returncode == 0, result.stderr
    assert (bench.root / "reports/tiny/tables/comparison.md").exists()
    assert "Nothing to be done" in bench.make(data="my data's root").stderr


def test_a_folder_with_braces_is_refused_in_one_line(tmp_path, repository):
    (tmp_path / "my {study}").mkdir()
    result = make_bench(tmp_path / "my {study}", repository).make()
    assert result.returncode != 0
    assert "rename the folder" in result.stderr.strip()
    assert result.stderr.count("\n") == 1


def test_a_file_that_is_replaced_in_place_is_indexed_again_even_by_an_older_one(bench):
    assert bench.make("data/tiny/index.parquet").returncode == 0
    (bench.root / "wlasl/hands/._hands.npz").touch()  # of a Mac, and no file of the study
    assert "Nothing to be done" in bench.make("data/tiny/index.parquet").stderr
    mended = bench.root / "wlasl" / "hands" / "hands.npz"
    mended.write_bytes(b"mended")
    os.utime(mended, (1, 1))
    assert re.search(r"^dataset +1$", bench.make("--dry-run", "data/tiny/index.parquet").stdout, re.MULTILINE)


def test_a_scheduler_is_told_the_limits_of_the_study_file(bench, monkeypatch):
    """Stand-ins for SLURM's commands; sbatch notes how it was called, and the job never ends."""
    bench.study(hours={"data": 30.5})
    tools = bench.root / "tools"
    tools.mkdir()
    answers = dict.fromkeys(("squeue", "sacct", "sacctmgr", "scontrol"), "echo") | {"sinfo": "echo 'all*'"}
    answers["sbatch"] = 'echo "$@" > "${0%/*}/called.part"; mv "${0%/*}/called.part" "${0%/*}/called"; echo 1'
    for name, answer in answers.items():
        (tools / name).write_text(f"#!/bin/sh\n{answer}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    process = bench.start("--workflow-profile", "workflow/profiles/slurm")
    while not (tools / "called").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert re.search(r"-t 1830\b", (tools / "called").read_text())


def test_study_with_poses_but_no_run_on_them_has_no_pose_store(bench):
    (bench.root / "wlasl" / "videos").mkdir()
    (bench.root / "wlasl" / "videos" / "00000.mp4").touch()
    bench.study(sources=["videos", "hands"], runs=[{"recipe": "movinet"}])
    planned = bench.make("--dry-run", "data/tiny/clips/clips.parquet").stdout
    assert "02_clips" in planned
    assert "03_poses" not in planned


def test_study_runs_to_the_end_then_has_nothing_to_do_then_runs_only_what_changed(bench):
    first = bench.make()
    assert first.returncode == 0, first.stderr
    reports = bench.root / "reports" / "tiny" / "notebooks"
    steps = ["01_dataset", "03_poses", "08_spobet-spobet-s0", "08_spobet-spobet-s1", "11_comparison"]
    assert sorted(p.name for p in reports.iterdir()) == [f"{s}.{end}" for s in steps for end in ("html", "ipynb")]
    executed = (reports / "08_spobet-spobet-s1.ipynb").read_text()
    assert 'run = \\"spobet-s1\\"' in executed
    assert str(bench.root) not in executed.replace(str(bench.root / "tiny.yaml"), "")
    assert "Executing: 100%" in first.stderr
    assert "[08_spobet-spobet-s1] epoch 1/1" in first.stderr
    assert not list((bench.root / "data" / "tiny" / "unfinished").glob("*.ipynb"))

    before = bench.files()
    second = bench.make()
    assert second.returncode == 0
    assert "Nothing to be done" in second.stdout + second.stderr
    assert bench.files() == before

    bench.notebook("11_comparison", "changed = True")
    assert bench.make().returncode == 0
    changed = {p.name for p, time in bench.files().items() if before.get(p) != time}
    assert {"11_comparison.ipynb", "comparison.csv"} <= changed
    assert not any(name.startswith(("01", "03", "08", "metrics")) for name in changed)

    (reports / "01_dataset.html").unlink()
    assert re.search(r"^dataset +1$", bench.make("--dry-run").stdout, re.MULTILINE)


def test_only_the_runs_that_the_study_exports_are_exported(bench):
    first = bench.make("--dry-run").stdout
    assert "10_export" not in first
    assert "export.csv" not in first
    bench.study(exports=["spobet-s1"])
    planned = bench.make("--dry-run").stdout
    assert "notebook 10_export: files of spobet-s1" in planned
    assert "files of spobet-s0" not in planned
    assert "reports/tiny/notebooks/10_export-spobet-s1.html" in planned
    assert "reports/tiny/tables/export.csv" in planned
    assert "reports/tiny/models/" not in planned
    bench.study(exports=["spobet-s1"], release=["spobet-s1"])
    assert "reports/tiny/models/spobet-s1.onnx.md" in bench.make("--dry-run").stdout


def test_clips_are_named_by_the_run_that_the_study_says(bench):
    assert "12_predict" not in bench.make("--dry-run").stdout
    bench.study(predict="spobet-s1")
    planned = bench.make("--dry-run").stdout
    assert "notebook 12_predict: signs in clips and in longer videos, by spobet-s1" in planned
    assert "reports/tiny/runs/spobet-s1/known.json" in planned
    result = bench.make()
    assert result.returncode == 0, result.stderr
    assert (bench.root / "reports/tiny/notebooks/12_predict.html").is_file()


def test_a_student_is_trained_after_its_teachers(bench):
    student = {"recipe": "spobet", "name": "student", "set": {"distil": {"teachers": "tiny/spobet", "seeds": [1]}}}
    bench.study(runs=[{"recipe": "spobet", "seeds": [0, 1]}, student], exports=[])
    planned = bench.make("--dry-run", "reports/tiny/runs/student/metrics.json").stdout
    assert "training spobet-s1" in planned
    assert "training spobet-s0" not in planned


def test_new_signs_are_named_by_the_run_that_the_study_says(bench):
    assert "14_new_signs" not in bench.make("--dry-run").stdout
    bench.study(new_signs="spobet-s1")
    assert "notebook 14_new_signs: signs from a few examples, by spobet-s1" in bench.make("--dry-run").stdout
    result = bench.make()
    assert result.returncode == 0, result.stderr
    assert (bench.root / "reports/tiny/notebooks/14_new_signs.html").is_file()


def test_models_of_videos_and_poses_are_fused_once_all_that_may_take_part_are_trained(bench):
    bench.notebook("16_fusion", imports_of("16_fusion"))
    assert "16_fusion" not in bench.make("--dry-run").stdout
    runs = [{"recipe": "spobet", "seeds": [0, 1]}, {"recipe": "movinet"}]
    runs.append({"recipe": "spobet", "name": "student", "set": {"distil": {"teachers": "tiny/spobet", "seeds": [1]}}})
    (bench.root / "wlasl" / "videos").mkdir()
    (bench.root / "wlasl" / "videos" / "00000.mp4").touch()
    bench.study(sources=["videos", "hands"], runs=runs)
    planned = bench.make("--dry-run", "reports/tiny/tables/fusion.csv").stdout
    assert "notebook 16_fusion" in planned
    assert all(f"training {run}" in planned for run in ("spobet-s0", "spobet-s1", "movinet"))
    assert "training student" not in planned
    result = bench.make("reports/tiny/tables/fusion.csv")
    assert result.returncode == 0, result.stderr
    assert "16_fusion" in bench.make("--dry-run", "--forceall").stdout  # it is one of the steps of the study
    edited = bench.root / "lib" / "fusion.py"
    edited.write_text(edited.read_text() + "\n")
    assert "notebook 16_fusion" in bench.make("--dry-run", "reports/tiny/tables/fusion.csv").stdout


def test_metrics_and_figures_export_nothing_again_but_the_comparison_follows_the_exports(bench):
    bench.study(exports=["spobet-s1"])
    for step in ("10_export", "11_comparison"):
        bench.notebook(step, imports_of(step))
    result = bench.make()
    assert result.returncode == 0, result.stderr
    for edited, again in {
        "lib/evaluation.py": {"comparison"},
        "lib/figures/runs.py": {"comparison"},
        "lib/export/card.md.j2": {"comparison"},
        "lib/export/texts.yaml": {"export_poses", "comparison"},
        "lib/export/tflite.py": {"export_poses", "comparison"},
    }.items():
        path = bench.root / edited
        content = path.read_text()
        path.write_text(f"{content}\n# edited\n")
        assert planned(bench) == again, edited
        path.write_text(content)


def test_failing_notebook_says_so_last_and_leaves_no_output(bench):
    bench.notebook("03_poses", "raise StudyError('clip 7 has no frames: take it out')")
    result = bench.make()
    assert result.returncode != 0
    assert result.stderr.strip().splitlines()[-1] == "error: clip 7 has no frames: take it out"
    made = {p.name for p in bench.files()}
    assert {"index.parquet", "audit.csv", "01_dataset.ipynb"} <= made
    assert not {"poses.npz", "03_poses.html"} & made
    assert not (bench.root / "reports" / "tiny" / "notebooks" / "03_poses.ipynb").exists()
    assert (bench.root / "data" / "tiny" / "unfinished" / "03_poses.ipynb").exists()


def test_study_goes_on_after_a_kill_without_any_cleaning_up(bench):
    bench.notebook("03_poses", "import time\ntime.sleep(600)")
    process = bench.start("--until", "poses")
    draft = bench.root / "data" / "tiny" / "unfinished" / "03_poses.ipynb"
    while not (draft.exists() and "time.sleep" in draft.read_text()):
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.2)
    index = bench.root / "data" / "tiny" / "index.parquet"
    before = index.stat().st_mtime_ns
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()

    bench.notebook("03_poses")
    result = bench.make("--until", "poses")
    assert result.returncode == 0, result.stderr
    assert (bench.root / "data" / "tiny" / "poses.npz").read_text() == "made"
    assert index.stat().st_mtime_ns == before


SEARCH = {"name": "tuned", "recipe": "spobet", "space": "any"}


@pytest.fixture
def tuning(bench):
    """The bench with a study that searches, and trains what the search finds."""
    (bench.root / "workflow" / "spaces" / "any.yaml").write_text(
        "families: [spobet]\nspace: {options.dropout: {min: 0.1, max: 0.2}}\n"
    )
    bench.study(searches=[SEARCH], runs=[{"recipe": "tuned"}])
    return bench


def test_a_run_waits_for_the_search_that_finds_its_recipe(tuning):
    first = tuning.make()
    assert first.returncode == 0, first.stderr
    report = tuning.root / "reports" / "tiny"
    steps = ["01_dataset", "03_poses", "08_spobet-tuned", "09_tuning-tuned", "11_comparison"]
    assert sorted(p.stem for p in (report / "notebooks").glob("*.ipynb")) == steps
    times = [(report / path).stat().st_mtime_ns for path in ("recipes/tuned.yaml", "runs/tuned/metrics.json")]
    assert times == sorted(times)
    assert "Nothing to be done" in tuning.make().stderr
    (report / "recipes" / "tuned.yaml").unlink()
    planned = dict(re.findall(r"^(\w+) +(\d+)$", tuning.make("--dry-run").stdout, re.MULTILINE))
    assert {"tuning", "spobet", "comparison"} <= planned.keys()
    assert not {"dataset", "poses"} & planned.keys()


@pytest.mark.parametrize(("workers", "jobs"), [("1", None), ("3", "3")])
def test_tune_runs_the_searches_alone_with_as_many_workers_as_are_asked_for(tuning, monkeypatch, workers, jobs):
    monkeypatch.setenv("WORKERS", workers)
    counts = dict(re.findall(r"^(\w+) +(\d+)$", tuning.make("tune", "--dry-run").stdout, re.MULTILINE))
    assert counts.get("worker") == jobs
    assert counts["tuning"] == "1"
    assert not {"spobet", "comparison"} & counts.keys()


def test_step_that_is_still_running_is_not_started_twice(bench):
    lock = bench.root / "data" / "tiny" / "unfinished" / "01_dataset.lock"
    lock.parent.mkdir(parents=True)
    with locked(lock):
        result = bench.make()
    assert result.returncode != 0
    assert result.stderr.splitlines()[-1] == "error: 01_dataset is already running; wait for it or stop it"


def test_synthetic_study_without_a_data_root_makes_its_data_first(bench):
    bench.study(synthetic=True)
    planned = bench.make("--dry-run", data="").stdout
    assert re.search(r"^sample_data +1$", planned, re.MULTILINE)
    assert "data/tiny/wlasl" in planned
    assert "sample_data" not in bench.make("--dry-run").stdout


def test_fresh_clone_with_committed_reports_runs_every_step(bench):
    for name in ("tables/comparison.csv", "tables/comparison.md", "runs/spobet-s0/metrics.json"):
        path = bench.root / "reports" / "tiny" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("came with the clone")
    counts = dict(re.findall(r"^(\w+) +(\d+)$", bench.make("--dry-run").stdout, re.MULTILINE))
    assert counts == {"all": "1", "dataset": "1", "poses": "1", "spobet": "2", "comparison": "1", "total": "6"}


def planned(bench, *options, data="wlasl"):
    """The steps that would run, by rule."""
    result = bench.make("--dry-run", *options, data=data)
    assert result.returncode == 0, result.stderr
    return dict(re.findall(r"^(\w+) +(\d+)$", result.stdout, re.MULTILINE)).keys() - {"all", "total"}


def imports_of(step):
    """A cell that imports what the real notebook of a step does, without the time that it takes."""
    cells = nbformat.read(REPOSITORY / "notebooks" / f"{step}.ipynb", as_version=4).cells
    trees = [ast.parse(cell.source) for cell in cells if cell.cell_type == "code"]
    found = [node for tree in trees for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return "\n    ".join(["if False:", *map(ast.unparse, found)])


def test_a_step_depends_on_the_code_that_it_imports_and_on_no_other(bench):
    (bench.root / "wlasl" / "videos").mkdir()
    (bench.root / "wlasl" / "videos" / "00000.mp4").touch()
    bench.study(sources=["videos", "hands"], runs=[{"recipe": "spobet"}, {"recipe": "movinet"}])
    for step in STAND_INS:
        bench.notebook(step, imports_of(step))
    assert bench.make().returncode == 0
    for edited, again in {
        "lib/evaluation.py": {"comparison", "fusion"},
        "lib/published.csv": {"comparison"},
        "lib/models/spobet.py": {"spobet", "comparison", "fusion"},
        "lib/models/movinet_sizes.py": {"movinet", "comparison", "fusion"},
        "lib/data/wlasl.py": {"dataset", "clips", "poses", "spobet", "movinet", "comparison", "fusion"},
        "lib/export/tflite.py": set(),
    }.items():
        path = bench.root / edited
        content = path.read_text()
        path.write_text(f"{content}\n# edited\n")
        assert planned(bench) == again, edited
        path.write_text(content)


def test_the_spelling_of_the_data_root_runs_nothing_again(bench):
    assert bench.make(data="wlasl").returncode == 0
    for spelling in ("./wlasl/", f"{bench.root}/notebooks/../wlasl"):
        assert planned(bench, data=spelling) == set(), spelling


@pytest.mark.parametrize(
    ("keys", "data", "part"),
    [
        ({"spilt": "official"}, "wlasl", "unknown key 'spilt' (did you mean 'split'?)"),
        (
            {"searches": [SEARCH | {"space": "none"}]},
            "wlasl",
            "search tuned: there is no space 'none'; workflow/spaces/",
        ),
        (
            {"searches": [SEARCH | {"space": "i3d-published"}]},
            "wlasl",
            "space 'i3d-published' is for i3d; recipe 'spobet'",
        ),
        (
            {"searches": [SEARCH | {"recipe": "movinet", "space": "movinet-published"}]},
            "wlasl",
            "recipe 'movinet' reads videos",
        ),
        ({"runs": [{"recipe": "spobat"}]}, "wlasl", "no recipe 'spobat'; workflow/recipes/ has movinet, spobet"),
        ({"runs": [{"recipe": "movinet"}]}, "wlasl", "recipe 'movinet' reads videos or clips, the study has hands"),
        (OWN | {"subset": 3}, "a", "a: holds 2 glosses (no, yes), the study asks for 3"),
        (OWN | {"runs": [{"recipe": "spobet"}]}, "a", "recipe 'spobet' reads keypoints or hands or poses, the"),
        (OWN, "wlasl/annotations", "wlasl/annotations: there is no clip; see data/README.md"),
        ({"sources": ["videos"]}, "wlasl", "videos is missing or empty"),
        ({"subset": 3}, "wlasl", "WLASL3.json"),
        ({}, "nowhere", "nowhere does not exist: correct DATA"),
    ],
)
def test_what_is_wrong_from_the_start_is_one_line_and_nothing_is_written(bench, keys, data, part):
    own_clips(bench)
    bench.study(**keys)
    result = bench.make(data=data)
    assert result.returncode != 0
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert part in result.stderr
    assert bench.files() == {}
