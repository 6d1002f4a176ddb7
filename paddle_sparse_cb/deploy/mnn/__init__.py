"""The deployment target MNN: converting, the runtime, reading its files, and the conditions of its sparse kernels.

May import: what `deploy` may, and MNN's own packages at call time. MNN's command line tools are never imported or run:
they install a logging package and send usage data. A new restriction of MNN goes into `constraints.py` with a test.
"""
