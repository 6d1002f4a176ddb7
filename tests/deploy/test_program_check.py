"""The exported program computes what the network does, or the verification says so."""

import numpy as np
import paddle
import pytest
from helpers import Pointwise
from paddle import nn
from paddle.static import InputSpec

from paddle_sparse_cb import HookContext, make_plan, measure_sparsity
from paddle_sparse_cb.deploy import Export, verify
from paddle_sparse_cb.deploy.program_check import MAX_ERROR, check_outputs
from paddle_sparse_cb.deploy.verify import describe
from paddle_sparse_cb.errors import InputError, PipelineError
from paddle_sparse_cb.utils.weight_files import parse_program

SPEC = [InputSpec([1, 1, 8, 8], "float32", "x")]


def exported(network, folder, spec=SPEC):
    plan = make_plan(network, spec if not isinstance(spec[0], dict) else None)
    context = HookContext(network, folder, plan, measure_sparsity(network, plan), 0.0)
    Export(spec)(context)
    return context


@pytest.fixture(scope="module")
def network():
    return Pointwise()


@pytest.fixture
def context(network, tmp_path):
    return exported(network, tmp_path)


def rewrite(context, change):
    prefix = context.artefacts["inference"]
    program = parse_program(prefix)
    change(program.blocks[0])
    prefix.with_suffix(".pdmodel").write_bytes(program.SerializeToString())


def test_a_program_that_computes_something_else_fails_on_samples(context):
    context.samples = [{"x": np.random.rand(1, 8, 8).astype("float32"), "of another model": np.zeros(1)}] * 3
    rewrite(context, lambda block: setattr(next(op for op in block.ops if op.type == "relu"), "type", "tanh"))
    result = check_outputs(context, ["inference"])
    (problem,) = result["problems"]
    assert "model.pdmodel: outputs differ from the network's by " in problem
    assert result["errors"] == {"inference": None}
    assert "on 2 samples" in result["scope"]
    assert not result["ok"]


def test_a_program_that_writes_files_is_not_run(context):
    rewrite(context, lambda block: setattr(block.ops[-2], "type", "save"))
    with pytest.raises(InputError, match="will not be run: its operator 'save' does more than compute"):
        check_outputs(context, ["inference"])


def test_a_program_that_paddle_cannot_run_is_an_error_of_one_line(context):
    rewrite(context, lambda block: setattr(block.ops[-2], "type", "nothing"))
    with pytest.raises(PipelineError, match=r"^running model.pdmodel: [^\n]*$"):
        check_outputs(context, ["inference"])


def test_nothing_is_run_after_another_failure_and_a_repaired_file_passes_on_noise(context):
    file = context.artefacts["inference"].with_suffix(".pdiparams")
    content = file.read_bytes()
    file.write_bytes(content[:-4] + bytes(4))
    context.network.train()
    verify(context)
    assert context.checks["outputs"]["problems"] == ["not run, because a check failed: pdiparams, manifest"]
    file.write_bytes(content)
    context.references.clear()  # the network itself is the reference
    verify(context)
    result = context.checks["outputs"]
    assert result["ok"]
    assert result["errors"]["inference"] <= MAX_ERROR
    assert context.network.training
    assert describe(result).startswith("ok: outputs within ")
    assert "inference run by Paddle on noise; relative to the largest magnitude" in describe(result)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"y": np.zeros((1, 8, 8), "float32")}, r"sample 0 has no input 'x'; the inputs of model are \['x'\]"),
        (
            {"x": np.zeros((1, 9, 8), "float32")},
            r"must be float32 of shape \[1, 8, 8\], got float32 of shape \[1, 9, 8\]",
        ),
        ({"x": np.zeros((1, 8, 8))}, r"must be float32 of shape \[1, 8, 8\], got float64"),
        ({"x": np.full((1, 8, 8), np.nan, "float32")}, "sample 0: input 'x' has values that are not finite"),
        ({"x": np.full((1, 8, 8), np.inf, "float32")}, "sample 0: input 'x' has values that are not finite"),
    ],
)
def test_samples_that_do_not_fit_are_refused(context, sample, message):
    context.samples = [sample]
    with pytest.raises(InputError, match=message):
        check_outputs(context, ["inference"])


class Scores(nn.Layer):
    """Has two inputs of which one is an integer, and returns one tensor twice beside what is no tensor."""

    def __init__(self):
        super().__init__()
        self.embedding, self.linear = nn.Embedding(4, 8), nn.Linear(8, 4)

    def forward(self, tokens, bias):
        scores = self.linear(self.embedding(tokens)) + bias
        return {"scores": scores, "again": [scores, None], "best": scores.argmax(-1)}


class Inputs(nn.Layer):
    """Takes them in a dict, as ppdet's detectors do."""

    def __init__(self):
        super().__init__()
        self.scores = Scores()

    def forward(self, inputs):
        return self.scores(inputs["tokens"], inputs["bias"])


TOKENS, BIAS = InputSpec([1, 6], "int64", "tokens"), InputSpec([1, 6, 4], "float32", "bias")


@pytest.mark.parametrize(
    ("network", "spec"),
    [(Scores, [TOKENS, BIAS]), (Inputs, [{"tokens": TOKENS, "bias": BIAS, "unused": None}])],
)
def test_inputs_and_outputs_of_any_structure_are_compared(network, spec, tmp_path):
    context = exported(network(), tmp_path, spec)
    result = check_outputs(context, ["inference"])
    assert result["ok"], result


def test_outputs_that_are_not_finite_fail_because_nothing_can_be_compared(tmp_path):
    network = Pointwise()
    network.head.bias.set_value(paddle.full([10], np.inf))
    context = exported(network, tmp_path)
    (problem,) = check_outputs(context, ["inference"])["problems"]
    assert problem.endswith("the network's own outputs are not finite, so nothing can be compared")


def test_outputs_that_do_not_depend_on_the_input_are_mentioned(tmp_path):
    network = Pointwise()
    for parameter in network.parameters():
        parameter.set_value(paddle.zeros_like(parameter))
    assert (
        "the outputs hardly depend on the input" in check_outputs(exported(network, tmp_path), ["inference"])["scope"]
    )
