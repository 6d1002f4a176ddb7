"""Callbacks of `paddle.Model.fit`, one a file: pruning, averages, checkpoints, resuming, curves.

May import `errors`, `utils`, `pruning`, `hooks` and `checkpoints`; never `deploy` or `detection`.
A new callback gets a file of its own and derives from `FitCallback` if it needs state of the others.
"""
