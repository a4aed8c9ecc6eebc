"""How many cores the study uses: those that are allotted, not those of the machine."""

import os
import subprocess
import sys
import threading

import pytest

from lib.machine import cores, processes

COUNT = "from lib.machine import cores; print(cores())"


def test_a_slurm_job_has_the_cores_it_asked_for(monkeypatch):
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    allotted = cores()
    for asked, expected in (("1", 1), ("9999", allotted), ("", allotted)):
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", asked)
        assert cores() == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_process_held_to_one_core_counts_one():
    def hold():
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    environment = {key: value for key, value in os.environ.items() if key != "SLURM_CPUS_PER_TASK"}
    result = subprocess.run(
        [sys.executable, "-c", COUNT], preexec_fn=hold, env=environment, capture_output=True, check=True
    )
    assert int(result.stdout) == 1


def test_a_process_of_a_pool_is_no_copy_of_this_one():
    """What this process holds, such as a lock of a thread that a copy would lack, is not held there."""
    with _HELD, processes(1, __name__) as pool:
        assert pool.submit(_is_held).result(timeout=60) is False


_HELD = threading.Lock()


def _is_held():
    return _HELD.locked()
