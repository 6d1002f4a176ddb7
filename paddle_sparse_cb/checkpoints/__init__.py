"""The files of a training on disk: writing, verifying and loading checkpoints.

May import `errors`, `utils`, `pruning` and `hooks`; knows no callback.
A new file of a checkpoint is written in `store.py` and read in `load.py`.
"""

# Importing Paddle imports `callbacks.session`, which imports this room: Paddle comes before any of its modules.
import paddle as _paddle  # noqa: F401
