"""One run of a study: its recipe file, its data as batches, its predictions and its metrics."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lib.data.augment import PoseAugment, augment
from lib.data.batches import PoseBatches, shorten, trim
from lib.data.layouts import LAYOUTS, SIDES
from lib.data.poses import PoseStore
from lib.data.wlasl import read_index
from lib.evaluation import Predictions, missing_count, write_metrics
from lib.files import replacing
from lib.models import build
from lib.models.cost import gflops
from lib.models.spobet import MaskedFrames, Spobet, SpobetConfig
from lib.study import Study, StudyError, explain
from lib.training import Recipe, fit, prepare

RECIPES = Path(__file__).parents[1] / "workflow" / "recipes"


class Pretraining(Recipe):
    """Masked-frame pre-training: a recipe, and what is hidden."""

    hidden: float = Field(0.3, gt=0, lt=1, description="share of frames hidden")
    span: int = Field(1, ge=1, description="frames hidden in one piece")


class RunConfig(BaseModel):
    """A recipe file, workflow/recipes/<name>.yaml: the model, how it is trained, how its clips are varied."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    variant: str = ""
    options: dict[str, Any] = Field({}, description="fields of the model's own configuration")
    max_frames: int = Field(250, ge=1, description="longer clips are resampled to this length")
    pretrain: Pretraining | None = None
    train: Recipe
    augment: PoseAugment = PoseAugment()

    @model_validator(mode="after")
    def _one_precision(self) -> Self:
        if self.pretrain and self.pretrain.mixed_precision != self.train.mixed_precision:
            raise ValueError("pretrain.mixed_precision and train.mixed_precision differ, but it is one model: set both")
        return self


class Run:
    """A run of a study by its name: what it trains, on which clips, where its files lie."""

    def __init__(self, study: Study, name: str) -> None:
        """Read the recipe, the index and the pose store. Raises StudyError when one is absent or wrong."""
        spec, self.seed = study.find_run(name)
        self.study, self.name, self.recipe = study, name, spec.recipe
        self.config = read_config(spec.recipe, spec.set)
        self.folder = study.data_dir / "runs" / name
        self.report = study.report_dir / "runs" / name
        self.index = read_index(study)
        store = PoseStore.load(study.poses_path)
        self.poses = dict(zip(store.video_id, map(trim, store.poses), strict=True))

    @property
    def glosses(self) -> list[str]:
        """The study's glosses in the order of their labels."""
        return self.index.drop_duplicates("label").sort_values("label")["gloss"].tolist()

    def clips(self, split: str) -> pd.DataFrame:
        """The present clips of a split, in index order."""
        return self.index[(self.index["status"] == "present") & (self.index["split"] == split)]

    def batches(self, split: str, recipe: Recipe, *, vary: bool, targets: bool = True) -> PoseBatches:
        """Make the batches of a split: with `vary` shuffled and augmented, for training; with their targets or not."""
        rows, layout, how = self.clips(split), LAYOUTS[self.study.layout], self.config.augment
        if rows.empty:
            raise StudyError(f"study {self.study.name}: no clip of split '{split}' is present; see the audit")
        return PoseBatches(
            [self.poses[video_id] for video_id in rows["video_id"]],
            rows["label"].to_numpy() if targets else None,
            len(self.glosses),
            recipe.batch_size,
            max_frames=self.config.max_frames,
            vary=(lambda clip, other, rng: augment(clip, how, layout, rng, other)) if vary else None,
            seed=self.seed,
        )

    def build(self) -> Spobet:
        """Make the model, untrained, from the run's seed. Raises StudyError naming an option that is wrong."""
        prepare(self.config.train, self.seed)
        try:
            return build(self.config.model, len(self.glosses), **{**self.config.options, "layout": self.study.layout})
        except ValidationError as error:
            raise StudyError(f"recipe {self.recipe}, options: {explain(error, SpobetConfig)}") from None

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
        history = fit(masked, recipe, train, val, self.open_folder("pretrain", train), classify=False)
        return self._save_history(history, "history-pretrain.csv")

    def train(self, model: Spobet) -> pd.DataFrame:
        """Train the model on train, keeping the weights that are best on val. Returns the history."""
        recipe = self.config.train
        train, val = self.batches("train", recipe, vary=True), self.batches("val", recipe, vary=False)
        history = fit(model, recipe, train, val, self.open_folder("train", train))
        return self._save_history(history, "history.csv")

    def open_folder(self, step: str, train: PoseBatches) -> Path:
        """Open the folder of a training's checkpoints; those of another recipe or other clips are removed."""
        folder = self.folder / step
        frames = [len(clip) for clip in train.clips]
        clips = {"clips": self.clips("train")["video_id"].tolist(), "frames": frames}
        content = json.dumps({**self.config.model_dump(mode="json"), "seed": self.seed, **clips}, indent=1)
        identity = folder / "run.json"
        if folder.exists() and not (identity.exists() and identity.read_text() == content):
            print(f"{folder}: the recipe or the clips have changed; training starts anew")
            shutil.rmtree(folder)
        with replacing(identity) as partial:
            partial.write_text(content)
        return folder

    def predict(self, model: keras.Model, split: str) -> Predictions:
        """Logits of every present clip of a split, in index order; written to predictions-<split>.npz."""
        rows = self.clips(split)
        logits = predict(model, self.batches(split, self.config.train, vary=False, targets=False))
        predictions = Predictions(rows["video_id"].to_numpy(str), rows["label"].to_numpy(), logits, self.glosses)
        predictions.save(self.report / f"predictions-{split}.npz")
        return predictions

    def write_metrics(self, model: keras.Model, predictions: Predictions, split: str) -> dict[str, Any]:
        """Evaluate predictions, and write it with the facts of the run to metrics.json (test) or metrics-val.json."""
        histories = [pd.read_csv(path) for path in self.report.glob("history*.csv")]
        frames = int(np.median([len(self.poses[video_id]) for video_id in self.clips("train")["video_id"]]))
        seen = min(frames, self.config.max_frames)
        name = "metrics.json" if split == "test" else f"metrics-{split}.json"
        return write_metrics(
            self.report / name,
            predictions,
            missing_count(self.index, split),
            model=self.config.model,
            variant=self.config.variant,
            recipe=self.recipe,
            input=self.study.layout,
            frames=frames,
            size=None,
            weights="scratch",
            seed=self.seed,
            backend=keras.backend.backend(),
            split=split,
            params_m=model.count_params() / 1e6,
            gflops=gflops(model, np.ones((1, seen, len(LAYOUTS[self.study.layout].joints), 3), np.float32)),
            train_seconds=sum(history["seconds"].sum() for history in histories),
            epochs=sum(map(len, histories)),
        )

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

    def _save_history(self, history: pd.DataFrame, name: str) -> pd.DataFrame:
        self.report.mkdir(parents=True, exist_ok=True)
        history.to_csv(self.report / name, index=False)
        return history


def read_config(recipe: str, changes: dict[str, Any] | None = None) -> RunConfig:
    """Read workflow/recipes/<recipe>.yaml, with `changes` by dotted name ("train.epochs": 5) put in.

    Raises StudyError naming the key when one is unknown or has a wrong type, and when there is no such recipe.
    """
    path = RECIPES / f"{recipe}.yaml"
    if not path.exists():
        there = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml")))
        raise StudyError(f"there is no recipe '{recipe}'; workflow/recipes/ has {there}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return RunConfig.model_validate(_change(content or {}, changes or {}))
    except yaml.YAMLError as error:
        raise StudyError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise StudyError(f"{path}: {explain(error, RunConfig)}") from None
    except KeyError as error:
        raise StudyError(f"{path}: {error.args[0]}") from None


def _change(content: Any, changes: dict[str, Any]) -> Any:
    """Put `changes` by dotted name into the content of a recipe file. Raises KeyError when a name leads nowhere."""
    for key, value in changes.items():
        *parents, last = key.split(".")
        place = content
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise KeyError(f"cannot change '{key}': '{parent}' holds no settings")
        place[last] = value
    return content


def predict(model: keras.Model, batches: PoseBatches) -> np.ndarray:
    """Logits float32 (clips, classes) of batches that are not shuffled, in their order."""
    logits = (model(batches[i][0], training=False) for i in range(len(batches)))
    return np.concatenate([keras.ops.convert_to_numpy(batch) for batch in logits])
