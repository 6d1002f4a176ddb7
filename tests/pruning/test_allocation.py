import itertools
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_sparse_cb import InputError, allocate_ratios, make_plan
from paddle_sparse_cb.pruning.budgets import zeros_at
from paddle_sparse_cb.pruning.layer_times import interpolate
from paddle_sparse_cb.pruning.plan import PlannedLayer, PrunePlan
from paddle_sparse_cb.pruning.sensitivity import LayerSensitivity, Sensitivity

RATIOS = (0.6, 0.8, 0.9)


def layer(name, shape=(10, 10), values=(0.1, 0.2, 0.4), block=(1, 1), positions=None):
    macs = None if positions is None else math.prod(shape) * positions
    return LayerSensitivity(name, shape, block, macs, dict(zip(RATIOS, values)))


def measured(*layers, macs=None, **settings):
    return Sensitivity("loss", False, 0.0, RATIOS, layers, macs, **settings)


def write_times(path, layers, others=0.0):
    """Writes a layers.json: for each layer its dense time and, by block, ratios and times."""
    rows = [
        {
            "name": name,
            "shape": [10, 10],
            "ms_dense": dense,
            "sparse": [
                {"ratio": ratio, "block": list(block), "ms": ms}
                for block, times in sparse.items()
                for ratio, ms in times.items()
            ],
        }
        for name, (dense, sparse) in layers.items()
    ]
    rows.append({"name": "relu_0", "shape": None, "ms_dense": others, "sparse": []})
    path.write_text(json.dumps({"layers": rows}))
    return path


layers_drawn = st.lists(
    st.tuples(st.integers(2, 9), st.integers(2, 9), st.lists(st.floats(0, 2), min_size=3, max_size=3)),
    min_size=1,
    max_size=3,
)


@settings(max_examples=100, deadline=None)
@given(layers_drawn, st.floats(0.01, 0.85))
def test_the_allocation_is_the_best_of_all_and_reaches_the_target(drawn, target):
    layers = [layer(str(number), (rows, columns), values) for number, (rows, columns, values) in enumerate(drawn)]
    sensitivity = measured(*layers)
    curves = {one.name: dict(sensitivity.curve(one)) for one in layers}
    # Every ratio between two measured ones is worth considering, but few of them in a brute force.
    allowed = (0.0, *RATIOS)
    total = sum(one.numel for one in layers)
    combinations = [
        combination
        for combination in itertools.product(allowed, repeat=len(layers))
        if None not in [zeros_at(one, ratio) for one, ratio in zip(layers, combination)]
        and sum(zeros_at(one, ratio) for one, ratio in zip(layers, combination)) >= target * total
    ]
    if not combinations:
        with pytest.raises(InputError, match="cannot be reached"):
            allocate_ratios(sensitivity, target_sparsity=target)
        return
    allocation = allocate_ratios(sensitivity, target_sparsity=target, allows=lambda name, ratio: ratio in allowed)
    best = min(sum(curves[one.name][ratio] for one, ratio in zip(layers, picked)) for picked in combinations)
    assert allocation.loss == pytest.approx(best, abs=1e-9)
    assert allocation.sparsity >= target
    assert allocation.tolerance == 0
    # With ratios in between it can only be better.
    assert allocate_ratios(sensitivity, target_sparsity=target).loss <= best + 1e-9


@given(st.floats(0.01, 0.9))
@settings(max_examples=50, deadline=None)
def test_a_layer_is_dense_or_has_at_least_the_least_ratio_that_runs_sparse(target):
    layers = [layer(str(number), (20, 20), (0.1 * number, 0.3, 0.9)) for number in range(5)]
    ratios = allocate_ratios(measured(*layers), target_sparsity=target).ratios.values()
    assert all(ratio == 0 or ratio >= 0.6 for ratio in ratios)
    assert sum(ratios) / 5 >= target - 1e-9


def test_sensitive_layers_are_pruned_less():
    ratios = allocate_ratios(
        measured(layer("robust", values=(0, 0, 0.01)), layer("fragile", values=(1, 2, 3))), target_sparsity=0.75
    ).ratios
    assert ratios == {"robust": 0.9, "fragile": 0.6}
    # Between two measured ratios the loss is interpolated; the curve rises where the slope is least.
    assert allocate_ratios(measured(layer("a", values=(0, 0.1, 0.9))), target_sparsity=0.7).loss == pytest.approx(0.05)


def test_pruning_that_seems_to_improve_the_network_counts_as_no_loss():
    allocation = allocate_ratios(measured(layer("a", values=(-0.5, 0.1, -0.2))), target_sparsity=0.9)
    assert allocation.loss == pytest.approx(0.1)  # and 0.9 is not better than 0.8


def test_a_metric_of_which_more_is_better_is_turned_round():
    sensitivity = Sensitivity(
        "mAP", True, 0.7, RATIOS, (layer("a", values=(0.7, 0.6, 0.1)), layer("b", values=(0.69, 0.69, 0.69)))
    )
    allocation = allocate_ratios(sensitivity, target_sparsity=0.75)
    assert allocation.ratios == {"a": 0.6, "b": 0.9}
    assert "sum of the changes of mAP: 0.0100" in str(allocation)


def test_no_layer_has_a_ratio_at_which_the_metric_was_not_finite():
    sensitivity = measured(layer("a", values=(0.1, None, None)), layer("b", values=(0.1, 0.2, None)))
    assert allocate_ratios(sensitivity, target_sparsity=0.7).ratios == {"a": 0.6, "b": 0.8}
    with pytest.raises(InputError, match=r"sparsity 0\.71 cannot be reached: .* highest measured ratio it is 0\.7000"):
        allocate_ratios(sensitivity, target_sparsity=0.71)
    dense = measured(layer("a", values=(None, None, None)), layer("b"))
    assert allocate_ratios(dense, target_sparsity=0.45).ratios == {"a": 0.0, "b": 0.9}


def test_blocks_are_counted_whole_and_one_of_them_is_kept():
    small = layer("a", (8, 1), block=(4, 1))
    assert zeros_at(small, 0.5) == 4
    assert zeros_at(small, 0.6) is None
    with pytest.raises(InputError, match=r"it is 0\.0000"):
        allocate_ratios(measured(small), target_sparsity=0.1)


def test_a_target_of_macs_counts_those_of_the_whole_network():
    layers = layer("early", positions=100), layer("late", positions=1)
    sensitivity = measured(*layers, macs=20_000)  # 9,900 of which are in layers that are not pruned
    allocation = allocate_ratios(sensitivity, target_macs=0.6)
    assert allocation.ratios["early"] >= 0.78
    assert allocation.ratios["late"] == 0
    assert "target MACs at most 0.6 of the dense network's, reached 0." in str(allocation)
    assert f", {allocation.macs:.1%} of the network's MACs remain" in str(allocation)
    assert 0.55 < allocation.macs <= 0.6
    assert allocation.to_dict()["macs"] == allocation.macs
    assert "MACs remain" not in str(allocate_ratios(measured(layer("a")), target_sparsity=0.6))
    with pytest.raises(
        InputError,
        match=r"at most 0\.5 of the dense network's, cannot be reached: .* 0\.5455 remain, 0\.4950 in layers",
    ):
        allocate_ratios(sensitivity, target_macs=0.5)
    with pytest.raises(InputError, match=r"target_macs: the multiply-accumulates of a are unknown; .* input_spec"):
        allocate_ratios(measured(layer("a")), target_macs=0.5)
    with pytest.raises(InputError, match="macs_of_ratio: the multiply-accumulates of a are unknown"):
        allocate_ratios(measured(layer("a")), macs_of_ratio=0.5)


@settings(max_examples=50, deadline=None)
@given(layers_drawn, st.lists(st.integers(1, 50), min_size=3, max_size=3), st.floats(0.6, 0.85))
def test_the_macs_of_a_ratio_are_a_budget_that_this_ratio_in_all_layers_meets(drawn, positions, ratio):
    """No layer computes more for it in sum, and the predicted loss is no higher than that of the ratio itself."""
    layers = [
        layer(str(number), (rows, columns), values, positions=positions[number])
        for number, (rows, columns, values) in enumerate(drawn)
    ]
    ratio = round(ratio, 2)
    if any(zeros_at(one, ratio) is None for one in layers):
        return
    sensitivity = measured(*layers, macs=sum(one.macs for one in layers) + 100)
    allocation = allocate_ratios(sensitivity, macs_of_ratio=ratio)

    def computed(ratios):
        return sum(one.macs * (one.numel - zeros_at(one, ratios[one.name])) // one.numel for one in layers)

    uniform = {one.name: ratio for one in layers}
    assert computed(allocation.ratios) <= computed(uniform)
    assert f"those of ratio {ratio:g} in all layers" in allocation.target
    curves = {one.name: sensitivity.curve(one) for one in layers}
    assert allocation.loss <= sum(interpolate(curves[one.name], ratio) for one in layers) + 1e-9


def test_the_macs_of_a_ratio_that_a_layer_cannot_have_are_an_error():
    small = layer("a", (1, 2), positions=1)
    with pytest.raises(InputError, match="macs_of_ratio: the ratio 0.9 leaves no weights of a; lower it"):
        allocate_ratios(measured(small, macs=2), macs_of_ratio=0.9)


def test_a_target_of_latency_counts_measured_times(tmp_path):
    times = {0.6: 0.8, 0.9: 0.2}
    slower = {0.6: 1.3, 0.9: 1.2}  # sparse kernels do not pay here
    path = write_times(
        tmp_path / "layers.json", {"fast": (1.0, {(1, 1): times}), "slow": (1.0, {(1, 1): slower})}, others=3.0
    )
    sensitivity = measured(layer("fast", values=(0.1, 0.5, 2)), layer("slow", values=(0, 0, 0)))
    allocation = allocate_ratios(sensitivity, target_latency=4.8, costs=path)
    assert allocation.ratios == {"fast": 0.6, "slow": 0.0}
    assert "target at most 4.8 ms, reached 4.800 ms (dense 5.000 ms)" in str(allocation)
    allocation = allocate_ratios(sensitivity, target_latency=4.5, costs=path)
    assert allocation.ratios == {"fast": 0.75, "slow": 0.0}
    with pytest.raises(InputError, match=r"4 ms cannot be reached: the least is 4\.200 ms, 3\.000 ms of it in layers"):
        allocate_ratios(sensitivity, target_latency=4, costs=path)


def test_a_layer_without_times_at_low_ratios_has_none_of_them_and_more_zeros_are_not_slower(tmp_path):
    path = write_times(tmp_path / "layers.json", {"a": (1.0, {(1, 1): {0.7502: 0.5}})})
    sensitivity = measured(layer("a", values=(0, 0, 0)))
    ratios = [allocate_ratios(sensitivity, target_latency=ms, costs=path).ratios["a"] for ms in (0.9, 0.5)]
    assert ratios == [0.75, 0.75]  # 0.75 was asked for and 0.7502 measured
    only_high = measured(layer("a", values=(0, 0, 0)))
    found = allocate_ratios(only_high, target_latency=0.5, costs=path, allows=lambda _, ratio: ratio in (0, 0.9))
    assert found.ratios == {"a": 0.9}


def test_a_layer_that_the_block_does_not_divide_was_timed_with_single_zeros(tmp_path):
    path = write_times(tmp_path / "layers.json", {"a": (1.0, {(4, 1): {0.7: 0.5}}), "b": (1.0, {(2, 1): {0.7: 0.5}})})
    sensitivity = measured(layer("a"), layer("b", block=(2, 1)))
    assert allocate_ratios(sensitivity, target_latency=1, costs=path).ratios == {"a": 0.7, "b": 0.7}
    with pytest.raises(InputError, match=r"no times of b in blocks of 1x1; .* bench RECIPE --layers .* --block 1x1"):
        allocate_ratios(measured(layer("a"), layer("b")), target_latency=1, costs=path)
    with pytest.raises(InputError, match=r"layers\.json: it has no times of c: it is of another network"):
        allocate_ratios(measured(layer("c")), target_latency=1, costs=path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "not a file of bench --layers: list indices"),
        ("{}", "it has no 'layers'"),
        ('{"layers": [{"name": "a"}]}', "it has no 'ms_dense'"),
        ('{"layers": [{"name": "a", "ms_dense": NaN, "sparse": []}]}', "a time must be a number of milliseconds"),
        (
            '{"layers": [{"name": "a", "ms_dense": -1, "sparse": []}]}',
            "must be a number of milliseconds, got -1",
        ),
        ("{", "not a file of bench --layers: Expecting"),
        pytest.param("[" * 100_000, "not a file of bench --layers", id="deeply nested"),
    ],
)
def test_a_file_that_holds_no_times_is_an_error_of_one_line(content, message, tmp_path):
    (tmp_path / "layers.json").write_text(content)
    with pytest.raises(InputError) as error:
        allocate_ratios(measured(layer("a")), target_latency=1, costs=tmp_path / "layers.json")
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give one of target_sparsity, target_macs, macs_of_ratio, target_latency, got 0"),
        ({"target_sparsity": 0.5, "target_macs": 0.5}, "got 2"),
        ({"target_latency": 5}, "target_latency needs costs"),
        ({"target_sparsity": 0.5, "costs": "layers.json"}, "target_latency needs costs"),
        ({"target_sparsity": 75}, "target_sparsity must be a fraction .* .did you mean 0.75"),
        ({"target_sparsity": float("nan")}, "target_sparsity must be a fraction"),
        ({"target_latency": math.inf, "costs": "layers.json"}, "target_latency must be a finite number"),
        ({"target_latency": 5, "costs": "none.json"}, "none.json: no such file; paddle-sparse bench RECIPE --layers"),
        ({"target_sparsity": 0.95}, "cannot be reached"),
    ],
)
def test_a_target_that_cannot_be_used_is_an_error_of_one_line(arguments, message):
    with pytest.raises(InputError, match=message) as error:
        allocate_ratios(measured(layer("a")), **arguments)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"target_sparsity": 0}, "nothing is to be pruned: target sparsity at least 0, reached 0.0000"),
        ({"target_latency": 9}, "nothing is to be pruned: target at most 9 ms, reached 1.000 ms"),
    ],
)
def test_a_target_that_the_dense_network_reaches_is_an_error(target, message, tmp_path):
    path = write_times(tmp_path / "layers.json", {"a": (1.0, {(1, 1): {0.7: 0.5}})})
    with pytest.raises(InputError, match=message):
        allocate_ratios(measured(layer("a")), **target, costs=path if "target_latency" in target else None)


def test_times_at_another_input_size_are_an_error(tmp_path):
    path = write_times(tmp_path / "layers.json", {"a": (1.0, {(1, 1): {0.7: 0.5}})})
    content = json.loads(path.read_text())
    content["layers"][0]["macs"] = 300
    path.write_text(json.dumps(content))
    message = r"a has 300 multiply-accumulates there, and 200 where the sensitivity was measured"
    with pytest.raises(InputError, match=message):
        allocate_ratios(measured(layer("a", positions=2)), target_latency=0.9, costs=path)
    assert allocate_ratios(measured(layer("a", positions=3)), target_latency=0.9, costs=path).ratios == {"a": 0.7}


def planned(*layers):
    return PrunePlan(tuple(PlannedLayer(name, shape, True, block=block) for name, shape, block in layers))


def test_only_the_layers_of_a_plan_are_allocated():
    plan = planned(("b", (10, 10), (1, 1)))
    assert allocate_ratios(measured(layer("a"), layer("b")), target_sparsity=0.6, plan=plan).ratios == {"b": 0.6}


@pytest.mark.parametrize(
    ("planned_layer", "message"),
    [
        (("c", (10, 10), None), "c was not measured"),
        (("a", (10, 20), None), r"a has shape \[10, 20\] in the plan and \[10, 10\] where it was measured"),
        (("a", (10, 10), (2, 1)), r"a has block \[2, 1\] in the plan and \[1, 1\] where it was measured"),
    ],
)
def test_a_sensitivity_of_another_network_or_block_is_an_error(planned_layer, message, tmp_path):
    measured(layer("a")).save(tmp_path / "s.json")
    with pytest.raises(InputError, match=rf"s\.json: {message}"):
        allocate_ratios(tmp_path / "s.json", target_sparsity=0.5, plan=planned(planned_layer))


def test_a_measurement_that_is_not_complete_is_an_error():
    half = LayerSensitivity("a", (10, 10), (1, 1), None, {0.6: 0.1})
    with pytest.raises(InputError, match=r"not complete: 2 results are missing, such as a at 0\.8"):
        allocate_ratios(measured(half), target_sparsity=0.5)
    plan = planned(("b", (10, 10), (1, 1)))
    assert allocate_ratios(measured(half, layer("b")), target_sparsity=0.5, plan=plan).ratios == {"b": 0.6}


def test_the_ratios_can_be_given_to_a_plan_and_are_reached(network):
    plan = make_plan(network)
    layers = [LayerSensitivity(one.name, one.shape, (1, 1), None, {0.6: 0.1, 0.9: 0.3}) for one in plan.pruned]
    allocation = allocate_ratios(Sensitivity("loss", False, 0.0, (0.6, 0.9), tuple(layers)), target_sparsity=0.7)
    own = {one.name: one.ratio for one in make_plan(network, ratios=allocation.ratios).pruned}
    assert own == {name: ratio for name, ratio in allocation.ratios.items() if ratio}
