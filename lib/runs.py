"""One run of a study: its recipe, its clips as batches, its training, its predictions and its metrics."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from pydantic import ValidationError

from lib.data.augment import augment_poses
from lib.data.clip_store import clip_path, read_clips_table
from lib.data.index import missing_count, read_index
from lib.data.layouts import LAYOUTS, SIDES
from lib.data.loaders import ClipBatches, PoseBatches, shorten, trim
from lib.data.poses import PoseStore
from lib.evaluation import write_metrics
from lib.models import build, config_of, family_of, freeze, size_of
from lib.models.cost import gflops
from lib.models.spobet import MaskedFrames, Spobet
from lib.models.weights import load_pretrained
from lib.paths import replacing
from lib.predictions import Predictions
from lib.recipes import ClipRecipe, PoseRecipe, Training, most_epochs, read_recipe, shortened
from lib.settings import StudyError, explain
from lib.study import Study
from lib.training import compute_in_float32, fit, prepare

Batches = PoseBatches | ClipBatches


def open_run(study: Study, name: str) -> Run:
    """Open a run as the kind that its model asks for. Raises StudyError when its recipe or its clips are missing."""
    spec, _ = study.find_run(name)
    return (PoseRun if study.origin(spec).family().kind == "poses" else ClipRun)(study, name)


class Run:
    """A run of a study by its name: what it trains, on which clips, where its files lie."""

    kind: type[PoseRecipe | ClipRecipe]

    def __init__(self, study: Study, name: str) -> None:
        """Read the recipe and the index. Raises StudyError when one is absent or wrong."""
        spec, self.seed = study.find_run(name)
        self.study, self.name, self.recipe = study, name, spec.recipe
        self.config = shortened(read_recipe(study.recipe_path(spec.recipe), spec.set), most_epochs())
        if not isinstance(self.config, self.kind):
            raise StudyError(f"run {name} is of the model {self.config.model}, which another notebook trains")
        self.folder = study.paths.training(name)
        self.report = study.paths.run(name)
        self.index = read_index(study)

    @property
    def glosses(self) -> list[str]:
        """The study's glosses in the order of their labels."""
        return self.index.drop_duplicates("label").sort_values("label")["gloss"].tolist()

    def clips(self, split: str) -> pd.DataFrame:
        """The present clips of a split, in index order. Raises StudyError when there is none."""
        rows = self.index[(self.index["status"] == "present") & (self.index["split"] == split)]
        if rows.empty:
            raise StudyError(f"study {self.study.name}: no clip of split '{split}' is present; see the audit")
        return rows

    def batches(self, split: str, recipe: Training, *, vary: bool, targets: bool = True) -> Batches:
        """Make the batches of a split: with `vary` shuffled and augmented, for training; with their targets or not."""
        raise NotImplementedError

    def example(self) -> np.ndarray:
        """One clip, made up, of the shape that the model reads at its usual length."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """What the metrics say of the input: input, frames, size, weights."""
        raise NotImplementedError

    def build(self) -> keras.Model:
        """Make the model, untrained, from the run's seed. Raises StudyError naming an option that is wrong."""
        prepare(self.config.train, self.seed)
        try:
            return build(self.config.model, len(self.glosses), **self.options())
        except ValidationError as error:
            raise StudyError(f"recipe {self.recipe}, options: {explain(error, config_of(self.config.model))}") from None

    def options(self) -> dict[str, Any]:
        """What `build` is to be told besides the name and the number of classes."""
        raise NotImplementedError

    def train(self, model: keras.Model, until: int | None = None) -> pd.DataFrame:
        """Train the model on train, keeping the weights that are best on val. Returns the history.

        `until`: the epoch after which to pause, by default the recipe's last; a later call goes on from there.
        """
        return self.fit(model, self.config.train, "train", "history.csv", until)

    def fit(
        self, model: keras.Model, recipe: Training, step: str, history: str, until: int | None = None
    ) -> pd.DataFrame:
        """One training of the run, in a folder of its own by its `step`. Returns its history and writes it so named."""
        train, val = self.batches("train", recipe, vary=True), self.batches("val", recipe, vary=False)
        return self.save_history(fit(model, recipe, train, val, self.open_folder(step), until=until), history)

    def open_folder(self, step: str) -> Path:
        """Open the folder of a training's checkpoints; those of another recipe or other clips are removed."""
        folder = self.folder / step
        content = json.dumps({**self.config.model_dump(mode="json"), "seed": self.seed, **self.content()}, indent=1)
        identity = folder / "run.json"
        if folder.exists() and not (identity.exists() and identity.read_text() == content):
            print(f"{folder}: the recipe or the clips have changed; training starts anew")
            shutil.rmtree(folder)
        with replacing(identity) as partial:
            partial.write_text(content)
        return folder

    def content(self) -> dict[str, list]:
        """What the clips of train are: their ids, and something that differs when one of them does."""
        raise NotImplementedError

    def predict(self, model: keras.Model, split: str) -> Predictions:
        """Logits of every present clip of a split, in index order; written to predictions-<split>.npz.

        In float32 whatever the training computed in, as the exported model will be.
        """
        rows = self.clips(split)
        compute_in_float32(model)
        logits = predict(model, self.batches(split, self.config.train, vary=False, targets=False))
        predictions = Predictions(rows["video_id"].to_numpy(str), rows["label"].to_numpy(), logits, self.glosses)
        predictions.save(self.report / f"predictions-{split}.npz")
        return predictions

    def write_metrics(self, model: keras.Model, predictions: Predictions, split: str) -> dict[str, Any]:
        """Evaluate predictions, and write it with the facts of the run to metrics.json (test) or metrics-val.json."""
        histories = [pd.read_csv(path) for path in self.report.glob("history*.csv")]
        name = "metrics.json" if split == "test" else f"metrics-{split}.json"
        return write_metrics(
            self.report / name,
            predictions,
            missing_count(self.index, split),
            model=family_of(self.config.model).name,
            variant="-".join(filter(None, (size_of(self.config.model), self.config.variant))),
            recipe=self.recipe,
            **self.facts(),
            seed=self.seed,
            backend=keras.backend.backend(),
            split=split,
            params_m=model.count_params() / 1e6,
            gflops=gflops(model, self.example()),
            train_seconds=sum(history["seconds"].sum() for history in histories),
            epochs=sum(map(len, histories)),
        )

    def save_history(self, history: pd.DataFrame, name: str) -> pd.DataFrame:
        """Write a history to the report, and return it."""
        self.report.mkdir(parents=True, exist_ok=True)
        history.to_csv(self.report / name, index=False)
        return history


class PoseRun(Run):
    """A run of a pose model, on keypoints."""

    kind = PoseRecipe

    def __init__(self, study: Study, name: str) -> None:
        """Read the recipe, the index and the pose store. Raises StudyError when one is absent or wrong."""
        super().__init__(study, name)
        store = PoseStore.load(study.paths.poses)
        self.poses = dict(zip(store.video_id, map(trim, store.poses), strict=True))

    def batches(self, split: str, recipe: Training, *, vary: bool, targets: bool = True) -> PoseBatches:
        """Batches of poses; see Run."""
        rows, layout, how = self.clips(split), LAYOUTS[self.study.layout], self.config.augment
        return PoseBatches(
            [self.poses[video_id] for video_id in rows["video_id"]],
            rows["label"].to_numpy() if targets else None,
            len(self.glosses),
            recipe.batch_size,
            max_frames=self.config.max_frames,
            vary=(lambda clip, other, rng: augment_poses(clip, how, layout, rng, other)) if vary else None,
            seed=self.seed,
        )

    def options(self) -> dict[str, Any]:
        """The recipe's options, in the study's layout."""
        return {**self.config.options, "layout": self.study.layout}

    def content(self) -> dict[str, list]:
        """Ids and numbers of frames."""
        ids = self.clips("train")["video_id"].tolist()
        return {"clips": ids, "frames": [len(self.poses[video_id]) for video_id in ids]}

    def example(self) -> np.ndarray:
        """Poses of the median length in train, float32 (1, frames, joints, 3)."""
        frames = int(np.median(self.content()["frames"]))
        return np.ones((1, min(frames, self.config.max_frames), len(LAYOUTS[self.study.layout].joints), 3), np.float32)

    def facts(self) -> dict[str, Any]:
        """The layout, and the median number of frames in train before any is left out."""
        frames = int(np.median(self.content()["frames"]))
        return {"input": self.study.layout, "frames": frames, "size": None, "weights": "scratch"}

    def pretrain(self, model: Spobet) -> pd.DataFrame:
        """Pre-train the model's encoder on the clips of train, checked on those of val.

        Returns the history; one without rows when the recipe has no pre-training.
        """
        recipe = self.config.pretrain
        if recipe is None:
            (self.report / "history-pretrain.csv").unlink(missing_ok=True)  # of an earlier form of the recipe
            return pd.DataFrame(columns=["epoch", "loss", "val_loss", "seconds"])
        masked = MaskedFrames(model, recipe.hidden, recipe.span, self.seed)
        train = self.batches("train", recipe, vary=True, targets=False)
        val = self.batches("val", recipe, vary=False, targets=False)
        masked(train[0][0])
        history = fit(masked, recipe, train, val, self.open_folder("pretrain"), classify=False)
        return self.save_history(history, "history-pretrain.csv")

    def attention(self, model: Spobet, video_id: str) -> tuple[np.ndarray, np.ndarray]:
        """What the classification token attends to in one clip.

        Returns float32 (depth, heads, frames), each frame with the weight of its token, and bool (frames,): whether a
        hand is seen.
        """
        clip = shorten(self.poses[video_id], self.config.max_frames)
        scores = keras.ops.convert_to_numpy(model.attention(clip[None]))[0, :, :, 0, 1:]
        by_frame = np.repeat(scores.astype(np.float32), model.config.stride, axis=-1)[..., : len(clip)]
        parts = LAYOUTS[self.study.layout].parts
        hands = np.logical_or(*(clip[:, parts[side], 2].any(1) for side in SIDES))
        return by_frame, hands


class ClipRun(Run):
    """A run of an RGB model, on stored clips."""

    kind = ClipRecipe

    def __init__(self, study: Study, name: str) -> None:
        """Read the recipe, the index and the table of the clip store. Raises StudyError when one is absent or wrong.

        A clip that is in the index but could not be stored is counted as missing, with the store's reason.
        """
        super().__init__(study, name)
        stored = read_clips_table(study).set_index("video_id")
        broken = stored[stored["status"] != "present"]
        at = self.index["video_id"].isin(broken.index)
        self.index.loc[at, "status"] = "unreadable: " + self.index.loc[at, "video_id"].map(broken["reason"])
        self.frames = stored["frames"]

    def batches(self, split: str, recipe: Training, *, vary: bool, targets: bool = True) -> ClipBatches:
        """Batches of clips; see Run."""
        rows = self.clips(split)
        return ClipBatches(
            [clip_path(self.study.paths.clips, video_id) for video_id in rows["video_id"]],
            rows["label"].to_numpy() if targets else None,
            len(self.glosses),
            recipe.batch_size,
            frames=self.config.frames,
            size=self.config.size,
            vary=self.config.augment if vary else None,
            seed=self.seed,
        )

    def build(self) -> keras.Model:
        """Make the model, with the recipe's published weights in all but the head; see Run.

        Raises StudyError, saying what to do, when these can't be had.
        """
        model = super().build()
        if self.config.weights:
            load_pretrained(model, self.config.model, self.config.weights)
        return model

    def train(self, model: keras.Model, until: int | None = None) -> pd.DataFrame:
        """Train the new head with all below it frozen, where the recipe says so, then what is to train; see Run.

        Returns one history, the epochs of the head first.
        """
        if self.config.head is None:
            (self.report / "history-head.csv").unlink(missing_ok=True)  # of an earlier form of the recipe
            return super().train(model, until)
        freeze(model, None)
        head = self.fit(model, self.config.head, "head", "history-head.csv")
        freeze(model, self.config.options.get("freeze", 0))
        history = super().train(model, until)
        return pd.concat([head, history.assign(epoch=history["epoch"] + len(head))], ignore_index=True)

    def show(self, split: str, count: int = 4, *, vary: bool = False) -> tuple[np.ndarray, list[str]]:
        """The first clips of a split as the model gets them, float32 (count, frames, size, size, 3), and their glosses.

        With `vary` they are those of the first batch of training, varied as the recipe says.
        """
        recipe = self.config.train.model_copy(update={"batch_size": count})
        clips, targets = self.batches(split, recipe, vary=vary)[0]
        return clips, [self.glosses[label] for label in targets.argmax(1)]

    def options(self) -> dict[str, Any]:
        """The recipe's options, for clips of its frames and size."""
        return {**self.config.options, "clip": self.example().shape[1:4]}

    def content(self) -> dict[str, list]:
        """Ids and numbers of frames."""
        ids = self.clips("train")["video_id"].tolist()
        return {"clips": ids, "frames": self.frames[ids].tolist()}

    def example(self) -> np.ndarray:
        """A clip as the recipe asks, float32 (1, frames, size, size, 3)."""
        return np.zeros((1, self.config.frames, self.config.size, self.config.size, 3), np.float32)

    def facts(self) -> dict[str, Any]:
        """RGB or its differences, and the recipe's frames and size."""
        weights = self.config.weights or "scratch"
        seen = "RGB differences" if self.config.options.get("differences") else "RGB"
        return {"input": seen, "frames": self.config.frames, "size": self.config.size, "weights": weights}


def predict(model: keras.Model, batches: Batches) -> np.ndarray:
    """Logits float32 (clips, classes) of batches that are not shuffled, in their order."""
    logits = (model(batches[i][0], training=False) for i in range(len(batches)))
    return np.concatenate([keras.ops.convert_to_numpy(batch) for batch in logits])
