"""Run the benchmarks named on the command line, or all, each in a process of its own: see lib.bench."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module

PARTS = {
    "clips": "lib.bench.clips",
    "waiting": "lib.bench.waiting",
    "movinet": "lib.bench.movinet",
    "s3d": "lib.bench.torch_video",
    "x3d": "lib.bench.torch_video",
    "spobet": "lib.bench.spobet",
    "preprocessing": "lib.bench.preprocessing",
    "costs": "lib.bench.costs",
    "export": "lib.bench.export",
}


def main(names: Sequence[str]) -> int:
    """Run these parts. Returns 0, or 1 when one has failed; the others are run all the same."""
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        print(f"there is no benchmark {unknown[0]!r}; there are: {', '.join(PARTS)}", file=sys.stderr)
        return 2
    if len(names) == 1:
        import_module(PARTS[names[0]]).main(names[0])
        return 0
    return max(subprocess.run([sys.executable, "-m", "lib.bench", name]).returncode for name in names or PARTS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
