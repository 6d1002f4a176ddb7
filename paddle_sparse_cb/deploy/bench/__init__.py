"""Latency of deployed models: dense beside sparse, on every runtime that is installed.

May import: what `deploy` may, and its other modules. A new runtime is an `Engine` in `engines.py`.
`run.py` measures candidates and makes rows of them; rows from a device join them through `rows.compare`.
"""
