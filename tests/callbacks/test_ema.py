import itertools
import warnings

import numpy as np
import paddle
import pytest
from helpers import CORE_ONLY, PADDLE3, Pointwise, classifier

from paddle_sparse_cb import EMACallback, InputError, SparsityCallback, measure_sparsity
from paddle_sparse_cb.callbacks.weight_average import WeightAverage
from paddle_sparse_cb.utils.float_bits import magnitude_bits

PRUNED = ("expand.weight", "project.weight")


def state(network):
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def zeros(array):
    return np.asarray(array) == 0


class Record(paddle.callbacks.Callback):
    """Notes the training's own state after each optimizer step, and the weights seen at other moments."""

    def __init__(self):
        super().__init__()
        self.own, self.seen = [], []

    def on_train_batch_begin(self, step, logs=None):
        self.seen.append(("batch", state(self.model.network)))

    def on_eval_begin(self, logs=None):
        self.seen.append(("eval", state(self.model.network)))

    def attach(self, optimizer):
        """Looks right after each step, where no callback has been called yet."""
        minimize = optimizer.minimize

        def noting(*args, **keywords):
            result = minimize(*args, **keywords)
            self.own.append(state(self.model.network))
            return result
        optimizer.minimize = noting


def averaged(states, decays, corrected=True):
    """The same in float64 with numpy: an average, its start at zero made up for as ppdet does."""
    made = {name: np.zeros(array.shape) for name, array in states[0].items()}
    for now, decay in zip(states, decays):
        made = {name: decay * made[name] + (1 - decay) * now[name].astype("float64") for name in made}
    return {name: array / (1 - decay ** len(states) if corrected else 1) for name, array in made.items()}


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=2e-5, atol=1e-6, err_msg=name)


def threshold(steps, decay=0.9998):
    return [min(decay, (1 + step) / (10 + step)) for step in range(steps)]


@pytest.mark.skipif(CORE_ONLY, reason="needs PaddleDetection")
@pytest.mark.parametrize("keywords", [{}, {"decay": 0.9, "ema_decay_type": "normal"},
                                      {"ema_decay_type": "exponential"}, {"decay": 0.5, "cycle_epoch": 2},
                                      {"ema_black_list": ["stem", "head.b"]}], ids=str)
def test_the_arithmetic_is_ppdets(keywords):
    from ppdet.optimizer import ModelEMA

    network = Pointwise()
    theirs = ModelEMA(network, **keywords)
    ours = WeightAverage(network, keywords.get("decay", 0.9998), keywords.get("ema_decay_type", "threshold"),
                         keywords.get("cycle_epoch", 0), keywords.get("ema_black_list", ()))
    for step in range(60):
        for tensor in network.state_dict().values():
            tensor.set_value(tensor + 0.1 * paddle.randn(tensor.shape))
        theirs.update()
        ours.update()
        if step % 10 == 9:
            expected = {name: tensor.numpy() for name, tensor in theirs.apply().items()}
            shown = {live.name: value.numpy() for _, live, value in ours.values()}
            same({name: shown.get(live.name, live.numpy()) for name, live in network.state_dict().items()}, expected)
            assert len(shown) == len(expected) - (6 if "ema_black_list" in keywords else 0)


def test_evaluation_and_the_end_see_the_average_and_training_its_own_weights(first_digits):
    network, record = Pointwise(), Record()
    model = classifier(network)
    record.attach(model._optimizer)
    model.fit(first_digits, first_digits, epochs=2, batch_size=16, verbose=0, callbacks=[EMACallback(), record])
    evaluated = [seen for event, seen in record.seen if event == "eval"]
    same(evaluated[0], averaged(record.own[:10], threshold(10)))
    same(evaluated[1], averaged(record.own, threshold(20)))
    same(state(network), evaluated[1])
    begun = [seen for event, seen in record.seen if event == "batch"]
    for name, array in record.own[9].items():
        np.testing.assert_array_equal(begun[10][name], array)


def test_micro_batches_are_no_steps(first_digits):
    network, record = Pointwise(), Record()
    model = classifier(network)
    record.attach(model._optimizer)
    model.fit(first_digits, epochs=1, batch_size=16, verbose=0, callbacks=[EMACallback(), record],
              accumulate_grad_batches=4)
    assert len(record.own) == 3  # batches 4, 8 and 10
    expected = averaged(record.own, threshold(3))
    same({name: state(network)[name] for name in PRUNED}, {name: expected[name] for name in PRUNED})


def test_a_limit_of_iterations_ends_with_the_average(first_digits):
    network, record = Pointwise(), Record()
    model = classifier(network)
    record.attach(model._optimizer)
    model.fit(first_digits, batch_size=16, verbose=0, callbacks=[EMACallback(), record], num_iters=13)
    same(state(network), averaged(record.own, threshold(13)))


def test_a_cycle_forgets_the_epochs_before_it(first_digits):
    network, record = Pointwise(), Record()
    model = classifier(network)
    record.attach(model._optimizer)
    model.fit(first_digits, epochs=3, batch_size=16, verbose=0, callbacks=[EMACallback(cycle_epochs=2), record])
    same(state(network), averaged(record.own[20:], threshold(10)))


def test_what_is_on_the_black_list_stays_the_trainings_own(first_digits):
    network, record = Pointwise(), Record()
    model = classifier(network)
    record.attach(model._optimizer)
    model.fit(first_digits, epochs=1, batch_size=16, verbose=0, callbacks=[EMACallback(black_list=["head"]), record])
    np.testing.assert_array_equal(network.head.weight.numpy(), record.own[-1]["head.weight"])
    assert (network.expand.weight.numpy() != record.own[-1]["expand.weight"]).any()


def test_a_shared_weight_is_averaged_once_a_step():
    network = paddle.nn.Sequential(paddle.nn.Linear(4, 4), paddle.nn.Linear(4, 4))
    network[1].weight = network[0].weight
    average = WeightAverage(network, 0.5, "normal", 0, ())
    average.update()
    network[0].weight.set_value(paddle.zeros([4, 4]))
    before = [average._averages[0].numpy()]
    average.update()
    np.testing.assert_allclose(average._averages[0].numpy(), before[0] / 2)


def test_half_precision_is_averaged_in_single():
    network = paddle.nn.Linear(2, 2)
    network.to(dtype="bfloat16")
    average = WeightAverage(network, 0.9998, "normal", 0, ())
    for _ in range(300):
        average.update()
    for _, live, value in average.values():
        assert value.dtype == live.dtype
        np.testing.assert_allclose(value.astype("float32").numpy(), live.astype("float32").numpy(), rtol=1e-2)


def fit_in_order(data, kinds, folder):
    """A training with callbacks in this order; gives what was saved, evaluated and reached."""
    network, record = Pointwise(), Record()
    scheduler = paddle.optimizer.lr.StepDecay(0.05, step_size=5, gamma=0.9)
    network_model = classifier(network, scheduler)
    sparsity = SparsityCallback(ratio=0.75, pruning_iterations=5, pruning_steps=5)
    hapi = paddle.callbacks
    made = {"sparsity": sparsity, "ema": EMACallback(), "checkpoint": hapi.ModelCheckpoint(1, str(folder)),
            "stopping": hapi.EarlyStopping("acc", patience=9, verbose=0), "lr": hapi.LRScheduler(),
            "visual": hapi.VisualDL(str(folder / "visual")), "record": record,
            "plateau": hapi.ReduceLROnPlateau("acc", patience=9, verbose=0)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ReduceLROnPlateau wants a plain rate, and says so
        network_model.fit(data, data, epochs=2, batch_size=16, verbose=0, shuffle=False, save_dir=str(folder),
                          callbacks=[made[kind] for kind in kinds])
    saved = {path.stem: paddle.load(str(path), return_numpy=True) for path in sorted(folder.glob("*.pdparams"))}
    evaluated = [seen for event, seen in record.seen if event == "eval"]
    return sparsity.pruner, network, saved, evaluated, scheduler.last_epoch


# VisualDL is a dependency of PaddleDetection's, and not there with Paddle 3.
KINDS = ("sparsity", "ema", "checkpoint", "stopping", "lr", *(() if PADDLE3 else ("visual",)), "plateau", "record")
# The three that could matter in all orders, before and after the rest; rotations, so that each comes first and last.
ORDERS = dict.fromkeys([
    *((*first, *KINDS[3:]) for first in itertools.permutations(KINDS[:3])),
    *((*KINDS[3:], *first) for first in itertools.permutations(KINDS[:3])),
    *(KINDS[turn:] + KINDS[:turn] for turn in range(len(KINDS))), KINDS[::-1]])


@pytest.mark.parametrize("order", ORDERS, ids=",".join)
def test_whatever_the_order_what_is_saved_and_evaluated_has_exactly_the_zeros_of_the_masks(
        first_digits, tmp_path, order):
    pruner, network, saved, evaluated, lr_steps = fit_in_order(first_digits, order, tmp_path)
    assert saved.keys() == {"0", "1", "best_model", "final"}
    masks = dict(zip((layer.name for layer in pruner.plan.pruned), (pruner.masks[w.name] for w in pruner.weights)))
    assert masks.keys() == set(PRUNED)
    assert all(np.count_nonzero(mask.numpy()) == mask.size // 4 for mask in masks.values())
    for name, mask in masks.items():  # the ratio is reached in the first epoch
        for held in (state(network), *saved.values(), *evaluated):
            np.testing.assert_array_equal(zeros(held[name]), ~mask.numpy())
        assert int((magnitude_bits(network.state_dict()[name]) == 0).sum()) == mask.size * 3 // 4
    for number in (0, 1):  # the averages, in the checkpoint of an epoch as in its evaluation
        same(saved[str(number)], evaluated[number])
    same(saved["final"], saved["1"])
    same(state(network), saved["final"])
    assert lr_steps == 20
    assert measure_sparsity(network, pruner.plan).ratio == 0.75


def test_any_two_orders_end_with_the_same_weights(first_digits, tmp_path):
    ends = []
    for order in (KINDS, KINDS[::-1]):
        paddle.seed(7)
        folder = tmp_path / order[0]
        ends.append(state(fit_in_order(first_digits, order, folder)[1]))
    for name, array in ends[0].items():
        np.testing.assert_array_equal(array, ends[1][name])


def test_without_pruning_it_is_an_average_like_any_other(first_digits):
    network = Pointwise()
    classifier(network).fit(first_digits, epochs=1, batch_size=16, verbose=0, callbacks=[EMACallback()])
    assert not zeros(network.expand.weight.numpy()).any()


def test_a_loader_without_length_is_an_error_that_says_so(digits):
    class Stream(paddle.io.IterableDataset):
        def __iter__(self):
            return (digits[i] for i in range(64))

    with pytest.raises(InputError, match="the loader has no length"):
        classifier(Pointwise()).fit(paddle.io.DataLoader(Stream(), batch_size=16), verbose=0,
                                    callbacks=[EMACallback()])


def test_a_black_list_that_names_nothing_is_an_error(first_digits):
    with pytest.raises(InputError, match="black_list: 'hed' matches no name"):
        classifier(Pointwise()).fit(first_digits, batch_size=16, verbose=0, callbacks=[EMACallback(black_list=["hed"])])


@pytest.mark.parametrize(("keywords", "said"), [
    ({"decay": 1}, "decay is a fraction"), ({"decay": "0.9"}, "decay is a fraction"),
    ({"decay_type": "cosine"}, "decay_type must be one of threshold, normal, exponential, got 'cosine'"),
    ({"cycle_epochs": 0}, "cycle_epochs must be a number of epochs"), ({"cycle_epochs": 1.5}, "cycle_epochs"),
    ({"black_list": "head"}, "black_list must be a list"), ({"black_list": [1]}, "black_list must be a list")])
def test_every_argument_is_checked_at_once_and_named(keywords, said):
    with pytest.raises(InputError) as error:
        EMACallback(**keywords)
    assert said in str(error.value)
