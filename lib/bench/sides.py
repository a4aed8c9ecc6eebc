"""The two sides of a comparison, each in a process of its own, which do their work in turn.

A side is a function that returns pieces of work by name. Its process does one whenever it is told to and says how long
that took. As the sides take turns, whatever else the machine is doing slows both down alike. Only the standard library
is imported here: the official MoViNet's environment runs this file too.
"""

from __future__ import annotations

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
LAST_WORDS = 2000  # characters of a failed process's messages that are repeated


class Side:
    """A process in which the function at `place` ("lib.bench.clips:ours") has made its work ready."""

    def __init__(
        self,
        place: str,
        *,
        threads: int = 1,
        python: Path | str = sys.executable,
        backend: str = "torch",
        **options: Any,
    ) -> None:
        """Start it with `threads` threads in every library, on `backend` where it uses keras.

        options: of the function, as JSON can hold them. Raises RuntimeError with its last words when it fails.
        """
        self.place = place
        self.messages = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115, closed in __exit__
        self.process = subprocess.Popen(
            [python, "-m", "lib.bench.sides", place, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.messages,
            text=True,
            env=environment(threads, backend),
        )
        self._answer()

    def __call__(self, work: str) -> dict[str, Any]:
        """Have one piece of work done: {"seconds", "cpu": what it took, "value": what it returned}."""
        self.process.stdin.write(f"{work}\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.messages.seek(0)
            raise RuntimeError(f"{self.place} has ended:\n{self.messages.read()[-LAST_WORDS:]}")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()  # it ends with its input
        self.messages.close()


def environment(threads: int, backend: str) -> dict[str, str]:
    """Environment variables of a side. Targets are those of a processor, so a GPU stays hidden."""
    counts = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OPENCV_FFMPEG_THREADS")
    settings = {"KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    return {**os.environ, **dict.fromkeys(counts, str(threads)), **settings, "PYTHONPATH": path}


class Taken(NamedTuple):
    """What a piece of work took: seconds by the clock, and of processor time of all threads, which others' work on a
    busy machine lengthens less."""

    seconds: float
    cpu: float = math.nan


def alternate(sides: Mapping[str, Side], work: str, rounds: int, warm_up: int = 1) -> dict[str, list[Taken]]:
    """Have every side do the work in turn: what each round took, by side, those of warming up left out."""
    taken: dict[str, list[Taken]] = {name: [] for name in sides}
    for turn in range(warm_up + rounds):
        for name, side in sides.items():
            answer = side(work)
            if turn >= warm_up:
                taken[name].append(Taken(answer["seconds"], answer["cpu"]))
    return taken


def serve(place: str, options: str) -> None:
    """Be the process of a Side: make the work ready, then do what standard input names, until it ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a framework prints is no answer
    module, function = place.split(":")
    works = getattr(import_module(module), function)(**json.loads(options))
    print("{}", file=answers)
    for line in sys.stdin:
        start, cpu = time.perf_counter(), processor_seconds()
        value = works[line.strip()]()
        taken = {"seconds": time.perf_counter() - start, "cpu": processor_seconds() - cpu}
        print(json.dumps({**taken, "value": value}), file=answers)


def processor_seconds() -> float:
    """Processor time of this process and of its workers that have ended."""
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + workers.ru_utime + workers.ru_stime


if __name__ == "__main__":
    serve(*sys.argv[1:])
