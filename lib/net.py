"""Downloading files over HTTP: a broken download goes on where it stopped, an error says why in a few words."""

import fcntl
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

CHUNK = 1 << 20  # bytes read at a time
TIMEOUT = 30  # seconds without a byte after which a server counts as unreachable


class WebPageError(OSError):
    """The server sent a web page where a file was asked for."""


def download(
    url: str, part: Path, *, timeout: float = TIMEOUT, headers: Mapping[str, str] | None = None, quiet: bool = False
) -> None:
    """Write what is missing of the file `part`, under a progress bar unless `quiet`.

    timeout: seconds without a byte. A web page (text/html) is refused before anything of `part` is touched.
    Raises OSError (URLError, TimeoutError, WebPageError) or HTTPException when the connection fails or breaks off;
    `part` then holds what came until there.
    """
    have = part.stat().st_size if part.exists() else 0
    ranged = {"Range": f"bytes={have}-"} if have else {}
    request = urllib.request.Request(url, headers=dict(headers or {}) | ranged)
    try:
        answer = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        part.unlink()  # the server has no more than that many bytes: another file, or all but the renaming was done
        return download(url, part, timeout=timeout, headers=headers, quiet=quiet)
    with answer:
        if answer.headers.get_content_type() == "text/html":
            raise WebPageError("the server sent a web page instead of the file")
        with part.open("ab" if answer.status == 206 else "wb") as file:
            _copy(answer, file, part.name.removesuffix(".part"), quiet)


def _copy(answer: http.client.HTTPResponse, file: BinaryIO, name: str, quiet: bool) -> None:
    """Append a server's answer to a file; raises IncompleteRead when it breaks off."""
    have, left = file.tell(), answer.length
    total = None if left is None else have + left
    with tqdm(desc=name, total=total, initial=have, unit="B", unit_scale=True, disable=quiet) as bar:
        while chunk := answer.read1(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
    if total is not None and file.tell() < total:
        raise http.client.IncompleteRead(b"", total - file.tell())


def reason(error: Exception) -> str:
    """Why a download failed, in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"{error.code} {error.reason}"
    if isinstance(error, http.client.IncompleteRead):
        rest = "" if error.expected is None else f" {error.expected} bytes before the end"
        return f"the connection broke off{rest}; another attempt goes on from there"
    return str(error.reason if isinstance(error, urllib.error.URLError) else error) or type(error).__name__


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other process holds `path`, then hold it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
