"""`make doctor`: what a study will find in its data root, what is odd there, and what it will cost here.

    python workflow/doctor.py <study> <data root, or ""> [--json]

Nothing is trained and nothing written. Of long videos and of large data sets it reads a part, so that it takes less
than a minute; notebook 01 reads all.
"""

import json
import math
import os
import random
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pkgutil import resolve_name
from typing import Any

import numpy as np
import pandas as pd
import psutil
from run import check, from_home
from tabulate import tabulate

from lib.data.find import Place, locate, shortfall
from lib.data.layouts import LAYOUTS
from lib.data.own_clips import ignored, name_missing
from lib.data.sources import find_clips, list_clips, read_clips
from lib.data.wlasl import SPLITS
from lib.machine import cores
from lib.models import family_of
from lib.models.weights import WEIGHTS
from lib.oracles import hyperband_plan
from lib.paths import home
from lib.recipes import AnyRecipe, PoseRecipe, Training, read_recipe
from lib.settings import StudyError
from lib.study import SearchSpec, Study, load_study

OK, ODD, STOP = "ok", "odd", "stop"
READING, MEASURING = 15.0, 30.0  # seconds for files, and for networks; what is left is told or estimated
BATCH = 4  # clips of a measured step; the time is nearly proportional
SAMPLE_FRAMES = 60  # of a clip that nothing is known of; the median of WLASL
# Measured on the sample study: a notebook without its training, and writing, checking and timing an exported file.
NOTEBOOK_SECONDS, EXPORT_SECONDS = 15.0, 8.0
STORED_BYTES = 0.25  # of a pixel in the clip store
SAVED = 4 * (1 + 3)  # bytes of a parameter in best.weights.h5 and, with two moments, in last.weights.h5


Found = dict[str, dict[str, list[Place]]]  # places by video_id by source


@dataclass(frozen=True)
class Finding:
    """One line of the answer. state: ok | odd (the study runs, but look at it) | stop (the study cannot run)."""

    part: str
    state: str
    text: str


@dataclass(frozen=True)
class Cost:
    """What a training needs: seconds of one core or GPU (nan: unknown), and bytes of memory and of checkpoints."""

    name: str
    seconds: float
    memory: int
    disk: int
    estimated: bool = False


def main(name: str, data: str, as_json: bool) -> int:
    """Print the findings. Returns 1 when the study cannot run."""
    findings = []
    for finding in examine(name, from_home(data)):
        findings.append(finding)
        if not as_json:
            print(f"{finding.part}: {finding.text}", file=sys.stderr)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1, ensure_ascii=False))
    else:
        rows = [(f.part, f.state.upper() if f.state != OK else f.state, f.text) for f in findings]
        print(tabulate(rows, headers=("", "", ""), maxcolwidths=[None, None, 90]))
    return int(any(finding.state == STOP for finding in findings))


def examine(name: str, data: str) -> Iterator[Finding]:
    """All findings of a study, the cheapest first; after one with `stop` nothing more can be said of the data."""
    try:
        study = load_study(name, data, require_data=False)
        check(study, generated=not data)
    except StudyError as error:
        yield Finding("study", STOP, str(error))
        return
    yield Finding("study", OK, f"{study.title}: {study.subset} glosses, {len(study.run_names())} runs")
    frames = SAMPLE_FRAMES
    if study.synthetic and not study.root.is_dir():
        clips = pd.DataFrame({"split": ["train"] * 148 + ["val"] * 60 + ["test"] * 60})  # as data/sample.py draws
        yield Finding("data", OK, "synthetic: drawn when the study starts")
    else:
        try:
            clips = list_clips(study)
            found = {source: find_clips(study, source, clips) for source in study.sources}
        except StudyError as error:
            yield Finding("data", STOP, str(error))
            return
        yield from presence(study, clips, found)
        read, mean = read_some(study, clips, found)
        yield from read
        frames = mean or frames
        clips = clips[clips["video_id"].isin(set.intersection(*map(set, found.values())))]
    yield from machine(study)
    yield from needs(study, clips, frames)


def presence(study: Study, clips: pd.DataFrame, found: Found) -> Iterator[Finding]:
    """Which of the official clips are there, by source, split and gloss."""
    for source, there in found.items():
        state = OK if len(there) == len(clips) else ODD if there else STOP
        text = f"{len(there):,} of {len(clips):,} clips found in {study.root.name}"
        if source != "clips":
            ids, others = list(clips["video_id"]), locate(study.root, source, clips["video_id"])[1]
            text = shortfall(source, ids, there, others, study.root) or text
        yield Finding(source, state, text)
    if "clips" in study.sources:
        for what, names in (("without a file", name_missing(study.root, 5)), ("ignored", ignored(study.root))):
            if names:
                yield _listed("clips", what, names)
    usable = clips[clips["video_id"].isin(set.intersection(*map(set, found.values())))]
    for split in SPLITS:
        lacking = sorted(set(clips["gloss"]) - set(usable["gloss"][usable["split"] == split]))
        state = STOP if len(lacking) == clips["gloss"].nunique() else ODD if lacking else OK
        text = f"{(usable['split'] == split).sum():,} clips"
        if lacking:
            text += f"; none of {len(lacking)} glosses: {', '.join(lacking[:5])}{', …' if len(lacking) > 5 else ''}"
        yield Finding(split, state, text)


def read_some(study: Study, clips: pd.DataFrame, found: Found) -> tuple[list[Finding], float | None]:
    """Read clips of each source, drawn at random, for a few seconds. Returns findings, and the mean of the frames."""
    findings, frames = [], []
    for source, there in found.items():
        left = [video_id for video_id in clips["video_id"] if video_id in there]
        random.Random(0).shuffle(left)
        deadline, contents = time.monotonic() + READING / len(found), {}
        while left and time.monotonic() < deadline:
            some, left = left[: 4 * cores()], left[4 * cores() :]
            contents |= read_clips(study, source, {video_id: there[video_id] for video_id in some})
        problems = [f"{video_id} {content.problem}" for video_id, content in contents.items() if content.problem]
        notes = [f"{video_id} {content.notes}" for video_id, content in contents.items() if content.notes]
        frames += [content.n_frames for content in contents.values() if content.n_frames]
        read = f"{len(contents):,} of {len(there):,} read"
        findings.append(Finding(source, OK, read) if not problems else _listed(source, f"{read}, unreadable", problems))
        findings += [_listed(source, "odd, but readable", notes)] if notes else []
    return findings, float(np.mean(frames)) if frames else None


def _listed(part: str, what: str, items: list[str]) -> Finding:
    return Finding(part, ODD, f"{what}: {len(items)}: {'; '.join(items[:5])}{'; …' if len(items) > 5 else ''}")


def machine(study: Study) -> Iterator[Finding]:
    """The processor, the memory, the accelerator, and weights that will have to be downloaded."""
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(_existing(home()))
    here = f"{cores()} of {os.cpu_count()} cores allotted, {memory.available / 1e9:.0f} GB of memory and "
    yield Finding("machine", OK, here + f"{disk.free / 1e9:.0f} GB of disk are free")
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    yield Finding("GPU", OK, f"{gpu} is used" if gpu else "none is used: the trainings run on the processor")
    wanted = {getattr(config, "weights", None) for _, config, _ in trainings(study)} & {*WEIGHTS}
    files = {home() / "data" / "weights" / WEIGHTS[name].file for name in wanted}
    if absent := sorted(path.name for path in files if not path.exists()):
        yield _listed("weights", "to be downloaded to data/weights/", absent)


def needs(study: Study, clips: pd.DataFrame, frames: float) -> Iterator[Finding]:
    """Time, memory and disk, from a short measurement of each network."""
    counts = clips["split"].value_counts()
    costs = measure(study, int(counts.get("train", 0)), int(counts.get("val", 0)), frames)
    for cost in costs:
        how = ", estimated from its operations" if cost.estimated else ""
        how = f"about {_duration(cost.seconds)} on one core or GPU{how}" if cost.seconds >= 0 else "not measured"
        yield Finding(cost.name, OK, how)
    known = [cost.seconds for cost in costs if cost.seconds >= 0]
    exports = len(study.exports) * 2 * len(study.precisions) * EXPORT_SECONDS
    notebooks = (4 + len(costs) + len(study.exports)) * NOTEBOOK_SECONDS
    total = (sum(known) + exports + notebooks) / min(cores(), len(costs))
    text = f"about {_duration(total)} with {cores()} cores at work, {_duration(exports)} of it for exported files"
    if len(known) < len(costs):
        text += f"; {len(costs) - len(known)} trainings are not counted, because they could not be measured"
    yield Finding("time", OK if len(known) == len(costs) else ODD, text)
    yield from _room(study, len(clips) * frames, costs)


def _room(study: Study, frames: float, costs: list[Cost]) -> Iterator[Finding]:
    stored = frames * study.clips.size**2 * STORED_BYTES if {"videos", "clips"} & set(study.sources) else 0
    disk, free = stored + sum(cost.disk for cost in costs), shutil.disk_usage(_existing(home())).free
    text = f"about {disk / 1e9:.1f} GB needed, {free / 1e9:.0f} GB free"
    yield Finding("disk", OK if disk < free else STOP, text)
    together = sum(sorted((cost.memory for cost in costs), reverse=True)[: cores()])  # trainings run side by side
    available = psutil.virtual_memory().available
    text = f"about {together / 1e9:.1f} GB needed, {available / 1e9:.0f} GB free"
    text += "" if together < available else "; allow fewer cores, or smaller batches"
    yield Finding("memory", OK if together < available else ODD, text)


def measure(study: Study, train: int, val: int, frames: float) -> list[Cost]:
    """Costs of the searches and trainings, by a short measurement of each network, in as many seconds as there are.

    Those that are left are estimated from the published multiply-adds, and the time of one that the others took.
    """
    import torch

    torch.set_num_threads(int(os.environ.get("THREADS") or 1))  # as many as a training of the study has
    deadline, costs, rates, left = time.monotonic() + MEASURING, [], [], []
    clips = train + val / 3  # validation has no gradient
    for names, config, epochs in trainings(study):
        if time.monotonic() > deadline:
            left.append((names, config, epochs))
            continue
        seconds, memory, parameters = measure_step(config, study, math.ceil(frames))
        costs += [Cost(name, seconds * clips * epochs, memory, parameters * SAVED) for name in names]
        if operations := _operations(config):
            rates.append((seconds / operations, memory))
    for names, config, epochs in left:
        rate, memory = max(rates, default=(math.nan, 0))
        seconds = rate * (_operations(config) or math.nan)
        costs += [Cost(name, seconds * clips * epochs, memory, 0, estimated=True) for name in names]
    return costs


def trainings(study: Study) -> Iterator[tuple[list[str], AnyRecipe, int]]:
    """The names, the recipe and the number of epochs of each search, and of the runs of each recipe."""
    for search in study.searches:
        config = read_recipe(search.recipe, {**search.set, **search.trial})
        yield [f"search {search.name}"], config, search_epochs(search, config.train)
    for spec in study.runs:
        config = study.planned(spec)
        yield [name for name, _ in spec.runs()], config, _epochs(config)


def _operations(config: AnyRecipe) -> float | None:
    """Multiply-adds of a clip in 1e9, by the published number for the published clip; None where there is none."""
    place = family_of(config.model).published
    if not place:
        return None
    published = resolve_name(place)[config.model]
    frames, height, width = published["clip"]
    return published["multiply_adds"] * config.frames * config.size**2 / (frames * height * width)


def _epochs(config: AnyRecipe) -> int:
    steps = (getattr(config, name, None) for name in ("pretrain", "head", "train"))
    return sum(step.epochs for step in steps if step)


def search_epochs(spec: SearchSpec, recipe: Training) -> int:
    """The epochs that all trials of a search take together."""
    plan = hyperband_plan(recipe.epochs)
    hyperband = int((plan["trials"] * (plan["until"] - plan["start"])).sum())
    others = spec.trials * recipe.epochs if spec.trials else hyperband
    return sum(hyperband if tuner == "hyperband" else others for tuner in spec.tuners)


def measure_step(config: AnyRecipe, study: Study, frames: int) -> tuple[float, int, int]:
    """Train a recipe's network for two steps. Returns seconds for each clip, bytes of memory, and parameters.

    frames: of a clip with poses, of which the recipe may read fewer.
    """
    import keras

    from lib.models import build
    from lib.training import make_optimizer, prepare

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    prepare(config.train, seed=0)
    poses, batch = isinstance(config, PoseRecipe), config.train.batch_size
    if poses:
        shape = (min(frames, config.max_frames), len(LAYOUTS[study.layout].joints), 3)
        options: dict[str, Any] = {"layout": study.layout}
    else:
        shape, batch = (config.frames, config.size, config.size, 3), min(batch, BATCH)
        options = {"clip": shape[:3]}
    model = build(config.model, study.subset, **config.options, **options)
    model.compile(make_optimizer(config.train, 100), "categorical_crossentropy", jit_compile=False)
    data, labels = np.ones((batch, *shape), np.float32), np.eye(study.subset, dtype=np.float32)[[0] * batch]
    taken = []
    for _ in range(2):
        start = time.perf_counter()
        model.train_on_batch(data, labels)
        taken.append(time.perf_counter() - start)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 * config.train.batch_size / batch
    keras.backend.clear_session()
    return min(taken) / batch, int(before * 1024 + grown), model.count_params()


def _existing(path: Any) -> Any:
    """The folder itself, or the nearest one above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _duration(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], "--json" in sys.argv))
