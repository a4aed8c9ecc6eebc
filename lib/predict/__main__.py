"""Name the signs in videos, OpenPose folders and files of landmarks.

python -m lib.predict some.mp4                        the sign of a clip
python -m lib.predict folder --json > answers.jsonl   of many clips, a line of JSON each
python -m lib.predict long.mp4 --timeline             the signs of a longer video, and when
python -m lib.predict long.mp4 --vtt > long.vtt       as subtitles; with --timeline --csv a table for ELAN
python -m lib.predict --camera 0                      what a camera shows
python -m lib.predict some.mp4 --signs my.json        which of your own signs (python -m lib.signs --help)
"""

import argparse
import csv
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from lib.predict.camera import open_camera, watch
from lib.predict.model import Model, open_model
from lib.predict.naming import answer, open_all
from lib.predict.recordings import Recording, find_inputs
from lib.predict.timeline import clock, elan_csv, find_signs, read_steps, said, webvtt
from lib.settings import StudyError
from lib.signs import Signs

BAR = 20  # characters of a full bar
COLUMNS = ["path", "rank", "gloss", "probability", "known", "frames", "seconds", "model"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code: 0, 1 after a line on stderr for each thing that has no name, or 130."""
    options = _parse(arguments)
    try:
        model = open_model(options.model)
        if options.camera is not None:
            return _watch(model, options.camera)
        options.signs = Signs.read(options.signs, model) if options.signs else None
        return _name(model, options)
    except StudyError as error:
        return _complain(error)
    except BrokenPipeError:  # whoever read the answers, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk, or a figure that cannot be written
        return _complain(error)
    except KeyboardInterrupt:
        return 130


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    about, _, examples = __doc__.partition("\n\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m lib.predict", description=about, epilog=examples, formatter_class=raw)
    parser.add_argument(
        "inputs", nargs="*", metavar="INPUT", help="video, folder, OpenPose folder, or .npz of landmarks"
    )
    parser.add_argument("--model", help=".tflite or .onnx file, or <study>/<run>; default: the best released file")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="how many glosses of each clip (default: 5)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", dest="form", action="store_const", const="json", help="a line of JSON for each clip")
    form.add_argument("--csv", dest="form", action="store_const", const="csv", help="a table; of a timeline, for ELAN")
    form.add_argument("--vtt", dest="form", action="store_const", const="vtt", help="a timeline as WebVTT subtitles")
    parser.add_argument("--timeline", action="store_true", help="find the signs of a longer video")
    parser.add_argument("--figure", metavar="FILE", help="draw the timeline to this .png file")
    parser.add_argument("--signs", metavar="FILE", help="name clips among these signs of your own, by similarity")
    parser.add_argument("--camera", metavar="N", help="watch this camera, such as 0, or a video file in its place")
    options = parser.parse_args(arguments)
    options.timeline |= options.form == "vtt" or options.figure is not None
    if bool(options.inputs) == (options.camera is not None):
        parser.error("give one INPUT or more, or --camera")
    if options.signs and (options.timeline or options.camera is not None):
        parser.error("--signs names clips of one sign, neither longer videos nor a camera's")
    if options.top < 1:
        parser.error("--top is at least 1")
    if options.figure and not options.figure.endswith(".png"):
        parser.error("--figure takes a file that ends in .png")
    return options


def _name(model: Model, options: argparse.Namespace) -> int:
    clips, problems = [], 0
    for path in options.inputs:
        try:
            clips += find_inputs(path)
        except StudyError as error:
            problems += _complain(error)
    single = options.form == "vtt" or options.figure or (options.timeline and options.form == "csv")
    if single and len(clips) > 1:
        raise StudyError(
            f"--{'figure' if options.figure else options.form} is of one video, and there are {len(clips)}"
        )
    width, first = max((len(clip.path) for clip in clips), default=0), True
    for path, recording in open_all(model, clips):
        if isinstance(recording, str):
            problems += _complain(recording)
            continue
        tell = _tell_timeline if options.timeline else _tell_answer
        tqdm.write(tell(model, path.ljust(width), recording, options, first), end="")
        sys.stdout.flush()  # so that others can read along, and stop when they have enough
        first = False
    return int(problems > 0)


def _tell_answer(model: Model, path: str, recording: Recording, options: argparse.Namespace, first: bool) -> str:
    """The lines of one clip in the form that is asked for."""
    said = answer(model, path.rstrip(), recording, options.top, options.signs)
    if options.form == "json":
        return json.dumps({**said._asdict(), "model": model.name}, ensure_ascii=False) + "\n"
    if options.form == "csv":
        rest = [said.known, said.frames, said.seconds, model.name]
        rows = [[said.path, rank, *pair, *rest] for rank, pair in enumerate(said.top, start=1)]
        head = ["similarity" if options.signs and name == "probability" else name for name in COLUMNS]
        return _csv([head, *rows] if first else rows)
    named = ", ".join(f"{gloss} {share:.2f}" if options.signs else f"{gloss} {share:.0%}" for gloss, share in said.top)
    if options.signs and not said.known:
        named = f"none of these signs, as no similarity reaches {model.own_signs_from:.2f} ({named})"
    elif not said.known:
        named = f"unknown (perhaps {named})"
    return f"{path}  {named}\n"


def _tell_timeline(model: Model, path: str, recording: Recording, options: argparse.Namespace, first: bool) -> str:
    """The signs of one recording in the form that is asked for."""
    signs = find_signs(read_steps(model, recording), model.glosses, model.known_from)
    if options.figure:
        from lib.figures import save
        from lib.figures.inside import timeline

        save(timeline(signs, title=path.rstrip()), Path(options.figure))
    if options.form in ("vtt", "csv"):
        return webvtt(signs) if options.form == "vtt" else elan_csv(signs)
    if options.form == "json":
        rows = json.loads(signs.to_json(orient="records"))  # without NaN, which JSON does not have
        seconds = recording.frames / recording.fps if recording.fps else None
        about = {"path": path.rstrip(), "timeline": rows, "frames": recording.frames, "seconds": seconds}
        return json.dumps({**about, "model": model.name}, ensure_ascii=False) + "\n"
    lines = [f"  {clock(sign.start)}  {clock(sign.end)}  {said(sign)}\n" for sign in signs.itertuples()]
    return "".join([f"{path.rstrip()}\n", *(lines or ["  nobody signs\n"])])


def _csv(rows: list[list[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _watch(model: Model, camera: str) -> int:
    """Show what the model sees: on a terminal in one line that changes, elsewhere a line for each sign."""
    shown = ""
    try:
        for sight in watch(model, open_camera(camera)):
            if sys.stdout.isatty():
                bar = ("█" * round(BAR * sight.share)).ljust(BAR)
                name = f"\033[1m{sight.gloss}\033[0m" if sight.steady else sight.gloss
                text = f"{bar} {name} {sight.share:.0%}" if sight.gloss else f"{' ' * BAR} no sign"
                print(f"\r\033[K{sight.rate:3.0f} frames/s  {text}", end="", flush=True)
            elif sight.steady and sight.gloss != shown:
                print(f"{sight.gloss} {sight.share:.0%}", flush=True)
            shown = sight.gloss if sight.steady else "" if not sight.gloss else shown
    finally:
        if sys.stdout.isatty():
            print()
    return 0


def _complain(problem: object) -> int:
    tqdm.write(f"error: {' '.join(str(problem).splitlines())}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8
    sys.exit(main())
