import itertools
import warnings

import numpy as np
import paddle
import pytest
from helpers import CORE_ONLY, Pointwise, classifier

from paddle_sparse_cb import EMACallback, InputError, SparsityCallback, measure_sparsity
from paddle_sparse_cb.callbacks.weight_average import WeightAverage
from paddle_sparse_cb.utils.float_bits import magnitude_bits

PRUNED = ("expand.weight", "project.weight")


def state(network):
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def zero_mask(array):
    return np.asarray(array) == 0


class Record(paddle.callbacks.Callback):
    """Records the raw weights after each optimizer step, and the weights visible in other events."""

    def __init__(self):
        super().__init__()
        self.raw, self.at_batch_begin, self.at_eval_begin = [], [], []

    def on_train_batch_begin(self, step, logs=None):
        self.at_batch_begin.append(state(self.model.network))

    def on_eval_begin(self, logs=None):
        self.at_eval_begin.append(state(self.model.network))

    def attach(self, optimizer):
        """Records right after each optimizer step, before any callback is called."""
        minimize = optimizer.minimize

        def recording(*args, **keywords):
            result = minimize(*args, **keywords)
            self.raw.append(state(self.model.network))
            return result

        optimizer.minimize = recording


def expected_average(states, decays):
    """Returns the bias-corrected average of ppdet's formula, computed with numpy in float64."""
    average = {name: np.zeros(array.shape) for name, array in states[0].items()}
    for current, decay in zip(states, decays):
        average = {name: decay * average[name] + (1 - decay) * current[name].astype("float64") for name in average}
    return {name: array / (1 - decay ** len(states)) for name, array in average.items()}


def assert_close(actual, expected):
    assert actual.keys() == expected.keys()
    for name in actual:
        np.testing.assert_allclose(actual[name], expected[name], rtol=2e-5, atol=1e-6, err_msg=name)


def threshold_decays(steps, decay=0.9998):
    return [min(decay, (1 + step) / (10 + step)) for step in range(steps)]


@pytest.mark.skipif(CORE_ONLY, reason="needs PaddleDetection")
@pytest.mark.parametrize(
    "keywords",
    [
        {},
        {"decay": 0.9, "ema_decay_type": "normal"},
        {"ema_decay_type": "exponential"},
        {"decay": 0.5, "cycle_epoch": 2},
        {"ema_black_list": ["stem", "head.b"]},
    ],
    ids=str,
)
def test_averages_match_ppdets_model_ema(keywords):
    from ppdet.optimizer import ModelEMA

    network = Pointwise()
    theirs = ModelEMA(network, **keywords)
    ours = WeightAverage(
        network,
        keywords.get("decay", 0.9998),
        keywords.get("ema_decay_type", "threshold"),
        keywords.get("cycle_epoch", 0),
        keywords.get("ema_black_list", ()),
    )
    for step in range(60):
        for tensor in network.state_dict().values():
            tensor.set_value(tensor + 0.1 * paddle.randn(tensor.shape))
        theirs.update()
        ours.update()
        if step % 10 == 9:
            expected = {name: tensor.numpy() for name, tensor in theirs.apply().items()}
            averages = {live.name: value.numpy() for _, live, value in ours.values()}
            assert_close(
                {name: averages.get(live.name, live.numpy()) for name, live in network.state_dict().items()}, expected
            )
            assert len(averages) == len(expected) - (6 if "ema_black_list" in keywords else 0)


def test_evaluation_and_the_final_network_use_the_average_while_training_uses_the_raw_weights(first_digits):
    network, record = Pointwise(), Record()
    model = classifier(network)
    record.attach(model._optimizer)
    model.fit(first_digits, first_digits, epochs=2, batch_size=16, verbose=0, callbacks=[EMACallback(), record])
    evaluated = record.at_eval_begin
    assert_close(evaluated[0], expected_average(record.raw[:10], threshold_decays(10)))
    assert_close(evaluated[1], expected_average(record.raw, threshold_decays(20)))
    assert_close(state(network), evaluated[1])
    for name, array in record.raw[9].items():
        np.testing.assert_array_equal(record.at_batch_begin[10][name], array)


def test_the_average_is_updated_per_optimizer_step_under_gradient_accumulation(first_digits):
    network, record = Pointwise(), Record()
    model = classifier(network)
    record.attach(model._optimizer)
    model.fit(
        first_digits, epochs=1, batch_size=16, verbose=0, callbacks=[EMACallback(), record], accumulate_grad_batches=4
    )
    assert len(record.raw) == 3  # batches 4, 8 and 10
    expected = expected_average(record.raw, threshold_decays(3))
    assert_close({name: state(network)[name] for name in PRUNED}, {name: expected[name] for name in PRUNED})


def test_a_training_limited_by_num_iters_ends_with_the_average(first_digits):
    network, record = Pointwise(), Record()
    model = classifier(network)
    record.attach(model._optimizer)
    model.fit(first_digits, batch_size=16, verbose=0, callbacks=[EMACallback(), record], num_iters=13)
    assert_close(state(network), expected_average(record.raw, threshold_decays(13)))


def test_a_new_cycle_restarts_the_average(first_digits):
    network, record = Pointwise(), Record()
    model = classifier(network)
    record.attach(model._optimizer)
    model.fit(first_digits, epochs=3, batch_size=16, verbose=0, callbacks=[EMACallback(cycle_epochs=2), record])
    assert_close(state(network), expected_average(record.raw[20:], threshold_decays(10)))


def test_parameters_on_the_black_list_keep_their_raw_values(first_digits):
    network, record = Pointwise(), Record()
    model = classifier(network)
    record.attach(model._optimizer)
    model.fit(first_digits, epochs=1, batch_size=16, verbose=0, callbacks=[EMACallback(black_list=["head"]), record])
    np.testing.assert_array_equal(network.head.weight.numpy(), record.raw[-1]["head.weight"])
    assert (network.expand.weight.numpy() != record.raw[-1]["expand.weight"]).any()


def test_a_shared_weight_is_averaged_once_per_step():
    network = paddle.nn.Sequential(paddle.nn.Linear(4, 4), paddle.nn.Linear(4, 4))
    network[1].weight = network[0].weight
    average = WeightAverage(network, 0.5, "normal", 0, ())
    average.update()
    network[0].weight.set_value(paddle.zeros([4, 4]))
    [shared] = {"0.weight", "1.weight"} & average.arrays().keys()
    before = average.arrays()[shared].numpy()
    average.update()
    np.testing.assert_allclose(average.arrays()[shared].numpy(), before / 2)


def test_bfloat16_weights_are_averaged_in_float32():
    network = paddle.nn.Linear(2, 2)
    network.to(dtype="bfloat16")
    average = WeightAverage(network, 0.9998, "normal", 0, ())
    for _ in range(300):
        average.update()
    for _, live, value in average.values():
        assert value.dtype == live.dtype
        np.testing.assert_allclose(value.astype("float32").numpy(), live.astype("float32").numpy(), rtol=1e-2)


def fit_in_order(data, order, folder):
    """Trains with the callbacks in this order.

    Returns:
        The pruner, the network, the saved weights by checkpoint, the weights of each evaluation, and the number of
        learning rate updates.
    """
    network, record = Pointwise(), Record()
    scheduler = paddle.optimizer.lr.StepDecay(0.05, step_size=5, gamma=0.9)
    model = classifier(network, scheduler)
    sparsity = SparsityCallback(ratio=0.75, pruning_iterations=5, pruning_steps=5)
    hapi = paddle.callbacks
    callbacks = {
        "sparsity": sparsity,
        "ema": EMACallback(),
        "checkpoint": hapi.ModelCheckpoint(1, str(folder)),
        "stopping": hapi.EarlyStopping("acc", patience=9, verbose=0),
        "lr": hapi.LRScheduler(),
        "visual": hapi.VisualDL(str(folder / "visual")),
        "record": record,
        "plateau": hapi.ReduceLROnPlateau("acc", patience=9, verbose=0),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ReduceLROnPlateau warns that the learning rate has a scheduler
        model.fit(
            data,
            data,
            epochs=2,
            batch_size=16,
            verbose=0,
            shuffle=False,
            save_dir=str(folder),
            callbacks=[callbacks[name] for name in order],
        )
    saved = {path.stem: paddle.load(str(path), return_numpy=True) for path in sorted(folder.glob("*.pdparams"))}
    return sparsity.pruner, network, saved, record.at_eval_begin, scheduler.last_epoch


# VisualDL is installed with PaddleDetection, which needs Paddle 2.6.
NAMES = ("sparsity", "ema", "checkpoint", "stopping", "lr", *(() if CORE_ONLY else ("visual",)), "plateau", "record")
# All permutations of the first three, before and after the others, and all rotations: each comes first and last once.
ORDERS = dict.fromkeys(
    [
        *((*first, *NAMES[3:]) for first in itertools.permutations(NAMES[:3])),
        *((*NAMES[3:], *first) for first in itertools.permutations(NAMES[:3])),
        *(NAMES[first:] + NAMES[:first] for first in range(len(NAMES))),
        NAMES[::-1],
    ]
)


@pytest.mark.parametrize("order", ORDERS, ids=",".join)
def test_saved_and_evaluated_weights_have_exactly_the_zeros_of_the_masks_in_every_callback_order(
    first_digits, tmp_path, order
):
    pruner, network, saved, evaluated, lr_steps = fit_in_order(first_digits, order, tmp_path)
    assert saved.keys() == {"0", "1", "best_model", "final"}
    masks = dict(zip((layer.name for layer in pruner.plan.pruned), (pruner.masks[w.name] for w in pruner.weights)))
    assert masks.keys() == set(PRUNED)
    assert all(np.count_nonzero(mask.numpy()) == mask.size // 4 for mask in masks.values())
    for name, mask in masks.items():  # the target ratio is reached in the first epoch
        for weights in (state(network), *saved.values(), *evaluated):
            np.testing.assert_array_equal(zero_mask(weights[name]), ~mask.numpy())
        assert int((magnitude_bits(network.state_dict()[name]) == 0).sum()) == mask.size * 3 // 4
    for number in (0, 1):  # an epoch's checkpoint has the averages that were evaluated
        assert_close(saved[str(number)], evaluated[number])
    assert_close(saved["final"], saved["1"])
    assert_close(state(network), saved["final"])
    assert lr_steps == 20
    assert measure_sparsity(network, pruner.plan).ratio == 0.75


def test_the_reversed_callback_order_gives_the_same_weights(first_digits, tmp_path):
    results = []
    for order in (NAMES, NAMES[::-1]):
        paddle.seed(7)
        folder = tmp_path / order[0]
        results.append(state(fit_in_order(first_digits, order, folder)[1]))
    for name, array in results[0].items():
        np.testing.assert_array_equal(array, results[1][name])


def test_without_pruning_the_average_has_no_zeros(first_digits):
    network = Pointwise()
    classifier(network).fit(first_digits, epochs=1, batch_size=16, verbose=0, callbacks=[EMACallback()])
    assert not zero_mask(network.expand.weight.numpy()).any()


def test_a_loader_without_length_is_an_input_error(digits):
    class Stream(paddle.io.IterableDataset):
        def __iter__(self):
            return (digits[i] for i in range(64))

    with pytest.raises(InputError, match="the loader has no length"):
        classifier(Pointwise()).fit(paddle.io.DataLoader(Stream(), batch_size=16), verbose=0, callbacks=[EMACallback()])


def test_a_black_list_entry_that_matches_no_parameter_is_an_input_error(first_digits):
    with pytest.raises(InputError, match="black_list: 'hed' matches no name"):
        classifier(Pointwise()).fit(first_digits, batch_size=16, verbose=0, callbacks=[EMACallback(black_list=["hed"])])


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"decay": 1}, "decay must be a fraction"),
        ({"decay": "0.9"}, "decay must be a fraction"),
        ({"decay_type": "cosine"}, "decay_type must be one of threshold, normal, exponential, got 'cosine'"),
        ({"cycle_epochs": 0}, "cycle_epochs must be a number of epochs"),
        ({"cycle_epochs": 1.5}, "cycle_epochs"),
        ({"black_list": "head"}, "black_list must be a list"),
        ({"black_list": [1]}, "black_list must be a list"),
    ],
)
def test_a_wrong_argument_is_an_input_error_that_names_it(keywords, message):
    with pytest.raises(InputError) as error:
        EMACallback(**keywords)
    assert message in str(error.value)
