"""Runs `paddle-sparse` as `python -m paddle_sparse_cb`."""

import sys

from .cli import main

sys.exit(main())
