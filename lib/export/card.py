"""What a file says about itself, and the card beside it: input, accuracy, size, speed, data, limits, licence."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from lib.data.layouts import LAYOUTS
from lib.export.verify import DROP, problem
from lib.models.weights import WEIGHTS
from lib.paths import replacing
from lib.report import read_metrics
from lib.runs import PoseRun, Run
from lib.study import Study

WLASL_LICENCE = (
    "Trained on WLASL (Li et al. 2020), which comes under the Computational Use of Data Agreement, C-UDA 1.0 "
    "(https://github.com/dxli94/WLASL/blob/master/C-UDA-1.0.pdf): for computational use only, and by its authors' wish "
    "academic, not commercial. Who passes this model on passes these terms on."
)
SAMPLE_LICENCE = "Trained on made-up drawings that this project makes itself: free to use, and of no use for signing."
OWN_LICENCE = "Trained on clips whose licence is not known here: not to be passed on."

PRECISIONS = {
    "float32": "weights and computation in float32",
    "float16": "weights in float16, computed in float32",
    "int8-dynamic": "weights in int8 with a scale for each channel; the range of values is measured on each clip",
    "int8": "weights in int8 with a scale for each channel, what layers read in ranges measured on clips of train",
}
ROUNDED = (
    "its weights have 256 steps for each channel, and errors add up over the layers, in a stream over the frames, too"
)
WHY_INT8 = {
    "int8-dynamic": f"{ROUNDED}.",
    "int8": f"{ROUNDED}; what layers read and give has 256 steps as well, in one range for all channels.",
}
LIMITS = {
    "clips": (
        "- One person, seen from the front, one sign in each clip, cut to the sign.",
        "- How light, skin, clothes, distance and camera change the accuracy was not measured.",
    ),
    "poses": (
        "- The landmarks come from a detector that is not in this file; another than in training may cost accuracy.",
        "- One sign in each clip, cut to the sign.",
    ),
}


def licence(study: Study) -> str:
    """Under which terms a model of the study may be used."""
    if study.synthetic:
        return SAMPLE_LICENCE
    return OWN_LICENCE if "clips" in study.sources else WLASL_LICENCE


def describe(run: Run, title: str, precision: str) -> dict[str, Any]:
    """What a program needs to know to use a file; it lies in the file as JSON."""
    inputs = pose_input(run) if isinstance(run, PoseRun) else clip_input(run)
    description = {
        "name": f"{run.study.name}/{run.name}",
        "model": run.config.model,
        "format": title,
        "precision": precision,
        "frames": inputs["clip"]["shape"][1],  # of a whole clip
        "input": inputs,
        "output": {"logits": "float32 (1, labels); their softmax are probabilities, in the order of the labels"},
        "licence": licence(run.study),
    }
    return stream_form(description) if title.endswith("-stream") else description


def clip_input(run: Run) -> dict[str, Any]:
    """How a clip of pixels is to be made."""
    config, store = run.config, run.study.clips
    return {
        "clip": {
            "shape": [1, config.frames, config.size, config.size, 3],
            "values": "float32 in [0, 1], red, green, blue; mean and deviation are taken off inside the model",
            "frames": "of as many equal spans of the sign as there are frames the middle one of each",
            "crop": "square around the signer's box, or, without a box, the middle of the picture",
            "margin": store.margin,  # of the box's longer side, on each side
        }
    }


def pose_input(run: PoseRun) -> dict[str, Any]:
    """How a clip of landmarks is to be made."""
    joints = LAYOUTS[run.study.layout].joints
    return {
        "clip": {
            "shape": [1, run.config.max_frames, len(joints), 3],
            "values": "float32: x, y in any unit and 1 where the joint was seen, else 0, 0, 0; normalised in the model",
            "frames": "every frame from the first to the last with a joint; a longer clip resampled evenly to as many "
            "as there are here, a shorter one followed by zeros",
            "joints": list(joints),
        }
    }


def stream_form(description: dict[str, Any]) -> dict[str, Any]:
    """The description of a file that reads one frame at a time."""
    whole = description["input"]["clip"]
    image = whole | {"shape": [1, 1, *whole["shape"][2:]], "frames": "one after the other"}
    others = "float32, zeros before the first frame, then what the output of the same name was"
    return description | {"input": {"image": image, "all others": others}}


def write_card(run: Run, row: dict[str, Any], path: Path) -> None:
    """Write the Markdown card beside the file at `path`; row: of export.csv."""
    with replacing(path.with_name(f"{path.name}.md")) as partial:
        partial.write_text(card(run, row, path), encoding="utf-8")


def card(run: Run, row: dict[str, Any], path: Path) -> str:
    """The card as Markdown."""
    study, metrics = run.study, read_metrics(run.study, run.name)
    about = describe(run, row["format"], row["precision"])
    unit = "frame" if row["format"].endswith("-stream") else "clip"
    parts = [
        f"# {path.name}",
        f"{about['model']}, run `{run.name}` of the study “{study.title}”, {len(run.glosses)} glosses; "
        f"{PRECISIONS[row['precision']]}{left_alone(row)}. Made and checked by the study's notebook 10.",
        "## Accuracy",
        accuracy(row, metrics),
        "## Size and speed",
        f"{row['bytes'] / 1e6:.2f} MB. A {unit} takes {row['latency_ms_1_thread']:.2f} ms on one thread and "
        f"{row['latency_ms_2_threads']:.2f} ms on two (median, on the processor of the study's machine, which may have "
        f"had other work). Operations that are not built in: {row['flex_ops']}.",
        "## Input",
        "\n".join(f"- `{name}`: {said(value)}" for name, value in about["input"].items()),
        f"Output: `logits`, {about['output']['logits']}. The labels are in the file: {where_labels(path)}.",
        "## Data",
        data(run, metrics),
        "## Limits",
        "\n".join(LIMITS["poses" if isinstance(run, PoseRun) else "clips"]),
        "## Licence",
        licence(study),
        f"sha256 `{hashlib.sha256(path.read_bytes()).hexdigest()}`",
    ]
    return "\n\n".join(parts) + "\n"


def left_alone(row: dict[str, Any]) -> str:
    """Which layers of an int8 file are not in int8."""
    if not row.get("kept"):
        return ""
    return f"; the first {row['kept']:.0%} of the layers stay float32, else it named too few clips of val as the model"


def accuracy(row: dict[str, Any], metrics: dict[str, Any]) -> str:
    """How accurate a file is, beside the trained model; and what it lost, and why."""
    low, high = metrics["top1_ci95"]
    lost = row["top1_source"] - row["top1"]
    text = (
        f"Top-1 {row['top1']:.1%} on {metrics['n']} clips of the test split; the trained model has "
        f"{row['top1_source']:.1%} (95 % interval {low:.1%} to {high:.1%}). Both name {row['agreement']:.1%} of the "
        f"clips alike; logits differ by at most {row['max_abs_diff']:.2g}."
    )
    if wrong := problem(row):
        text += f" **Not the trained model: {wrong}.**"
    if lost > DROP and row["precision"].startswith("int8"):
        text += f" **Int8 costs {100 * lost:.1f} points**: {WHY_INT8[row['precision']]}"
    return text


def data(run: Run, metrics: dict[str, Any]) -> str:
    """What a model has learned from."""
    study = run.study
    made = "SYNTHETIC: made-up signing, of no use for real signs. " if study.synthetic else ""
    begun = ""
    if (name := getattr(run.config, "weights", None)) and name in WEIGHTS:
        published = WEIGHTS[name]
        begun = f" It began with published weights of {published.trained_on} ({published.licence}, {published.url})."
    return (
        f"{made}{len(run.clips('train'))} clips of train, split “{study.split}”; of the official test split "
        f"{metrics['n_missing']} clips were not to be had.{begun}"
    )


def said(value: Any) -> str:
    """A part of the description in words."""
    if not isinstance(value, dict):
        return str(value)
    return "; ".join(f"{key}: {', '.join(map(str, v)) if isinstance(v, list) else v}" for key, v in value.items())


def where_labels(path: Path) -> str:
    """How the labels are got out of a file."""
    if path.suffix == ".tflite":
        return "it is also a zip archive, of `labels.txt` and `description.json`"
    return "its metadata `labels`, one on each line, and `description`"
