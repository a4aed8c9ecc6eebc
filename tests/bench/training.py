"""What the sides that train our models share."""

from collections.abc import Callable

import keras

from lib.optimizers import make_optimizer
from lib.recipes import Training
from lib.training import prepare


def compiled(build: Callable[[], keras.Model], recipe: Training, steps: int = 1000) -> keras.Model:
    """Build a model and compile it as lib.training.fit does, for a training of `steps` batches."""
    prepare(recipe, seed=0)
    model = build()
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(make_optimizer(recipe, steps), loss, jit_compile=False)
    return model
