"""Paddle-Lite chooses its kernel for two output channels at a time where the masks prune in blocks of them."""

import pytest
from paddle import nn
from paddle.static import InputSpec

from paddle_sparse_cb import GMPPruner, make_plan
from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.lite.nb import read_nb
from paddle_sparse_cb.deploy.lite.optimizer import optimize
from paddle_sparse_cb.deploy.program import read_program

SPEC = [InputSpec([1, 16, 8, 8], "float32", "x")]


@pytest.mark.parametrize("ratio", [0.75, 0.85])
def test_layers_in_blocks_of_two_or_four_channels_get_the_paired_kernel_and_others_do_not(tmp_path, ratio):
    channels = 16, 32, 24, 32, 17, 32
    layers = [
        (nn.Conv2D(inputs, outputs, 1), nn.BatchNorm2D(outputs), nn.ReLU())
        for inputs, outputs in zip(channels, channels[1:])
    ]
    network = nn.Sequential(*[layer for group in layers for layer in group])
    plan = make_plan(network, SPEC, ratios={"6.*": 0.9}, blocks={"3.*": (4, 1), "12.*": (1, 1)})
    pruner = GMPPruner(
        network,
        ratio=ratio,
        local_sparsity=True,
        sparse_block=(2, 1),
        plan=plan,
        configs={"initial_ratio": ratio, "pruning_steps": 1},
    )
    pruner.step()
    network.eval()
    prefix = export(network, tmp_path / "model", SPEC)
    program, model = read_program(prefix), read_nb(optimize(prefix, tmp_path / "model.nb", sparse=True))
    operators = {name: model.convolutions[one.variable] for name, one in program.convolutions.items()}
    assert all(operator.sparse for operator in operators.values())
    paired = {name for name, operator in operators.items() if operator.attributes["flag_semi"]}
    assert paired == {"0.weight", "3.weight", "6.weight"}
    assert [layer.name for layer in pruner.plan.pruned if layer.block == (1, 1)] == ["9.weight", "12.weight"]
