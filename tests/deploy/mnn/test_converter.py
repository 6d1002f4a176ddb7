import numpy as np
import paddle
import pytest
from helpers import PADDLE3, conv
from paddle import nn
from paddle.static import InputSpec

from paddle_sparse_cb import InputError
from paddle_sparse_cb.deploy import isolated
from paddle_sparse_cb.deploy.executor import run_exported
from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.mnn.constraints import THRESHOLDS
from paddle_sparse_cb.deploy.mnn.converter import convert
from paddle_sparse_cb.deploy.mnn.reader import read_mnn
from paddle_sparse_cb.deploy.mnn.runtime import MNNModel
from paddle_sparse_cb.deploy.onnx import export_onnx
from paddle_sparse_cb.deploy.outputs import relative_error
from paddle_sparse_cb.errors import PipelineError
from paddle_sparse_cb.utils.legacy_programs import legacy_program_format

# Each layer reads 16 channels of 13 x 11 pixels. The share of convolutions that MNN stores sparse at 75% zeros.
LAYERS = {
    "1x1": lambda: conv(16, 32),
    "odd channels": lambda: nn.Conv2D(16, 30, 1),
    "strided": lambda: nn.Conv2D(16, 32, 1, stride=2),
    "padded": lambda: nn.Conv2D(16, 32, 1, padding=1),
    "3x3": lambda: conv(16, 32, 3),
    "5x5": lambda: nn.Conv2D(16, 32, 5, padding=2, stride=2),
    "dilated": lambda: nn.Conv2D(16, 32, 3, padding=2, dilation=2),
    "groups": lambda: nn.Conv2D(16, 32, 3, groups=4),
    "depthwise": lambda: nn.Conv2D(16, 16, 3, groups=16),
    "several filters per channel": lambda: nn.Conv2D(16, 32, 3, groups=16),
    "transposed": lambda: nn.Conv2DTranspose(16, 32, 2, stride=2),
    "with norm": lambda: nn.Sequential(nn.Conv2D(16, 32, 1), nn.BatchNorm2D(32), nn.Hardswish()),
    "Swish": lambda: nn.Sequential(conv(16, 32), nn.Swish()),
    "ReLU6": lambda: nn.Sequential(conv(16, 32), nn.ReLU6()),
    "one pixel": lambda: nn.Sequential(nn.AdaptiveAvgPool2D(1), nn.Conv2D(16, 64, 1)),
    "linear": lambda: nn.Sequential(nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Linear(16, 32)),
}


class All(nn.Layer):
    """Has an output for each of `LAYERS`, one of a layer that is called twice, and one of a 1D convolution."""

    def __init__(self):
        super().__init__()
        self.layers = nn.LayerList([make() for make in LAYERS.values()])
        self.twice, self.line = conv(16, 16), nn.Conv1D(16, 16, 3)

    def forward(self, x):
        outputs = [layer(x) for layer in self.layers]
        return [*outputs, self.twice(nn.functional.relu(self.twice(x))), self.line(x.flatten(2))]


def zero(layer, ratio, block):
    """Sets blocks of output channels of a layer's weights to zero."""
    for parameter in layer.parameters():
        if parameter.ndim > 1:
            weight = parameter.numpy()
            is_linear = weight.ndim == 2
            rows = weight.T if is_linear else weight
            random = np.random.RandomState(0)
            kept = np.repeat(random.rand(-(-len(rows) // block), *rows.shape[1:]) >= ratio, block, axis=0)[: len(rows)]
            parameter.set_value((rows * kept).T if is_linear else rows * kept)


@pytest.fixture(scope="module")
def every_layer(tmp_path_factory):
    """The same network with zeros in blocks of eight channels: exported, its ONNX form, an input, and the outputs."""
    folder = tmp_path_factory.mktemp("layers")
    paddle.seed(7)
    network = All()
    zero(network, 0.8, 8)
    prefix = export(network, folder / "model", [InputSpec([1, 16, 13, 11], "float32", "x")])
    sample = {"x": np.random.RandomState(1).randn(1, 16, 13, 11).astype("float32")}
    return export_onnx(prefix, folder / "model.onnx"), sample, run_exported(prefix, [sample])


@pytest.mark.parametrize("block", [0, 1, 2, 4, 8])
def test_every_kind_of_layer_is_computed_as_by_paddle(every_layer, tmp_path, block):
    onnx, sample, expected = every_layer
    path = convert(onnx, tmp_path / "model.mnn", sparse=block > 0, block=block or 1)
    outputs, names = MNNModel(path).run(sample), read_mnn(path).outputs
    found = [dict(zip(expected[0], (outputs[name] for name in names)))]
    assert len(names) == len(LAYERS) + 2
    assert relative_error(expected, found) < 1e-5
    stored = read_mnn(path).convolutions
    assert {one.block for one in stored if one.positions is not None} == ({block} if block else set())
    if block:  # one of each kind but the transposed convolution; of the groups, those with enough zeros
        assert [one.name for one in stored if not one.runs_sparse and not one.is_depthwise] == []
        assert sum(one.is_depthwise for one in stored) == 3  # that with several filters becomes two
        assert len(stored) == len(LAYERS) - 1 + (4 - 1) + (2 - 1) + 2 + 1


def test_a_layer_is_sparse_with_more_zeros_in_whole_blocks_than_the_threshold(tmp_path):
    """A layer with each number of empty columns, and one with 75% zeros of which a third fill no block of two rows."""
    layers = [conv(10, 16) for _ in range(11)] + [conv(16, 16)]
    for empty, layer in enumerate(layers):
        weight = layer.weight.numpy()
        weight[:, : min(empty, 8 if layer is layers[-1] else 10)] = 0
        if layer is layers[-1]:
            weight[::2] = 0
        layer.weight.set_value(weight)
    adapters = [nn.Conv2D(16, 10, 1) for _ in range(10)] + [nn.ReLU(), nn.ReLU()]
    network = nn.Sequential(*[one for pair in zip(layers, adapters) for one in pair])
    prefix = export(network, tmp_path / "model", [InputSpec([1, 10, 4, 4], "float32", "x")])
    onnx = export_onnx(prefix, tmp_path / "model.onnx")
    for block, threshold in THRESHOLDS.items():
        stored = read_mnn(convert(onnx, tmp_path / "model.mnn", sparse=True, block=block)).convolutions
        sparse = [one.runs_sparse for one in stored if one.rows == 16]
        assert sparse[:11] == [empty / 10 > threshold for empty in range(11)], block
        assert sparse[11] == (block != 2)  # 50% in blocks of two, which is not more than the threshold


def test_equal_models_give_equal_files(converted, tmp_path):
    onnx = converted.artefacts["onnx"]
    again = export_onnx(converted.artefacts["inference"], tmp_path / "again" / "other.onnx")
    assert again.read_bytes() == onnx.read_bytes()
    for kind in ("dense", "sparse"):
        made = convert(again, tmp_path / "again" / "other.mnn", sparse=kind == "sparse", block=1)
        assert made.read_bytes() == converted.artefacts[f"mnn_{kind}"].read_bytes()
    assert [path.name for path in sorted((tmp_path / "again").iterdir())] == ["other.mnn", "other.onnx"]


def test_the_current_folder_is_left_alone(converted, tmp_path, monkeypatch):
    """MNN deletes a file of this name in the folder where it runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".__convert_external_data.bin").write_text("mine")
    before = sorted(path.name for path in tmp_path.iterdir())
    relative = converted.artefacts["onnx"].relative_to(tmp_path)
    convert(relative, converted.artefacts["mnn_sparse"].relative_to(tmp_path), sparse=True)
    export_onnx(converted.artefacts["inference"].relative_to(tmp_path), relative)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / ".__convert_external_data.bin").read_text() == "mine"


def test_modules_are_not_taken_from_the_current_folder(converted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("_tools", "MNN", "paddle2onnx", "json", "inspect"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('code of a stranger')")
    export_onnx(converted.artefacts["inference"], tmp_path / "a.onnx")
    convert(tmp_path / "a.onnx", tmp_path / "a.mnn", sparse=True)


def test_a_file_that_cannot_be_converted_is_named_with_the_converters_last_line(tmp_path, capfd):
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(PipelineError, match=r"^MNN's converter failed on \S+bad.onnx: exit code 0: \S.*$"):
        convert(tmp_path / "bad.onnx", tmp_path / "bad.mnn", sparse=True)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.onnx"]
    assert capfd.readouterr() == ("", "")


class Unsupported(nn.Layer):
    def __init__(self):
        super().__init__()
        self.conv = conv(4, 4)

    def forward(self, x):
        return paddle.lgamma(self.conv(x))


def test_an_operator_that_paddle2onnx_does_not_know_is_a_pipeline_error(tmp_path):
    prefix = tmp_path / "model"
    with legacy_program_format():
        paddle.jit.save(Unsupported(), str(prefix), input_spec=[InputSpec([1, 4, 2, 2], "float32", "x")])
    reason = (
        "the unsupported operators, the conversion is aborted." if PADDLE3 else "not supported yet, including lgamma"
    )
    with pytest.raises(PipelineError, match=rf"^paddle2onnx failed on \S+model.pdmodel: signal 6: .* {reason}$"):
        export_onnx(prefix, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_wrong_arguments_are_refused(converted, tmp_path):
    onnx = converted.artefacts["onnx"]
    for block in (0, 3, 16, True, "4", None, 4.0):
        with pytest.raises(InputError, match=r"MNN's block must be one of 1, 2, 4, 8 output channels, got"):
            convert(onnx, tmp_path / "a.mnn", sparse=True, block=block)
    with pytest.raises(InputError, match=r"none.onnx: no such file"):
        convert(tmp_path / "none.onnx", tmp_path / "a.mnn", sparse=True)
    with pytest.raises(InputError, match=r"none.pdmodel: no such file"):
        export_onnx(tmp_path / "none", tmp_path / "a.onnx")


def test_a_missing_package_is_named_with_its_extra(converted, tmp_path, monkeypatch):
    monkeypatch.setattr(isolated, "find_spec", lambda name: None)
    extra = r" is not installed: pip install 'paddle_sparse_cb\[mnn\]'$"
    with pytest.raises(PipelineError, match="^paddle2onnx" + extra):
        export_onnx(converted.artefacts["inference"], tmp_path / "a.onnx")
    with pytest.raises(PipelineError, match="^MNN" + extra):
        convert(converted.artefacts["onnx"], tmp_path / "a.mnn", sparse=True)
    with pytest.raises(PipelineError, match="^MNN" + extra):
        MNNModel(converted.artefacts["mnn_sparse"])
