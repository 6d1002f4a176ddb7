"""Programs in Paddle 2's format have the network's outputs, on every version of Paddle."""

import numpy as np
import paddle
import pytest
from helpers import PADDLE3, run_exported
from paddle import nn
from paddle.static import InputSpec

from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.program import read_program
from paddle_sparse_cb.errors import PipelineError
from paddle_sparse_cb.utils import legacy_programs

functional = nn.functional
SPEC = [InputSpec([1, 3, 8, 8], "float32", "x")]
# Each supplied function, called as function and as method, and with its arguments in several ways.
FUNCTIONS = {
    "abs": [lambda x: paddle.abs(x - 0.5)],
    "acos": [paddle.acos],
    "asin": [paddle.asin],
    "ceil": [paddle.ceil],
    "cos": [paddle.cos],
    "exp": [paddle.exp, lambda x: x.exp()],
    "floor": [paddle.floor],
    "log": [paddle.log],
    "log10": [paddle.log10],
    "log1p": [paddle.log1p],
    "log2": [paddle.log2],
    "round": [lambda x: paddle.round(3 * x)],
    "rsqrt": [paddle.rsqrt],
    "sigmoid": [functional.sigmoid],
    "sign": [lambda x: paddle.sign(x - 0.5)],
    "sin": [paddle.sin],
    "sqrt": [paddle.sqrt],
    "tanh": [functional.tanh],
    "gelu": [functional.gelu, lambda x: functional.gelu(x, True)],
    "softplus": [lambda x: functional.softplus(x, beta=2, threshold=1)],
    "multiply": [lambda x: paddle.multiply(x=x, y=x), lambda x: paddle.multiply(x, x[:, :1])],
    "maximum": [lambda x: paddle.maximum(x, 1 - x)],
    "minimum": [lambda x: paddle.minimum(x, 1 - x)],
    "greater_than": [lambda x: paddle.greater_than(x, 1 - x)],
    "logical_not": [lambda x: paddle.logical_not(x > 0.5)],
    "logical_and": [lambda x: paddle.logical_and(x > 0.2, x < 0.8)],
    "logical_or": [lambda x: paddle.logical_or(x < 0.2, x > 0.8)],
    "logical_xor": [lambda x: paddle.logical_xor(x < 0.7, x < 0.3)],
    "sum": [
        paddle.sum,
        lambda x: paddle.sum(x, axis=[1, -1], keepdim=True),
        lambda x: x.exp().sum(axis=1),
        lambda x: (x > 0.5).astype("int32").sum(axis=1, dtype="int64"),
    ],
    "amax": [lambda x: paddle.amax(x, axis=1)],
    "amin": [lambda x: paddle.amin(x, 1, True)],
    "all": [lambda x: paddle.all(x > 0.1, axis=[2, 3])],
    "any": [lambda x: paddle.any(x > 0.9, axis=-1)],
    "argmax": [
        paddle.argmax,
        lambda x: paddle.argmax(x, axis=1, keepdim=True),
        lambda x: paddle.argmax(x, axis=-1, dtype="int32"),
    ],
    "matmul": [lambda x: paddle.matmul(x, x, transpose_y=True), lambda x: x.exp().matmul(x)],
}


class Network(nn.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_every_supplied_function_is_tested():
    assert FUNCTIONS.keys() == legacy_programs.SUPPLIED_FUNCTIONS.keys()


@pytest.mark.parametrize(("name", "way"), [(name, way) for name, ways in FUNCTIONS.items() for way in range(len(ways))])
def test_the_exported_function_has_the_outputs_of_the_original(name, way, tmp_path):
    network, image = Network(FUNCTIONS[name][way]), paddle.rand([1, 3, 8, 8]) * 0.9 + 0.05
    prefix = export(network, tmp_path / "model", SPEC)
    expected, output = network(image).numpy(), run_exported(prefix, image.numpy())[0]
    assert output.dtype == expected.dtype
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not PADDLE3, reason="Paddle 2 exports every function")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_paddle_cannot_export_the_function_by_itself(name, tmp_path, monkeypatch):
    """Once this fails, Paddle no longer needs that function to be supplied."""
    monkeypatch.delitem(legacy_programs.SUPPLIED_FUNCTIONS, name)
    with pytest.raises(PipelineError, match=rf"cannot export {name}\(\)"):
        export(Network(FUNCTIONS[name][0]), tmp_path / "model", SPEC)


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_25"])
def test_exported_networks_have_the_outputs_of_the_originals(name, tmp_path):
    network = getattr(paddle.vision.models, name)(num_classes=10)
    network.eval()
    image = paddle.rand([1, 3, 32, 32])
    prefix = export(network, tmp_path / "model", [InputSpec([1, 3, 32, 32], "float32", "x")])
    assert len(read_program(prefix).convolutions) > 20
    np.testing.assert_allclose(run_exported(prefix, image.numpy())[0], network(image).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not PADDLE3, reason="Paddle 2 exports every function")
def test_a_function_that_is_not_supplied_is_named_in_one_line(tmp_path):
    with pytest.raises(PipelineError, match=r"cannot export sinh\(\) for Paddle-Lite; .* 2.6.2") as error:
        export(Network(paddle.sinh), tmp_path / "model", SPEC)
    assert "\n" not in str(error.value)


def test_an_error_of_the_network_itself_is_not_replaced(tmp_path):
    def broken(x):
        raise ValueError("a mistake of mine")

    with pytest.raises(ValueError, match="a mistake of mine"):
        export(Network(broken), tmp_path / "model", SPEC)


@pytest.mark.skipif(not PADDLE3, reason="Paddle 2 has no other format")
def test_paddles_guard_enters_static_mode():
    """Once this fails, `legacy_program_format` need no longer leave static mode."""
    with paddle.pir_utils.OldIrGuard():
        assert not paddle.in_dynamic_mode()
    assert paddle.in_dynamic_mode()


@pytest.mark.skipif(not PADDLE3, reason="Paddle 2 has no other format")
def test_afterwards_paddle_3_builds_its_own_programs_again(network, tmp_path):
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
