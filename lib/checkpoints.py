"""Folders of checkpoints: what they are checkpoints of, so that those of something else are never gone on with."""

import hashlib
import itertools
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lib.paths import home, replacing
from lib.recipes import AnyRecipe, with_defaults

IDENTITY = "run.json"  # in a folder: the recipe, and the identity of what it is trained on


def open_folder(folder: Path, recipe: AnyRecipe, identity: dict[str, Any]) -> Path:
    """Open a folder of checkpoints; one of another recipe or identity is set aside, and another begun.

    identity: seed, clips, lengths and digest of what is trained on, and `sources`: checksums by name of the runs whose
    weights are used.
    """
    if folder.exists() and not is_of(folder, recipe, identity):
        number = next(n for n in itertools.count(1) if not folder.with_name(f"{folder.name}-old-{n}").exists())
        aside = folder.rename(folder.with_name(f"{folder.name}-old-{number}"))
        name = f"{folder.parent.name}, {folder.name}"
        print(f"{name}: the recipe, the clips or a source have changed; training starts from scratch")
        print(f"The former checkpoints are kept in {os.path.relpath(aside, home())}; delete them if not needed")
    if (folder / IDENTITY).exists():  # what a source had when it was last here
        past = json.loads((folder / IDENTITY).read_text()).get("sources", {})
        identity = {**identity, "sources": past | identity["sources"]}
    with replacing(folder / IDENTITY) as partial:
        partial.write_text(json.dumps({**recipe.model_dump(mode="json"), **identity}, indent=1))
    return folder


def is_of(folder: Path, recipe: AnyRecipe, identity: dict[str, Any]) -> bool:
    """Whether a folder holds checkpoints of this recipe and identity; those of earlier versions lack some facts.

    Nor is a source compared whose weights are not on this machine.
    """
    if not (folder / IDENTITY).exists():
        return False
    past = json.loads((folder / IDENTITY).read_text())
    now = recipe.model_dump(mode="json")
    if isinstance(past.get("frames"), list):  # earlier versions wrote the lengths over the recipe's frames
        past["lengths"] = past.pop("frames")
        past |= {"frames": now["frames"]} if "frames" in now else {}
    then = {key: past.pop(key) for key in [*past] if key not in identity}
    sources = past.pop("sources", {})
    if any(identity["sources"].get(name, checksum) != checksum for name, checksum in sources.items()):
        return False
    return with_defaults(then, recipe) == now and past.items() <= identity.items()


def digest_of(arrays: Iterable[np.ndarray]) -> str:
    """SHA-256 of arrays one after another."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()
