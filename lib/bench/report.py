"""What a benchmark writes: one row for each thing measured, on which machine and with which versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.bench.sides import Taken
from lib.paths import home, replacing

GIB = 1 << 30


def compare(
    measured: str,
    ours: Sequence[Taken],
    peer: Sequence[Taken],
    target: str = "",
    *,
    clips: int | None = None,
    threads: int = 1,
    note: str = "",
) -> dict[str, Any]:
    """Make a row of what both took in rounds by turns: medians, their ratio, the range of the rounds' ratios.

    In seconds, or with `clips`, of a round, in clips per second; `cpu_ratio` is that of processor times.
    target: of the ratio, "≤ 0.7" or "≥ 5". Without a peer there is no ratio.
    """
    values = [[clips / taken.seconds if clips else taken.seconds for taken in side] for side in (ours, peer)]
    row = {"measured": measured, "unit": "clips/s" if clips else "s", **ratio(*values, target)}
    cpu = np.nan
    if len(peer):
        times = [np.median([taken.cpu for taken in side]) for side in (ours, peer)]
        cpu = times[1] / times[0] if clips else times[0] / times[1]
    return {**row, "cpu_ratio": cpu, "rounds": len(ours), "threads": threads, "note": note}


def ratio(ours: Sequence[float], peer: Sequence[float], target: str) -> dict[str, Any]:
    """The part of a row that is about the values: ours, peer, ratio, lowest, highest, target, met."""
    known = {"ours": np.median(ours), "peer": np.nan, "ratio": np.nan, "lowest": np.nan, "highest": np.nan}
    if len(peer):
        each = np.divide(ours, peer)
        known |= {"peer": np.median(peer), "lowest": each.min(), "highest": each.max()}
        known["ratio"] = known["ours"] / known["peer"]
    return {**known, "target": target, "met": meets(known["ratio"], target)}


def meets(value: float, target: str) -> str:
    """Whether a ratio is as the target wants it: yes, no, or "" where there is no ratio or no target."""
    if not target or np.isnan(value):
        return ""
    sign, bound = target.split()
    return "yes" if (value <= float(bound) if sign == "≤" else value >= float(bound)) else "no"


def machine() -> dict[str, Any]:
    """The processor, cores, memory, and how busy it was in the last minute (load average)."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory),
        "load": round(os.getloadavg()[0], 1),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def processor() -> str:
    """The name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions(*packages: str) -> dict[str, str]:
    """Installed versions by package."""
    return {package: version(package) for package in packages}


def write(name: str, text: str, rows: Sequence[Mapping[str, Any]], used: Mapping[str, str], where: Mapping) -> Path:
    """Write reports/bench/<name>.csv, which has all in every row, and .md; print the table.

    text: the module's documentation, of which the first line is the title. used: versions by package. where: what
    `machine` said before the work began. Returns the path of the CSV file.
    """
    table = pd.DataFrame(rows)
    title, _, body = text.strip().partition("\n\n")
    listed = ", ".join(f"{package} {number}" for package, number in used.items())
    page = f"# {title.rstrip('.')}\n\n{body.strip()}\n\n{as_markdown(table)}\n\n{in_words(where)} {listed}.\n"
    print(f"{page}\n", flush=True)
    folder = home() / "reports" / "bench"
    with replacing(folder / f"{name}.csv") as path:
        table.assign(**where, versions=listed).to_csv(path, index=False)
    with replacing(folder / f"{name}.md") as path:
        path.write_text(page)
    return folder / f"{name}.csv"


def as_markdown(table: pd.DataFrame) -> str:
    """The table with three significant digits; a column without content is left out."""
    shown = table.map(lambda value: f"{value:.3g}" if isinstance(value, float) else str(value)).replace("nan", "–")
    shown = shown.loc[:, (shown != "").any()]
    align = ["left" if name in ("measured", "unit", "note") else "right" for name in shown]
    return shown.to_markdown(index=False, disable_numparse=True, colalign=align)


def in_words(where: Mapping[str, Any]) -> str:
    """The machine as a sentence."""
    return (
        f"{where['processor']}, {where['cores']} cores, {where['memory_gib']} GiB, load {where['load']} before; "
        f"{where['system']}, Python {where['python']}."
    )
