"""What of this machine the study may use."""

import os

import joblib


def cores() -> int:
    """How many cores are allotted to this process: by affinity (taskset), a container's quota, or a SLURM job.

    A machine may have many more; `os.cpu_count` counts those.
    """
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min([joblib.cpu_count(), *([int(slurm)] if slurm.isdigit() else [])])
