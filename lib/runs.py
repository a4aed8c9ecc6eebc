"""A run of a study: its recipe, its batches, its trainings, its predictions and the facts about it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import keras
import numpy as np
import pandas as pd
from pydantic import ValidationError

from lib.checkpoints import digest_of, is_of, open_folder
from lib.data.clip_store import clip_path, stored_frames
from lib.data.index import missing_count, present, read_index
from lib.data.layouts import LAYOUTS
from lib.data.loaders import Batches, ClipBatches, DrawnBatches, PoseBatches
from lib.data.poses import PoseStore, shorten
from lib.models import build, config_of, family_of, freeze, size_of
from lib.models.cost import gflops
from lib.models.weights import WEIGHTS, load_pretrained
from lib.predictions import Predictions
from lib.recipes import AnyRecipe, ClipRecipe, DrawnRecipe, PoseRecipe, Training, most_epochs, read_recipe, shortened
from lib.settings import StudyError, explain
from lib.study import Study, find_seed
from lib.training import BEST, compute_in_float32, fit, has_ended, prepare, read_history
from lib.transfer import checksums, lesson, start_from

FIRST = 0.3  # of the labels, where withheld glosses are; of WLASL2000's from hands, 3 of 4 have six clips or more there
HEAD_SEED = 1 << 20  # added to a run's seed where a step draws other random numbers than the training
LEARNING = 20  # batches that the statistics of normalisations are learned from, where published weights have none
DRAWN = 8  # frames with joints that a figure of a clip needs


def open_run(study: Study, name: str) -> Run:
    """Open a run as the kind that its model asks for. Raises StudyError when its recipe or its clips are missing."""
    spec, _ = study.find_run(name)
    recipe = read_recipe(study.recipe_path(spec.recipe), spec.set)
    return next(kind for kind in (PoseRun, ClipRun, DrawnRun) if isinstance(recipe, kind.kind))(study, name)


class Run:
    """What PoseRun and ClipRun have in common; they add `options` and `example`.

    config: the recipe, whose name is `recipe`, with the study's changes. index: as `read_index` returns it. frames:
    number of frames by video_id. folder: the checkpoints. report: histories, predictions and metrics.
    """

    kind: type[AnyRecipe]
    frames: dict[str, int]

    def __init__(self, study: Study, name: str) -> None:
        """Raise StudyError when the recipe, the index or a store is missing or invalid."""
        spec, self.seed = study.find_run(name)
        self.study, self.name, self.recipe = study, name, spec.recipe
        self.config = shortened(read_recipe(study.recipe_path(spec.recipe), spec.set), most_epochs())
        if not isinstance(self.config, self.kind):
            raise StudyError(f"run {name} trains the model {self.config.model}, which another notebook trains")
        self.folder, self.report = study.paths.training(name), study.paths.run(name)
        self.index = read_index(study)

    @property
    def glosses(self) -> list[str]:
        """The study's glosses in label order."""
        return self.index.drop_duplicates("label").sort_values("label")["gloss"].tolist()

    def clips(self, split: str) -> pd.DataFrame:
        """Rows of the split's present clips, in index order. Raises StudyError when there are none."""
        rows = present(self.index, split)
        if rows.empty:
            raise StudyError(f"study {self.study.name}: no clip of split '{split}' is present; see the audit")
        return rows

    def withheld(self) -> list[int]:
        """Labels of the glosses that the recipe withholds, `without` of them, spread evenly over the first labels.

        WLASL numbers glosses from those with the most clips on, and five examples and a query are six.
        """
        without = self.config.without
        first = max(without, round(FIRST * len(self.glosses)))
        return [(2 * number + 1) * first // (2 * without) for number in range(without)]

    def taught(self, split: str) -> pd.DataFrame:
        """Rows of the split's clips that a training may see: all but those of withheld glosses."""
        clips = self.clips(split)
        rows = clips[~clips["label"].isin(self.withheld())]
        if rows.empty:
            raise StudyError(f"recipe {self.recipe}: no clip of split '{split}' is left 'without' these glosses")
        return rows

    def content(self) -> dict[str, list]:
        """Identify the training clips: their ids and numbers of frames."""
        ids = self.taught("train")["video_id"].tolist()
        return {"clips": ids, "frames": [self.frames[video_id] for video_id in ids]}

    def digest(self) -> str:
        """Identify what is in the training clips, so that a mended file trains anew."""
        raise NotImplementedError

    def batches(
        self, split: str, recipe: Training, *, vary: bool, targets: bool = True, every: bool = False
    ) -> Batches:
        """Batches of a split: with `vary` shuffled and augmented for training, with or without labels.

        every: of all clips, to predict them, and not only of those that a training may see.
        """
        rows = self.clips(split) if every else self.taught(split)
        labels = rows["label"].to_numpy() if targets else None
        return self._batches(rows["video_id"], labels, len(self.glosses), recipe.batch_size, vary=vary)

    def build(self) -> keras.Model:
        """Build the model from the run's seed, with the weights that the recipe starts from, unless it is trained.

        Raises StudyError naming an unknown or invalid option, and when the weights are not available.
        """
        model = self.untrained()
        if self.config.start and not self.has_ended():
            start_from(model, self, open_run(*find_seed(self.study, self.config.start, self.seed)))
        return model

    def untrained(self) -> keras.Model:
        """Build the model from the run's seed alone. Raises StudyError naming an unknown or invalid option."""
        prepare(self.config.train, self.seed)
        try:
            return build(self.config.model, len(self.glosses), **self.options())
        except ValidationError as error:
            raise StudyError(f"recipe {self.recipe}, options: {explain(error, config_of(self.config.model))}") from None

    def first_weights(self) -> str:
        """The run that it starts from, as <study>/<run>, or "scratch"."""
        if not self.config.start:
            return "scratch"
        study, run = find_seed(self.study, self.config.start, self.seed)
        return f"{study.name}/{run}"

    def best(self) -> Path:
        """File of the best weights. Raises StudyError when the run was not trained on this machine."""
        path = self.folder / "train" / BEST
        if not path.is_file():
            raise StudyError(f"{path} is missing: train the run first (make study STUDY={self.study.name})")
        return path

    def trained(self) -> keras.Model:
        """The model with its best weights, on the CPU, in float32.

        Raises StudyError when the run was not trained on this machine.
        """
        path = self.best()
        with keras.device("cpu"):
            model = self.untrained()
            model.load_weights(path)
        compute_in_float32(model)
        return model

    def checksum(self) -> str:
        """SHA-256 of the file of its best weights; see `best`."""
        return hashlib.sha256(self.best().read_bytes()).hexdigest()

    def pretrain(self, model: keras.Model) -> pd.DataFrame:
        """Pre-train the model without labels if the recipe asks for it. Returns the history, otherwise empty."""
        if recipe := getattr(self.config, "pretrain", None):
            place = family_of(self.config.model).pretraining
            if place is None:
                raise StudyError(f"recipe {self.recipe}: {self.config.model} cannot be pre-trained; remove 'pretrain'")
            model = resolve_name(place)(model, recipe.hidden, recipe.span, self.seed)
            model(self.batches("train", recipe, vary=True, targets=False)[0][0])  # builds it
        return self._fit(model, "pretrain", classify=False)

    def train(self, model: keras.Model, until: int | None = None) -> pd.DataFrame:
        """Train the model and restore the weights of the best validation epoch. Returns the history.

        Where the recipe asks for it, the head is trained on frozen features first; its epochs come first in the
        history. until: pause after this epoch; a later call resumes there.
        """
        if getattr(self.config, "head", None):
            freeze(model, None)
        head = self._fit(model, "head")
        if not head.empty:
            freeze(model, self.config.options.get("freeze", 0))
        history = self._fit(model, "train", until=until)
        history["epoch"] += len(head)
        return history if head.empty else pd.concat([head, history], ignore_index=True)

    def _fit(self, model: keras.Model, step: str, *, classify: bool = True, until: int | None = None) -> pd.DataFrame:
        """Run one training of the recipe in the folder <step>, and copy its history to the report."""
        path = self.report / ("history.csv" if step == "train" else f"history-{step}.csv")
        recipe = getattr(self.config, step, None)
        if recipe is None:
            path.unlink(missing_ok=True)  # of an earlier version of the recipe
            return pd.DataFrame(columns=["epoch", "loss", "val_loss", "seconds"])
        train, val = (self.batches(name, recipe, vary=name == "train", targets=classify) for name in ("train", "val"))
        if step == "head":  # else the training would begin with clips varied as the head has seen them
            train.seed += HEAD_SEED
        history = fit(model, recipe, train, val, self.open_folder(step), classify=classify, until=until)
        path.parent.mkdir(parents=True, exist_ok=True)
        history.to_csv(path, index=False)
        return history

    def has_ended(self) -> bool:
        """Whether its training, by this recipe and on these clips, is over: its best weights are all it needs."""
        folder = self.folder / "train"
        history = read_history(folder / "history.csv")
        over = has_ended(history, "val_accuracy", self.config.train)
        return over and is_of(folder, self.config, self.identity())

    def identity(self) -> dict[str, Any]:
        """What its checkpoints are of, besides the recipe: seed, clips, and the weights that it got from other runs."""
        content = self.content()
        identity = {"seed": self.seed, "clips": content["clips"], "lengths": content["frames"], "data": self.digest()}
        return {**identity, "sources": checksums(self)}

    def open_folder(self, step: str) -> Path:
        """Open the checkpoint folder of a training; one of another recipe, other clips or sources is set aside."""
        return open_folder(self.folder / step, self.config, self.identity())

    def predict(self, model: keras.Model, split: str) -> Predictions:
        """Predict every present clip of a split, in index order, and save the predictions to the report.

        The model computes in float32 from here on, as its exported files do.
        """
        rows = self.clips(split)
        compute_in_float32(model)
        logits = predict(model, self.batches(split, self.config.train, vary=False, targets=False, every=True))
        predictions = Predictions(rows["video_id"].to_numpy(str), rows["label"].to_numpy(), logits, self.glosses)
        predictions.save(self.study.paths.predictions(self.name, split))
        return predictions

    def facts(self, model: keras.Model, split: str) -> dict[str, Any]:
        """What metrics.json says of the trained run besides its scores: RunFacts, and n_missing of the split."""
        histories = [pd.read_csv(path) for path in self.report.glob("history*.csv")]
        return {
            "n_missing": missing_count(self.index, split),
            "model": family_of(self.config.model).name,
            "variant": "-".join(filter(None, (size_of(self.config.model), self.config.variant))),
            "recipe": self.recipe,
            **self._input(),
            "seed": self.seed,
            "backend": keras.backend.backend(),
            "split": split,
            "params_m": model.count_params() / 1e6,
            "gflops": gflops(model, self.example()),
            "train_seconds": sum(history["seconds"].sum() for history in histories),
            "epochs": sum(map(len, histories)),
        }


class StoredPoses(Run):
    """A run on the pose store. poses: by video_id, float32 (frames, joints, 3), without empty frames at the ends."""

    def __init__(self, study: Study, name: str) -> None:
        """Read the pose store, too; see Run."""
        super().__init__(study, name)
        self.poses, self.layout = PoseStore.load(study.paths.poses).trimmed(), LAYOUTS[study.layout]
        self.frames = {video_id: len(clip) for video_id, clip in self.poses.items()}

    def batches(self, split: str, recipe: Training, *, vary: bool, targets: bool = True, **options: Any) -> PoseBatches:
        """See Run; where the recipe has teachers, the targets of a training that is not over are theirs."""
        batches = super().batches(split, recipe, vary=vary, targets=targets, **options)
        if self.config.distil and vary and targets and not self.has_ended():
            how = self.config.distil
            teachers = [open_run(*find_seed(self.study, how.teachers, seed)) for seed in how.seeds]
            batches.teach = lesson(self, teachers, how.weight)
        return batches

    def digest(self) -> str:
        """Of the poses themselves."""
        return digest_of([self.poses[video_id] for video_id in self.taught("train")["video_id"]])


class PoseRun(StoredPoses):
    """A run of a pose model."""

    kind = PoseRecipe

    def _batches(self, ids: pd.Series, *data: Any, vary: bool) -> PoseBatches:
        clips, augment = [self.poses[video_id] for video_id in ids], self.config.augment if vary else None
        form = {"max_frames": self.config.max_frames, "layout": self.layout}
        return PoseBatches(clips, *data, **form, vary=augment, seed=self.seed)

    def options(self) -> dict[str, Any]:
        """What `lib.models.build` needs besides name and classes: the recipe's options and the study's layout."""
        return {**self.config.options, "layout": self.study.layout}

    def example(self) -> np.ndarray:
        """Poses of the median length in train, as the model reads them, float32 (1, frames, joints, 3)."""
        return np.ones((1, self._input()["frames"], len(self.layout.joints), 3), np.float32)

    def _input(self) -> dict[str, Any]:
        """The frames are the median in train, of clips shortened as the model reads them."""
        frames = min(int(np.median(self.content()["frames"])), self.config.max_frames)
        return {"input": self.study.layout, "frames": frames, "size": None, "weights": self.first_weights()}

    def show(self, split: str) -> tuple[str, str, np.ndarray]:
        """The first clip of a split that can be drawn: its id, gloss and poses, shortened as the model reads them.

        It has joints in at least DRAWN frames. If there is none, the clip with most such frames, of any split.
        """
        rows = pd.concat([self.clips(split), present(self.index)])
        seen = [min(DRAWN, self.poses[video_id][..., 2].any(1).sum()) for video_id in rows["video_id"]]
        video_id, gloss = rows.iloc[int(np.argmax(seen))][["video_id", "gloss"]]
        return video_id, gloss, shorten(self.poses[video_id], self.config.max_frames)


class RgbRun(Run):
    """A run of an RGB model: what those on stored clips and on drawn poses have in common."""

    def options(self) -> dict[str, Any]:
        """What `lib.models.build` needs: the recipe's options, and frames, height and width of its clips."""
        return {**self.config.options, "clip": self.example().shape[1:4]}

    def example(self) -> np.ndarray:
        """A clip of the recipe's length and size, float32 (1, frames, size, size, 3)."""
        return np.zeros((1, self.config.frames, self.config.size, self.config.size, 3), np.float32)

    def _input(self) -> dict[str, Any]:
        seen = self.sees + " differences" * bool(self.config.options.get("differences"))
        form = {"frames": self.config.frames, "size": self.config.size}
        return {"input": seen, **form, "weights": self.config.weights or self.first_weights()}

    def build(self) -> keras.Model:
        """Build the model, here with the recipe's published weights, if it has any; see Run."""
        model = super().build()
        if self.config.weights:
            load_pretrained(model, self.config.model, self.config.weights)
            if not WEIGHTS[self.config.weights].statistics and not self.has_ended():
                batches = self.batches("train", self.config.train, vary=True, targets=False)
                model.learn_statistics(batches[number][0] for number in range(min(LEARNING, len(batches))))
        return model

    def show(self, split: str, count: int = 4, *, vary: bool = False) -> tuple[np.ndarray, list[str]]:
        """First clips of a split as the model reads them, float32 (count, frames, size, size, 3), and their glosses.

        With `vary` they are the first ones of a training, augmented.
        """
        recipe = self.config.train.model_copy(update={"batch_size": count})
        clips, targets = self.batches(split, recipe, vary=vary)[0]
        return clips, [self.glosses[label] for label in targets.argmax(1)]

    @property
    def publishable(self) -> bool:
        """Whether reports may show its clips: frames of real people stay out of them."""
        return self.study.synthetic or self.sees == "drawn"

    def look(self, video_ids: Sequence[str], frames: int) -> np.ndarray:
        """These clips as the model reads them, at evenly spread moments: float32 (clips, frames, size, size, 3)."""
        (clips,) = self._batches(pd.Series(video_ids), None, len(self.glosses), len(video_ids), vary=False)[0]
        return clips[:, np.linspace(0, clips.shape[1] - 1, frames).round().astype(int)]


class ClipRun(RgbRun):
    """A run of an RGB model, on the clip store."""

    kind, sees = ClipRecipe, "RGB"

    def __init__(self, study: Study, name: str) -> None:
        """Read the clip store's table, too; see Run."""
        super().__init__(study, name)
        self.frames = stored_frames(study)

    def _batches(self, ids: pd.Series, *data: Any, vary: bool) -> ClipBatches:
        clips = [clip_path(self.study.paths.clips, video_id) for video_id in ids]
        frames, size, augment = self.config.frames, self.config.size, self.config.augment if vary else None
        return ClipBatches(clips, *data, frames=frames, size=size, vary=augment, seed=self.seed)

    def digest(self) -> str:
        """Of the files that the clips are from, as notebook 01 found them."""
        return hashlib.sha256("".join(self.taught("train")["content"]).encode()).hexdigest()


class DrawnRun(RgbRun, StoredPoses):
    """A run of an RGB model on drawn poses."""

    kind, sees = DrawnRecipe, "drawn"

    def _batches(self, ids: pd.Series, *data: Any, vary: bool) -> DrawnBatches:
        clips, augment = [self.poses[video_id] for video_id in ids], self.config.augment if vary else None
        form = {"frames": self.config.frames, "size": self.config.size}
        how = {"drawing": self.config.drawing, "layout": self.layout}
        if black := sum(not clip[..., 2].any() for clip in clips):
            print(f"{self.name}: {black} of {len(clips)} clips show no joints and are drawn empty")
        return DrawnBatches(clips, *data, **form, **how, vary=augment, seed=self.seed)


def predict(model: keras.Model, batches: Batches) -> np.ndarray:
    """Logits float32 (clips, classes) of batches without shuffling, in their order."""
    return np.concatenate([predict_batch(model, batches[i][0]) for i in range(len(batches))])


def embed_batch(model: keras.Model, clips: np.ndarray) -> np.ndarray:
    """Embeddings float32 (clips, width), each of length 1, of clips float32 (clips, frames, …)."""
    return keras.ops.convert_to_numpy(model.embed(clips))


def predict_batch(model: keras.Model, clips: np.ndarray) -> np.ndarray:
    """Logits float32 (clips, classes) of clips float32 (clips, frames, …)."""
    return keras.ops.convert_to_numpy(model(clips, training=False))
