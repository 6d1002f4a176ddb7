import paddle
import pytest
from paddle import nn
from paddle.static import InputSpec

from paddle_sparse_cb import InputError
from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.lite.constraints import check_options, check_sparse
from paddle_sparse_cb.deploy.lite.optimizer import OptimizeLite, count_convolutions, find_optimizer, optimize
from paddle_sparse_cb.utils.legacy_programs import legacy_program_format

SPEC = [InputSpec([1, 3, 8, 8], "float32", "x")]


class Shared(nn.Layer):
    """A 1x1 convolution that is called twice."""

    def __init__(self, ratio):
        super().__init__()
        self.stem = nn.Conv2D(3, 20, 3, padding=1)
        self.shared = nn.Conv2D(20, 20, 1)
        keep_from(self.shared.weight, ratio)

    def forward(self, x):
        x = nn.functional.relu(self.shared(self.stem(x)))
        return nn.functional.relu(self.shared(x))


def keep_from(weight, ratio):
    """Zeros in the first elements of a weight, `ratio` of them."""
    array = weight.numpy().reshape(-1)
    array[: round(ratio * array.size)] = 0
    weight.set_value(array.reshape(weight.shape))


def test_a_shared_sparse_convolution_is_refused_where_the_optimizer_crashes(tmp_path):
    prefix = export(Shared(0.6), tmp_path / "model", SPEC)
    with pytest.raises(InputError, match=r"shared.weight is called 2 times and 60% zero: .* crashes"):
        optimize(prefix, tmp_path / "model.nb", sparse=True)
    done = find_optimizer().run(f"--model_file={prefix}.pdmodel", f"--param_file={prefix}.pdiparams",
                                f"--optimize_out={tmp_path / 'model'}", "--valid_targets=arm", "--sparse_model=true")
    assert done.returncode < 0


def test_a_shared_convolution_below_the_threshold_stays_dense(tmp_path):
    prefix = export(Shared(0.5), tmp_path / "model", SPEC)
    found = count_convolutions(optimize(prefix, tmp_path / "model.nb", sparse=True))
    assert (found.total, found.sparse) == (3, 0)


def test_a_layer_of_zeros_is_refused_by_its_name(tmp_path):
    network = nn.Sequential(nn.Conv2D(3, 8, 3), nn.ReLU(), nn.Conv2D(8, 8, 1), nn.ReLU())
    keep_from(network[2].weight, 1.0)
    prefix = export(network, tmp_path / "model", SPEC)
    with pytest.raises(InputError, match=r"model.pdmodel: 2.weight is all zeros: Paddle-Lite cannot load"):
        optimize(prefix, tmp_path / "model.nb", sparse=True)
    assert not (tmp_path / "model.nb").exists()
    optimize(prefix, tmp_path / "model.nb", sparse=False)


@pytest.mark.parametrize("shape", [[1, 3, None, None], [None, 3, 8, 8], [2, 3, 8, 8]])
def test_the_exported_model_of_someone_else_is_checked_too(shape, tmp_path):
    network = nn.Sequential(nn.Conv2D(3, 8, 3), nn.ReLU())
    network.eval()
    with legacy_program_format():
        paddle.jit.save(network, str(tmp_path / "model"), [InputSpec(shape, "float32", "x")])
    with pytest.raises(InputError, match=r"model.pdmodel: input 'x' has shape .* every size fixed and batch 1"):
        check_sparse(tmp_path / "model")


@pytest.mark.parametrize(("options", "said"), [
    ({"enable_fp16": "true"}, "FP16 sparse kernels are not known to compute the right thing"),
    ({"quant_model": "true"}, "would stay FP32"),
    ({"valid_targets": "arm,x86"}, "nothing sparse for any target but 'arm' alone"),
    ({"valid_targets": "x86"}, "nothing sparse for any target but 'arm' alone"),
    ({"valid_targets": "arm,opencl"}, "nothing sparse for any target but 'arm' alone"),
    ({"sparse_model": "True"}, "is set by this step"),
    ({"sparse_modle": "true"}, "is unknown; known: enable_fp16, quant_model, quant_type, valid_targets"),
])
def test_an_option_that_does_not_go_with_a_sparse_model_is_refused(options, said, tmp_path):
    with pytest.raises(InputError, match=said):
        optimize(tmp_path / "model", tmp_path / "model.nb", sparse=True, options=options)


def test_what_changes_nothing_is_let_through():
    check_options({"enable_fp16": "false", "quant_model": "false", "valid_targets": "arm"}, sparse=True)
    check_options({"enable_fp16": "true", "quant_model": "true", "quant_type": "QUANT_INT8"}, sparse=False)


def test_the_options_of_a_dense_file_take_effect(tmp_path):
    prefix = export(nn.Sequential(nn.Conv2D(3, 64, 3), nn.ReLU()), tmp_path / "model", SPEC)
    plain = optimize(prefix, tmp_path / "plain.nb", sparse=False).stat().st_size
    options = {"quant_model": "true", "quant_type": "QUANT_INT8"}
    assert optimize(prefix, tmp_path / "small.nb", sparse=False, options=options).stat().st_size < plain - 64 * 27 * 2
    assert OptimizeLite(options).options == options


@pytest.mark.parametrize("value", ["arm --optimize_out=/etc/x", "arm;ls", "../x", ""])
def test_a_value_of_an_option_is_a_word_and_no_other_option(value):
    with pytest.raises(InputError, match="Paddle-Lite's option valid_targets is a word"):
        check_options({"valid_targets": value}, sparse=False)
    check_options({"valid_targets": "arm,opencl"}, sparse=False)
