"""Downloading files over HTTP: an interrupted download resumes from its partial file."""

from collections.abc import Mapping
from pathlib import Path

import requests
import urllib3
from tqdm import tqdm

CHUNK = 1 << 20  # bytes


class WebPageError(OSError):
    """The server sent a web page where a file was requested."""


def download(
    url: str, part: Path, *, timeout: float = 30, headers: Mapping[str, str] | None = None, quiet: bool = False
) -> None:
    """Download what is missing of the file `part`, with a progress bar unless `quiet`.

    timeout: seconds without a byte before the server counts as unreachable.
    Raises WebPageError for a web page (text/html), leaving `part` as it was, and requests.RequestException when the
    request fails or the connection breaks off; `part` then keeps what has arrived. Both are OSErrors.
    """
    have = part.stat().st_size if part.exists() else 0
    asked = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers={**(headers or {}), **asked}, timeout=timeout, stream=True) as answer:
        if answer.status_code == 416 and have:  # `part` is another file, or was already complete
            part.unlink()
            return download(url, part, timeout=timeout, headers=headers, quiet=quiet)
        answer.raise_for_status()
        if answer.headers.get("Content-Type", "").lower().startswith("text/html"):
            raise WebPageError("the server sent a web page instead of the file")
        mode, have = ("ab", have) if answer.status_code == 206 else ("wb", 0)
        length, name = answer.headers.get("Content-Length"), part.name.removesuffix(".part")
        total = have + int(length) if length else None
        bar = tqdm(desc=name, total=total, initial=have, unit="B", unit_scale=True, disable=quiet)
        with part.open(mode) as file, bar:
            try:  # the raw stream, because requests' own iterator loses the last chunk when the connection breaks off
                while data := answer.raw.read1(CHUNK):
                    file.write(data)
                    bar.update(len(data))
            except urllib3.exceptions.ReadTimeoutError as error:
                raise requests.ReadTimeout(error) from error
            except urllib3.exceptions.HTTPError as error:
                raise requests.exceptions.ChunkedEncodingError(error) from error


def reason(error: BaseException) -> str:
    """Say in a few words why a download failed."""
    if isinstance(error, requests.HTTPError):
        return f"{error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.ConnectionError | requests.Timeout | requests.exceptions.ChunkedEncodingError):
        while cause := error.__cause__ or error.__context__:  # these wrap what went wrong several times
            error = cause
    if isinstance(error, urllib3.exceptions.IncompleteRead):
        return f"the connection broke off {error.expected} bytes before the end; the next attempt resumes there"
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
