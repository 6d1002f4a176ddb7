import json
import math
import os

import paddle
import pytest

from paddle_sparse_cb import InputError, make_plan, measure_sensitivity, measure_sparsity
from paddle_sparse_cb.pruning.sensitivity import LayerSensitivity, Sensitivity
from paddle_sparse_cb.utils.layers import network_digest

RATIOS = [0.5, 0.9]


@pytest.fixture
def loss(first_digits):
    images, labels = first_digits.dataset.tensors
    images, labels = images[:32], labels[:32]
    return lambda network: float(paddle.nn.functional.cross_entropy(network(images), labels))


@pytest.fixture
def plan(network):
    return make_plan(network, [paddle.static.InputSpec([1, 1, 8, 8], "float32")])


class Counting:
    """Counts the evaluations, and is interrupted at one of them."""

    def __init__(self, evaluate, interrupted_at=None):
        self.evaluate, self.interrupted_at, self.count = evaluate, interrupted_at, 0

    def __call__(self, network):
        if self.count == self.interrupted_at:
            raise KeyboardInterrupt
        self.count += 1
        return self.evaluate(network)


def test_each_layer_is_pruned_alone_and_restored_bit_for_bit(network, plan, loss):
    network.train()
    before, seen = network_digest(network), []

    def evaluate(network):
        assert not network.training
        seen.append({layer.name: layer.ratio for layer in measure_sparsity(network, plan).layers if layer.ratio > 0})
        return loss(network)

    measured = measure_sensitivity(network, plan, evaluate, RATIOS)
    names = [layer.name for layer in plan.pruned]
    assert len(names) == 2
    assert seen == [{}, *({name: pytest.approx(ratio, abs=0.01)} for name in names for ratio in RATIOS)]
    assert network_digest(network) == before
    assert network.training
    assert measured.baseline == loss_of(network, loss)
    assert [(layer.name, layer.macs, sorted(layer.values)) for layer in measured.layers] == [
        (layer.name, layer.macs, RATIOS) for layer in plan.pruned
    ]
    assert measured.macs == sum(layer.macs for layer in plan.layers)
    assert "increase of loss" in str(measured)


def loss_of(network, loss):
    network.eval()
    return loss(network)


def test_a_weight_is_restored_when_an_evaluation_fails(network, plan, loss):
    before = network_digest(network)
    with pytest.raises(KeyboardInterrupt):
        measure_sensitivity(network, plan, Counting(loss, 2), RATIOS)
    assert network_digest(network) == before


def test_layers_are_pruned_in_their_blocks_and_whatever_ratio_they_have(network, loss):
    plan = make_plan(network, blocks={"expand.*": (4, 1)}, ratios={"*": 0.7})
    blocks = []

    def evaluate(network):
        zeros = network.expand.weight.numpy().reshape(16, 4, 16) == 0
        blocks.append((zeros.all(1).mean(), zeros.mean()))
        return loss(network)

    measured = measure_sensitivity(network, plan, evaluate, [0.75])
    assert blocks[1] == (0.75, 0.75)
    assert measured.layers[0].block == (4, 1)


def test_an_interrupted_measurement_goes_on_where_it_stopped(network, plan, loss, tmp_path):
    path = tmp_path / "sensitivity.json"
    whole = measure_sensitivity(network, plan, loss, RATIOS)
    with pytest.raises(KeyboardInterrupt):
        measure_sensitivity(network, plan, Counting(loss, 3), RATIOS, path=path)
    assert len(Sensitivity.load(path).missing()) == 2
    counting, lines = Counting(loss), []
    measured = measure_sensitivity(network, plan, counting, RATIOS, path=path, log=lines.append)
    assert counting.count == 3  # the network before, and two results
    assert measured == whole == Sensitivity.load(path)
    assert f"2 of 4 results are from {path}" in lines
    counting = Counting(loss)
    assert measure_sensitivity(network, plan, counting, RATIOS, path=path) == whole
    assert counting.count == 0


def test_further_ratios_and_layers_are_measured_and_the_others_are_kept(network, plan, loss, tmp_path):
    path, counting = tmp_path / "s.json", Counting(loss)
    measure_sensitivity(network, make_plan(network, skip=["expand.*"]), loss, [0.5], path=path)
    measured = measure_sensitivity(network, plan, counting, RATIOS, path=path)
    assert counting.count == 4
    assert measured.missing() == []
    counting = Counting(loss)
    fewer = measure_sensitivity(network, plan, counting, [0.9], path=path)
    assert counting.count == 0
    assert fewer.ratios == (0.9,)
    assert [sorted(layer.values) for layer in fewer.layers] == [RATIOS, RATIOS]


@pytest.mark.parametrize("change", ["weights", "buffer", "key", "metric", "evaluation"])
def test_results_of_other_weights_data_or_metrics_are_not_reused_and_not_lost(change, network, plan, loss, tmp_path):
    path, arguments = tmp_path / "s.json", {"metric": "loss", "key": 1}
    first = measure_sensitivity(network, plan, loss, RATIOS, path=path, **arguments)
    evaluate = loss
    if change == "weights":
        network.head.bias.set_value(network.head.bias + 1e-3)
    elif change == "buffer":
        network.bn._mean.set_value(network.bn._mean + 1e-3)
    elif change == "evaluation":
        evaluate = lambda network: 2 * loss(network)  # noqa: E731
        content = json.loads(path.read_text())
        del content["layers"][0]["results"][0]  # something is left to be measured
        path.write_text(json.dumps(content))
        first = Sensitivity.load(path)
    else:
        arguments[change] = "other"
    counting, lines = Counting(evaluate), []
    measure_sensitivity(network, plan, counting, RATIOS, path=path, log=lines.append, **arguments)
    assert counting.count == 5
    assert Sensitivity.load(tmp_path / "s.earlier.1.json") == first
    assert any("it was renamed to" in line for line in lines)


def test_no_earlier_file_replaces_another(network, plan, loss, tmp_path):
    files = [tmp_path / name for name in ("s.earlier.1.json", "s.earlier.2.json", "s.json")]
    measured = [measure_sensitivity(network, plan, loss, RATIOS, path=files[-1], key=key) for key in range(3)]
    assert [Sensitivity.load(file) for file in files] == measured
    assert sorted(tmp_path.iterdir()) == files


def test_a_metric_that_is_not_finite_is_recorded_as_such(network, plan, loss, tmp_path):
    count = 0

    def evaluate(network):
        nonlocal count
        count += 1
        return {3: math.nan, 5: math.inf}.get(count, loss(network))

    measured = measure_sensitivity(network, plan, evaluate, RATIOS, path=tmp_path / "s.json")
    assert [[layer.values[ratio] is None for ratio in RATIOS] for layer in measured.layers] == [[False, True]] * 2
    assert "NaN" not in (tmp_path / "s.json").read_text()
    assert Sensitivity.load(tmp_path / "s.json") == measured
    assert [point[0] for point in measured.curve(measured.layers[0])] == [0, 0.5]
    assert str(measured).count("not finite") == 2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_network_whose_metric_is_not_finite_cannot_be_measured(value, network, plan, tmp_path):
    with pytest.raises(InputError, match=f"the loss of the unpruned network is {value}"):
        measure_sensitivity(network, plan, lambda network: value, RATIOS, path=tmp_path / "s.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ratios", [[], 0.5, [75], [0], [1.0], ["0.5"], [math.nan]])
def test_ratios_out_of_range_are_an_error(ratios, network, plan, loss):
    with pytest.raises(InputError, match="ratios must be"):
        measure_sensitivity(network, plan, loss, ratios)


def test_a_plan_of_another_network_or_without_layers_is_an_error(network, loss):
    plan = make_plan(paddle.nn.Sequential(paddle.nn.Conv2D(8, 8, 1)))
    with pytest.raises(InputError, match=r"the network has no weight '0\.weight'"):
        measure_sensitivity(network, plan, loss)
    with pytest.raises(InputError, match="no layer left to prune"):
        measure_sensitivity(network, make_plan(network, skip=["*"]), loss)


def test_a_file_that_is_none_is_not_overwritten(network, plan, loss, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt: not a valid sensitivity file: Expecting value"):
        measure_sensitivity(network, plan, loss, RATIOS, path=tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"


VALID = Sensitivity(
    "loss", False, 1.0, (0.5,), (LayerSensitivity("a", (4, 4), (1, 1), 16, {0.5: 1.5}),), 20, "digest"
).to_dict()


def changed(**values):
    return {**VALID, **values}


def changed_layer(**values):
    return changed(layers=[{**VALID["layers"][0], **values}])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "its version must be 1"),
        (changed(version=2), "its version must be 1"),
        ({"version": 1}, "it has no 'metric'"),
        (changed(baseline=None), "baseline must be a finite number"),
        (changed(baseline=math.nan), "baseline must be a finite number"),
        (changed(higher_is_better="no"), "higher_is_better true or false"),
        (changed(ratios=[5]), "ratios must be a fraction"),
        (changed(macs=-1), "macs must be a whole number"),
        (changed(layers=[5]), "not a valid sensitivity file"),
        (changed(layers=VALID["layers"] * 2), "a layer is listed twice"),
        (changed_layer(shape=[4, 0]), "shape must be a whole number"),
        (changed_layer(shape=[4]), "two or more dimensions"),
        (changed_layer(block=[1]), "block must be two whole numbers"),
        (changed_layer(results=[{"ratio": 0.5, "value": "1"}]), "a: value must be a finite number, got '1'"),
        (changed_layer(results=[{"ratio": 0.5, "value": math.inf}]), "a: value must be a finite number"),
        (changed_layer(results=[{"ratio": -0.5, "value": 1}]), "ratio must be a fraction"),
        (changed_layer(name=["a\nb"]), "a layer has a name"),
    ],
)
def test_a_damaged_or_foreign_file_is_an_error_of_one_line(content, message, tmp_path):
    path = tmp_path / "s.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError) as error:
        Sensitivity.load(path)
    assert str(error.value).startswith(f"{path}: not a valid sensitivity file: ")
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        pytest.param("[" * 100_000, id="deeply nested"),
        pytest.param("9" * 5000, id="a large number"),
        pytest.param(b"\xed\xa0\x80", id="no UTF-8"),
    ],
)
def test_a_file_that_is_no_json_is_an_error_of_one_line(text, tmp_path):
    (tmp_path / "s.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=r"s\.json: not a valid sensitivity file: ") as error:
        Sensitivity.load(tmp_path / "s.json")
    assert len(str(error.value).splitlines()) == 1


def test_what_is_no_regular_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(InputError, match="not a valid sensitivity file: it is no regular file"):
            Sensitivity.load(path)


def test_a_missing_file_names_the_command_that_writes_it(tmp_path):
    with pytest.raises(InputError, match=r"none\.json: no such file; paddle-sparse sensitivity RECIPE writes it"):
        Sensitivity.load(tmp_path / "none.json")
    with pytest.raises(InputError, match="not a valid sensitivity file"):
        Sensitivity.load(tmp_path)


def test_a_file_is_read_as_it_was_written(tmp_path):
    sensitivity = Sensitivity(
        "mAP",
        True,
        0.1 + 0.2,
        (0.07, 0.6),
        (LayerSensitivity("größer\n", (4, 4, 1, 1), (2, 1), None, {0.6: None, 0.07: 1e-320}),),
    )
    sensitivity.save(tmp_path / "s.json")
    assert Sensitivity.load(tmp_path / "s.json") == sensitivity
