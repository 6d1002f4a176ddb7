"""Prunes LeNet on Fashion-MNIST: trains it, prunes 80% of its weights while it is trained further, and exports it.

    python examples/lenet_fashion_mnist.py

It takes less than a minute on two cores. The first half is an ordinary training with `paddle.Model`; pruning adds one
callback. With the extra `mnn`, the files for MNN are written, verified and timed, too.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec

import fashion_mnist
import paddle
from paddle import nn
from paddle.static import InputSpec

from paddle_sparse_cb import SparsityCallback, make_plan, measure_sparsity
from paddle_sparse_cb.cli import main as paddle_sparse
from paddle_sparse_cb.deploy import ConvertMNN, Export, fail_on_mismatch, print_verification, verify
from paddle_sparse_cb.hooks import Hook


def main() -> None:
    """Trains, prunes, exports and measures."""
    parser = argparse.ArgumentParser(description="Prunes LeNet on Fashion-MNIST.")
    parser.add_argument("--images", type=int, default=20000, help="training images, up to 60000 (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=2, help="dense epochs; pruning takes as many (default: 2)")
    parser.add_argument("--ratio", type=float, default=0.8, help="the share of zeros (default: %(default)s)")
    parser.add_argument("-o", "--output", default="output/lenet", help="output folder (default: %(default)s)")
    options = parser.parse_args()

    paddle.seed(0)
    transform = paddle.vision.transforms.Normalize(mean=[127.5], std=[127.5], data_format="CHW")
    train_data = fashion_mnist.load("train", options.images, transform)
    test_data = fashion_mnist.load("test", 10000, transform)
    network = paddle.vision.models.LeNet()
    model = paddle.Model(network)

    def fit(learning_rate: float, *callbacks: paddle.callbacks.Callback) -> float:
        """Trains the network for some epochs and returns its accuracy on the test images."""
        optimizer = paddle.optimizer.Adam(learning_rate, parameters=network.parameters())
        model.prepare(optimizer, nn.CrossEntropyLoss(), paddle.metric.Accuracy())
        model.fit(train_data, epochs=options.epochs, batch_size=64, verbose=2, log_freq=200, callbacks=[*callbacks])
        accuracy: float = model.evaluate(test_data, batch_size=256, verbose=0)["acc"]
        return accuracy

    dense = fit(0.001)

    spec = [InputSpec([1, 1, 28, 28], "float32", "image")]
    hooks: list[Hook] = [Export(spec), verify, print_verification, fail_on_mismatch]
    if find_spec("MNN"):
        hooks.insert(1, ConvertMNN())
    plan = make_plan(network, spec, prune_params_type=None)  # all convolutions and linear layers
    sparsity = SparsityCallback(
        ratio=options.ratio,
        pruning_epochs=options.epochs - options.epochs // 2,  # the ratio rises in the first half
        tunning_epochs=options.epochs // 2,  # the network recovers in the second half
        plan=plan,
        save_dir=options.output,
        post_train=hooks,
    )
    sparse = fit(0.001, sparsity)

    zeros = measure_sparsity(network, plan).ratio
    print(f"accuracy after {options.epochs} epochs, dense: {dense:.2%}")
    print(f"after {options.epochs} more, with {zeros:.2%} zeros: {sparse:.2%}")
    if find_spec("MNN"):
        paddle_sparse(["bench", options.output, "--threads", "1", "--seconds", "3"])


if __name__ == "__main__":
    main()
