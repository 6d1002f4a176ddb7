"""What the package says while it works: the logger `paddle_sparse_cb`, which writes to standard output.

Results, such as tables, are printed instead. The command line sets the level: `-q` warnings, `-v` details.
"""

from __future__ import annotations

import logging

logger = logging.getLogger("paddle_sparse_cb")


class _StandardOutput(logging.Handler):
    """Prints to the standard output of the moment, which may be redirected, and raises when that is closed."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        print(prefix + record.getMessage(), flush=True)


if not logger.handlers:
    logger.addHandler(_StandardOutput())
    logger.setLevel(logging.INFO)
    logger.propagate = False
