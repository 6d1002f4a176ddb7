"""Operators that MNN would compute wrongly are refused; the tests fail once they are computed right."""

import numpy as np
import paddle
import pytest
from helpers import PADDLE3, conv
from paddle import nn
from paddle.nn import functional as F
from paddle.static import InputSpec

from paddle_sparse_cb import InputError
from paddle_sparse_cb.deploy.executor import run_exported
from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.mnn.constraints import check_operators
from paddle_sparse_cb.deploy.mnn.converter import convert
from paddle_sparse_cb.deploy.mnn.reader import read_mnn
from paddle_sparse_cb.deploy.mnn.runtime import MNNModel
from paddle_sparse_cb.deploy.onnx import export_onnx

SPEC = [InputSpec([1, 4, 5, 6], "float32", "x")]
# Some that are right with the versions of both, and those that are wrong with either or both.
RIGHT = {
    "hard_swish": F.hardswish,
    "elu": lambda x: F.elu(x, 0.7),
    "mish": F.mish,
    "hard_sigmoid": lambda x: F.hardsigmoid(x, slope=0.2, offset=0.4),
}
WRONG = {"hard_shrink": lambda x: F.hardshrink(x, 0.3), "softshrink": lambda x: F.softshrink(x, 0.3)}
WRONG_ON_PADDLE3 = {"leaky_relu": lambda x: F.leaky_relu(x, 0.2), "brelu": lambda x: F.hardtanh(x, -0.3, 0.6)}
PARAMETERS = {"softplus": lambda x: F.softplus(x, beta=2.0, threshold=3.0)}  # paddle2onnx 2 refuses any softplus
if PADDLE3:
    WRONG.update(WRONG_ON_PADDLE3)
else:
    RIGHT.update(WRONG_ON_PADDLE3, softplus=F.softplus)


class Activations(nn.Layer):
    def __init__(self, functions):
        super().__init__()
        self.conv, self.functions = conv(4, 4), functions

    def forward(self, x):
        x = self.conv(x)
        return [function(x) for function in self.functions]


def errors(functions, folder):
    """The largest error of each output of MNN over the largest output of Paddle."""
    prefix = export(Activations(list(functions.values())), folder / "model", SPEC)
    sample = {"x": np.random.RandomState(0).randn(1, 4, 5, 6).astype("float32") * 2}
    path = convert(export_onnx(prefix, folder / "model.onnx"), folder / "model.mnn", sparse=False)
    outputs, names = MNNModel(path).run(sample), read_mnn(path).outputs
    (expected,) = run_exported(prefix, [sample])
    found = [outputs[name] for name in names]
    return {
        name: np.abs(ours - theirs).max() / np.abs(theirs).max()
        for name, ours, theirs in zip(functions, found, expected.values())
    }


def test_only_operators_that_are_computed_wrongly_are_refused(tmp_path):
    right, wrong = errors(RIGHT, tmp_path), errors({**WRONG, **({} if PADDLE3 else PARAMETERS)}, tmp_path)
    assert max(right.values()) < 1e-4, right
    assert min(wrong.values()) > 1e-3, wrong
    check_operators(export(Activations(list(RIGHT.values())), tmp_path / "right", SPEC))
    for name, function in {**WRONG, **PARAMETERS}.items():
        prefix = export(Activations([function]), tmp_path / "wrong", SPEC)
        with pytest.raises(InputError, match=rf"wrong.pdmodel: the operator {name} .*is computed wrongly by MNN"):
            check_operators(prefix)
    assert paddle.in_dynamic_mode()


def test_adaptive_pooling_is_refused_where_its_windows_differ_in_size(tmp_path):
    for size in (1, 4):
        prefix = export(nn.Sequential(conv(4, 4), nn.AdaptiveAvgPool2D(size)), tmp_path / "model", SPEC)
        if size == 1:
            check_operators(prefix)
        else:
            with pytest.raises(InputError, match=r"AdaptiveAvgPool2D\(4\) on an input of \[5, 6\] is computed wrongly"):
                check_operators(prefix)
