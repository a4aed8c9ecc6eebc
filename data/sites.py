"""Fetching videos from the sites that WLASL lists, politely: pauses, retries with growing waits, resumed downloads."""

import errno
import logging
import threading
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import urlsplit

import requests
import tenacity

from lib.net import WebPageError, download, reason

try:
    import yt_dlp  # not among the requirements: it follows YouTube's changes faster than pins can
except ImportError:
    yt_dlp = None

# Times in seconds.
PAUSE = 1.0  # minimum between two requests to one site
TIMEOUT = 30.0  # without a byte
ATTEMPTS = 4  # for each video
WAIT = 2.0  # before the second attempt; doubles with each further one
LONGEST_WAIT = 60.0  # a site that asks for a longer one is asked again after this
SILENT = 3  # videos in a row that a site does not answer for before the rest of its videos are left for another run
# Identifies the client; some of the sites refuse one that does not begin with "Mozilla".
AGENT = "Mozilla/5.0 (compatible; wlasl-study/0.1; non-commercial research)"
REFERERS = {"www.aslpro.com": "http://www.aslpro.com/cgi-bin/aslpro/aslpro.cgi"}  # refuses files without it
YOUTUBE = {"youtu.be", "youtube.com", "www.youtube.com", "m.youtube.com"}
# A single stream with video, since merging two needs the ffmpeg program; clips are stored at 256 lines, so 720 suffice.
YOUTUBE_FORMAT = "bv*[vcodec^=avc1][height<=720]/b[ext=mp4][height<=720]/b[ext=mp4]"
YOUTUBE_REFUSALS = ("not a bot", "rate-limited", "unable to download")  # they concern the client, not the video
TEMPORARY = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses worth another attempt
REFUSALS = {429, 503}  # those of them by which a site asks to be left alone
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO}  # this machine's problems, not a video's


class VideoError(Exception):
    """Why a video could not be fetched, in one line.

    wait: seconds to leave at least before another attempt; None where another is pointless.
    silent: the site does not answer, or asks to be left alone.
    """

    def __init__(self, why: str, *, wait: float | None = None, silent: bool = False) -> None:
        super().__init__(" ".join(why.split()))
        self.wait, self.silent = wait, silent


class Site:
    """One host. Its videos are fetched one after another, so the pauses between requests need no lock."""

    def __init__(self, name: str, stop: threading.Event) -> None:
        self.name, self.stop = name, stop
        self.free_at, self.silent = monotonic(), 0  # silent: videos in a row
        self.attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: getattr(error, "wait", None) is not None),
            stop=tenacity.stop_after_attempt(ATTEMPTS) | tenacity.stop_when_event_set(stop),
            wait=lambda state: max(state.outcome.exception().wait, WAIT * 2 ** (state.attempt_number - 1)),
            sleep=sleep,
            reraise=True,
        )

    def fetch(self, url: str, part: Path) -> None:
        """Complete the partial file `part`, in several attempts with growing waits.

        Raises VideoError when that fails: at once where another attempt is pointless, and for every video once the
        site has not answered for SILENT of them in a row. Raises OSError when the disk is the problem.
        """
        if self.silent >= SILENT:
            raise VideoError(f"{self.name} did not answer {SILENT} times in a row; run again later")
        try:
            self.attempts(self._get, url, part)
        except VideoError as error:
            self.silent = self.silent + 1 if error.silent else 0
            raise
        self.silent = 0

    def _get(self, url: str, part: Path) -> None:
        """Make one attempt, PAUSE after the one before."""
        if (wait := self.free_at - monotonic()) > 0:
            sleep(wait)
        self.free_at = monotonic() + PAUSE
        try:
            if self.name == "YouTube":
                _get_from_youtube(url, part)
            else:
                headers = {"User-Agent": AGENT, "Referer": REFERERS.get(self.name)}  # requests drops a header of None
                download(url, part, timeout=TIMEOUT, headers=headers, quiet=True)
        except VideoError:
            raise
        except requests.HTTPError as error:
            status, asked = error.response.status_code, error.response.headers.get("Retry-After", "")
            wait = min(float(asked), LONGEST_WAIT) if asked.isdecimal() else 0.0
            wait = wait if status in TEMPORARY else None
            raise VideoError(reason(error), wait=wait, silent=status in REFUSALS) from None
        except requests.exceptions.ChunkedEncodingError as error:  # the site answers, but the connection broke off
            raise VideoError(reason(error), wait=0.0) from None
        except (requests.ConnectionError, requests.Timeout) as error:
            raise VideoError(reason(error), wait=0.0, silent=True) from None
        except (requests.RequestException, WebPageError) as error:
            raise VideoError(reason(error)) from None
        except Exception as error:  # whatever a site or yt-dlp comes up with must not cost the other twenty thousand
            if getattr(error, "errno", None) in DISK:
                raise
            raise VideoError(f"{type(error).__name__}: {error}") from None


def site_of(url: str) -> str:
    """The host of an address, with its port; "YouTube" for its several hosts; "" if it is not a web address."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https"):
        return ""
    return "YouTube" if parts.hostname in YOUTUBE else parts.netloc


def _get_from_youtube(url: str, part: Path) -> None:
    if yt_dlp is None:
        raise VideoError("needs yt-dlp")
    options = {
        "format": YOUTUBE_FORMAT,
        "outtmpl": {"default": str(part).replace("%", "%%")},
        "noplaylist": True,
        "fixup": "never",  # needs the ffmpeg program; PyAV reads the files as they are
        "socket_timeout": TIMEOUT,
        "retries": 0,  # attempts are counted here, as for every site
        "extractor_retries": 0,
        "logger": logging.Logger("yt-dlp", logging.CRITICAL),  # the error that yt-dlp raises says it all
        "noprogress": True,
        "color": "never",
    }
    try:
        with yt_dlp.YoutubeDL(options) as tool:
            tool.download([url])
    except yt_dlp.utils.DownloadError as error:
        why = str(error).removeprefix("ERROR: ")
        refused = any(words in why.lower() for words in YOUTUBE_REFUSALS)
        raise VideoError(why, wait=0.0 if refused else None, silent=refused) from None
