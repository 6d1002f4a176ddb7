"""`BatchNormRecalibration`: running statistics that are the means of the last batches."""

from __future__ import annotations

from typing import Any

from paddle import nn

from ..errors import InputError
from ..utils.validation import check_count
from .session import FitCallback


class BatchNormRecalibration(FitCallback):
    """Replaces the running statistics of batch norms by their means over the last batches of `paddle.Model.fit`.

    Running statistics are exponential averages, which are made of some ten batches with the usual momentum of 0.9, and
    remember batches before the last mask update. In the last batches of the training this callback sets the momenta so
    that each batch has the same weight and none before them has any. It costs nothing, because these batches are
    trained anyway, at the low learning rate with which most schedules end. The order of the callbacks makes no
    difference.

    Args:
        batches: the number of batches, at the end of the training; all if there are fewer.

    Raises:
        InputError: when created, if it is not a positive number; at train begin, if the loader has no length.

    Example:
        >>> import paddle
        >>> from paddle_sparse_cb import BatchNormRecalibration
        >>> data = paddle.io.TensorDataset([paddle.rand([32, 8]), paddle.randint(0, 4, [32, 1])])
        >>> network = paddle.nn.Sequential(paddle.nn.BatchNorm1D(8), paddle.nn.Linear(8, 4))
        >>> model = paddle.Model(network)
        >>> model.prepare(paddle.optimizer.SGD(0.1, parameters=network.parameters()), paddle.nn.CrossEntropyLoss())
        >>> model.fit(data, batch_size=8, verbose=0, callbacks=[BatchNormRecalibration(4)])
        >>> bool(paddle.allclose(network[0]._mean, data.tensors[0].mean(axis=0)))
        True
    """

    def __init__(self, batches: int = 50) -> None:
        super().__init__()
        self.batches = check_count("batches", batches, least=1)
        self._momenta: list[tuple[nn.Layer, float]] = []

    def begin_training(self) -> None:
        """Finds the batch norms."""
        if self.params.get("steps") is None:
            raise InputError("BatchNormRecalibration: the loader has no length, so the last batches are unknown")
        self.close()
        self._momenta = [
            (layer, layer._momentum)
            for layer in self.model.network.sublayers(include_self=True)
            if isinstance(layer, nn.layer.norm._BatchNormBase)
        ]

    def on_train_batch_begin(self, step: int, logs: Any = None) -> None:
        """Sets the momenta, in the last batches."""
        super().on_train_batch_begin(step, logs)
        epoch, steps = self.session.position.epoch, self.params["steps"]
        total = self.params["epochs"] * steps
        total = min(total, self.session.num_iters or total)
        averaged = epoch * steps + step - max(0, total - self.batches)
        if averaged >= 0:
            for layer, _ in self._momenta:
                layer._momentum = averaged / (averaged + 1)

    def close(self) -> None:
        """Gives the batch norms their momenta back, also after an exception."""
        for layer, momentum in self._momenta:
            layer._momentum = momentum
        self._momenta = []
