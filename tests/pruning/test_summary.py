import paddle
import pytest
from paddle import nn
from paddle.static import InputSpec

from paddle_sparse_cb import GMPSchedule, make_plan, measure_sparsity
from paddle_sparse_cb.pruning.plan import PlannedLayer, PrunePlan
from paddle_sparse_cb.pruning.summary import result_summary, training_summary

BEGIN = """\
2 of 8 weights are pruned to 75.00%
weights                               layers  elements  M MACs   share
------------------------------------  ------  --------  ------  ------
pruned                                     2     3,072    0.20   84.1%
dense: 3x3 kernel                          2       288    0.02    7.9%
dense: 1x1 output                          2     2,048    0.00    0.9%
dense: stride 2                            1     1,024    0.02    7.0%
dense: not a 2D convolution (Linear)       1       320    0.00    0.1%
all                                        8     6,752    0.23  100.0%

phase    epochs  optimizer steps  sparsity
-------  ------  ---------------  ----------------------------------------
stable      0.5          0 to 10  as it is
pruning       2         10 to 50  15.00% to 74.52%, cubic, 5 pruning steps
tunning     2.5        50 to 100  75.00%"""

END = """\
sparsity 12.50% of the pruned weights, target 75.00%
layers from 0.00% (project.weight) to 37.50% (expand.weight)
weights  layers  elements  zeros  sparsity
-------  ------  --------  -----  --------
pruned        2     3,072    384    12.50%
all           8     6,752    384     5.69%"""


def test_a_training_is_described_before_its_first_step(network):
    plan = make_plan(network, [InputSpec([1, 1, 8, 8], "float32")])
    schedule = GMPSchedule(stable_iterations=10, pruning_iterations=40, tunning_iterations=40, pruning_steps=5)
    assert training_summary(plan, schedule, steps_per_epoch=20, total_steps=100) == BEGIN


def test_without_a_forward_pass_and_a_length_less_is_known(network):
    text = training_summary(make_plan(network), GMPSchedule(tunning_iterations=30))
    assert "MACs" not in text
    assert text.splitlines()[-1].split() == ["tunning", "-", "0", "to", "30", "75.00%"]  # one-shot: no pruning phase


def test_a_pruning_phase_shorter_than_its_steps_has_as_many_as_it_can(network):
    text = training_summary(make_plan(network), GMPSchedule(pruning_iterations=2, tunning_iterations=1))
    assert "2 pruning steps" in text


def test_many_reasons_are_merged():
    layers = tuple(PlannedLayer(f"{number}.weight", (2, 3), False, f"reason {number}") for number in range(9))
    lines = training_summary(PrunePlan(layers), GMPSchedule()).splitlines()
    assert [line.split()[:4] for line in lines if "other" in line] == [["dense:", "4", "other", "reasons"]]
    assert lines[9].split() == ["dense:", "4", "other", "reasons", "4", "24"]


def test_a_result_is_described_with_its_extremes(network):
    weight = network.expand.weight
    with paddle.no_grad():
        weight[:24] = 0.0
    report = measure_sparsity(network, make_plan(network))
    assert [layer.zeros for layer in report.layers if layer.pruned] == [384, 0]
    assert result_summary(report, 0.75) == END


@pytest.mark.parametrize("width", [40, 80])
def test_the_summary_fits_a_terminal(width, network, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    text = training_summary(make_plan(nn.Sequential(network)), GMPSchedule(pruning_iterations=5, tunning_iterations=1))
    assert max(map(len, text.splitlines()[1:])) <= width


def test_the_schedule_shows_the_share_of_zeros_in_all_layers_together_where_they_have_ratios_of_their_own(network):
    plan = make_plan(network, ratios={"*": 0.9})
    text = training_summary(plan, GMPSchedule(ratio=0.75, pruning_iterations=10, tunning_iterations=10))
    assert text.startswith("2 of 8 weights are pruned to 90.0")
    pruning, tunning = text.splitlines()[-2:]
    assert "15.0" in pruning
    assert tunning.split()[-1].startswith("90.0")
