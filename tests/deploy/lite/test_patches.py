"""Each rewrite: what Paddle-Lite does with the program as Paddle exports it, and with the rewritten one."""

import numpy as np
import paddle
import pytest
from helpers import Chain, conv, run_exported
from paddle import nn
from paddle.static import InputSpec

from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.lite.nb import count_convolutions, read_nb
from paddle_sparse_cb.deploy.lite.optimizer import optimize
from paddle_sparse_cb.deploy.program import read_program
from paddle_sparse_cb.errors import PipelineError
from paddle_sparse_cb.utils.legacy_programs import legacy_program_format

SPEC = [InputSpec([1, 3, 8, 8], "float32", "x")]
ON_16 = [InputSpec([1, 16, 8, 8], "float32", "x")]
# Operator -> a layer that Paddle exports to it without something that the optimizer needs.
OMITTED = {
    "relu6": nn.ReLU6,
    "swish": nn.Swish,
    "instance_norm": lambda: nn.InstanceNorm2D(16),
    "flatten_contiguous_range": lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(1024, 4)),
}


def with_layer(layer):
    network = nn.Sequential(nn.Conv2D(3, 16, 3, padding=1), nn.BatchNorm2D(16), nn.Conv2D(16, 16, 1), layer)
    network[1].weight.set_value(paddle.full([16], 30.0))  # gives ReLU6 something to clip
    network.eval()
    return network


def save_unpatched(network, prefix, spec):
    with legacy_program_format():
        paddle.jit.save(network, str(prefix), spec)
    return prefix


@pytest.mark.parametrize("op_type", OMITTED)
def test_omitted_attributes_and_outputs_are_added_without_changing_the_outputs(op_type, tmp_path):
    network = with_layer(OMITTED[op_type]())
    prefix = export(network, tmp_path / "model", SPEC)
    assert read_program(prefix).op_counts[op_type] == 1
    assert optimize(prefix, tmp_path / "model.nb", sparse=False).is_file()
    image = np.random.rand(1, 3, 8, 8).astype("float32")
    output, expected = run_exported(prefix, image)[0], network(paddle.to_tensor(image)).numpy()
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("op_type", OMITTED)
def test_the_optimizer_fails_without_them(op_type, tmp_path):
    """Once this fails, `patch_for_lite` need no longer add anything to that operator."""
    prefix = save_unpatched(with_layer(OMITTED[op_type]()), tmp_path / "model", SPEC)
    with pytest.raises(PipelineError, match="Paddle-Lite's optimizer failed"):
        optimize(prefix, tmp_path / "model.nb", sparse=False)


class Pairs(nn.Layer):
    """A pair of convolutions that is worth merging for Paddle-Lite, and another pair beside it."""

    def __init__(self, *other):
        super().__init__()
        self.pairs = nn.LayerList([nn.Sequential(conv(16, 16), conv(16, 72)), nn.Sequential(*other)])
        self.eval()

    def forward(self, x):
        return [pair(x) for pair in self.pairs]


def plain(inputs, outputs, kernel=1, **arguments):
    return nn.Conv2D(inputs, outputs, kernel, bias_attr=False, **arguments)


# The other pair, and what the optimizer makes of the four convolutions: their number after merging (correct or not), or
# the check that fails.
PAIRS = {
    "not worth it alone": (lambda: (conv(16, 72), conv(72, 8)), 2),
    "a norm": (lambda: (conv(16, 16), nn.BatchNorm2D(16), conv(16, 16)), 2),
    "stride": (lambda: (conv(16, 16), plain(16, 16, stride=2)), "strides"),
    "padding": (lambda: (conv(16, 16), plain(16, 16, 3, padding=1)), "paddings"),
    "dilation": (lambda: (conv(16, 16), plain(16, 16, 3, dilation=2)), "dilations"),
    "3x3": (lambda: (conv(16, 16), plain(16, 16, 3)), 2),
    "groups": (lambda: (conv(16, 16, groups=2), conv(16, 16)), 2),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_adjacent_convolutions_stay_separate_without_changing_the_outputs(pair, tmp_path):
    network = Pairs(*PAIRS[pair][0]())
    prefix = export(network, tmp_path / "model", ON_16)
    op_types = [op.type for op in read_nb(optimize(prefix, tmp_path / "model.nb", sparse=False)).operators]
    assert op_types.count("conv2d") == 4
    assert "scale" not in op_types  # the optimizer has removed the identity between them
    image = np.random.rand(1, 16, 8, 8).astype("float32")
    for output, expected in zip(run_exported(prefix, image), network(paddle.to_tensor(image))):
        np.testing.assert_allclose(output, expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pair", PAIRS)
def test_the_optimizer_merges_them_or_fails_without_the_identity(pair, tmp_path):
    """Once this fails, `patch_for_lite` need no longer separate such a pair."""
    make, result = PAIRS[pair]
    prefix = save_unpatched(Pairs(*make()), tmp_path / "model", ON_16)
    if isinstance(result, int):
        assert count_convolutions(optimize(prefix, tmp_path / "model.nb", sparse=False)).total == result
    else:
        with pytest.raises(PipelineError, match=f"Check failed: .{result}"):
            optimize(prefix, tmp_path / "model.nb", sparse=False)


@pytest.mark.parametrize(
    ("make", "inserted"),
    [
        (Chain, 1),
        (lambda: Chain(norm=True), 1),
        (lambda: Chain("added"), 0),
        (lambda: Chain("chosen", norm=True), 0),
        (lambda: nn.Sequential(conv(16, 16), nn.ReLU(), conv(16, 72)), 0),
        (lambda: nn.Sequential(nn.Conv2D(16, 16, 1), conv(16, 72)), 0),
        (lambda: nn.Sequential(conv(16, 16, 3, groups=16), conv(16, 72)), 0),
    ],
    ids=[
        "adjacent",
        "a norm between",
        "first is read twice",
        "norm is read twice",
        "an activation between",
        "a bias",
        "depthwise",
    ],
)
def test_an_identity_is_inserted_only_where_paddle_lite_would_merge(make, inserted, tmp_path):
    network = make()
    network.eval()
    before = read_program(save_unpatched(network, tmp_path / "paddle", ON_16))
    after = read_program(export(network, tmp_path / "model", ON_16))
    assert after.op_counts - before.op_counts == ({"scale": 1} if inserted else {})
