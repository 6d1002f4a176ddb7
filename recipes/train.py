#!/usr/bin/env python3
"""Trains a recipe in a single process, or as one rank of `python -m paddle.distributed.launch`.

python recipes/train.py -c recipes/picodet_s_416_trees_sparse75.yml
python -m paddle.distributed.launch --nproc_per_node 2 recipes/train.py -c RECIPE -o epoch=4
"""

import sys

from paddle_sparse_cb.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
