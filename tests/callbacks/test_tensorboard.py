from helpers import curves

from paddle_sparse_cb import make_plan, measure_sparsity
from paddle_sparse_cb.callbacks.tensorboard import SparsityWriter


def test_tensorboard_reads_what_is_written(network, tmp_path):
    writer = SparsityWriter(tmp_path)
    writer.scalars(3, {"sparsity/target": 0.75, "train/loss": 1.5})
    writer.layers(3, measure_sparsity(network, make_plan(network)))
    writer.close()
    assert curves(tmp_path) == {"sparsity/target": [(3, 0.75)], "train/loss": [(3, 1.5)],
                                "sparsity_layer/expand.weight": [(3, 0.0)],
                                "sparsity_layer/project.weight": [(3, 0.0)]}
