"""Transfer between runs: weights to start from, and trained runs of pose models as teachers.

Nothing that a run gets from another one may have seen what the run is judged on; see `refuse_twins`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from lib.data.twins import read_twins
from lib.models import family_of
from lib.settings import StudyError
from lib.study import find_seed
from lib.training import BEST

if TYPE_CHECKING:
    from lib.runs import Run

JUDGED = ["val", "test"]


def checksums(run: Run) -> dict[str, str]:
    """SHA-256 of the best weights of the runs that a run starts from or learns from, by "<study>/<run>".

    Those whose weights are not on this machine are left out. Raises StudyError where there is no such run.
    """
    start, distil = run.config.start, getattr(run.config, "distil", None)
    places = [(start, run.seed)] if start else []
    places += [(distil.teachers, seed) for seed in distil.seeds] if distil else []
    found = {}
    for study, name in (find_seed(run.study, *place) for place in places):
        path = study.paths.training(name) / "train" / BEST
        if path.is_file():
            found[f"{study.name}/{name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def refuse_twins(run: Run, source: Run) -> None:
    """Raise StudyError when `source` was trained on a clip that `run` is validated or tested on, or on a twin of one.

    See `lib.data.twins`; twins count whatever their gloss. So does a source that knows a gloss which `run` withholds.
    """
    taught = source.taught("train")
    withheld = {run.glosses[label] for label in run.withheld()} & set(taught["gloss"])
    if withheld:
        known = f"{source.study.name}/{source.name} knows {len(withheld)} glosses that recipe {run.recipe} withholds"
        raise StudyError(f"{known}, such as {min(withheld)}; train it 'without' them, too")
    seen = set(taught["video_id"])
    judged = [video_id for split in JUDGED for video_id in run.clips(split)["video_id"]]
    twins = read_twins(run.study)
    twins = twins[twins["video_id"].isin(judged) & twins["twin"].isin(seen)]
    pairs = [*((clip, clip) for clip in judged if clip in seen), *zip(twins["twin"], twins["video_id"], strict=True)]
    if pairs:
        (twin, clip), name = pairs[0], f"{source.study.name}/{source.name}"
        problem = f"{name} was trained on {len(pairs)} clips that are, or equal, what {run.study.name} is judged on"
        raise StudyError(f"{problem}, such as {twin} (clip {clip}); train {name} without them (run its notebook 01)")


def start_from(model: keras.Model, run: Run, source: Run) -> None:
    """Give the model of `run` the weights of a trained run of the same architecture.

    The classifier gets what it has for the glosses that both know; the other glosses keep their random weights.
    Raises StudyError when the source was not trained on this machine, differs in its options, or as `refuse_twins`.
    """
    refuse_twins(run, source)
    trained = source.trained()
    known = {gloss: label for label, gloss in enumerate(source.glosses)}
    shared = [label for label, gloss in enumerate(run.glosses) if gloss in known]
    theirs = [known[run.glosses[label]] for label in shared]
    try:
        classifier = model.get_layer(family_of(run.config.model).classifier)
        for layer, other in zip(model.layers, trained.layers, strict=True):
            if layer is classifier:
                axis = 0 if hasattr(layer, "module") else -1  # of the glosses, in torch and in Keras
                pairs = zip(layer.get_weights(), other.get_weights(), strict=True)
                layer.set_weights([_with_known(own, new, shared, theirs, axis) for own, new in pairs])
            elif hasattr(layer, "module"):  # of torch; its running statistics are no weights to Keras
                layer.module.load_state_dict(other.module.state_dict())
            else:
                layer.set_weights(other.get_weights())
    except (ValueError, RuntimeError) as error:
        problem = f"recipe {run.recipe} starts from {source.study.name}/{source.name}, but their options differ"
        raise StudyError(f"{problem} ({' '.join(str(error).split())}); use the same options") from error


def _with_known(own: np.ndarray, new: np.ndarray, shared: list[int], theirs: list[int], axis: int) -> np.ndarray:
    """Own weights of a classifier, with those of the shared glosses, which lie along `axis`, replaced."""
    weights = own.copy()
    np.moveaxis(weights, axis, 0)[shared] = np.moveaxis(new, axis, 0)[theirs]
    return weights


def lesson(run: Run, teachers: list[Run], weight: float) -> Callable[[Any, Any], Any]:
    """The targets of a student: function (poses, one-hot targets) that returns targets (batch, glosses) summing to 1.

    A target is `weight` times the mean of the teachers' probabilities for these poses, and the gloss for the rest.
    Cross-entropy is linear in the target, so this is Hinton's loss at temperature 1.
    Raises StudyError on another backend than torch, when a teacher was not trained here, knows other glosses or reads
    no poses, or as `refuse_twins`.
    """
    if keras.backend.backend() != "torch":
        raise StudyError(f"recipe {run.recipe}: teachers need torch; set KERAS_BACKEND=torch")
    models = []
    for teacher in teachers:
        refuse_twins(run, teacher)
        if teacher.glosses != run.glosses:
            raise StudyError(f"recipe {run.recipe}: {teacher.study.name}/{teacher.name} knows other glosses")
        if family_of(teacher.config.model).kind != "poses":
            raise StudyError(f"recipe {run.recipe}: {teacher.study.name}/{teacher.name} is no model of poses")
        models.append(teacher.build())
        models[-1].load_weights(teacher.best())

    from torch import no_grad

    from lib.graphs import Recorded

    def teach(poses: Any, targets: Any) -> Any:
        with no_grad():
            opinions = [ops.softmax(model(poses, training=False)) for model in models]
            return weight * sum(opinions) / len(models) + (1 - weight) * targets

    return Recorded(teach)
