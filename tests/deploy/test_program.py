import pickle

import numpy as np
import paddle
import pytest
from helpers import Chain, conv, run_exported
from paddle import nn
from paddle.static import InputSpec

from paddle_sparse_cb import InputError
from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.lite.nb import read_nb
from paddle_sparse_cb.deploy.lite.optimizer import count_convolutions, optimize
from paddle_sparse_cb.deploy.program import read_program
from paddle_sparse_cb.errors import PipelineError
from paddle_sparse_cb.utils.legacy_programs import legacy_program_format

SPEC = [InputSpec([1, 3, 8, 8], "float32", "x")]
ON_16 = [InputSpec([1, 16, 8, 8], "float32", "x")]
TRAPS = {"relu6": nn.ReLU6, "swish": nn.Swish, "instance_norm": lambda: nn.InstanceNorm2D(16),
         "flatten_contiguous_range": lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(1024, 4))}


def between_convolutions(layer):
    network = nn.Sequential(nn.Conv2D(3, 16, 3, padding=1), nn.BatchNorm2D(16), nn.Conv2D(16, 16, 1), layer)
    network[1].weight.set_value(paddle.full([16], 30.0))  # so that ReLU6 has something to cut off
    network.eval()
    return network


@pytest.mark.parametrize("kind", TRAPS)
def test_what_paddle_lite_misses_is_added_and_the_outputs_are_the_same(kind, tmp_path):
    network = between_convolutions(TRAPS[kind]())
    prefix = export(network, tmp_path / "model", SPEC)
    assert read_program(prefix).kinds[kind] == 1
    assert optimize(prefix, tmp_path / "model.nb", sparse=False).is_file()
    image = np.random.rand(1, 3, 8, 8).astype("float32")
    found, expected = run_exported(prefix, image)[0], network(paddle.to_tensor(image)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", TRAPS)
def test_as_paddle_exports_it_the_optimizer_fails(kind, tmp_path):
    """If this fails, `patch_for_lite` has become needless for that operator."""
    with legacy_program_format():
        paddle.jit.save(between_convolutions(TRAPS[kind]()), str(tmp_path / "model"), SPEC)
    with pytest.raises(PipelineError, match="Paddle-Lite's optimizer failed"):
        optimize(tmp_path / "model", tmp_path / "model.nb", sparse=False)


class Pairs(nn.Layer):
    """A pair of convolutions that Paddle-Lite merges, and another one beside it."""

    def __init__(self, *other):
        super().__init__()
        self.pairs = nn.LayerList([nn.Sequential(conv(16, 16), conv(16, 72)), nn.Sequential(*other)])
        self.eval()

    def forward(self, x):
        return [pair(x) for pair in self.pairs]


def plain(inputs, outputs, kernel=1, **arguments):
    return nn.Conv2D(inputs, outputs, kernel, bias_attr=False, **arguments)


# What Paddle-Lite makes of four convolutions: whether it says something, or merges them, whether that is right or not.
PAIRS = {
    "not worth it alone": (lambda: (conv(16, 72), conv(72, 8)), 2),
    "a norm": (lambda: (conv(16, 16), nn.BatchNorm2D(16), conv(16, 16)), 2),
    "stride": (lambda: (conv(16, 16), plain(16, 16, stride=2)), "strides"),
    "padding": (lambda: (conv(16, 16), plain(16, 16, 3, padding=1)), "paddings"),
    "dilation": (lambda: (conv(16, 16), plain(16, 16, 3, dilation=2)), "dilations"),
    "3x3": (lambda: (conv(16, 16), plain(16, 16, 3)), 2),
    "groups": (lambda: (conv(16, 16, groups=2), conv(16, 16)), 2),
}


@pytest.mark.parametrize("what", PAIRS)
def test_convolutions_side_by_side_are_kept_apart_and_the_outputs_are_the_same(what, tmp_path):
    network = Pairs(*PAIRS[what][0]())
    prefix = export(network, tmp_path / "model", ON_16)
    nb = optimize(prefix, tmp_path / "model.nb", sparse=False)
    assert [one.kind for one in read_nb(nb).operators].count("conv2d") == 4
    assert "scale" not in {one.kind for one in read_nb(nb).operators}  # what kept them apart is gone
    image = np.random.rand(1, 16, 8, 8).astype("float32")
    for found, expected in zip(run_exported(prefix, image), network(paddle.to_tensor(image))):
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("what", PAIRS)
def test_as_paddle_exports_them_they_are_merged_or_the_optimizer_fails(what, tmp_path):
    """If this fails, `patch_for_lite` has become needless there."""
    make, becomes = PAIRS[what]
    with legacy_program_format():
        paddle.jit.save(Pairs(*make()), str(tmp_path / "model"), ON_16)
    if isinstance(becomes, int):
        assert count_convolutions(optimize(tmp_path / "model", tmp_path / "model.nb", sparse=False)).total == becomes
    else:
        with pytest.raises(PipelineError, match=f"Check failed: .{becomes}"):
            optimize(tmp_path / "model", tmp_path / "model.nb", sparse=False)


@pytest.mark.parametrize(("make", "puts"), [
    (Chain, 1), (lambda: Chain(norm=True), 1), (lambda: Chain("added"), 0), (lambda: Chain("chosen", norm=True), 0),
    (lambda: nn.Sequential(conv(16, 16), nn.ReLU(), conv(16, 72)), 0),
    (lambda: nn.Sequential(nn.Conv2D(16, 16, 1), conv(16, 72)), 0),
    (lambda: nn.Sequential(conv(16, 16, 3, groups=16), conv(16, 72)), 0),
], ids=range(7))
def test_nothing_is_put_where_paddle_lite_would_not_merge(make, puts, tmp_path):
    network = make()
    network.eval()
    with legacy_program_format():
        paddle.jit.save(network, str(tmp_path / "paddle"), ON_16)
    before, after = read_program(tmp_path / "paddle"), read_program(export(network, tmp_path / "model", ON_16))
    assert after.kinds - before.kinds == ({"scale": 1} if puts else {})


def test_the_program_tells_how_each_convolution_is_used(network, tmp_path):
    found = read_program(export(network, tmp_path / "model", [InputSpec([1, 1, 8, 8], "float32", "x")]))
    assert found.inputs == {"x": (1, 1, 8, 8)}
    assert [(one.name, one.pixels, one.calls, one.may_be_sparse) for one in found.convolutions.values()] == [
        ("stem.0.weight", 64, 1, False), ("depthwise.weight", 64, 1, False), ("expand.weight", 64, 1, True),
        ("squeeze.1.weight", 1, 1, True), ("squeeze.3.weight", 1, 1, True), ("project.weight", 64, 1, True),
        ("strided.weight", 64, 1, False)]


def test_a_damaged_program_is_named(network, tmp_path):
    prefix = export(network, tmp_path / "model", [InputSpec([1, 1, 8, 8], "float32", "x")])
    whole = prefix.with_suffix(".pdmodel").read_bytes()
    for content in (b"", b"no program", whole[: len(whole) // 2]):
        prefix.with_suffix(".pdmodel").write_bytes(content)
        with pytest.raises(InputError, match=r"model.pdmodel: "):
            read_program(prefix)


def test_a_program_that_makes_no_sense_is_named(network, tmp_path):
    prefix = export(network, tmp_path / "model", [InputSpec([1, 1, 8, 8], "float32", "x")])
    path = prefix.with_suffix(".pdmodel")
    whole = path.read_bytes()
    for old, new in ((b"Filter", b"Filtes"), (b"strides", b"stridet"), (b"batch_norm2d_", b"batch_norm2d\xff")):
        assert old in whole
        path.write_bytes(whole.replace(old, new))
        with pytest.raises(InputError, match=r"model.pdmodel: damaged"):
            read_program(prefix)


def test_a_weight_without_its_name_is_no_convolution_less_but_an_error(network, tmp_path):
    """A layer that is not looked at would pass every check."""
    prefix = export(network, tmp_path / "model", [InputSpec([1, 1, 8, 8], "float32", "x")])
    file = prefix.with_suffix(".pdiparams.info")
    names = pickle.loads(file.read_bytes())
    file.write_bytes(pickle.dumps({variable: about for variable, about in names.items()
                                   if about["structured_name"] != "expand.weight"}))
    with pytest.raises(InputError, match=r"model.pdiparams.info: damaged, or of another model: it has no name"):
        read_program(prefix)
