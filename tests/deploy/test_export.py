from pathlib import Path

import numpy as np
import paddle
import pytest
from helpers import Pointwise, classifier, run_exported
from paddle import nn
from paddle.static import InputSpec

from paddle_sparse_cb import InputError, SparsityCallback
from paddle_sparse_cb.deploy.export import Export, export

SPEC = [InputSpec([1, 1, 8, 8], "float32", "x")]


def test_the_exported_model_has_the_outputs_of_the_network_in_evaluation_mode(network, tmp_path):
    prefix = export(network, tmp_path / "inference" / "model", SPEC)
    image = paddle.rand([1, 1, 8, 8])
    network.eval()
    (output,) = run_exported(prefix, image.numpy())
    np.testing.assert_allclose(output, network(image).numpy(), rtol=1e-5, atol=1e-6)


def test_equal_weights_give_equal_files_whatever_ran_before(network, tmp_path):
    first = export(network, tmp_path / "first", SPEC)
    nn.Conv2D(1, 1, 1)(nn.Linear(8, 8)(paddle.rand([1, 1, 8, 8])))  # advances Paddle's name counters
    second = export(network, tmp_path / "second", SPEC)
    others = [type(network)() for _ in range(2)]  # with names of two digits, which are sorted in another order
    others[1].set_state_dict(network.state_dict())
    third = export(others[1], tmp_path / "third", SPEC)
    for extension in (".pdmodel", ".pdiparams", ".pdiparams.info"):
        assert first.with_suffix(extension).read_bytes() == second.with_suffix(extension).read_bytes()
        assert first.with_suffix(extension).read_bytes() == third.with_suffix(extension).read_bytes()


def test_layers_after_an_export_have_other_names_than_those_before(tmp_path):
    before = nn.Conv2D(3, 8, 1)
    export(before, tmp_path / "model", [InputSpec([1, 3, 8, 8], "float32")])
    assert nn.Conv2D(3, 8, 1).weight.name != before.weight.name


def test_an_export_leaves_the_names_of_the_parameters_as_they_are(network, tmp_path):
    other = type(network)()
    names = [parameter.name for parameter in other.parameters()]
    export(other, tmp_path / "model", SPEC)
    assert [parameter.name for parameter in other.parameters()] == names
    assert names[0] not in [parameter.name for parameter in network.parameters()]


def test_an_export_leaves_each_layer_its_own_forward(network, tmp_path):
    """Paddle 2.6 leaves translated ones, with which a training step takes three times as long."""
    outer = nn.Sequential(network)
    export(outer, tmp_path / "model", SPEC)
    assert not any("forward" in vars(layer) for layer in outer.sublayers(include_self=True))


def test_a_compiled_network_is_still_compiled_after_an_export(network, tmp_path):
    compiled = paddle.jit.to_static(network, full_graph=True)
    forward = compiled.forward
    export(compiled, tmp_path / "model", SPEC)
    assert compiled.forward is forward
    assert compiled(paddle.zeros([1, 1, 8, 8])).shape[0] == 1


def test_a_network_that_was_traced_before_is_exported_with_its_own_names(network, tmp_path):
    traced = paddle.jit.to_static(type(network)(), full_graph=True)
    traced.eval()
    expected = traced(paddle.ones([1, 1, 8, 8]))
    (output,) = run_exported(export(traced, tmp_path / "model", SPEC), np.ones([1, 1, 8, 8], np.float32))
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


def test_the_program_contains_no_paths_of_this_machine(network, tmp_path):
    prefix = export(network, tmp_path / "model", SPEC)
    assert Path(__file__).name.encode() not in prefix.with_suffix(".pdmodel").read_bytes()
    assert b"/" + Path(paddle.__file__).parent.name.encode() not in prefix.with_suffix(".pdmodel").read_bytes()


def test_the_training_mode_of_each_sublayer_is_restored(network, tmp_path):
    network.bn.eval()
    export(network, tmp_path / "inference" / "model", SPEC)
    assert network.training
    assert not network.bn.training


@pytest.mark.parametrize("shape", [[1, 1, -1, -1], [None, 1, 8, 8], [2, 1, 8, 8], [1, 1, 8, None]])
def test_dynamic_dimensions_and_other_batch_sizes_are_refused(network, tmp_path, shape):
    with pytest.raises(InputError, match="every dimension must be fixed and the batch size 1"):
        export(network, tmp_path / "inference" / "model", [InputSpec(shape, "float32", "x")])
    assert not (tmp_path / "inference").exists()


def test_other_files_in_the_folder_are_kept(network, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    export(network, tmp_path / "model", SPEC)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert {path.suffix for path in tmp_path.iterdir()} == {".txt", ".pdmodel", ".pdiparams", ".info"}


def test_a_failed_export_keeps_the_previous_one(network, tmp_path):
    prefix = export(network, tmp_path / "inference" / "model", SPEC)
    before = prefix.with_suffix(".pdiparams").read_bytes()
    with pytest.raises(Exception, match="."):
        export(network, prefix, [InputSpec([1, 1, 8], "float32", "x")])  # an image has four dimensions
    assert prefix.with_suffix(".pdiparams").read_bytes() == before


def fit(network, *hooks, folder):
    """Trains an epoch with the same random numbers each time; returns the weights."""
    paddle.seed(1)
    np.random.seed(1)
    data = paddle.io.TensorDataset([paddle.rand([8, 1, 8, 8]), paddle.randint(0, 10, [8, 1])])
    sparsity = SparsityCallback(pruning_epochs=0, save_dir=folder, post_train=hooks)
    classifier(network).fit(data, batch_size=4, verbose=0, callbacks=[sparsity])
    return [weight.numpy() for weight in network.state_dict().values()]


@pytest.mark.parametrize(
    ("layer", "spec", "message"),
    [
        (nn.AdaptiveAvgPool2D(3), SPEC, r"AdaptiveAvgPool2D\(3\) on an input of 8x8, is computed wrongly"),
        (nn.ReLU(), [InputSpec([None, 1, 8, 8], "float32", "x")], "the batch size 1"),
    ],
)
def test_a_network_that_cannot_be_exported_is_an_error_before_the_first_step(tmp_path, layer, spec, message):
    network = nn.Sequential(nn.Conv2D(1, 8, 1), nn.Conv2D(8, 8, 1), layer, nn.AdaptiveAvgPool2D(1), nn.Flatten())
    before = [weight.numpy() for weight in network.state_dict().values()]
    with pytest.raises(InputError, match=message):
        fit(network, Export(spec), folder=tmp_path)
    assert all((weight.numpy() == old).all() for weight, old in zip(network.state_dict().values(), before))
    assert list(tmp_path.iterdir()) == []


def test_the_check_before_the_training_changes_no_weight_of_the_result(tmp_path):
    network = nn.Sequential(Pointwise(), nn.Dropout(0.5))
    weights = {name: weight.numpy() for name, weight in network.state_dict().items()}
    with_export = fit(network, Export(SPEC), folder=tmp_path)
    network.set_state_dict(weights)
    assert all((one == other).all() for one, other in zip(fit(network, folder=tmp_path), with_export))
    assert (tmp_path / "inference" / "model.pdmodel").is_file()
