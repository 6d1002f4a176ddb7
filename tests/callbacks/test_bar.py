"""What hapi's progress bar and other callbacks see of a sparse training."""

import re

import paddle
import pytest
from helpers import Pointwise, classifier

from paddle_sparse_cb import InputError, ResumableCallbacks, SkipBatchesLoader, SparsityCallback
from paddle_sparse_cb.callbacks.bar import CompleteLogs

from .test_progress import two_losses


def pruning(**keywords):
    return SparsityCallback(
        **{"pruning_iterations": 4, "pruning_steps": 2, "tunning_iterations": 0, "initial_ratio": 0.25, **keywords}
    )


class Seen(paddle.callbacks.Callback):
    """Records what `logs` hold after each batch, and the zeros in the network at that moment."""

    def __init__(self):
        super().__init__()
        self.logs, self.zeros = [], []

    def on_train_batch_end(self, step, logs=None):
        self.logs.append((logs["sparsity"], logs["target_sparsity"]))
        weights = (self.model.network.expand.weight, self.model.network.project.weight)
        self.zeros.append(
            sum(int((weight.numpy() == 0).sum()) for weight in weights) / sum(weight.size for weight in weights)
        )


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("resumable", [True, False])
def test_every_callback_sees_the_sparsity_of_the_batch_in_its_logs(first_digits, first, resumable):
    seen, model = Seen(), classifier(Pointwise())
    callbacks = [seen, pruning()] if first else [pruning(), seen]
    loader = SkipBatchesLoader(paddle.io.DataLoader(first_digits, batch_size=20))
    if resumable:
        callbacks = [ResumableCallbacks(callbacks, loader)]
    model.fit(loader, epochs=1, verbose=0, callbacks=callbacks)
    assert [sparsity for sparsity, _ in seen.logs] == seen.zeros
    assert [target for _, target in seen.logs] == pytest.approx([0.25, 0.25, 0.6875, 0.6875, 0.75, 0.75, 0.75, 0.75])
    assert {"sparsity", "target_sparsity"} < set(seen.params["metrics"])  # which hapi's VisualDL writes


def test_hapis_bar_shows_sparsity_and_target(first_digits, capsys):
    classifier(Pointwise()).fit(
        first_digits, first_digits, epochs=1, batch_size=20, verbose=2, log_freq=1, callbacks=[pruning()]
    )
    printed = capsys.readouterr().out
    training, evaluation = printed.split("Eval begin")
    steps = re.findall(r"step (\d)/8 - loss: [\d.]+ - acc: [\d.]+ - sparsity: ([\d.]+) - target_sparsity: ", training)
    assert [(step, sparsity) for step, sparsity in steps][:3] == [("1", "0.2500"), ("2", "0.2500"), ("3", "0.6875")]
    assert "acc:" in evaluation
    assert "sparsity:" not in evaluation
    assert printed.index("2 of 8 weights are pruned to 75.00%") < printed.index("Epoch 1/1")
    assert "sparsity 75.00% of the pruned weights, target 75.00%" in evaluation


@pytest.mark.parametrize(("verbose", "expected"), [(None, False), (True, True), (False, False)])
def test_the_summary_can_be_asked_for_in_a_silent_fit(first_digits, capsys, verbose, expected):
    classifier(Pointwise()).fit(first_digits, batch_size=20, verbose=0, callbacks=[pruning(verbose=verbose)])
    assert ("weights are pruned to" in capsys.readouterr().out) == expected


def test_verbose_must_be_a_bool():
    with pytest.raises(InputError, match="verbose must be True or False"):
        pruning(verbose=2)


def test_what_was_not_measured_is_not_shown(first_digits, capsys):
    """The model has no loss in evaluations, and two metrics that are NaN before the first one; one of them stays so."""
    model = two_losses()
    model.fit(
        first_digits,
        first_digits,
        epochs=2,
        batch_size=20,
        verbose=2,
        log_freq=1,
        callbacks=[pruning(prune_params_type=None)],
    )
    printed = capsys.readouterr().out
    assert "nan" not in printed
    assert "mAP: 0." in printed
    assert "AP50" not in printed


def test_values_in_the_logs_stay_as_hapi_made_them(first_digits):
    class Last(paddle.callbacks.Callback):
        def on_eval_end(self, logs=None):
            self.logs = dict(logs)

    last = Last()
    two_losses().fit(
        first_digits, first_digits, batch_size=20, verbose=0, callbacks=[last, pruning(prune_params_type=None)]
    )
    assert last.logs["loss"] == [pytest.approx(float("nan"), nan_ok=True)]
    assert "AP50" in last.logs


def test_a_metric_of_the_same_name_takes_precedence():
    class Session:
        has_members = True

        def log_values(self):
            return {"sparsity": 0.5, "target_sparsity": 0.5}

    complete, logs = CompleteLogs(Session()), {"sparsity": 0.1}
    complete.set_params({"metrics": ["loss", "sparsity"]})
    complete.on_train_begin()
    complete.on_train_batch_end(0, logs)
    assert logs == {"sparsity": 0.1, "target_sparsity": 0.5}
    assert complete.params["metrics"] == ["loss", "sparsity", "target_sparsity"]


def test_a_bar_of_ones_own_is_used_and_shows_the_values(first_digits, capsys):
    classifier(Pointwise()).fit(
        first_digits,
        batch_size=40,
        verbose=1,
        callbacks=[pruning(pruning_iterations=1), paddle.callbacks.ProgBarLogger(1, verbose=2)],
    )
    printed = capsys.readouterr().out
    assert "step 3/4 - loss" in printed
    assert printed.count("step 3/4") == 1
    assert "target_sparsity: 0.75" in printed
