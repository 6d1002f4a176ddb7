"""Everything specific to Paddle-Lite 2.13: its optimizer, its `.nb` format and the defects to work around.

May import: what `deploy` may import, and `deploy.program`; no other module of `deploy`.
A new limitation is a check in `constraints.py` or a rewrite in `patches.py`, and a row in docs/deploy.md.
"""
