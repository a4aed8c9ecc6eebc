"""Downloads the videos of WLASL from the sites that its annotations list, and reports what it could get.

    python data/download.py <data root> <number of glosses> yes

The last word accepts the licence. Running it again resumes the download and retries what failed.
"""

import json
import re
import shutil
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
import pandas as pd
from tqdm import tqdm

import sites
from lib.data.picture import display_matrix
from lib.data.sources import ROUNDING_OVERSHOOT, to_file_frames
from lib.data.video import SUFFIXES, frames, frames_at, probe
from lib.data.wlasl import SPLITS, read_annotations
from lib.paths import locked, replacing
from lib.settings import StudyError
from sites import DISK, Site, VideoError, site_of

LICENCE = """\
WLASL (Li et al. 2020) is released under the Computational Use of Data Agreement, C-UDA 1.0:
https://github.com/dxli94/WLASL/blob/master/C-UDA-1.0.pdf
  - for computational use only, that is, analysis by a computer; its authors allow academic but no commercial use;
  - anyone who passes the data on must pass on these terms and all attributions with it;
  - the videos belong to the sites and people that they come from, whose own terms apply as well;
  - there is no warranty of any kind, not even that anyone holds the rights to the videos."""
COLUMNS = ["video_id", "gloss", "split", "url", "status", "reason"]
NOT_TRIED = "not tried because the run was stopped; run again"
CONNECTIONS = 4  # at a time, each to a different site
QUALITY = "18"  # of x264: a copy that is visually indistinguishable from its source
_Job = tuple[Path, list[Any]]  # a partial file, and the clips (rows of the annotations) that come from its address


def download_videos(root: Path, subset: int) -> pd.DataFrame:
    """Download the videos of the first `subset` glosses to <root>/videos/ and write <root>/coverage.csv.

    Keeps videos that are there and begin to decode. Fetches each other address once, however many clips come from it,
    and decodes its file to the end as a check. A clip annotated as part of a longer video is cut out of it. An
    interrupted download stays as <video_id>.part, where the next attempt or run resumes. Shows a progress bar.
    A failure is reported and stops nothing.

    Returns the report, one row per official clip in the order of the annotations, all str: video_id, gloss, split,
    url, status (present | failed), reason ("" where present). It is also written when the user stops the run.
    Raises StudyError when the annotations are missing or broken, or the disk is full or not writable.
    """
    clips = read_annotations(root, subset)
    clips["url"] = clips["video_id"].map(read_urls(root, subset)).fillna("")
    folder = root / "videos"
    try:
        with locked(folder / ".download.lock"):  # two runs must not write to the same partial file
            present = _find_present(folder, clips["video_id"])
            reasons = {
                clip.video_id: "" if clip.video_id in present else _obstacle(clip) or NOT_TRIED
                for clip in clips.itertuples()
            }
            try:
                _fetch_all(_jobs(clips, reasons, folder), reasons)
            finally:  # after Ctrl-C, too, for what has arrived until then
                clips["reason"] = clips["video_id"].map(reasons)
                clips["status"] = clips["reason"].map(lambda why: "failed" if why else "present")
                with replacing(root / "coverage.csv") as path:
                    clips.to_csv(path, columns=COLUMNS, index=False)
    except OSError as error:
        raise StudyError(
            f"{folder}: cannot be written ({error.strerror or error}); make room or correct DATA"
        ) from None
    return clips[COLUMNS]


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


def _find_present(folder: Path, video_ids: Iterable[str]) -> set[str]:
    """The clips with a file that begins to decode; files written here were decoded to their end before."""
    wanted, present = set(video_ids), set()
    there = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.stem in wanted]
    for path in tqdm(there, "already there", unit="clip", disable=not there):
        with suppress(StudyError), closing(frames(path)) as images:
            next(images)
            present.add(path.stem)
    return present


def _obstacle(clip: Any) -> str:
    """Why trying to download a clip is pointless, "" if it is not."""
    if Path(clip.video_id).name != clip.video_id:
        return "its video_id is not a file name"
    if not clip.url:
        return "the annotations give no address"
    site = site_of(clip.url)
    if not site:
        return "its address is not a web address"
    return "needs yt-dlp" if site == "YouTube" and sites.yt_dlp is None else ""


def _jobs(clips: pd.DataFrame, reasons: dict[str, str], folder: Path) -> dict[str, list[_Job]]:
    """The jobs of the clips not tried yet, by site. A partial file has the name of the first clip of its address."""
    jobs = defaultdict(list)
    for url, group in clips.groupby("url", sort=False):
        rows = list(group.itertuples(index=False))
        if missing := [row for row in rows if reasons[row.video_id] == NOT_TRIED]:
            jobs[site_of(url)].append((folder / f"{Path(rows[0].video_id).name}.part", missing))
    return jobs


def _fetch_all(jobs: dict[str, list[_Job]], reasons: dict[str, str]) -> None:
    """Do the jobs, several sites at a time, and put into `reasons` how each clip ended."""
    stop = threading.Event()
    total = sum(len(clips) for of_site in jobs.values() for _, clips in of_site)
    longest_first = sorted(jobs, key=lambda name: -len(jobs[name]))
    with tqdm(desc="videos", total=total, unit="clip") as bar, ThreadPoolExecutor(CONNECTIONS) as pool:
        futures = [pool.submit(_visit, Site(name, stop), jobs[name], reasons, bar) for name in longest_first]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:  # Ctrl-C or a full disk; the pool waits for the downloads in progress
            stop.set()
            bar.write("stopping after the downloads in progress", file=sys.stderr)
            raise


def _visit(site: Site, jobs: list[_Job], reasons: dict[str, str], bar: tqdm) -> None:
    """Do the jobs of one site until told to stop. Raises OSError only when the disk is the problem."""
    for part, clips in jobs:
        if site.stop.is_set():
            return
        failure = None
        try:
            site.fetch(clips[0].url, part)
        except VideoError as error:
            failure = str(error)
        for clip in clips:
            reasons[clip.video_id] = failure or _deliver(part, clip)
            with bar.get_lock():
                bar.update()
        if not failure:
            part.unlink(missing_ok=True)  # copied if it is good, and not worth keeping if it is not


def _deliver(part: Path, clip: Any) -> str:
    """Make the file of one clip from the whole video. Returns why that failed, "" if it did not."""
    suffix = Path(urlsplit(clip.url).path).suffix.lower()
    whole = clip.frame_end == -1
    target = part.with_name(clip.video_id + (suffix if whole and suffix in SUFFIXES else ".mp4"))
    try:
        with replacing(target) as new:
            if whole:
                shutil.copyfile(part, new)
            else:
                cut_out(part, new, start=clip.frame_start, end=clip.frame_end, fps=clip.fps)
            probe(new)
    except StudyError as error:  # "<path>: reason; advice"
        return str(error).removeprefix(f"{part.parent}/").partition(": ")[2].partition("; ")[0]
    except Exception as error:  # one odd file must not cost the other twenty thousand
        if getattr(error, "errno", None) in DISK:
            raise
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    for other in {target.with_suffix(suffix) for suffix in SUFFIXES} - {target}:
        other.unlink(missing_ok=True)  # unreadable, but the index might prefer it
    return ""


def cut_out(source: Path, target: Path, *, start: int, end: int, fps: float) -> None:
    """Write frames `start` to `end` of a video to `target` (H.264 in mp4, no sound) at the source's frame rate.

    `start` and `end` are as annotated: 1-based and inclusive, counted at `fps` frames per second. WLASL's own
    preprocess.py cuts signs out of compilations in the same way.
    Raises StudyError ("<source>: reason") when the source cannot be read or ends well before the last frame.
    """
    with av.open(str(source)) as container:
        rate = container.streams.video[0].average_rate
    if not rate:
        raise StudyError(f"{source}: the file states no frame rate, so the sign cannot be found in it")
    first, stop = to_file_frames(start, end, fps=fps, file_fps=float(rate), n_frames=None)
    with av.open(str(target), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": QUALITY})
        written = 0
        for number, frame in frames_at(source, range(first, stop)):
            if not written:
                _like(stream, frame)
            frame = frame.reformat(stream.width, stream.height, stream.pix_fmt)
            frame.pts, frame.time_base = number - first, 1 / rate
            frame.pict_type = av.video.frame.PictureType.NONE  # or else the copy inherits the source's key frames
            container.mux(stream.encode(frame))
            written += 1
        if stop - first > ROUNDING_OVERSHOOT * written:
            raise StudyError(f"{source}: has {written} of the annotated frames {first} to {stop}")
        container.mux(stream.encode())


def _like(stream: av.VideoStream, frame: av.VideoFrame) -> None:
    """Make a stream of H.264 show frames like this one: size, format, colours, and how they are turned.

    A format that H.264 does not have, or not at an odd size, becomes 4:4:4, which loses nothing but alpha.
    """
    name, coder = frame.format.name, stream.codec_context
    stream.width, stream.height = frame.width, frame.height
    kept = re.fullmatch(r"yuvj?4(44|2[02])p(10le)?", name) and ("444" in name or not (frame.width | frame.height) % 2)
    stream.pix_fmt = name if kept else "yuv444p10le" if frame.format.components[0].bits > 8 else "yuv444p"
    coder.color_range = frame.reformat(stream.width, stream.height, stream.pix_fmt).color_range
    coder.colorspace = frame.colorspace or av.video.reformatter.Colorspace.DEFAULT  # RGB has number 0, and is converted
    coder.color_primaries, coder.color_trc = frame.color_primaries, frame.color_trc
    if matrix := display_matrix(frame):
        stream.set_display_matrix(matrix)


def summary(report: pd.DataFrame) -> str:
    """Say how many clips of each split a report of `download_videos` has, and the main reasons for failures."""
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
        if not data or not Path(data).is_dir():
            raise StudyError(f"the data root '{data}' does not exist: set DATA=<root>, the folder with annotations/")
        if not subset.isdecimal() or int(subset) < 1:
            raise StudyError(f"SUBSET is the number of glosses (100, 300, 1000 or 2000), not '{subset}'")
        if accept != "yes":
            raise StudyError("nothing was downloaded: read the terms above and, if you accept them, set ACCEPT=yes")
        report = download_videos(Path(data), int(subset))
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; run the same command to resume", file=sys.stderr)
        return 1
    print(f"{summary(report)}\nreport: {Path(data) / 'coverage.csv'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
