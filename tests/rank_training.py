"""What a rank of `tests/utils/test_distributed.py` runs: a training on its own share of the data, and what it saw as JSON."""

import json
import sys
import zlib  # noqa: F401  before paddle, as the package does
from pathlib import Path

import numpy as np
import paddle
from helpers import Pointwise, classifier

from paddle_sparse_cb import Checkpoints, EMACallback, GMPPruner, SparsityCallback
from paddle_sparse_cb.callbacks.sync_buffers import SyncBuffers
from paddle_sparse_cb.errors import PipelineError
from paddle_sparse_cb.utils import distributed as ranks

STEPS, UPDATES = 8, 4
rank = paddle.distributed.get_rank()
gathers = 0
all_gather = paddle.distributed.all_gather


def counted(*args, **keywords):
    global gathers
    gathers += 1
    return all_gather(*args, **keywords)


def state(network):
    return {name: tensor.numpy().ravel().tolist() for name, tensor in network.state_dict().items()}


def perturb(network):
    network.project.weight.set_value(paddle.rand(network.project.weight.shape))


class Watch(paddle.callbacks.Callback):
    """Notes the masks after each step and what is evaluated; makes rank 1 diverge if told to."""

    def __init__(self, sparsity, diverges):
        super().__init__()
        self.sparsity, self.diverges = sparsity, diverges
        self.masks, self.evaluated = [], []

    def on_train_batch_begin(self, step, logs=None):
        if self.diverges and rank == 1 and step == 3:
            perturb(self.model.network)

    def on_train_batch_end(self, step, logs=None):
        self.masks.append([ranks.digest(mask) for mask in self.sparsity.pruner.masks.values()])

    def on_eval_begin(self, logs=None):
        self.evaluated.append(state(self.model.network))


def fit(diverges, extra):
    network = Pointwise()
    model = classifier(network)
    begun = state(network)
    images = np.random.default_rng(5).random((STEPS * 8 * 2, 1, 8, 8), "float32")
    data = paddle.io.TensorDataset([paddle.to_tensor(images), paddle.randint(0, 10, [len(images), 1])])
    sparsity = SparsityCallback(ratio=0.75, pruning_iterations=UPDATES, pruning_steps=UPDATES)
    watch = Watch(sparsity, diverges)
    paddle.distributed.all_gather = counted
    model.fit(data, data if extra else None, batch_size=8, verbose=0,
              callbacks=[sparsity, SyncBuffers(), *extra, watch])
    return {"begun": begun, "masks": watch.masks, "evaluated": watch.evaluated, "ended": state(network)}


def loop():
    """Without hapi: the pruner alone, on a network that is wrapped by hand."""
    paddle.distributed.init_parallel_env()
    network = Pointwise()
    parallel = paddle.DataParallel(network)
    optimizer = paddle.optimizer.Momentum(0.01, parameters=network.parameters())
    pruner = GMPPruner(network, ratio=0.75, local_sparsity=True, prune_params_type="conv1x1_only",
                       configs={"pruning_iterations": UPDATES, "pruning_steps": UPDATES, "initial_ratio": 0.15})
    pruner.attach(optimizer)
    paddle.distributed.all_gather = counted
    masks, said = [], []
    for step in range(UPDATES + 1):
        if step == UPDATES and rank == 1:
            perturb(network)
        for _ in range(2):  # micro-batches, whose gradients are added
            parallel(paddle.rand([4, 1, 8, 8])).sum().backward()
        try:
            optimizer.step()
        except PipelineError as error:
            said.append(str(error))
        optimizer.clear_grad()
        masks.append([ranks.digest(mask) for mask in pruner.masks.values()])
    in_training = gathers
    try:
        ranks.check_same_masks(10 + rank, [], [])
    except PipelineError as error:
        said.append(str(error))
    return {"masks": masks, "said": said, "in_training": in_training}


if __name__ == "__main__":
    mode, folder = sys.argv[1], Path(sys.argv[2])
    paddle.seed(rank)  # other weights on each rank, until they are wrapped
    if mode == "loop":
        found = loop()
    else:
        found = fit(mode == "diverge", [EMACallback(), Checkpoints(folder / "checkpoints")] if mode == "fit" else [])
    (folder / f"{rank}.json").write_text(json.dumps({**found, "gathers": gathers}))
