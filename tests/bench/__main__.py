"""Run the benchmarks named on the command line, or all of them, each in a process of its own."""

import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module

PARTS = {
    "clips": "bench.clips",
    "waiting": "bench.waiting",
    "movinet": "bench.movinet",
    "i3d": "bench.i3d",
    "s3d": "bench.torch_video",
    "x3d": "bench.torch_video",
    "spobet": "bench.spobet",
    "drawn": "bench.drawn",
    "preprocessing": "bench.preprocessing",
    "poses": "bench.poses",
    "poses-agreement": "bench.agreement",
    "costs": "bench.costs",
    "export": "bench.export",
    "predict": "bench.predict",
    "app": "bench.app",
    "device": "bench.device",
}


def main(names: Sequence[str]) -> int:
    """Run these parts. Returns 0, 1 if one failed (the others run all the same), or 2 for an unknown name."""
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        print(f"there is no benchmark {unknown[0]!r}; there are: {', '.join(PARTS)}", file=sys.stderr)
        return 2
    if len(names) == 1:
        import_module(PARTS[names[0]]).main(names[0])
        return 0
    return max(subprocess.run([sys.executable, "-m", "bench", name]).returncode for name in names or PARTS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
