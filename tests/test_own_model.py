"""A model of one's own costs four short files: README's RGB model and a pose model join the study of a copy."""

import os
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from sample import write_sample

STUDY = """
title: Models of one's own
synthetic: true
subset: 10
sources: [videos, keypoints]
split: official
layout: openpose-54
clips: {size: 64}
runs:
"""
POSE_MODEL = '''
The model, `lib/models/steps.py`:

```python
"""Steps: a network on each frame, and the maximum over time."""

import keras
from keras import layers

from lib.data.layouts import LAYOUTS
from lib.settings import Settings


class StepsConfig(Settings):
    """The options that a recipe can set."""

    layout: str = "openpose-54"
    width: int = 32


def build_steps(num_classes: int, config: StepsConfig) -> keras.Model:
    """Build a model from poses (batch, frames, joints, 3) to logits (batch, num_classes)."""
    joints = len(LAYOUTS[config.layout].joints)
    poses = keras.Input((None, joints, 3))
    x = layers.LayerNormalization()(layers.Reshape((-1, 3 * joints))(poses))
    x = layers.GlobalMaxPooling1D()(layers.Dense(config.width, activation="relu")(x))
    return keras.Model(poses, layers.Dense(num_classes, dtype="float32")(x), name="steps")
```

its row, `lib/models/__init__.py`:

```python
    Family("steps", "lib.models.steps:build_steps", config="lib.models.steps:StepsConfig", kind="poses"),
```

its recipe, `workflow/recipes/steps.yaml`:

```yaml
model: steps
train: {batch_size: 8}
augment: {rotation: 10}
```

and its run, `workflow/studies/sample.yaml`:

```yaml
  - recipe: steps
```
'''
ABOVE = {"lib/models/__init__.py": "_ROWS = (\n", "workflow/studies/sample.yaml": "runs:\n"}  # of the lines to add


def files_of(text):
    """The files that a text tells to write or add to: each one's name, then its lines in a block."""
    return dict(re.findall(r"`([\w./]+)`:\n\n```\w+\n(.*?)```\n", text, flags=re.DOTALL))


@pytest.fixture(scope="module")
def models(request):
    """The files of both models."""
    readme = (request.config.rootpath / "README.md").read_text()
    return [files_of(readme.split("### Your own model\n")[1].split("\n## ")[0]), files_of(POSE_MODEL)]


def test_a_model_is_at_most_40_lines_in_four_files(models):
    for files in models:
        assert len(files) == 4
        assert sum(len(content.splitlines()) for content in files.values()) <= 40


def test_an_rgb_and_a_pose_model_are_trained_and_compared_like_any_other(tmp_path, repository, models):
    for folder in ("lib", "workflow", "notebooks"):
        shutil.copytree(repository / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "workflow" / "studies" / "sample.yaml").write_text(STUDY)
    for name, content in (item for files in models for item in files.items()):
        path = tmp_path / name
        if name in ABOVE:
            before, after = path.read_text().split(ABOVE[name])
            content = f"{before}{ABOVE[name]}{content}{after}"
        path.write_text(content)
    write_sample(tmp_path / "wlasl", clips_per_gloss=8)
    environment = {"STUDY_HOME": str(tmp_path), "PYTHONPATH": str(tmp_path), "STUDY_EPOCHS": "1"}
    command = [sys.executable, "workflow/run.py", "sample", "wlasl", "--cores", "2"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    table = pd.read_csv(tmp_path / "reports" / "sample" / "tables" / "comparison.csv").set_index("run")
    assert set(table.index) == {"tiny", "steps"}
    assert table["input"].to_dict() == {"tiny": "RGB", "steps": "openpose-54"}
    assert table["epochs"].tolist() == [1, 1]
    assert table["top1"].between(0, 1).all()
