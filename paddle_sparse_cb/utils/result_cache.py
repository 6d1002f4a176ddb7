"""Results that take long to compute, kept as JSON in the cache folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from .downloads import cache_dir
from .files import write_text


def cached_result(
    kind: str, key: Any, compute: Callable[[], dict[str, Any]], keep: Callable[[dict[str, Any]], bool] = lambda _: True
) -> tuple[dict[str, Any], bool]:
    """Returns a result from the cache, or computes and keeps it.

    Args:
        kind: the folder in the cache.
        key: what the result depends on, as JSON-serializable values; it is stored beside the result.
        compute: computes the result, which must be JSON-serializable.
        keep: whether a computed result is kept.

    Returns:
        The result, and whether it is from the cache. A file that is damaged or of another key is replaced.
    """
    text = json.dumps(key, sort_keys=True)
    path = cache_dir() / kind / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["key"] == json.loads(text) and isinstance(stored["result"], dict):
            return stored["result"], True
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        pass
    result = compute()
    if keep(result):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"key": json.loads(text), "result": result}, indent=1) + "\n")
    return result, False
