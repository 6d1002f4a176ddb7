"""Latency of deployed models: dense beside sparse, on every runtime that is installed.

May import: what `deploy` may, and its other modules. A new runtime is an `Engine` in `engines.py`.
`run.measure_rows` makes rows of candidates on this machine; rows from a device join them in `run.make_result`.
"""
