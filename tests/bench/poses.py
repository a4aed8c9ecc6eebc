"""Poses: index, audit and pose store of 12,000 clips

Synthetic hand landmarks in the form of WLASL's (float16, 15 to 120 frames, a third of them without hands) under
invented identifiers, in a data root with an nslt file alone. First row: 12,000 clips against four times what 3,000
take; a ratio of 1 means that the time grows in proportion. Second row: the same 12,000 clips against a minute. Third
row: memory, the peak of each process less what it takes before any clip is read; "peer" is again four times that of
3,000. One thread each.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.preprocessing import peak_memory
from bench.report import compare, machine, row, versions, write
from bench.sides import Side, Taken, alternate

GLOSSES, MINUTE = 300, 60.0
SPLITS = ("train", "train", "train", "val", "test")


def main(name: str = "poses", rounds: int = 3, counts: tuple[int, int] = (12_000, 3_000)) -> Path:
    """Measure, and write the report."""
    where, times = machine(), counts[0] / counts[1]
    with tempfile.TemporaryDirectory() as folder:
        roots = [Path(folder) / str(count) for count in counts]
        for root, count in zip(roots, counts, strict=True):
            make_root(root, count)
        with (
            Side("bench.poses:steps", root=str(roots[0])) as many,
            Side("bench.poses:steps", root=str(roots[1])) as few,
        ):
            before = [side("memory")["value"] for side in (many, few)]
            taken = alternate({"many": many, "few": few}, "build", rounds, warm_up=0)
            held = [side("memory")["value"] - start for side, start in zip((many, few), before, strict=True)]
    label = f"index, audit and pose store of {counts[0]} clips"
    scaled = [Taken(times * each.seconds, times * each.cpu) for each in taken["few"]]
    minute = [Taken(MINUTE, MINUTE)] * rounds
    rows = [
        compare(f"{label}, against {times:g} × {counts[1]}", taken["many"], scaled, "≤ 1.1"),
        compare(f"{label}, against a minute", taken["many"], minute, "≤ 1"),
        row(f"{label}, memory", "MiB", held[:1], [times * held[1]], "≤ 1.1", threads=1),
    ]
    return write(name, __doc__, rows, versions("numpy", "pandas", "pydantic"), where)


def make_root(root: Path, clips: int) -> None:
    """Write a data root with so many clips of GLOSSES glosses: annotations/ and hands/."""
    rng = np.random.default_rng(0)
    for folder in ("annotations", "hands"):
        (root / folder).mkdir(parents=True)
    listed = {f"{n:05d}": {"subset": SPLITS[n % 5], "action": [n % GLOSSES, 1, -1]} for n in range(clips)}
    (root / "annotations" / f"nslt_{GLOSSES}.json").write_text(json.dumps(listed))
    names = "".join(f"{number}\tgloss {number}\n" for number in range(GLOSSES))
    (root / "annotations" / "wlasl_class_list.txt").write_text(names)
    np.savez(root / "hands" / "hands.npz", **{video_id: _landmarks(rng) for video_id in listed})


def _landmarks(rng: np.random.Generator) -> np.ndarray:
    """Two hands that wander: float16 (frames, 2, 21, 3), -1 where missing."""
    frames = rng.integers(15, 121)
    walk = np.cumsum(rng.normal(0, 0.01, (frames, 2, 1, 3)), axis=0)
    hands = 0.5 + walk + rng.normal(0, 0.05, (2, 21, 3)) + rng.normal(0, 0.003, (frames, 2, 21, 3))
    hands[rng.random((frames, 2)) < 0.58] = -1
    return hands.astype(np.float16)


def steps(root: str) -> dict[str, Callable[[], Any]]:
    """The side: `build` index, audit and pose store, as notebooks 01 and 03 do; report the peak `memory`."""
    from lib.data.audit import audit
    from lib.data.poses import build_poses
    from lib.data.sources import build_index
    from lib.data.twins import pair_up
    from lib.study import load_study

    study = load_study("wlasl300-hands", Path(root))

    def build() -> None:
        index = build_index(study)
        audit(index, study, pair_up(index, [], index["video_id"]))  # without near-copies, whose search takes a minute
        store, _ = build_poses(study, index)
        store.save(Path(root) / "poses.npz")

    return {"build": build, "memory": peak_memory}
