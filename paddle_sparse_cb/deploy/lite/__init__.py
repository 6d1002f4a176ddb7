"""Everything specific to Paddle-Lite 2.13: its optimizer, its `.nb` format and the defects to work around.

May import: what `deploy` may import, and the modules of `deploy` that read files; no hooks of other targets.
A new limitation is a check in `constraints.py` or a rewrite in `patches.py`, and a row in docs/deploy.md.
"""
