"""Signs of your own from one to five examples each, without training: a clip is named by the examples it is like.

python -m lib.signs my.json add hello one.mp4 two.mp4   add examples of a sign, new or known already
python -m lib.signs my.json                             list the signs
python -m lib.signs my.json remove hello                forget a sign
python -m lib.predict some.mp4 --signs my.json          which of them does a clip show?

A pose model gives each clip an embedding, a vector of length 1. A sign's prototype is the mean of the embeddings of its
examples, scaled to length 1 (nearest prototypes: Snell et al. 2017, https://arxiv.org/abs/1703.05175), and a clip's
score for it is the cosine similarity of the two, in [-1, 1]. If even the best score is below the threshold that the
model's description states, `own_signs_from` (see lib.few_shot), the clip shows none of these signs.

The file is JSON, which other programs may read and write:

    {"model": "wlasl100-hands/spobet-plus-s0",      who made the vectors, for people
     "checksum": "9f86d0…",                         SHA-256 of its weights, 64 hexadecimal digits, in its description
     "signs": {"hello": [[0.0123, -0.4], …], …}}    by gloss: a vector for each example, all of one width

Vectors of different models cannot be compared, so a file is refused by every model with another checksum. All files of
a run have the run's.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import pandas as pd
from pydantic import Field, FiniteFloat, StringConstraints, model_validator

from lib.few_shot import prototypes
from lib.paths import replacing
from lib.predict import read_clip
from lib.predict.model import Model, open_model
from lib.settings import Settings, StudyError, did_you_mean, parse, read_text

DIGITS = 6  # of the numbers in a file; they are at most 1
Gloss = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Vector = Annotated[list[FiniteFloat], Field(min_length=1)]


class SignsFile(Settings):
    """What a file holds; see the head of this module."""

    model: str
    checksum: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    signs: dict[Gloss, Annotated[list[Vector], Field(min_length=1)]]

    @model_validator(mode="after")
    def _check_vectors(self) -> Self:
        vectors = [vector for examples in self.signs.values() for vector in examples]
        if len({len(vector) for vector in vectors}) > 1:
            raise ValueError("its vectors are of different widths")
        if not all(any(vector) for vector in vectors):
            raise ValueError("one of its vectors is zero")
        return self


class Signs:
    """Signs and the embeddings of their examples. vectors: by gloss, float32 (examples, width)."""

    def __init__(self, model: Model, vectors: dict[str, np.ndarray] | None = None) -> None:
        """Start with no signs, or with the embeddings that this model gave."""
        self.model, self.vectors = model, dict(vectors or {})

    @classmethod
    def read(cls, path: str | Path, model: Model) -> Self:
        """Read a file. Raises StudyError when there is none, or it is wrong or of another model."""
        path = Path(path)
        if not path.exists():
            raise StudyError(f"{path}: there is no such file; `python -m lib.signs {path} add GLOSS CLIP…` makes it")
        try:
            content = json.loads(read_text(path))
        except ValueError as error:
            raise StudyError(f"{path}: {error if isinstance(error, StudyError) else f'is no JSON: {error}'}") from None
        file = parse(SignsFile, content, path)
        if file.checksum != model.checksum:
            raise StudyError(
                f"{path}: its signs were added with the model {file.model}, whose vectors are not those of {model.name}"
                " here: name that model with --model, or add the examples again to a new file"
            )
        return cls(model, {gloss: np.array(vectors, np.float32) for gloss, vectors in file.signs.items()})

    def write(self, path: str | Path) -> None:
        """Write the file. Raises OSError."""
        signs = {gloss: np.round(vectors.astype(float), DIGITS).tolist() for gloss, vectors in self.vectors.items()}
        file = SignsFile(model=self.model.name, checksum=self.model.checksum, signs=signs)
        with replacing(Path(path)) as partial:
            partial.write_text(json.dumps(file.model_dump(), ensure_ascii=False) + "\n", encoding="utf-8")

    def add(self, gloss: str, clips: Iterable[str | Path | np.ndarray]) -> None:
        """Add examples of a sign: videos, other files or poses, as `lib.predict.name_sign` takes them.

        Raises StudyError when one cannot be read or shows nobody, there is none, or the model gives no embeddings; then
        nothing is added.
        """
        read = [read_clip(clip, self.model) for clip in clips]
        if not read or not gloss.strip():
            raise StudyError("a sign needs a name and at least one example")
        new, known = self.model.embeddings(read), self.vectors.get(gloss.strip())
        self.vectors[gloss.strip()] = new if known is None else np.concatenate([known, new])

    def remove(self, gloss: str) -> None:
        """Forget a sign. Raises StudyError when it is not known."""
        if gloss not in self.vectors:
            raise StudyError(f"there is no sign '{gloss}'{did_you_mean(gloss, [*self.vectors])}")
        del self.vectors[gloss]

    def name(self, clip: str | Path | np.ndarray, top: int = 5) -> pd.Series:
        """The signs most like a clip with their cosine similarities, best first; see `Model.own_signs_from`.

        Raises StudyError as `add` does.
        """
        return self.rank(self.model.embeddings([read_clip(clip, self.model)])[0], top)

    def rank(self, vector: np.ndarray, top: int = 5) -> pd.Series:
        """As `name`, of an embedding (width,). Raises StudyError when there are no signs, or of another width."""
        if not self.vectors:
            raise StudyError("there are no signs yet: add one")
        known = prototypes(self.vectors.values())
        if known.shape[1] != len(vector):
            raise StudyError(f"the vectors of the signs have {known.shape[1]} numbers, the clip's {len(vector)}")
        return pd.Series(known @ vector, [*self.vectors]).nlargest(top)


# ---- the command -----------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code: 0, or 1 after a line on stderr that says what is wrong."""
    options = _parse(arguments)
    try:
        return _change(Path(options.file), options)
    except (StudyError, OSError) as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    about, _, rest = __doc__.partition("\n\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m lib.signs", description=about, epilog=rest, formatter_class=raw)
    parser.add_argument("file", metavar="FILE", help="the signs, a .json file")
    parser.add_argument("--model", help=".tflite or .onnx file, or <study>/<run>; default: the best released file")
    actions = parser.add_subparsers(dest="action", metavar="add | remove")
    add = actions.add_parser("add", help="add examples of a sign")
    add.add_argument("gloss", metavar="GLOSS")
    add.add_argument("clips", nargs="+", metavar="CLIP", help="video, OpenPose folder, or .npz of landmarks")
    actions.add_parser("remove", help="forget a sign").add_argument("gloss", metavar="GLOSS")
    return parser.parse_args(arguments)


def _change(path: Path, options: argparse.Namespace) -> int:
    model = open_model(options.model)
    signs = Signs.read(path, model) if path.exists() or options.action != "add" else Signs(model)
    if options.action == "add":
        signs.add(options.gloss, options.clips)
    elif options.action == "remove":
        signs.remove(options.gloss)
    if options.action:
        signs.write(path)
    for gloss, vectors in sorted(signs.vectors.items()):
        print(f"{gloss}  {len(vectors)} example{'s' if len(vectors) > 1 else ''}")
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(main())
