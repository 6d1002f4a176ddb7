"""Fashion-MNIST for the examples: 60,000 training and 10,000 test images of clothes in ten classes.

The images come from a Debian package, which apt downloads without root. If your machine reaches Paddle's servers,
`paddle.vision.datasets.FashionMNIST(mode="train", transform=transform)` does the same.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from paddle.io import Dataset, Subset
from paddle.vision.datasets import FashionMNIST

from paddle_sparse_cb.detection.datasets.garments import fetch_fashion_mnist


def load(mode: str, images: int, transform: Callable[[np.ndarray], np.ndarray]) -> Dataset:
    """Returns the first images of a split, with their labels.

    Args:
        mode: `train` or `test`.
        images: how many.
        transform: is given an image [28, 28, 1] of float32 from 0 to 255.
    """
    split = fetch_fashion_mnist() / {"train": "train", "test": "t10k"}[mode]
    paths = f"{split}-images-idx3-ubyte.gz", f"{split}-labels-idx1-ubyte.gz"
    return Subset(FashionMNIST(*paths, mode=mode, transform=transform, backend="cv2"), range(images))
