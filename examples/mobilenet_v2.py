"""Fine-tunes MobileNetV2 while 75% of its pointwise weights are pruned, and makes the files for a phone.

    python examples/mobilenet_v2.py

It takes about a minute on two cores. Images are those of Fashion-MNIST, enlarged to 32x32. The network is trained from
scratch first; in your own script, start from trained weights, such as those of ImageNet:
`mobilenet_v2(pretrained=True, num_classes=10)`, which Paddle downloads.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec

import cv2
import fashion_mnist
import numpy as np
import paddle
from paddle import nn
from paddle.static import InputSpec

from paddle_sparse_cb import SparsityCallback, make_plan, measure_sparsity
from paddle_sparse_cb.cli import main as paddle_sparse
from paddle_sparse_cb.deploy import ConvertMNN, Export, OptimizeLite, fail_on_mismatch, print_verification, verify
from paddle_sparse_cb.detection.depthwise import use_fast_depthwise
from paddle_sparse_cb.hooks import Hook

SIZE = 32  # pixels of a side
BATCH = 32


def transform(image: np.ndarray) -> np.ndarray:
    """Turns a grey image [28, 28, 1] from 0 to 255 into [3, SIZE, SIZE] from -1 to 1."""
    enlarged = cv2.resize(image, (SIZE, SIZE))
    return np.stack([enlarged / 127.5 - 1] * 3).astype("float32")


def main() -> None:
    """Trains, prunes, exports and measures."""
    parser = argparse.ArgumentParser(description="Fine-tunes MobileNetV2 while it is pruned.")
    parser.add_argument("--images", type=int, default=2500, help="training images (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=2, help="dense epochs; pruning takes as many (default: 2)")
    parser.add_argument("--ratio", type=float, default=0.75, help="the share of zeros (default: %(default)s)")
    parser.add_argument("-o", "--output", default="output/mobilenet_v2", help="output folder (default: %(default)s)")
    options = parser.parse_args()

    paddle.seed(0)
    train_data = fashion_mnist.load("train", options.images, transform)
    test_data = fashion_mnist.load("test", 1000, transform)
    network = paddle.vision.models.mobilenet_v2(scale=0.5, num_classes=10)
    use_fast_depthwise(network)  # Paddle's depthwise convolutions take ten times as long on a CPU
    model = paddle.Model(network)

    def fit(learning_rate: float, *callbacks: paddle.callbacks.Callback) -> float:
        """Trains the network for some epochs and returns its accuracy on test images."""
        steps = options.epochs * (options.images // BATCH)
        decay = paddle.optimizer.lr.CosineAnnealingDecay(learning_rate, steps)
        optimizer = paddle.optimizer.Adam(decay, parameters=network.parameters())
        model.prepare(optimizer, nn.CrossEntropyLoss(), paddle.metric.Accuracy())
        model.fit(
            train_data,
            epochs=options.epochs,
            batch_size=BATCH,
            drop_last=True,  # a batch norm needs more than a few images
            verbose=2,
            callbacks=[*callbacks],
        )
        accuracy: float = model.evaluate(test_data, batch_size=100, verbose=0)["acc"]
        return accuracy

    dense = fit(0.005)

    spec = [InputSpec([1, 3, SIZE, SIZE], "float32", "image")]  # fixed, one image: what the sparse kernels need
    hooks: list[Hook] = [Export(spec), OptimizeLite(), verify, print_verification, fail_on_mismatch]
    if find_spec("MNN"):
        hooks.insert(2, ConvertMNN())
    plan = make_plan(network, spec)
    sparsity = SparsityCallback(
        ratio=options.ratio,
        pruning_epochs=options.epochs - options.epochs // 2,
        tunning_epochs=options.epochs // 2,
        plan=plan,
        save_dir=options.output,
        post_train=hooks,
    )
    sparse = fit(0.002, sparsity)

    zeros = measure_sparsity(network, plan).ratio
    print(f"accuracy after {options.epochs} epochs, dense: {dense:.2%}")
    print(f"after {options.epochs} more, with {zeros:.2%} zeros in the pruned weights: {sparse:.2%}")
    if find_spec("MNN"):
        paddle_sparse(["bench", options.output, "--threads", "1", "--seconds", "3"])


if __name__ == "__main__":
    main()
