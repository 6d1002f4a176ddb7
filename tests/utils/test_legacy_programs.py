"""Programs in Paddle 2's format: the same outputs on every version of Paddle."""

import numpy as np
import paddle
import pytest
from helpers import PADDLE3, run_exported
from paddle import nn
from paddle.static import InputSpec

from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.program import read_program
from paddle_sparse_cb.errors import PipelineError

functional = nn.functional
# What Paddle 3.1 and later cannot put into such a program by themselves, as functions and as methods.
FUNCTIONS = {
    "abs": lambda x: paddle.abs(x - 0.5), "acos": paddle.acos, "asin": paddle.asin, "ceil": paddle.ceil,
    "cos": paddle.cos, "exp": paddle.exp, "floor": paddle.floor, "log": paddle.log, "log10": paddle.log10,
    "log1p": paddle.log1p, "log2": paddle.log2, "round": lambda x: paddle.round(3 * x), "rsqrt": paddle.rsqrt,
    "sigmoid": functional.sigmoid, "sign": lambda x: paddle.sign(x - 0.5), "sin": paddle.sin, "sqrt": paddle.sqrt,
    "tanh": functional.tanh, "gelu": functional.gelu, "gelu approximate": lambda x: functional.gelu(x, True),
    "softplus": lambda x: functional.softplus(x, beta=2, threshold=1),
    "multiply": lambda x: paddle.multiply(x=x, y=x), "maximum": lambda x: paddle.maximum(x, 1 - x),
    "minimum": lambda x: paddle.minimum(x, 1 - x), "broadcast": lambda x: paddle.multiply(x, x[:, :1]),
    "greater_than": lambda x: paddle.greater_than(x, 1 - x), "logical_not": lambda x: paddle.logical_not(x > 0.5),
    "logical_and": lambda x: paddle.logical_and(x > 0.2, x < 0.8),
    "logical_or": lambda x: paddle.logical_or(x < 0.2, x > 0.8),
    "logical_xor": lambda x: paddle.logical_xor(x < 0.7, x < 0.3),
    "sum": paddle.sum, "sum of an axis": lambda x: paddle.sum(x, axis=[1, -1], keepdim=True),
    "sum to int64": lambda x: (x > 0.5).astype("int32").sum(axis=1, dtype="int64"),
    "amax": lambda x: paddle.amax(x, axis=1), "amin": lambda x: paddle.amin(x, 1, True),
    "all": lambda x: paddle.all(x > 0.1, axis=[2, 3]), "any": lambda x: paddle.any(x > 0.9, axis=-1),
    "argmax": lambda x: paddle.argmax(x, axis=1, keepdim=True), "argmax of all": paddle.argmax,
    "argmax int32": lambda x: paddle.argmax(x, axis=-1, dtype="int32"),
    "matmul": lambda x: paddle.matmul(x, x, transpose_y=True), "method": lambda x: x.exp().matmul(x).sum(axis=1),
}


class Network(nn.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_exported_and_computes_the_same(name, tmp_path):
    network, image = Network(FUNCTIONS[name]), paddle.rand([1, 3, 8, 8]) * 0.9 + 0.05
    prefix = export(network, tmp_path / "model", [InputSpec([1, 3, 8, 8], "float32", "x")])
    expected, found = network(image).numpy(), run_exported(prefix, image.numpy())[0]
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_25"])
def test_networks_are_exported_and_compute_the_same(name, tmp_path):
    network = getattr(paddle.vision.models, name)(num_classes=10)
    network.eval()
    image = paddle.rand([1, 3, 32, 32])
    prefix = export(network, tmp_path / "model", [InputSpec([1, 3, 32, 32], "float32", "x")])
    assert len(read_program(prefix).convolutions) > 20
    np.testing.assert_allclose(run_exported(prefix, image.numpy())[0], network(image).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not PADDLE3, reason="Paddle 2 exports all of its functions")
def test_a_function_that_no_program_can_have_is_named(tmp_path):
    with pytest.raises(PipelineError, match=r"cannot put sinh\(\) into a program for Paddle-Lite; .* 2.6.2") as error:
        export(Network(paddle.sinh), tmp_path / "model", [InputSpec([1, 3, 8, 8], "float32", "x")])
    assert "\n" not in str(error.value)


def test_an_error_of_the_network_itself_is_left_as_it_is(tmp_path):
    def wrong(x):
        raise ValueError("a mistake of mine")

    with pytest.raises(ValueError, match="a mistake of mine"):
        export(Network(wrong), tmp_path / "model", [InputSpec([1, 3, 8, 8], "float32", "x")])


@pytest.mark.skipif(not PADDLE3, reason="Paddle 2 has no other format")
def test_afterwards_paddle_builds_its_own_programs_again(network, tmp_path):
    functions = paddle._C_ops.multiply, paddle.base.framework.Variable.exp
    for _ in range(2):
        export(network, tmp_path / "old" / "model", [InputSpec([1, 1, 8, 8], "float32", "x")])
    assert (paddle._C_ops.multiply, paddle.base.framework.Variable.exp) == functions
    assert paddle.in_dynamic_mode()
    network.eval()
    paddle.jit.save(network, str(tmp_path / "new" / "model"), [InputSpec([1, 1, 8, 8], "float32", "x")])
    assert (tmp_path / "new" / "model.json").is_file()
    image = paddle.rand([1, 1, 8, 8])
    loaded = paddle.jit.load(str(tmp_path / "new" / "model"))
    np.testing.assert_allclose(loaded(image).numpy(), network(image).numpy(), rtol=1e-5, atol=1e-6)
