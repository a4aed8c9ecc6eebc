"""Where the files of clips lie, whatever systems and tools have made of their names."""

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from functools import cache
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from lib.data.video import SUFFIXES
from lib.settings import StudyError

LEFT_BY_WINDOWS = {"thumbs.db", "desktop.ini", "$recycle.bin", "system volume information"}
DEEPEST = 8  # folders below one another; a link to a folder above would go on for ever
HALF = 0.5  # of the official clips; with fewer, the names may be other than expected
# What follows a video_id in each source.
SOUGHT = {"videos": ".mp4", "keypoints": "/", "hands": " in *.npz", "poses": ".npz"}


class Place(NamedTuple):
    """What a source holds under one name: a file, a folder, or an array of an open archive."""

    name: str  # the video_id as it is written there
    path: Path
    archive: np.lib.npyio.NpzFile | None = None


def is_hidden(name: str) -> bool:
    """Whether a system left a file of this name there, not its user; such as a Mac's ._a.mp4."""
    return name.startswith(".") or name.lower() in LEFT_BY_WINDOWS


def composed(name: str) -> str:
    """A name in the Unicode form NFC. Systems differ in the form in which they write accents; Macs use NFD."""
    return unicodedata.normalize("NFC", name)


def walk(folder: Path) -> Iterator[Path]:
    """The visible files below a folder, relative to it, sorted within each folder; links are followed.

    In the place of the files of a folder that cannot be read, such as lost+found, is one name that says so.
    """
    closed: list[OSError] = []
    for where, folders, files in os.walk(folder, followlinks=True, onerror=closed.append):
        place = Path(where).relative_to(folder)
        deeper = [name for name in folders if not is_hidden(name)] if len(place.parts) < DEEPEST else []
        folders[:] = sorted(deeper)
        yield from (place / name for name in sorted(files) if not is_hidden(name))
    yield from (Path(error.filename).relative_to(folder) / "(cannot be read)" for error in closed)


def other_files(folder: Path) -> list[str]:
    """The visible files below a folder that are no videos, by their suffix: printable names, sorted."""
    return sorted(printable(file) for file in walk(folder) if file.suffix.lower() not in SUFFIXES)


def printable(path: Path) -> str:
    """A relative path with /, and without what is not UTF-8."""
    return os.fsencode(path.as_posix()).decode(errors="replace")


def speller(root: Path) -> Callable[[str], str]:
    """A function that spells the relative path of a file as the disk does: in another Unicode form, or with / for \\.

    A path that fits no file is brought into NFC and the form with /.
    """

    @cache
    def on_disk() -> dict[str, str]:
        """All files, by their composed names."""
        return {composed(file.as_posix()): file.as_posix() for file in walk(root)}

    def spell(path: str) -> str:
        """The path of a file as the disk has it."""
        plain = normpath(composed(path.replace("\\", "/")))
        there = next((form for form in (path, plain) if os.path.isfile(root / form)), None)
        return normpath(there) if there else on_disk().get(plain, plain)

    return spell


def nearest(path: str, files: list[str]) -> str:
    """ " (did you mean '…'?)" for the file of the same name (but for case) or a similar one, or nothing."""
    name, stem = PurePosixPath(path).name.casefold(), PurePosixPath(path).stem
    alike = [file for file in files if composed(PurePosixPath(file).name).casefold() == name]
    stems = {PurePosixPath(file).stem: file for file in reversed(files)}
    alike += [stems[near] for near in get_close_matches(stem, stems, 1)]
    return f" (did you mean '{alike[0]}'?)" if alike else ""


def locate(root: Path, source: str, wanted: Iterable[str]) -> tuple[dict[str, list[Place]], list[Place]]:
    """Find clips in a source of WLASL's form: the places of each video_id found, the best first; and all others.

    A video_id without its leading zeros is found, too, where nothing has the name itself; of places with several such
    names, only one can be the clip's. Raises StudyError when the source is absent or an archive is broken.
    """
    if not (root / source).is_dir():
        problem = f"{root / source} is missing; put the {source} there"
        raise StudyError(f"{problem}, or remove '{source}' from the study's sources")
    by_name, by_number, wanted = defaultdict(list), defaultdict(list), list(wanted)
    for place in _PLACES[source](root):
        by_name[place.name].append(place)
    for name in sorted(by_name.keys() - set(wanted)):
        by_number[name.lstrip("0")] += by_name[name]
    alike = Counter(video_id.lstrip("0") for video_id in wanted if video_id.isdecimal())
    found = {}
    for video_id in wanted:
        number = video_id.lstrip("0")
        if places := by_name.get(video_id) or (alike[number] == 1 and by_number.get(number)):
            found[video_id] = places
    used = {place.name for places in found.values() for place in places}
    return found, [places[0] for name, places in by_name.items() if name not in used]


def shortfall(source: str, wanted: list[str], found: Iterable[str], others: list[Place], root: Path) -> str:
    """One line that says what was looked for and what lies there instead; "" if at least HALF are found."""
    absent = sorted(set(wanted) - set(found))
    if len(absent) <= (1 - HALF) * len(wanted):
        return ""
    names = sorted(place.name if place.archive else printable(place.path.relative_to(root)) for place in others)
    there = f"{len(names)} others, such as '{names[0]}'" if names else "nothing else"
    renamed = "; if some of the others are these clips, name them as in the annotations" if names else ""
    return (
        f"{source}: {len(wanted) - len(absent)} of {len(wanted)} official clips are there; looked for {source}/"
        f"{absent[0]}{SOUGHT[source]}, found {there}; add the rest{renamed}"
    )


def _videos(root: Path) -> list[Place]:
    """Videos, also those in folders of glosses; nearer ones first, then by suffix in the order of SUFFIXES."""
    files = [path for path in walk(root / "videos") if path.suffix.lower() in SUFFIXES]
    files.sort(key=lambda path: (len(path.parts), SUFFIXES.index(path.suffix.lower())))
    return [Place(path.stem, root / "videos" / path) for path in files]


def _keypoints(root: Path) -> list[Place]:
    """Folders of clips, also those in folders of glosses, whose names are no numbers."""
    folders = _folders(root / "keypoints")
    glosses = [folder for folder in folders if not folder.name.isdecimal()]
    return [Place(path.name, path) for path in [*folders, *(path for gloss in glosses for path in _folders(gloss))]]


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def _hands(root: Path) -> list[Place]:
    """Arrays of all archives."""
    paths = sorted(path for path in (root / "hands").glob("*.npz") if not is_hidden(path.name))
    if not paths:
        problem = f"{root / 'hands'} holds no .npz with hand landmarks by video_id"
        raise StudyError(f"{problem}; put one there, or remove 'hands' from the study's sources")
    places = []
    for path in paths:
        try:
            archive = np.load(path)
            places += [Place(name, path, archive) for name in archive.files]
        except (OSError, ValueError, EOFError, BadZipFile, AttributeError) as error:  # AttributeError: one bare array
            raise StudyError(f"{path}: is not a readable .npz archive ({error}); download it again") from error
    return places


def _poses(root: Path) -> list[Place]:
    """Files of `lib.data.holistic`."""
    return [Place(file.stem, root / "poses" / file) for file in walk(root / "poses") if file.suffix == ".npz"]


_PLACES = {"videos": _videos, "keypoints": _keypoints, "hands": _hands, "poses": _poses}
