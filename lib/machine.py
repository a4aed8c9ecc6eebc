"""What of this machine the study may use."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from threading import Lock

import joblib

# To be held by threads while numpy reads an array: it parses the header with ast.literal_eval, which in CPython 3.11
# fails now and then when another thread parses too ("AST constructor recursion depth mismatch").
PARSING = Lock()


def cores() -> int:
    """How many cores are allotted to this process: by affinity (taskset), a container's quota, or a SLURM job.

    A machine may have many more; `os.cpu_count` counts those.
    """
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min([joblib.cpu_count(), *([int(slurm)] if slurm.isdigit() else [])])


def processes(count: int, module: str) -> ProcessPoolExecutor:
    """A pool of new processes for the functions of a module, which is imported once for all of them.

    A copy of this process (Python's default on Linux) would lack its threads, such as torch's in a notebook, and can
    wait for one of them for ever.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([module])
    return ProcessPoolExecutor(count, context)
