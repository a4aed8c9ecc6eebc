"""Which Keras backend trains a family faster on this machine, measured with a small piece of its network.

    python -m lib.backends <family>

prints the faster backend, and in a second line the seconds of a step on each. The workflow keeps the answer in
data/backends/: delete it after a change of the machine.
"""

import os
import subprocess
import sys
import time
from pkgutil import resolve_name
from statistics import median

import numpy as np

from lib.models import FAMILIES, Family

BATCH, WARM_UP, ROUNDS = 4, 2, 7
STEP = "--step"  # measures on the current backend alone


def measure(family: Family) -> dict[str, float]:
    """Seconds of a training step of the family's probe by backend, the fastest first, each in a process of its own."""
    seconds = {}
    for backend in family.backends:
        command = [sys.executable, "-m", "lib.backends", family.name, STEP]
        environment = os.environ | {"KERAS_BACKEND": backend}
        seconds[backend] = float(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)
    return dict(sorted(seconds.items(), key=lambda pair: pair[1]))


def step_seconds(family: Family) -> float:
    """Median seconds of a training step of the family's probe on the current backend, in float32."""
    import keras

    probe = resolve_name(family.probe)()
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling3D()(probe.outputs[0]))
    model = keras.Model(probe.inputs, outputs)
    model.compile("sgd", "mse", jit_compile=False)
    clips = np.random.default_rng(0).random((BATCH, *model.input_shape[1:]), np.float32)
    taken = []
    for _ in range(WARM_UP + ROUNDS):
        start = time.perf_counter()
        model.train_on_batch(clips, np.zeros((BATCH, 2), np.float32))
        taken.append(time.perf_counter() - start)
    return median(taken[WARM_UP:])


if __name__ == "__main__":
    chosen = FAMILIES[sys.argv[1]]
    if STEP in sys.argv:
        print(step_seconds(chosen))
    else:
        measured = measure(chosen)
        print(next(iter(measured)))
        print(", ".join(f"{backend} {seconds:.3f} s" for backend, seconds in measured.items()))
