"""What a benchmark writes: one row for each thing measured, with the machine and the versions."""

import math
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.sides import Taken
from lib.paths import home, replacing

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # of the processor, which decide how fast networks are


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
    """Make the row of what both sides took, round by round; without a peer its ratios are NaN.

    In seconds, or in clips per second if a round handles `clips` of them. `cpu_ratio` is that of processor times.
    """
    sides = [ours, peer or [Taken(math.nan)]]
    values = [[clips / taken.seconds if clips else taken.seconds for taken in side] for side in sides]
    cpu, cpu_of_peer = (np.median([taken.cpu for taken in side]) for side in sides)
    ratio = cpu_of_peer / cpu if clips else cpu / cpu_of_peer
    extra = {"cpu_ratio": ratio, "rounds": len(ours), "threads": threads, "note": note}
    return row(measured, "clips/s" if clips else "s", *values, target, **extra)


def row(
    measured: str, unit: str, ours: Sequence[float], peer: Sequence[float], target: str, **extra: Any
) -> dict[str, Any]:
    """Make a row: medians, their ratio, the range of the rounds' ratios, and if the ratio meets its target.

    target: "≤ 0.7", "≥ 5" or "". extra: further columns.
    """
    each, values = np.divide(ours, peer), {"ours": np.median(ours), "peer": np.median(peer)}
    ratio, met = values["ours"] / values["peer"], ""
    if target and not np.isnan(ratio):
        sign, bound = target.split()
        met = "yes" if (ratio <= float(bound) if sign == "≤" else ratio >= float(bound)) else "no"
    values |= {"ratio": ratio, "lowest": each.min(), "highest": each.max(), "target": target, "met": met}
    return {"measured": measured, "unit": unit, **values, **extra}


def machine() -> dict[str, Any]:
    """The processor with its FLAGS, cores, memory, and how busy the machine was in the last minute (load average)."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    about = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = about.get("model name") or platform.processor() or platform.machine()
    flags = " ".join(flag for flag in FLAGS if flag in about.get("flags", "").split())
    return {
        "processor": f"{name} ({flags or 'no AVX2'})",
        "cores": os.cpu_count(),
        "memory_gib": round(memory / (1 << 30)),
        "load": round(os.getloadavg()[0], 1),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def versions(*packages: str) -> dict[str, str]:
    """Installed versions by package."""
    return {package: version(package) for package in packages}


def write(name: str, text: str, rows: Sequence[Mapping[str, Any]], used: Mapping[str, str], where: Mapping) -> Path:
    """Write reports/bench/<name>.csv, with everything in every row, and .md; print the page.

    text: the module's docstring, whose first line is the title. used: versions by package. where: what `machine` said
    before the work began. Returns the path of the CSV file.
    """
    table = pd.DataFrame(rows)
    title, _, body = text.strip().partition("\n\n")
    listed = ", ".join(f"{package} {number}" for package, number in used.items())
    setting = (
        f"{where['processor']}, {where['cores']} cores, {where['memory_gib']} GiB, load {where['load']} before; "
        f"{where['system']}, Python {where['python']}."
    )
    page = f"# {title.rstrip('.')}\n\n{body.strip()}\n\n{_as_markdown(table)}\n\n{setting} {listed}.\n"
    print(f"{page}\n", flush=True)
    folder = home() / "reports" / "bench"
    with replacing(folder / f"{name}.csv") as path:
        table.assign(**where, versions=listed).to_csv(path, index=False)
    with replacing(folder / f"{name}.md") as path:
        path.write_text(page)
    return folder / f"{name}.csv"


def _as_markdown(table: pd.DataFrame) -> str:
    """The table with three significant digits and without empty columns."""
    shown = table.map(lambda value: f"{value:.3g}" if isinstance(value, float) else str(value)).replace("nan", "–")
    shown = shown.loc[:, (shown != "").any()]
    align = ["left" if name in ("measured", "unit", "note") else "right" for name in shown]
    return shown.to_markdown(index=False, disable_numparse=True, colalign=align)
