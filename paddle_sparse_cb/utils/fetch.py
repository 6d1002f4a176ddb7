"""Weights behind a URL into the cache, whole and checked.

PaddleDetection's own downloader waits for ever where a host does not answer, keeps what broke off, and takes files of
the same name from different places for the same file.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import re
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import InputError
from .files import build_once, cache_dir

TIMEOUT = 30  # seconds without a sign of the host
_HUB = "https://paddledet.bj.bcebos.com/"  # what PaddleDetection calls ppdet://


def fetch(url: str) -> Path:
    """Fetches a file, unless it is in the cache; what is there needs no host any more.

    It has to have the length and, if the host gives one, the MD5 digest that it is announced with.

    Args:
        url: `https://`, `http://` or `ppdet://`, and optionally `#sha256=` with the digest that the file must have.

    Returns:
        The file, under its own name.

    Raises:
        InputError: it cannot be had, or is another one than it should be.
    """
    address, _, fragment = url.partition("#")
    digest = re.fullmatch("sha256=([0-9a-f]{64})", fragment)
    if fragment and not digest:
        raise InputError(f"pretrain_weights: {url}: behind # stands sha256= and 64 hexadecimal digits")
    if address.startswith("ppdet://"):
        address = _HUB + address[len("ppdet://"):]
    name = Path(urlsplit(address).path).name
    if not address.startswith(("https://", "http://")) or not name:
        raise InputError(f"pretrain_weights: {url}: a URL is https://, http:// or ppdet:// and names a file")
    folder = cache_dir() / "weights" / hashlib.sha256(f"{address}#{fragment}".encode()).hexdigest()[:16]
    build_once(folder, lambda scratch: _download(address, scratch, name, digest[1] if digest else ""))
    return folder / name


def _download(address: str, folder: Path, name: str, sha256: str) -> None:
    print(f"fetching {address} ...", flush=True)
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:  # noqa: S310  no file:, see above
            content, md5 = answer.read(), answer.headers["Content-MD5"] or ""
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise InputError(f"pretrain_weights: cannot fetch {address} ({getattr(error, 'reason', error)}); where its "
                         "host is not reached, give the path of a copy") from None
    digests = {"MD5": (md5.strip('"'), base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()),
               "SHA-256": (sha256, hashlib.sha256(content).hexdigest())}
    for kind, (wanted, found) in digests.items():
        if wanted and wanted != found:
            raise InputError(f"pretrain_weights: cannot use {address}: its {kind} is {found}, not {wanted}")
    folder.mkdir()
    (folder / name).write_bytes(content)
