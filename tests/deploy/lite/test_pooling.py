"""Adaptive pooling that Paddle-Lite's ARM kernel computes wrongly is replaced exactly, or refused."""

import numpy as np
import paddle
import pytest
from helpers import run_exported
from paddle import nn
from paddle.static import InputSpec

from paddle_sparse_cb import InputError
from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.lite.optimizer import optimize
from paddle_sparse_cb.utils.legacy_programs import legacy_program_format
from paddle_sparse_cb.utils.weight_files import parse_program


def pooling(output_size, **arguments):
    network = nn.Sequential(nn.Conv2D(3, 16, 3, padding=1), nn.AdaptiveAvgPool2D(output_size, **arguments))
    network.eval()
    return network


def spec(height, width):
    return [InputSpec([1, 3, height, width], "float32", "x")]


def save_unpatched(network, prefix, input_spec):
    with legacy_program_format():
        paddle.jit.save(network, str(prefix), input_spec)
    return prefix


def pool_attributes(prefix):
    """`adaptive`, `ksize` and `strides` of the only pooling of a program."""
    (op,) = (op for op in parse_program(prefix).blocks[0].ops if op.type == "pool2d")
    attributes = {attribute.name: attribute for attribute in op.attrs}
    return attributes["adaptive"].b, list(attributes["ksize"].ints), list(attributes["strides"].ints)


REPLACED = [
    (3, (9, 9), [3, 3]),
    (3, (6, 6), [2, 2]),
    (3, (3, 3), [1, 1]),
    (3, (3, 9), [1, 3]),
    (3, (12, 30), [4, 10]),
    ((3, 3), (96, 96), [32, 32]),
    (7, (7, 7), [1, 1]),
    (2, (2, 2), [1, 1]),
]


@pytest.mark.parametrize(("output_size", "input_size", "kernel"), REPLACED)
def test_it_is_replaced_by_ordinary_pooling_with_the_same_outputs(output_size, input_size, kernel, tmp_path):
    network, image = pooling(output_size), np.random.rand(1, 3, *input_size).astype("float32")
    before = save_unpatched(network, tmp_path / "paddle", spec(*input_size))
    after = export(network, tmp_path / "model", spec(*input_size))
    assert pool_attributes(before)[0]
    assert pool_attributes(after) == (False, kernel, kernel)
    expected = network(paddle.to_tensor(image)).numpy()
    for prefix in (before, after):
        np.testing.assert_allclose(run_exported(prefix, image)[0], expected, rtol=0, atol=1e-6)


class Branch(nn.Layer):
    """Pools in a branch, which is a block of its own in the program, a variable of the block around it."""

    def __init__(self):
        super().__init__()
        self.features, self.pool = nn.Conv2D(3, 16, 3, padding=1), nn.AdaptiveAvgPool2D(3)
        self.eval()

    def forward(self, x):
        y = self.features(x)
        return self.pool(y) if x.mean() > 0 else self.pool(-y)


def test_it_is_replaced_in_a_branch_too(tmp_path):
    network, image = Branch(), np.random.rand(1, 3, 9, 9).astype("float32")
    prefix = export(network, tmp_path / "model", spec(9, 9))
    pools = [op for block in parse_program(prefix).blocks[1:] for op in block.ops if op.type == "pool2d"]
    adaptive = [attribute.b for op in pools for attribute in op.attrs if attribute.name == "adaptive"]
    assert adaptive == [False, False]
    expected = network(paddle.to_tensor(image)).numpy()
    np.testing.assert_allclose(run_exported(prefix, image)[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sparse", [False, True])
def test_the_replaced_pooling_passes_the_optimizer(sparse, tmp_path):
    prefix = export(pooling(3), tmp_path / "model", spec(9, 9))
    assert optimize(prefix, tmp_path / "model.nb", sparse=sparse).is_file()


@pytest.mark.parametrize(
    ("output_size", "input_size"),
    [(1, (9, 9)), (2, (9, 9)), (4, (9, 9)), (7, (9, 9)), ((3, 1), (9, 9)), ((2, 3), (9, 9)), (1, (1, 1))],
)
def test_pooling_that_is_computed_correctly_is_not_changed(output_size, input_size, tmp_path):
    network = pooling(output_size)
    before = save_unpatched(network, tmp_path / "paddle", spec(*input_size))
    after = export(network, tmp_path / "model", spec(*input_size))
    assert pool_attributes(after) == pool_attributes(before)
    assert pool_attributes(after)[0]


@pytest.mark.parametrize("input_size", [(8, 8), (9, 8), (10, 9), (2, 2)])
def test_the_export_refuses_it_where_no_ordinary_pooling_is_equivalent(input_size, tmp_path):
    with pytest.raises(
        InputError,
        match=r"^model.pdmodel: operator pool2d 'pool2d_0.tmp_0', AdaptiveAvgPool2D\(3\) on "
        rf"an input of {input_size[0]}x{input_size[1]}, is computed wrongly by "
        "Paddle-Lite on ARM: height and width of its input must be multiples of 3",
    ):
        export(pooling(3), tmp_path / "model", spec(*input_size))
    assert not list(tmp_path.iterdir())


def test_the_export_refuses_it_in_another_layout(tmp_path):
    network = nn.AdaptiveAvgPool2D(3, data_format="NHWC")
    with pytest.raises(InputError, match=r"AdaptiveAvgPool2D\(3\) on an input of unknown size"):
        export(network, tmp_path / "model", [InputSpec([1, 9, 9, 3], "float32", "x")])


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    ("input_size", "remedy"),
    [
        ((9, 9), "9x9, .*: export the network with this package"),
        ((8, 8), "8x8, .*: height and width of its input must be multiples of 3"),
        ((None, None), "unknown size, .*: height and width of its input must be multiples of 3"),
    ],
)
def test_a_model_exported_elsewhere_is_refused_before_the_optimizer_runs(sparse, input_size, remedy, tmp_path):
    prefix = save_unpatched(pooling(3), tmp_path / "model", spec(*input_size))
    with pytest.raises(InputError, match=rf"model.pdmodel: operator pool2d .* on an input of {remedy}"):
        optimize(prefix, tmp_path / "model.nb", sparse=sparse)
    assert not (tmp_path / "model.nb").exists()


def test_a_damaged_program_is_refused_by_name(tmp_path):
    prefix = save_unpatched(pooling(3), tmp_path / "model", spec(9, 9))
    file = prefix.with_suffix(".pdmodel")
    file.write_bytes(file.read_bytes().replace(b"ksize", b"ksiz_"))
    with pytest.raises(InputError, match="model.pdmodel: damaged: KeyError 'ksize'"):
        optimize(prefix, tmp_path / "model.nb", sparse=False)
