"""Downloading the videos of WLASL from the sites that its annotations name, and a report of what could be had.

    python -m lib.data.download <data root> <number of glosses> yes

The last word accepts the licence. The same command again goes on where it was and tries again what failed.
"""

import json
import shutil
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pandas as pd
from tqdm import tqdm

from lib.data.cut import cut_out
from lib.data.sites import DISK, POLITE, Manners, Site, VideoError, site_of, yt_dlp
from lib.data.video import SUFFIXES, frames, probe
from lib.data.wlasl import SPLITS, read_annotations
from lib.paths import locked, replacing
from lib.settings import StudyError

LICENCE = """\
WLASL (Li et al. 2020) comes under the Computational Use of Data Agreement, C-UDA 1.0:
https://github.com/dxli94/WLASL/blob/master/C-UDA-1.0.pdf
  - for computational use only, that is, analysis by a computer; its authors allow academic and no commercial use;
  - who passes the data on passes on these terms and every attribution with them;
  - the videos belong to the sites and people that they come from, and what those ask for holds as well;
  - there is no warranty of any kind, nor that anyone has the rights in the videos."""
COLUMNS = ("video_id", "gloss", "split", "url", "status", "reason")
NOT_TRIED = "not tried, as the run was stopped; run again"

Note = Callable[[str, str], None]  # takes a video_id, and why its video failed ("": it is there)


class _Job(NamedTuple):
    """One address, the partial file of its video, and the clips (rows of the annotations) that come from it."""

    url: str
    part: Path
    clips: list[Any]


def download_videos(root: Path, subset: int, manners: Manners = POLITE) -> pd.DataFrame:
    """Download the videos of the first `subset` glosses to <root>/videos/ and write <root>/coverage.csv.

    Videos that are there and begin to decode are kept. Each other address is asked for once, however many clips come
    from it, and its file checked by decoding it to its end; a clip that is annotated as a part of a longer video is
    cut out of it. A broken download stays as <video_id>.part and the next attempt, or run, goes on from there.
    Shows a progress bar. What fails ends up in the report and stops nothing.

    Returns the report, one row per official clip in the order of the annotations, all str: video_id, gloss, split,
    url, status (present | failed), reason ("" where present). It is written after a stop by the user, too.
    Raises StudyError when the annotations are absent or broken, or the disk is full or not writable.
    """
    clips = read_annotations(root, subset)
    clips["url"] = clips["video_id"].map(read_urls(root, subset)).fillna("")
    folder = root / "videos"
    try:
        folder.mkdir(exist_ok=True)
        with locked(folder / ".download.lock"):  # two runs must not write one partial file together
            return _download_missing(clips, root, manners)
    except OSError as error:
        raise StudyError(
            f"{folder}: cannot be written ({error.strerror or error}); make room or correct DATA"
        ) from None


def read_urls(root: Path, subset: int) -> dict[str, str]:
    """Read the web addresses of the videos, by video_id, from the rich annotation files, which are valid.

    Those in v0.3 take precedence over those in WLASL<n>: they are newer. Raises StudyError when there is no such file.
    """
    files = [root / "annotations" / name for name in (f"WLASL{subset}.json", "WLASL_v0.3.json")]
    glosses = [gloss for file in files if file.is_file() for gloss in json.loads(file.read_bytes())]
    if not glosses:
        raise StudyError(
            f"{root / 'annotations'} holds neither WLASL_v0.3.json nor WLASL{subset}.json, which say where the videos "
            "are; get one from https://github.com/dxli94/WLASL (start_kit)"
        )
    return {clip["video_id"]: clip["url"] for gloss in glosses for clip in gloss["instances"] if clip.get("url")}


def _download_missing(clips: pd.DataFrame, root: Path, manners: Manners) -> pd.DataFrame:
    present = _find_present(root / "videos", clips["video_id"])
    reasons = {
        clip.video_id: "" if clip.video_id in present else _unfit(clip.video_id, clip.url) or NOT_TRIED
        for clip in clips.itertuples()
    }
    jobs = _group(clips, {video_id for video_id, why in reasons.items() if why == NOT_TRIED}, root / "videos")
    try:
        _work(jobs, reasons, manners)
    finally:  # also after a stop, for what came until then
        report = clips.assign(reason=clips["video_id"].map(reasons))
        report = report.assign(status=report["reason"].map(lambda why: "failed" if why else "present"))[list(COLUMNS)]
        with replacing(root / "coverage.csv") as path:
            report.to_csv(path, index=False)
    return report


def _find_present(folder: Path, video_ids: Iterable[str]) -> set[str]:
    """The clips with a file that begins to decode; what this module wrote was decoded to its end before."""
    files = defaultdict(list)
    for path in folder.iterdir():
        if path.suffix.lower() in SUFFIXES:
            files[path.stem].append(path)
    there = [video_id for video_id in video_ids if video_id in files]
    bar = tqdm(there, "already there", unit="clip", disable=not there)
    return {video_id for video_id in bar if any(map(_decodes, files[video_id]))}


def _decodes(path: Path) -> bool:
    try:
        with closing(frames(path)) as images:
            next(images)
    except StudyError:
        return False
    return True


def _unfit(video_id: str, url: str) -> str:
    """Why a clip need not be tried, "" where it may."""
    if Path(video_id).name != video_id:
        return "its video_id is not a file name"
    if not url:
        return "the annotations give no address"
    site = site_of(url)
    if not site:
        return "its address is not on the web"
    return "needs yt-dlp" if site == "YouTube" and yt_dlp() is None else ""


def _group(clips: pd.DataFrame, wanted: set[str], folder: Path) -> dict[str, list[_Job]]:
    """The jobs of the wanted clips by site. A part is named by the first clip of its address, wanted or not."""
    sites = defaultdict(list)
    for url, group in clips.groupby("url", sort=False):
        rows = list(group.itertuples(index=False))
        if missing := [row for row in rows if row.video_id in wanted]:
            sites[site_of(url)].append(_Job(url, folder / f"{Path(rows[0].video_id).name}.part", missing))
    return sites


def _work(jobs: dict[str, list[_Job]], reasons: dict[str, str], manners: Manners) -> None:
    """Do the jobs, the sites beside each other, and put into `reasons` how each clip ended."""
    lock, stop = threading.Lock(), threading.Event()
    total = sum(len(job.clips) for of_site in jobs.values() for job in of_site)
    with tqdm(desc="videos", total=total, unit="clip") as bar, ThreadPoolExecutor(manners.connections) as pool:

        def note(video_id: str, why: str) -> None:
            with lock:
                reasons[video_id] = why
                bar.update()

        longest_first = sorted(jobs, key=lambda name: -len(jobs[name]))
        futures = [pool.submit(_visit, Site(name, manners, stop), jobs[name], note) for name in longest_first]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:  # Ctrl-C or a full disk; the pool waits for the downloads under way
            stop.set()
            bar.write("stopping after the downloads under way", file=sys.stderr)
            raise


def _visit(site: Site, jobs: list[_Job], note: Note) -> None:
    """Do the jobs of one site until told to stop. Raises OSError only where the disk is the problem."""
    for job in jobs:
        if site.stop.is_set():
            return
        try:
            site.fetch(job.url, job.part)
        except VideoError as error:
            for clip in job.clips:
                note(clip.video_id, str(error))
            continue
        for clip in job.clips:
            note(clip.video_id, _deliver(job, clip))
        job.part.unlink(missing_ok=True)  # copied where it is good; where not, nothing in it can be trusted


def _deliver(job: _Job, clip: Any) -> str:
    """Make the file of one clip from the whole video; says why that failed, "" where the file is there."""
    target = job.part.with_name(clip.video_id + _suffix(job.url, clip))
    try:
        with replacing(target) as new:
            if clip.frame_end == -1:
                shutil.copyfile(job.part, new)
            else:
                cut_out(job.part, new, start=clip.frame_start, end=clip.frame_end, fps=clip.fps)
            probe(new)
    except Exception as error:  # one odd file must not cost the other twenty thousand
        if getattr(error, "errno", None) in DISK:
            raise
        return _short(error, target.parent)
    for suffix in SUFFIXES:  # files that cannot be read, and might be preferred to the new one
        if (broken := target.with_suffix(suffix)) != target:
            broken.unlink(missing_ok=True)
    return ""


def _suffix(url: str, clip: Any) -> str:
    """That of the address where the file is kept as it came and readers of a data root know it, else .mp4."""
    suffix = Path(urlsplit(url).path).suffix.lower()
    return suffix if clip.frame_end == -1 and suffix in SUFFIXES else ".mp4"


def _short(error: Exception, folder: Path) -> str:
    """An error in one line; of a StudyError ("<path>: reason; advice") the reason."""
    text = " ".join(str(error).split())
    if isinstance(error, StudyError):
        return text.removeprefix(f"{folder}/").partition(": ")[2].partition("; ")[0]
    return f"{type(error).__name__}: {text}"


def summary(report: pd.DataFrame) -> str:
    """Say for a report of `download_videos` how many clips of each split are there, and why most of the others not."""
    lines = []
    for split in (*SPLITS, "all"):
        status = report["status"][(report["split"] == split) | (split == "all")]
        present = int((status == "present").sum())
        share = f" ({present / len(status):.1%})" if len(status) else ""
        lines.append(f"{split:<6}{present:>6} of {len(status)} clips{share}")
    reasons = report["reason"][report["status"] == "failed"].value_counts()
    lines += [f"{count:>12} × {why}" for why, count in reasons.head(10).items()]
    return "\n".join(lines)


def main(data: str, subset: str, accept: str) -> int:
    """Show the licence, download, print a summary, and return the exit code: 0, or 1 with one line on stderr."""
    print(LICENCE, flush=True)
    try:
        root, glosses = _check(data, subset, accept)
        report = download_videos(root, glosses)
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 1
    print(f"{summary(report)}\nreport: {root / 'coverage.csv'}")
    return 0


def _check(data: str, subset: str, accept: str) -> tuple[Path, int]:
    """The data root and the number of glosses. Raises StudyError when one is wrong, or the licence not accepted."""
    if not data or not Path(data).is_dir():
        raise StudyError(f"the data root '{data}' does not exist: say DATA=<root>, the folder that holds annotations/")
    if not subset.isdecimal() or int(subset) < 1:
        raise StudyError(f"SUBSET is the number of glosses (100, 300, 1000 or 2000), not '{subset}'")
    if accept != "yes":
        raise StudyError("nothing was downloaded: read the terms above and, if you accept them, say ACCEPT=yes")
    return Path(data), int(subset)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
