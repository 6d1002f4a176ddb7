"""Ratios and blocks of single layers through `fit`: hooks, curves, averages, checkpoints and resuming."""

from dataclasses import replace

import numpy as np
import paddle
import pytest
from helpers import Pointwise, classifier, curves

from paddle_sparse_cb import (
    BestCheckpoint,
    Checkpoints,
    EMACallback,
    InputError,
    ResumeState,
    SparsityCallback,
    make_plan,
)
from paddle_sparse_cb.checkpoints.state import load_state, save_state
from paddle_sparse_cb.checkpoints.verify import verify_checkpoint, verify_checkpoints
from paddle_sparse_cb.utils.weight_files import load_arrays

RATIOS, BLOCKS = {"project.*": 0.875}, {"project.*": (2, 1)}
TARGET = (512 + 1792) / 3072  # of expand (1,024 weights) at 50% and project (2,048) at 87.5%


def fit(data, sparsity, *callbacks, evaluate=False, epochs=2):
    """Trains in epochs of four steps; returns the network."""
    with paddle.utils.unique_name.guard():  # as in a new process: `.pdopt` refers to numbered names
        network = Pointwise()
        classifier(network).fit(
            data,
            data if evaluate else None,
            epochs=epochs,
            batch_size=40,
            verbose=0,
            shuffle=False,
            callbacks=[sparsity, *callbacks],
        )
    return network


def pruning(**keywords):
    settings = {"ratio": 0.5, "pruning_iterations": 4, "pruning_steps": 4, "ratios": RATIOS, "blocks": BLOCKS}
    return SparsityCallback(**{**settings, **keywords})


def zero_shares(network):
    return [float((layer.weight.numpy() == 0).mean()) for layer in (network.expand, network.project)]


@pytest.fixture(scope="module")
def saved(first_digits, tmp_path_factory):
    """The checkpoints of a finished training."""
    folder = tmp_path_factory.mktemp("checkpoints")
    fit(first_digits, pruning(), Checkpoints(folder), EMACallback())
    return folder


def test_each_layer_ends_at_its_own_ratio_and_hooks_and_curves_know_it(first_digits, tmp_path):
    contexts = []
    sparsity = pruning(save_dir=tmp_path, post_train=[contexts.append], log_dir=tmp_path, log_freq=1)
    network = fit(first_digits, sparsity)
    assert zero_shares(network) == [0.5, 0.875]
    pairs = network.project.weight.numpy().reshape(16, 2, 64) == 0
    assert (pairs.all(axis=1) == pairs.any(axis=1)).all()
    (context,) = contexts
    assert context.target_ratio == TARGET
    assert context.min_sparsity == {"expand.weight": 0.5, "project.weight": 0.875}
    assert [(layer.ratio, layer.block) for layer in context.plan.pruned] == [(None, (1, 1)), (0.875, (2, 1))]
    written = curves(tmp_path)
    assert written["sparsity/target"][-1][1] == written["sparsity/actual"][-1][1] == TARGET
    for (_, target), (_, actual) in zip(written["sparsity/target"], written["sparsity/actual"]):
        assert target <= actual <= target + 3 / 1024


def test_ratios_and_blocks_are_added_to_a_given_plan(first_digits):
    plan = make_plan(Pointwise(), ratios={"expand.*": 0.25}, blocks={"expand.*": (4, 1)})
    sparsity = pruning(plan=plan)
    assert zero_shares(fit(first_digits, sparsity)) == [0.25, 0.875]
    assert [layer.block for layer in sparsity.pruner.plan.pruned] == [(4, 1), (2, 1)]


@pytest.mark.parametrize("values", [{"ratios": {"neck.*": 0.8}}, {"blocks": {"project.*": (3, 1)}}])
def test_patterns_that_do_not_fit_the_network_are_errors_before_the_first_step(first_digits, values):
    network = Pointwise()
    before = network.expand.weight.numpy()
    with pytest.raises(InputError, match=next(iter(values))):
        classifier(network).fit(first_digits, verbose=0, callbacks=[pruning(**values)])
    assert (network.expand.weight.numpy() == before).all()


class StopAfterEpoch(paddle.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


def test_the_target_is_reached_when_every_layer_has_reached_its_own(first_digits, tmp_path):
    """The other layers are at their ratio from the first step on."""
    settings = {"initial_ratio": 0.5, "pruning_iterations": 6, "pruning_steps": 3}
    with pytest.warns(UserWarning, match=r"ended after 4 optimizer steps at ratio 0.6761, before the target 0.75"):
        fit(first_digits, pruning(**settings), BestCheckpoint(tmp_path), StopAfterEpoch(), evaluate=True, epochs=3)
    assert not list(tmp_path.glob("best_model*"))
    fit(first_digits, pruning(**settings), BestCheckpoint(tmp_path), evaluate=True)
    best = load_arrays(tmp_path / "best_model.pdparams")
    assert [(best[f"{name}.weight"] == 0).mean() for name in ("expand", "project")] == [0.5, 0.875]


def test_the_averages_are_zero_although_the_ratio_of_the_other_layers_never_changes(first_digits):
    average = EMACallback()
    sparsity = pruning(initial_ratio=0.5)
    network = fit(first_digits, sparsity, average)  # which ends with the averages
    assert zero_shares(network) == [0.5, 0.875]


def test_checkpoints_of_different_ratios_are_verified(saved):
    assert verify_checkpoints(saved) == (3, [])


def test_a_mask_of_a_layer_below_its_own_ratio_is_found(saved, tmp_path):
    state = load_state(saved / "final.pdsparse")
    masks = {name: mask.copy() for name, mask in state.masks.items()}
    masks["expand.weight"][:] = False  # more than enough of all weights together
    masks["project.weight"].reshape(-1)[:] = True
    masks["project.weight"].reshape(-1)[:1791] = False
    save_state(replace(state, masks=masks, files={}), tmp_path / "final.pdsparse")
    _, problems = verify_checkpoint(tmp_path / "final.pdsparse")
    assert any(
        "its masks prune 87.4512% of project.weight, the schedule asked for 87.5000%" in line for line in problems
    )


@pytest.mark.parametrize("ratios", [{"expand.weight": "x"}, {"expand.weight": 2.0}, [1], 5])
def test_invalid_ratios_in_a_checkpoint_are_a_problem_of_one_line(saved, tmp_path, ratios):
    state = load_state(saved / "final.pdsparse")
    state.settings["ratios"] = ratios
    save_state(replace(state, files={}), tmp_path / "final.pdsparse")
    _, problems = verify_checkpoint(tmp_path / "final.pdsparse")
    assert any("its settings are not valid: " in line and "\n" not in line for line in problems)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ratios": {"project.*": 0.9}}, r"ratios: project\.weight is 0\.875 in the checkpoint and 0\.9 in this run"),
        ({"ratios": None}, r"ratios: project\.weight is 0\.875 in the checkpoint and missing in this run"),
        ({"blocks": {"*": (4, 1)}}, r"blocks: expand\.weight is \[1, 1\] in the checkpoint and \[4, 1\] in this run"),
    ],
)
def test_resuming_with_other_ratios_or_blocks_is_an_error_that_can_be_overridden(saved, first_digits, changed, message):
    with pytest.raises(InputError, match=rf"0\.pdsparse: {message}"):
        fit(first_digits, pruning(resume=saved / "0.pdsparse", **changed), epochs=1)
    sparsity = pruning(resume=saved / "0.pdsparse", allow_config_change=True, **changed)
    network = fit(first_digits, sparsity, epochs=1)
    before = load_state(saved / "0.pdsparse").masks
    for layer, weight in zip(sparsity.pruner.plan.pruned, (network.expand.weight, network.project.weight)):
        tiles = layer.shape[0] // layer.block[0], layer.block[0], layer.shape[1]
        was, now = ~before[layer.name].reshape(tiles), weight.numpy().reshape(tiles) == 0
        assert not (was.all(axis=1) & ~now.all(axis=1)).any()  # what was pruned as one stays pruned
    assert sparsity.report.ratio >= sparsity.pruner.overall_target


def test_the_best_value_at_other_ratios_is_not_to_be_surpassed(first_digits, tmp_path):
    fit(first_digits, pruning(), Checkpoints(tmp_path), BestCheckpoint(tmp_path), evaluate=True)
    best = load_state(tmp_path / "best_model.pdsparse")
    best.training["best"] = {"acc": 2.0}
    save_state(best, tmp_path / "best_model.pdsparse")
    resume = ResumeState.open(tmp_path / "1.pdsparse")
    changed = pruning(ratios={"project.*": 0.9}, resume=resume, allow_config_change=True)
    fit(first_digits, changed, BestCheckpoint(tmp_path), evaluate=True, epochs=1)
    assert load_state(tmp_path / "best_model.pdsparse").training["best"]["acc"] <= 1


def test_the_advice_for_a_further_training_prunes_no_layer_further(first_digits):
    network = Pointwise()
    model = classifier(network)
    model.fit(first_digits, epochs=2, batch_size=40, verbose=0, callbacks=[pruning(ratios={"project.*": 0.25})])
    with pytest.warns(UserWarning, match=r"pruned to 33.33% by an earlier fit.* SparsityCallback\(ratio=0.25, "):
        model.fit(first_digits, batch_size=80, verbose=0)
    assert np.mean(network.expand.weight.numpy() == 0) < 0.5
