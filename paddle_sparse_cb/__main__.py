"""`python -m paddle_sparse_cb` is `paddle-sparse`."""

import sys

from .cli import main

sys.exit(main())
