"""The two sides of a comparison, each in a process of its own, working alternately.

A side is a function that returns pieces of work by name. Its process does one of them on request and reports how long
that took. Because the sides alternate, whatever else the machine is doing slows down both alike. This file imports
only the standard library: it also runs in the environment of the official MoViNet.
"""

import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Self

REPOSITORY = Path(__file__).parents[2]
LAST_WORDS = 2000  # characters of a failed process's output that are repeated
THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OPENCV_FFMPEG_THREADS")


class Side:
    """A process in which the function at `place` ("bench.clips:ours") has prepared its work."""

    def __init__(
        self,
        place: str,
        *,
        threads: int = 1,
        python: Path | str = sys.executable,
        backend: str = "torch",
        gpu: bool = False,
        **options: Any,
    ) -> None:
        """Start the process, with `threads` threads in every library, and keras on `backend`; on a CPU unless `gpu`.

        options: of the function, serialisable as JSON. Raises RuntimeError with the last output if it fails.
        """
        self.place = place
        self.output = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115, closed in __exit__
        path = [
            *map(str, (REPOSITORY, REPOSITORY / "tests", REPOSITORY / "data")),
            *filter(None, [os.environ.get("PYTHONPATH")]),
        ]
        self.process = subprocess.Popen(
            [python, "-m", "bench.sides", place, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.output,
            text=True,
            env={
                **os.environ,
                **dict.fromkeys(THREADS, str(threads)),
                "KERAS_BACKEND": backend,
                **({} if gpu else {"CUDA_VISIBLE_DEVICES": "-1"}),  # the targets are for CPUs
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "PYTHONPATH": os.pathsep.join(path),
            },
        )
        self._answer()

    def __call__(self, work: str) -> dict[str, Any]:
        """Do one piece of work: {"seconds": wall time, "cpu": processor time, "value": what it returned}."""
        self.process.stdin.write(f"{work}\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.output.seek(0)
            raise RuntimeError(f"{self.place} has ended:\n{self.output.read()[-LAST_WORDS:]}")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()  # it ends with its input
        self.output.close()


class Taken(NamedTuple):
    """What a piece of work took: wall time, and processor time of all threads, which a busy machine affects less."""

    seconds: float
    cpu: float = math.nan


def alternate(sides: Mapping[str, Side], work: str, rounds: int, warm_up: int = 1) -> dict[str, list[Taken]]:
    """Let the sides do the work alternately. Returns what each round took, by side, without those of the warm-up."""
    taken: dict[str, list[Taken]] = {name: [] for name in sides}
    for turn in range(warm_up + rounds):
        for name, side in sides.items():
            answer = side(work)
            if turn >= warm_up:
                taken[name].append(Taken(answer["seconds"], answer["cpu"]))
    return taken


def _serve(place: str, options: str) -> None:
    """Be the process of a Side: prepare the work, then do what standard input names until it ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a framework prints is not an answer
    module, function = place.split(":")
    works = getattr(import_module(module), function)(**json.loads(options))
    print("{}", file=answers)
    for line in sys.stdin:
        start, cpu = time.perf_counter(), _processor_seconds()
        value = works[line.strip()]()
        taken = {"seconds": time.perf_counter() - start, "cpu": _processor_seconds() - cpu}
        print(json.dumps({**taken, "value": value}), file=answers)


def _processor_seconds() -> float:
    """Processor time of this process and of its workers that have ended."""
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + workers.ru_utime + workers.ru_stime


if __name__ == "__main__":
    _serve(*sys.argv[1:])
