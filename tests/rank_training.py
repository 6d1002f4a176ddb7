"""One rank of `tests/utils/test_distributed.py`: trains on its share of the data and writes its results as JSON."""

import json
import sys
import zlib  # noqa: F401  before paddle, as the package does
from pathlib import Path

import numpy as np
import paddle
from helpers import Pointwise, classifier

from paddle_sparse_cb import Checkpoints, Distillation, EMACallback, GMPPruner, SparsityCallback
from paddle_sparse_cb.callbacks.sync_buffers import SyncBuffers
from paddle_sparse_cb.errors import PipelineError
from paddle_sparse_cb.utils import distributed

STEPS, MASK_UPDATES = 8, 4
rank = paddle.distributed.get_rank()
gather_count = 0
all_gather = paddle.distributed.all_gather


def counting_all_gather(*args, **keywords):
    global gather_count
    gather_count += 1
    return all_gather(*args, **keywords)


def state(network):
    return {name: tensor.numpy().ravel().tolist() for name, tensor in network.state_dict().items()}


def perturb(network):
    """Makes the weights of this rank differ from those of the other ranks."""
    network.project.weight.set_value(paddle.rand(network.project.weight.shape))


class RecordMasks(paddle.callbacks.Callback):
    """Records the masks after each step and the evaluated weights; perturbs rank 1 if requested."""

    def __init__(self, sparsity, perturb_rank_1):
        super().__init__()
        self.sparsity, self.perturb_rank_1 = sparsity, perturb_rank_1
        self.masks, self.evaluated = [], []

    def on_train_batch_begin(self, step, logs=None):
        if self.perturb_rank_1 and rank == 1 and step == 3:
            perturb(self.model.network)

    def on_train_batch_end(self, step, logs=None):
        self.masks.append([distributed.digest(mask) for mask in self.sparsity.pruner.masks.values()])

    def on_eval_begin(self, logs=None):
        self.evaluated.append(state(self.model.network))


class RecordProjections(paddle.callbacks.Callback):
    """Records the projections of a distillation from a teacher with other channels after each batch."""

    def __init__(self, distils):
        super().__init__()
        paddle.seed(9)
        teacher = paddle.nn.Sequential(paddle.nn.Conv2D(1, 8, 1), paddle.nn.AdaptiveAvgPool2D(1), paddle.nn.Flatten())
        paddle.seed(rank)
        self.distillation = Distillation(teacher, weight=0, features={"depthwise": "0"}) if distils else None
        self.together, self.seen = [self.distillation, self] if distils else [], []

    def on_train_batch_end(self, step, logs=None):
        arrays = self.distillation.arrays()
        self.seen.append({name: tensor.numpy().ravel().tolist() for name, tensor in arrays.items()})


def fit(perturb_rank_1, extra_callbacks):
    network = Pointwise()
    model = classifier(network)
    initial = state(network)
    images = np.random.default_rng(5).random((STEPS * 8 * 2, 1, 8, 8), "float32")
    data = paddle.io.TensorDataset([paddle.to_tensor(images), paddle.randint(0, 10, [len(images), 1])])
    sparsity = SparsityCallback(
        ratio=0.75,
        pruning_iterations=MASK_UPDATES,
        pruning_steps=MASK_UPDATES,
        ratios={"project.*": 0.9},
        blocks={"project.*": (2, 1)},
    )
    recorded = RecordMasks(sparsity, perturb_rank_1)
    paddle.distributed.all_gather = counting_all_gather
    model.fit(
        data,
        data if extra_callbacks else None,
        batch_size=8,
        verbose=0,
        callbacks=[sparsity, SyncBuffers(), *extra_callbacks, recorded],
    )
    return {"initial": initial, "masks": recorded.masks, "evaluated": recorded.evaluated, "final": state(network)}


def loop():
    """Trains without `paddle.Model`: a training loop with the pruner on a network wrapped in `DataParallel`."""
    if not paddle.distributed.is_initialized():
        paddle.distributed.init_parallel_env()
    network = Pointwise()
    parallel = paddle.DataParallel(network)
    optimizer = paddle.optimizer.Momentum(0.01, parameters=network.parameters())
    pruner = GMPPruner(
        network,
        ratio=0.75,
        local_sparsity=True,
        prune_params_type="conv1x1_only",
        configs={"pruning_iterations": MASK_UPDATES, "pruning_steps": MASK_UPDATES, "initial_ratio": 0.15},
    )
    pruner.attach(optimizer)
    paddle.distributed.all_gather = counting_all_gather
    masks, errors = [], []
    for step in range(MASK_UPDATES + 1):
        if step == MASK_UPDATES and rank == 1:
            perturb(network)
        for _ in range(2):  # micro-batches, whose gradients are accumulated
            parallel(paddle.rand([4, 1, 8, 8])).sum().backward()
        try:
            optimizer.step()
        except PipelineError as error:
            errors.append(str(error))
        optimizer.clear_grad()
        masks.append([distributed.digest(mask) for mask in pruner.masks.values()])
    gather_count_in_training = gather_count
    distributed.check_same_on_ranks("teacher", "f" * 64)
    for check in (
        lambda: distributed.check_same_masks(10 + rank, [], []),
        lambda: distributed.check_same_on_ranks("teacher", f"{rank}" * 64),
    ):
        try:
            check()
        except PipelineError as error:
            errors.append(str(error))
    return {"masks": masks, "errors": errors, "gather_count_in_training": gather_count_in_training}


def results_of(mode, folder):
    global gather_count
    gather_count = 0
    paddle.seed(rank)  # each rank starts with other weights, until `DataParallel` broadcasts those of rank 0
    if mode == "loop":
        return loop()
    projected = RecordProjections(mode == "fit")
    callbacks = [EMACallback(), Checkpoints(folder / "checkpoints"), *projected.together]
    results = fit(mode == "perturb", callbacks if mode == "fit" else [])
    return {**results, "projections": projected.seen}


if __name__ == "__main__":
    modes, folder = sys.argv[1].split(","), Path(sys.argv[2])
    for mode in modes:  # in one process, because the import takes longest; "perturb" ends it with an error
        results = results_of(mode, folder)
        (folder / f"{mode}{rank}.json").write_text(json.dumps({**results, "gather_count": gather_count}))
