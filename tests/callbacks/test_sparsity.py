import numpy as np
import paddle
import pytest
from helpers import Pointwise, classifier, curves
from paddle.static import InputSpec
from paddle.vision.models import LeNet

from paddle_sparse_cb import InputError, SparsityCallback, make_plan, measure_sparsity
from paddle_sparse_cb.deploy import OptimizeLite


def planned_sparsity(network):
    return measure_sparsity(network, make_plan(network)).ratio


class RecordSparsity(paddle.callbacks.Callback):
    """Records the sparsity that another callback sees after each batch, as an EMA or a checkpoint would."""

    def __init__(self):
        super().__init__()
        self.after_each_batch = []

    def on_train_batch_end(self, step, logs=None):
        self.after_each_batch.append(planned_sparsity(self.model.network))


@pytest.mark.parametrize("first", [True, False])
def test_fit_ends_at_the_target_and_every_callback_sees_the_zeros(first_digits, first):
    network, recorded = Pointwise(), RecordSparsity()
    sparsity = SparsityCallback(ratio=0.75, pruning_epochs=1, tunning_epochs=1, pruning_steps=5)
    callbacks = [recorded, sparsity] if first else [sparsity, recorded]
    classifier(network).fit(first_digits, epochs=2, batch_size=16, verbose=0, callbacks=callbacks)
    assert planned_sparsity(network) == 0.75
    assert recorded.after_each_batch[0] == pytest.approx(0.15, abs=1e-3)
    assert recorded.after_each_batch == sorted(recorded.after_each_batch)
    assert recorded.after_each_batch[10:] == [0.75] * 10


def test_the_schedule_counts_optimizer_steps_under_gradient_accumulation(first_digits):
    network = Pointwise()
    sparsity = SparsityCallback(ratio=0.75, pruning_epochs=1, tunning_epochs=1)
    classifier(network).fit(
        first_digits, epochs=2, batch_size=16, verbose=0, callbacks=[sparsity], accumulate_grad_batches=4
    )
    assert sparsity.pruner.cur_iteration == 6  # batches 4, 8 and 10 of each epoch
    assert planned_sparsity(network) == 0.75


def test_the_schedule_can_be_given_in_iterations(first_digits):
    sparsity = SparsityCallback(ratio=0.75, stable_iterations=3, pruning_iterations=4, tunning_iterations=1)
    classifier(Pointwise()).fit(first_digits, epochs=1, batch_size=16, verbose=0, callbacks=[sparsity])
    assert sparsity.pruner.schedule.target_step == 7


def test_hapis_checkpoints_have_the_networks_keys_and_the_zeros(first_digits, tmp_path):
    network = Pointwise()
    keys = list(network.state_dict())
    checkpoint = paddle.callbacks.ModelCheckpoint(1, str(tmp_path))
    sparsity = SparsityCallback(ratio=0.75, pruning_epochs=1, tunning_epochs=1)
    classifier(network).fit(first_digits, epochs=2, batch_size=16, verbose=0, callbacks=[checkpoint, sparsity])
    for name in ("1", "final"):
        saved = paddle.load(str(tmp_path / f"{name}.pdparams"))
        assert list(saved) == keys
        assert (saved["expand.weight"].numpy() == 0).mean() == 0.75


def test_log_dir_writes_the_curves(first_digits, tmp_path):
    sparsity = SparsityCallback(
        ratio=0.75, pruning_epochs=1, tunning_epochs=1, pruning_steps=10, log_dir=tmp_path, log_freq=5, per_layer=True
    )
    classifier(Pointwise()).fit(first_digits, first_digits, epochs=2, batch_size=16, verbose=0, callbacks=[sparsity])
    read = curves(tmp_path)
    assert {"sparsity_layer/expand.weight", "sparsity_layer/project.weight", "eval/loss"} < read.keys()
    assert [step for step, _ in read["sparsity/actual"]] == [0, 5, 10, 15, 20]
    assert read["sparsity/actual"][-1][1] == read["sparsity/target"][-1][1] == 0.75
    assert read["train/lr"][0][1] == pytest.approx(0.01)
    assert [step for step, _ in read["eval/acc"]] == [10, 20]


def test_without_save_dir_and_log_dir_nothing_is_written(first_digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sparsity = SparsityCallback(ratio=0.75, pruning_epochs=1, tunning_epochs=1)
    classifier(Pointwise()).fit(first_digits, epochs=2, batch_size=16, verbose=0, callbacks=[sparsity])
    assert not list(tmp_path.iterdir())


def test_hooks_run_in_order_on_the_finalized_network(first_digits, tmp_path):
    calls = []

    def first(context):
        context.metrics["mine"] = 1.0
        calls.append(("first", context.sparsity.ratio, context.output, context.target_ratio))

    def second(context):
        calls.append(("second", planned_sparsity(context.network), context.metrics["mine"]))

    sparsity = SparsityCallback(
        ratio=0.75, pruning_epochs=1, tunning_epochs=1, save_dir=tmp_path, post_train=[first, second]
    )
    classifier(Pointwise()).fit(first_digits, epochs=2, batch_size=16, verbose=0, callbacks=[sparsity])
    assert calls == [("first", 0.75, tmp_path, 0.75), ("second", 0.75, 1.0)]


def test_a_layer_that_paddle_lite_would_keep_dense_is_an_error_before_training(first_digits, tmp_path):
    network = Pointwise()
    before = network.expand.weight.numpy()
    sparsity = SparsityCallback(
        ratio=0.5, pruning_epochs=1, tunning_epochs=1, save_dir=tmp_path, post_train=[OptimizeLite()]
    )
    with pytest.raises(InputError, match="Paddle-Lite would keep expand.weight dense: it may end with as few"):
        classifier(network).fit(first_digits, epochs=2, batch_size=16, verbose=0, callbacks=[sparsity])
    assert (network.expand.weight.numpy() == before).all()


@pytest.mark.parametrize("hooks", [[], [lambda context: None]])
@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        (
            {"ratio": 0.5, "sparse_block": (24, 24)},
            r"sparse_block \[24, 24\] divides none of the layers to prune, such as expand\.weight",
        ),
        ({"ratio": 0.999999, "scope": "global"}, r"0\.999999 cannot be reached: \d+ of the \d+ weights or blocks"),
        ({"ratio": 0.9999}, "would zero all 1024 weights or blocks of expand.weight"),
    ],
)
def test_a_ratio_that_cannot_be_reached_is_an_error_before_the_first_step(
    first_digits, tmp_path, keywords, message, hooks
):
    model = classifier(Pointwise())
    before = {name: weight.numpy() for name, weight in model.network.state_dict().items()}
    sparsity = SparsityCallback(pruning_epochs=1, tunning_epochs=0, save_dir=tmp_path, post_train=hooks, **keywords)
    with pytest.raises(InputError, match=message):
        model.fit(first_digits, epochs=2, batch_size=80, verbose=0, callbacks=[sparsity])
    assert all((weight.numpy() == before[name]).all() for name, weight in model.network.state_dict().items())


def test_prune_squeeze_excite_prunes_squeeze_and_excitation(first_digits):
    network = Pointwise()
    sparsity = SparsityCallback(pruning_epochs=1, tunning_epochs=1, pruning_steps=4, prune_squeeze_excite=True)
    classifier(network).fit(first_digits, epochs=2, batch_size=16, verbose=0, callbacks=[sparsity])
    assert float((network.squeeze[1].weight == 0).astype("float32").mean()) == 0.75


def test_a_second_fit_with_a_new_callback_keeps_the_zeros(first_digits):
    network = Pointwise()
    model = classifier(network)
    for ratio in (0.75, 0.85):
        sparsity = SparsityCallback(ratio=ratio, pruning_epochs=1, tunning_epochs=1)
        model.fit(first_digits, epochs=2, batch_size=16, verbose=0, callbacks=[sparsity])
        assert planned_sparsity(network) >= ratio
    assert not {"step", "minimize"} & vars(model._optimizer).keys()


def test_input_specs_of_the_model_are_used_for_the_plan(first_digits):
    network = Pointwise()
    model = classifier(
        network, inputs=[InputSpec([None, 1, 8, 8], "float32", "x")], labels=[InputSpec([None, 1], "int64", "y")]
    )
    sparsity = SparsityCallback(ratio=0.75, pruning_epochs=1, tunning_epochs=1)
    model.fit(first_digits, epochs=2, batch_size=16, verbose=0, callbacks=[sparsity])
    assert len(sparsity.pruner.plan.pruned) == 2


def test_a_training_too_short_for_the_target_is_an_error_before_it_starts(first_digits):
    sparsity = SparsityCallback(ratio=0.75, pruning_epochs=150)
    with pytest.raises(InputError) as error:
        classifier(Pointwise()).fit(first_digits, epochs=2, batch_size=16, verbose=0, callbacks=[sparsity])
    assert "would be reached after 1500 optimizer steps, but this training has 20 (10 per epoch)" in str(error.value)


@pytest.mark.parametrize(
    ("num_iters", "accumulate", "fits"), [(15, 1, True), (10, 1, False), (15, 4, False), (18, 4, True)]
)
def test_num_iters_limits_the_steps_available_to_the_schedule(first_digits, num_iters, accumulate, fits):
    """An epoch has 10 batches: with 4 accumulated, 3 optimizer steps, and 2 more in batches 11 to 18."""
    network = Pointwise()
    sparsity = SparsityCallback(ratio=0.75, pruning_iterations=10 if accumulate == 1 else 4, pruning_steps=2)
    model, keywords = classifier(network), {"num_iters": num_iters, "accumulate_grad_batches": accumulate}
    if fits:
        model.fit(first_digits, batch_size=16, verbose=0, callbacks=[sparsity], **keywords)
        assert planned_sparsity(network) == 0.75
    else:
        with pytest.raises(InputError, match="would be reached after"):
            model.fit(first_digits, batch_size=16, verbose=0, callbacks=[sparsity], **keywords)


def test_a_training_that_ends_early_warns_and_keeps_its_zeros(first_digits):
    class StopAfterEpoch(paddle.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    network = Pointwise()
    sparsity = SparsityCallback(ratio=0.75, pruning_epochs=2, tunning_epochs=0, pruning_steps=2)
    with pytest.warns(UserWarning, match=r"ended after 10 optimizer steps at ratio 0.1500, before the target 0.75"):
        classifier(network).fit(
            first_digits, epochs=3, batch_size=16, verbose=0, callbacks=[sparsity, StopAfterEpoch()]
        )
    assert planned_sparsity(network) == pytest.approx(0.15, abs=1e-3)


def test_numpy_numbers_are_accepted():
    assert SparsityCallback(ratio=np.float32(0.75), pruning_epochs=np.int64(3)).config.ratio == 0.75


def test_a_sparse_network_keeps_its_zeros_from_the_first_step(first_digits):
    network, recorded = Pointwise(), RecordSparsity()
    model = classifier(network)
    first = SparsityCallback(ratio=0.6, pruning_epochs=1, tunning_epochs=1)
    model.fit(first_digits, epochs=2, batch_size=16, verbose=0, callbacks=[first])
    second = SparsityCallback(ratio=0.75, stable_epochs=1, pruning_epochs=1, tunning_epochs=1)
    model.fit(first_digits, epochs=3, batch_size=16, verbose=0, callbacks=[second, recorded])
    assert min(recorded.after_each_batch) >= 0.6
    assert recorded.after_each_batch[-1] >= 0.75


def test_no_layer_to_prune_is_an_error_before_training(first_digits):
    with pytest.raises(InputError, match="no layer left to prune"):
        classifier(LeNet()).fit(first_digits, epochs=400, batch_size=16, verbose=0, callbacks=[SparsityCallback()])


def test_a_loader_without_length_needs_iterations(digits):
    class Stream(paddle.io.IterableDataset):
        def __iter__(self):
            return (digits[i] for i in range(64))

    loader = paddle.io.DataLoader(Stream(), batch_size=16)
    with pytest.raises(InputError, match="the loader has no length"):
        classifier(Pointwise()).fit(loader, epochs=1, verbose=0, callbacks=[SparsityCallback()])
    network = Pointwise()
    sparsity = SparsityCallback(stable_iterations=0, pruning_iterations=2, tunning_iterations=2)
    classifier(network).fit(loader, epochs=1, verbose=0, callbacks=[sparsity])
    assert planned_sparsity(network) == 0.75


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"ratio": 75}, "ratio must be a fraction from 0.0 to below 1, got 75 (did you mean 0.75?)"),
        ({"initial_ratio": 0.8}, "initial_ratio"),
        ({"pruning_steps": 0}, "pruning_steps"),
        ({"stable_epochs": -1}, "stable_epochs"),
        ({"pruning_epochs": 0.5}, "pruning_epochs"),
        ({"tunning_epochs": "1"}, "tunning_epochs"),
        ({"pruning_iterations": -5}, "pruning_iterations"),
        ({"prune_params_type": "conv3x3"}, "prune_params_type must be 'conv1x1_only' or None"),
        ({"skip_params_func": "f"}, "skip_params_func"),
        ({"skip": "head.*"}, "skip must be a list"),
        ({"skip": 3}, "skip must be a list"),
        ({"skip": {"a": 1}}, "skip must be a list"),
        ({"per_layer": "maybe"}, "per_layer must be"),
        ({"local_sparsity": 1}, "local_sparsity must be True or False"),
        ({"plan": "x"}, "plan must come from make_plan"),
        ({"prune_squeeze_excite": 1}, "prune_squeeze_excite must be True or False"),
        ({"scope": "local"}, "scope must be one of uniform, global, erk, got 'local'; did you mean 'uniform'?"),
        ({"curve": "square"}, "curve must be one of"),
        ({"sparse_block": (0, 1)}, "sparse_block"),
        ({"log_freq": 0}, "log_freq"),
        ({"log_dir": 3}, "log_dir"),
        ({"visualdl": "yes"}, "visualdl must be True or False"),
        ({"tuning_epochs": 1}, "unknown argument 'tuning_epochs'; did you mean 'tunning_epochs'?"),
        ({"post_train": [print]}, "post_train hooks need save_dir"),
        ({"post_train": ["print"], "save_dir": "x"}, "post_train must be a list of callables"),
    ],
)
def test_a_wrong_argument_is_a_one_line_input_error_that_names_it(keywords, message):
    with pytest.raises(InputError) as error:
        SparsityCallback(**keywords)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
