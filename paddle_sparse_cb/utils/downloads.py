"""The download cache: folders that are built once, and files behind a URL that are verified before they enter it."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import logging
import os
import queue
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import platformdirs

from ..errors import InputError
from .messages import logger

_HUB = "https://paddledet.bj.bcebos.com/"  # what PaddleDetection abbreviates to ppdet://
_CHUNK = 1 << 16  # bytes


def cache_dir() -> Path:
    """Returns the cache folder: `$PADDLE_SPARSE_CACHE`, else a folder in the user's cache (`$XDG_CACHE_HOME`).

    Raises:
        InputError: the folder is below the home folder of a user who has none, as in a container that runs under the
            number of an unknown user.
    """
    explicit = os.environ.get("PADDLE_SPARSE_CACHE")
    try:
        default = platformdirs.user_cache_dir("paddle_sparse_cb", appauthor=False)
    except RuntimeError:  # platformdirs from 4.5 on; earlier ones return a path that begins with ~
        default = "~/.cache/paddle_sparse_cb"
    folder = os.path.expanduser(explicit or default)
    if folder.startswith("~"):
        raise InputError(f"there is no home folder for the download cache {folder}: set HOME or PADDLE_SPARSE_CACHE")
    return Path(folder)


def cached_folder(name: str, build: Callable[[Path], None]) -> Path:
    """Returns a folder of the cache and builds it on first use.

    Args:
        name: the folder's path relative to the cache.
        build: fills the path that it is given, which does not exist yet. Concurrent processes, such as the ranks of a
            distributed training, may each build the folder; the first to finish wins. A finished folder is never
            changed, and a failed build leaves nothing behind.
    """
    folder = cache_dir() / name
    if folder.is_dir():
        logger.debug(f"using {folder}")
    else:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            built = Path(scratch, folder.name)
            build(built)
            try:
                os.rename(built, folder)
            except OSError:
                if not folder.is_dir():
                    raise
    return folder


@dataclass(frozen=True)
class Limits:
    """Bounds on a download.

    Attributes:
        read_timeout: seconds to wait for the connection and for each read.
        total_timeout: seconds for the whole download, retries included.
        max_bytes: largest accepted body.
        retries: further attempts after a connection error, a truncated body, a timeout, or status 429 or 5xx.
        pause: seconds before the first retry; doubled before each further one.
    """

    read_timeout: float = 30.0
    total_timeout: float = 1800.0
    max_bytes: int = 2 << 30
    retries: int = 2
    pause: float = 0.5


def fetch_url(url: str, limits: Limits = Limits(), check: Callable[[Path], object] | None = None) -> Path:
    """Downloads a file unless the cache already has it.

    The body has to have the announced length, and the MD5 digest of the `Content-MD5` header if the host sends one.
    An empty body and an HTML page, which login and error pages are, are refused.

    Args:
        url: `https://`, `http://` or `ppdet://` (PaddleDetection's model zoo), optionally followed by `#sha256=` and
            the digest that the file must have.
        limits: bounds in time and size.
        check: is given the file before it enters the cache, and raises InputError if it cannot be used: hosts send
            error messages in many formats.

    Returns:
        The path of the file, which keeps its own name.

    Raises:
        InputError: the URL is malformed, or the file cannot be downloaded or fails a check; the cache is unchanged.
    """
    address, _, fragment = url.partition("#")
    digest = re.fullmatch("sha256=([0-9a-f]{64})", fragment)
    if fragment and not digest:
        raise InputError(f"{url}: the part after # must be sha256= and 64 lower-case hexadecimal digits")
    if address.startswith("ppdet://"):
        address = _HUB + address[len("ppdet://") :]
    name = _file_name(address)
    if not address.startswith(("https://", "http://")) or name in ("", "..") or not url.isprintable() or " " in url:
        shown = url if url.isprintable() else ascii(url)
        raise InputError(f"{shown}: a URL must be https://, http:// or ppdet://, name a file and contain no spaces")
    key = hashlib.sha256(f"{address}#{fragment}".encode()).hexdigest()[:16]

    def build(folder: Path) -> None:
        _retrieve(address, name, f"sha256:{digest[1]}" if digest else None, limits, folder)
        if check is None:
            return
        try:
            check(folder / name)
        except InputError as error:
            reason = str(error).replace(f"{folder / name}: ", "")
            raise InputError(f"cannot use what {address} sent: {reason}") from None

    return cached_folder(f"weights/{key}", build) / name


def _file_name(address: str) -> str:
    try:
        return Path(urlsplit(address).path).name
    except ValueError:  # brackets that enclose no IPv6 address
        return ""


def _retrieve(address: str, name: str, known_hash: str | None, limits: Limits, folder: Path) -> None:
    """Downloads into a new folder; pooch verifies the SHA-256 digest and removes what fails."""
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.WARNING)
    logger.info(f"downloading {address} ...")
    deadline = time.monotonic() + limits.total_timeout
    for attempt in range(limits.retries + 1):
        if attempt:
            time.sleep(limits.pause * 2 ** (attempt - 1))
        try:
            pooch.retrieve(address, known_hash, name, folder, downloader=functools.partial(_download, limits, deadline))
            return
        except requests.RequestException as error:
            if not _is_transient(error) or attempt == limits.retries or time.monotonic() > deadline:
                raise InputError(
                    f"cannot download {address}: {_reason(error)}; if the host cannot be reached, give "
                    "the path of a local copy"
                ) from None
        except (OSError, ValueError) as error:  # ValueError: pooch found another digest
            reason = str(error).partition(". Deleted")[0]  # what pooch does about it
            raise InputError(f"cannot download {address}: {reason}") from None


def _download(limits: Limits, deadline: float, address: str, path: str, retriever: Any) -> None:
    """Writes the body of one GET request to a file: a downloader for pooch, bounded in size and total time.

    The request runs on a thread of its own, because a host that sends a byte at a time keeps each single read within
    its timeout.

    Raises:
        OSError: the body is too large, late, empty, an HTML page, or has another MD5 digest.
        requests.RequestException: the request failed.
    """
    from pooch import HTTPDownloader

    outcome: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    with open(path, "wb") as file, _progress(_file_name(address)) as show:
        body = _Body(file, limits.max_bytes, show)
        request = HTTPDownloader(
            chunk_size=_CHUNK,
            timeout=limits.read_timeout,
            hooks={"response": body.begin},
            headers={"Accept-Encoding": "identity"},
        )  # Content-MD5 is that of the encoded body

        def run() -> None:
            try:
                request(address, body, retriever)
                outcome.put(body.verify())
            except BaseException as error:
                outcome.put(error)

        threading.Thread(target=run, daemon=True).start()
        try:
            error = outcome.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:  # the thread ends at its next write, to a closed file
            raise OSError(f"not complete after {limits.total_timeout:g} s") from None
    if error:
        raise error


class _Body:
    """The file that pooch writes a response body to; bounds its size and hashes it on the way.

    Args:
        file: open for writing.
        max_bytes: largest accepted size.
        show: is called with the bytes received and the bytes announced, or None if the host does not say.
    """

    def __init__(self, file: BinaryIO, max_bytes: int, show: Callable[[int, int | None], None]) -> None:
        self._file, self._max_bytes, self._show = file, max_bytes, show
        self._received, self._start = 0, b""
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._headers: Any = {}

    def begin(self, response: Any, *_: Any, **__: Any) -> None:
        """Takes the headers of a response: a hook for requests, called for redirects too."""
        self._headers = response.headers

    def write(self, chunk: bytes) -> None:
        """Writes a part of the body."""
        self._received += len(chunk)
        if self._received > self._max_bytes:
            raise OSError(f"larger than {self._max_bytes:,} bytes")
        self._start = (self._start + chunk[:256])[:256]
        self._md5.update(chunk)
        self._file.write(chunk)
        length = self._headers.get("Content-Length", "")
        self._show(self._received, int(length) if length.isdigit() else None)

    def flush(self) -> None:
        """Leaves flushing to the end: pooch flushes after every chunk."""

    def verify(self) -> Exception | None:
        """Returns what is wrong with a body that was received completely."""
        if not self._received:
            return OSError("the host sent an empty body")
        is_page = self._start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html"))
        if is_page or self._headers.get("Content-Type", "").startswith("text/html"):
            return OSError("the host sent an HTML page, not a file")
        expected = self._headers.get("Content-MD5", "").strip('"')
        actual = base64.b64encode(self._md5.digest()).decode()
        return OSError(f"its MD5 is {actual}, the host announced {expected}") if expected not in ("", actual) else None


@contextlib.contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """Gives a function that shows how much has been received; without a terminal it shows nothing."""
    if not sys.stderr.isatty():
        yield lambda received, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda received, total: bar.update(task, completed=received, total=total)


def _is_transient(error: Any) -> bool:
    """Whether another attempt may succeed: after a network error, or a status of 429 or 5xx."""
    import requests

    if error.response is not None:
        return error.response.status_code == 429 or error.response.status_code >= 500
    return isinstance(error, (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError))


def _reason(error: Any) -> str:
    """The innermost cause in one line: requests wraps urllib3's errors, which wrap those of the socket."""
    if error.response is not None:
        return f"{error.response.status_code} {error.response.reason}"
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return " ".join(str(error).split())
