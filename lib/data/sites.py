"""Fetching video files from the sites that WLASL names: politely, in several attempts, going on where one broke off."""

import errno
import http.client
import threading
import time
import urllib.error
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from urllib.parse import quote, urlsplit

from lib.net import WebPageError, download, reason

SILENT = 3  # videos in a row that a site does not answer for, after which the rest of its videos wait for another run
LONGEST_WAIT = 60.0  # seconds; a site that asks for a longer one is served in the next attempt all the same
# Says what asks; some of the sites refuse a client that does not begin with "Mozilla".
AGENT = "Mozilla/5.0 (compatible; wlasl-study/0.1; non-commercial research)"
REFERERS = {"www.aslpro.com": "http://www.aslpro.com/cgi-bin/aslpro/aslpro.cgi"}  # refuses files without it
YOUTUBE = {"youtu.be", "youtube.com", "www.youtube.com", "m.youtube.com"}
# One stream with pictures, as joining two would need the ffmpeg program; clips are stored with 256 lines, so 720 do.
YOUTUBE_FORMAT = "bv*[vcodec^=avc1][height<=720]/b[ext=mp4][height<=720]/b[ext=mp4]"
YOUTUBE_REFUSALS = ("not a bot", "rate-limited", "unable to download")  # of us or for now, not of the one video
PASSING = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses that another attempt may not meet again
REFUSALS = {429, 503}  # those of them by which a site asks to be left alone
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO}  # problems of this machine, not of a video


@dataclass(frozen=True)
class Manners:
    """How sites are treated. Times in seconds."""

    pause: float = 1.0  # at least, between two requests to one site
    timeout: float = 30.0  # without a byte
    attempts: int = 4  # for each video
    wait: float = 2.0  # before the second attempt; doubles with each further one
    connections: int = 4  # at once, each to another site
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


POLITE = Manners()


class VideoError(Exception):
    """Why a video could not be had, in one line.

    wait: seconds to leave at least before another attempt; None: it would be in vain.
    silent: the site does not answer, or asks to be left alone.
    """

    def __init__(self, why: str, wait: float | None = None, *, silent: bool = False) -> None:
        super().__init__(" ".join(why.split()))
        self.wait, self.silent = wait, silent


class Site:
    """One host. Its videos are fetched one after another, so that the pauses between requests need no lock."""

    def __init__(self, name: str, manners: Manners, stop: threading.Event) -> None:
        self.name, self.manners, self.stop = name, manners, stop
        self.free_at = manners.clock()
        self.silent = 0  # videos in a row

    def fetch(self, url: str, part: Path) -> None:
        """Bring the partial file `part` to its full length, in several attempts with growing waits.

        Raises VideoError when that fails, at once where it is in vain, and for every video once the site has not
        answered for SILENT of them in a row. Raises OSError when the disk is the problem.
        """
        if self.silent >= SILENT:
            raise VideoError(f"{self.name} did not answer {SILENT} times in a row; run again later")
        try:
            self._attempt(url, part)
        except VideoError as error:
            self.silent = self.silent + 1 if error.silent else 0
            raise
        self.silent = 0

    def _attempt(self, url: str, part: Path) -> None:
        for attempt in range(1, self.manners.attempts + 1):
            self._pause()
            try:
                return get(url, part, self.manners.timeout)
            except VideoError as error:
                if error.wait is None or attempt == self.manners.attempts or self.stop.is_set():
                    raise
                self.manners.sleep(max(error.wait, self.manners.wait * 2 ** (attempt - 1)))

    def _pause(self) -> None:
        """Wait until the site may be asked again."""
        wait = self.free_at - self.manners.clock()
        if wait > 0:
            self.manners.sleep(wait)
        self.free_at = self.manners.clock() + self.manners.pause


def site_of(url: str) -> str:
    """The host that an address belongs to, with its port; "YouTube" for its several hosts; "" for no web address."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https"):
        return ""
    return "YouTube" if parts.hostname in YOUTUBE else parts.netloc


def yt_dlp() -> ModuleType | None:
    """yt-dlp where it is installed: it follows YouTube, faster than pins do, so it is not among the requirements."""
    try:
        import yt_dlp
    except ImportError:
        return None
    return yt_dlp


def get(url: str, part: Path, timeout: float) -> None:
    """Write what is missing of the partial file `part`, in one attempt; timeout: seconds without a byte.

    Raises VideoError when that fails, and OSError when the disk is the problem.
    """
    try:
        if site_of(url) == "YouTube":
            _get_from_youtube(url, part, timeout)
        else:
            _get_file(url, part, timeout)
    except VideoError:
        raise
    except Exception as error:  # whatever a site or yt-dlp comes up with must not cost the other twenty thousand
        if getattr(error, "errno", None) in DISK:
            raise
        raise _judged(error) from None


def _judged(error: Exception) -> VideoError:
    """Whether another attempt may help after this error, and whether the site is there at all."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        wait = _asked_wait(error) if error.code in PASSING else None
        return VideoError(reason(error), wait, silent=error.code in REFUSALS)
    if isinstance(error, http.client.IncompleteRead):
        return VideoError(reason(error), 0)
    if isinstance(error, WebPageError | http.client.InvalidURL):
        return VideoError(reason(error))
    if isinstance(error, OSError | http.client.HTTPException):
        return VideoError(reason(error), 0, silent=True)
    return VideoError(f"{type(error).__name__}: {error}")


def _asked_wait(error: urllib.error.HTTPError) -> float:
    """The seconds that a site asks to wait, at most LONGEST_WAIT; 0 where it does not, or names a date."""
    asked = error.headers.get("Retry-After", "")
    return min(float(asked), LONGEST_WAIT) if asked.isdecimal() else 0.0


def _get_file(url: str, part: Path, timeout: float) -> None:
    referer = REFERERS.get(site_of(url))
    headers = {"User-Agent": AGENT} | ({"Referer": referer} if referer else {})
    quoted = quote(url, safe="%/:=&?~#+!$,;'@()*[]")  # an address may hold blanks, or be quoted already
    download(quoted, part, timeout=timeout, headers=headers, quiet=True)


class _Mute:
    """What yt-dlp says goes nowhere: the error that it raises says it again."""

    def debug(self, message: str) -> None:
        """Drop it."""

    warning = error = debug


def _get_from_youtube(url: str, part: Path, timeout: float) -> None:
    library = yt_dlp()
    if library is None:
        raise VideoError("needs yt-dlp")
    options = {
        "format": YOUTUBE_FORMAT,
        "outtmpl": {"default": str(part).replace("%", "%%")},
        "noplaylist": True,
        "fixup": "never",  # would need the ffmpeg program; PyAV reads the files as they are
        "socket_timeout": timeout,
        "retries": 0,  # attempts are counted here, as for every site
        "extractor_retries": 0,
        "logger": _Mute(),
        "noprogress": True,
        "color": "never",
    }
    try:
        with library.YoutubeDL(options) as tool:
            tool.download([url])
    except library.utils.DownloadError as error:
        why = str(error).removeprefix("ERROR: ")
        refused = any(words in why.lower() for words in YOUTUBE_REFUSALS)
        raise VideoError(why, 0 if refused else None, silent=refused) from None
