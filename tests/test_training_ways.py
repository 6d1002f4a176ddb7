"""The ways of training that `paddle.Model.fit` knows, and combinations of them: the zeros hold in each."""

import collections
import warnings

import numpy as np
import paddle
import pytest
from helpers import Pointwise
from paddle import nn
from paddle.amp.grad_scaler import _refresh_optimizer_state
from paddle.distributed.fleet.utils import recompute
from paddle.static import InputSpec

from paddle_sparse_cb import Checkpoints, EMACallback, SparsityCallback, measure_sparsity
from paddle_sparse_cb.pruning.masks import prune_count
from paddle_sparse_cb.utils.float_bits import magnitude_bits
from paddle_sparse_cb.utils.weight_files import load_arrays

BATCHES, EPOCHS = 10, 3


class Recomputed(Pointwise):
    """Forgets what a block has computed, and computes it again for the gradient."""

    def forward(self, x):
        return recompute(super().forward, x) if self.training else super().forward(x)


class HalfConv(nn.Conv2D):
    """Holds its weights in bfloat16 and computes in float32, for which a CPU has kernels."""

    def forward(self, x):
        return nn.functional.conv2d(x, self.weight.astype("float32"), self.bias.astype("float32"))


class Half(nn.Sequential):
    def __init__(self):
        super().__init__(HalfConv(1, 16, 3), nn.ReLU(), HalfConv(16, 64, 1), nn.ReLU(), HalfConv(64, 32, 1),
                         nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Linear(32, 10))
        for layer in self.sublayers():
            if isinstance(layer, HalfConv):
                layer.to(dtype="bfloat16")


class Smooth(nn.Sequential):
    """Has no ReLU, which makes zeros of NaN, and no statistics, which would keep them."""

    def __init__(self):
        super().__init__(nn.Conv2D(1, 16, 3), nn.Tanh(), nn.Conv2D(16, 32, 1), nn.Tanh(), nn.Flatten(),
                         nn.Linear(32 * 36, 10))


class Loud(nn.CrossEntropyLoss):
    """A loss whose gradients overflow when they are scaled by what a float32 can hold."""

    def forward(self, *args):
        return 20 * super().forward(*args)


class MasterMomentum(paddle.optimizer.Momentum):
    """Paddle's Momentum, which makes and keeps its master weights; a kernel for the step is there on GPUs alone."""

    @paddle.no_grad()
    def _append_optimize_op(self, block, param_and_grad):
        weight, gradient = param_and_grad
        if weight.name not in self._master_weights:
            return super()._append_optimize_op(block, param_and_grad)
        master, velocity = self._master_weights[weight.name], self._get_accumulator_master("velocity", weight)
        paddle.assign(0.9 * velocity + gradient.astype("float32"), velocity)
        paddle.assign(master - self.get_lr() * velocity, master)
        paddle.assign(master.astype(weight.dtype), weight)
        return None


def scaler_of_a_gpu(**keywords):
    """A `GradScaler` as its constructor makes it where there is a GPU; what it calls has kernels on a CPU too."""
    scaler = paddle.amp.GradScaler(enable=False)
    flag = paddle.to_tensor([False])
    made = {"init_loss_scaling": 1024.0, "incr_ratio": 2.0, "decr_ratio": 0.5, "incr_every_n_steps": 1000,
            "decr_every_n_nan_or_inf": 1, "incr_count": 0, "decr_count": 0, "use_dynamic_loss_scaling": True,
            **keywords}
    vars(scaler).update({f"_{name}": value for name, value in made.items()}, _enable=True, _found_inf=flag)
    for name in ("value_false", "fp16", "bf16", "fp32"):
        setattr(scaler, f"_temp_found_inf_{name}", flag.clone())
    scaler._scale = paddle.to_tensor([made["init_loss_scaling"]], "float32")
    scaler._optimizer_states = collections.defaultdict(_refresh_optimizer_state)
    return scaler


class Watch(paddle.callbacks.Callback):
    """Looks after every batch, before the `SparsityCallback` is told of it."""

    def __init__(self, sparsity):
        super().__init__()
        self.sparsity, self.steps = sparsity, []

    def on_train_batch_end(self, step, logs=None):
        pruner = self.sparsity.pruner
        self.steps.append(pruner.cur_iteration)
        if not pruner.cur_iteration:
            return
        ratio = pruner.schedule.at(pruner.cur_iteration - 1)
        report = measure_sparsity(self.model.network, pruner.plan)
        assert pruner.ratio == ratio
        for weight in pruner.weights:
            dead = ~pruner.masks[weight.name].numpy()
            assert dead.sum() == prune_count(ratio, weight.size)
            for held in (weight, *pruner.optimizer_tensors(weight)):
                assert (magnitude_bits(held).numpy()[dead] == 0).all(), held.name
        counted = {layer.name: layer.zeros for layer in report.layers if layer.pruned}
        assert counted == {layer.name: prune_count(ratio, int(np.prod(layer.shape))) for layer in pruner.plan.pruned}


def fit(data, network, optimizer="Momentum", learning_rate=0.01, clip=None, amp=None, scaler=None, callbacks=(),
        pruning_iterations=5, loss=None, **keywords):
    """Trains; gives the network, the callback, and the optimizer steps done after each batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a CPU has no AMP, and one process no ranks
        # hapi reads them from `forward`'s signature, which a wrapper hides.
        model = paddle.Model(network, InputSpec([None, 1, 8, 8], "float32", "image"),
                             InputSpec([None, 1], "int64", "label"))
        made = {"Momentum": paddle.optimizer.Momentum, "SGD": paddle.optimizer.SGD, "AdamW": paddle.optimizer.AdamW,
                "MasterMomentum": MasterMomentum}[optimizer]
        precision = {"multi_precision": True}
        model.prepare(made(learning_rate, parameters=network.parameters(), grad_clip=clip, **precision),
                      loss or nn.CrossEntropyLoss(), paddle.metric.Accuracy(), amp_configs=amp)
        model._scaler = scaler
        sparsity = SparsityCallback(ratio=0.75, pruning_iterations=pruning_iterations, tunning_iterations=0,
                                    pruning_steps=5)
        watch = Watch(sparsity)
        model.fit(data, epochs=EPOCHS, batch_size=16, verbose=0, callbacks=[watch, *callbacks, sparsity], **keywords)
    assert measure_sparsity(network, sparsity.pruner.plan).ratio == 0.75
    return model, sparsity, watch.steps


def steps_of(accumulate, batches=EPOCHS * BATCHES):
    """hapi steps on every so many batches of an epoch, and on its last one."""
    done = [(batch + 1) % accumulate == 0 or batch + 1 == BATCHES for _ in range(EPOCHS) for batch in range(BATCHES)]
    return np.cumsum(done)[:batches].tolist()


WAYS = {
    "plain": {},
    "accumulation": {"accumulate_grad_batches": 2},
    "accumulation, the last one partial": {"accumulate_grad_batches": 4},
    "num_iters": {"num_iters": 13},
    "clip by norm": {"clip": nn.ClipGradByNorm(0.1)},
    "clip by global norm": {"clip": nn.ClipGradByGlobalNorm(0.1)},
    "clip by value": {"clip": nn.ClipGradByValue(0.01)},
    "O1": {"amp": "O1"},
    "O2": {"amp": "O2"},
    "AdamW": {"optimizer": "AdamW"},
    "DataParallel": {"wrap": paddle.DataParallel},
    "to_static": {"wrap": paddle.jit.to_static},
    "recompute": {"make": Recomputed},
    "recompute, accumulation, clip": {"make": Recomputed, "accumulate_grad_batches": 4,
                                      "clip": nn.ClipGradByGlobalNorm(0.1)},
    "to_static, accumulation, O1": {"wrap": paddle.jit.to_static, "accumulate_grad_batches": 3, "amp": "O1"},
    "DataParallel, recompute, AdamW, num_iters": {"make": Recomputed, "wrap": paddle.DataParallel, "num_iters": 17,
                                                  "optimizer": "AdamW"},
    "accumulation, num_iters in the midst": {"accumulate_grad_batches": 4, "num_iters": 25},
}


@pytest.mark.parametrize("averaged", [False, True], ids=["", "with EMA"])
@pytest.mark.parametrize("way", WAYS)
def test_zeros_hold_and_steps_are_counted(first_digits, way, averaged):
    keywords = {**WAYS[way]}
    make, wrap = keywords.pop("make", Pointwise), keywords.pop("wrap", lambda network: network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one process has no ranks
        network = wrap(make())
    callbacks = [EMACallback(decay=0.9)] if averaged else []
    _, sparsity, steps = fit(first_digits, network, callbacks=callbacks, **keywords)
    assert steps == steps_of(keywords.get("accumulate_grad_batches", 1), keywords.get("num_iters", EPOCHS * BATCHES))
    assert sparsity.pruner.cur_iteration == steps[-1]
    # What computes has the same zeros as what is kept, whoever made a program of the network.
    network.eval()
    images = paddle.rand([4, 1, 8, 8])
    other = Pointwise()
    missing, unexpected = other.set_state_dict({name.replace("_layers.", ""): value
                                                for name, value in network.state_dict().items()})
    assert not missing
    assert not unexpected
    other.eval()
    np.testing.assert_allclose(network(images).numpy(), other(images).numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_zeros_hold_in_master_weights_and_their_moments(first_digits, accumulate):
    model, sparsity, steps = fit(first_digits, Half(), optimizer="MasterMomentum", learning_rate=0.1,
                                 accumulate_grad_batches=accumulate)
    assert steps == steps_of(accumulate)
    pruner = sparsity.pruner
    for weight in pruner.weights:
        master, velocity = pruner.optimizer_tensors(weight)
        assert master is model._optimizer._master_weights[weight.name]
        assert master.dtype == velocity.dtype == paddle.float32
        dead = weight.astype("float32").numpy() == 0
        assert dead.mean() == 0.75
        np.testing.assert_array_equal(master.numpy() == 0, dead)
        assert (velocity.numpy()[dead] == 0).all()
        assert (velocity.numpy() != 0).any()
        assert bool((master.astype("bfloat16").astype("float32") == weight.astype("float32")).all())
        assert bool((master != weight.astype("float32")).any())  # it is no copy


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_step_that_the_scaler_skips_moves_no_weight_and_no_schedule(first_digits, accumulate):
    class Weights(paddle.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.seen = []

        def on_train_batch_end(self, step, logs=None):
            self.seen.append({name: tensor.astype("float32").numpy()
                              for name, tensor in self.model.network.state_dict().items()})

    seen = Weights()
    scaler = scaler_of_a_gpu(init_loss_scaling=2.0 ** 127)  # too much until it has been halved a few times
    _, _, steps = fit(first_digits, Smooth(), optimizer="SGD", learning_rate=5e-4, loss=Loud(), amp="O1",
                       scaler=scaler, callbacks=[seen], accumulate_grad_batches=accumulate, pruning_iterations=3)
    every = steps_of(accumulate)
    skipped = every[-1] - steps[-1]
    assert skipped >= 1
    assert scaler.is_enable()
    assert float(scaler._scale) == 2.0 ** (127 - skipped)
    for now, before, done, earlier in zip(seen.seen[1:], seen.seen, steps[1:], steps):
        assert done - earlier in (0, 1)
        moved = any((now[name] != before[name]).any() for name in now)
        assert moved == (done > earlier)


def test_a_loss_that_the_scaler_does_not_take_is_no_divergence(digits):
    images, labels = digits[:160]
    images = images.clone()
    images[85, 0, 3, 3] = np.nan
    scaler = scaler_of_a_gpu()
    losses = []

    class Note(paddle.callbacks.Callback):
        def on_train_batch_end(self, step, logs=None):
            losses.extend(logs["loss"])

    _, _, steps = fit(paddle.io.TensorDataset([images, labels]), Smooth(), amp="O1", scaler=scaler,
                      callbacks=[Note()], shuffle=False)
    assert np.isnan(losses).nonzero()[0].tolist() == [5, 15, 25]
    assert steps[-1] == EPOCHS * (BATCHES - 1)


def test_the_average_has_the_zeros_where_there_are_master_weights(first_digits):
    model, sparsity, _ = fit(first_digits, Half(), optimizer="MasterMomentum", learning_rate=0.1,
                             callbacks=[EMACallback(decay=0.9)])
    for weight in sparsity.pruner.weights:
        master = model._optimizer._master_weights[weight.name].numpy()
        np.testing.assert_array_equal(weight.astype("float32").numpy(), master)  # else a step would undo the average


def test_a_training_with_master_weights_and_loss_scaling_goes_on_bit_for_bit(first_digits, tmp_path):
    def go(epochs, resume=None):
        with paddle.utils.unique_name.guard():
            network = Half()
            model = paddle.Model(network)
            model.prepare(MasterMomentum(0.1, parameters=network.parameters(), multi_precision=True),
                          nn.CrossEntropyLoss())
            model._scaler = scaler_of_a_gpu()
            sparsity = SparsityCallback(ratio=0.75, pruning_epochs=2, tunning_epochs=1, pruning_steps=5, resume=resume)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(first_digits, epochs=epochs, batch_size=40, verbose=0, shuffle=False,
                          callbacks=[*([] if resume else [Checkpoints(tmp_path)]), sparsity])
        optimizer = model._optimizer
        held = [*optimizer._master_weights.values(), *optimizer._accumulators["velocity"].values()]
        return [tensor.astype("float32").numpy() for tensor in [*network.parameters(), *held, model._scaler._scale]]

    whole = go(3)
    assert load_arrays(tmp_path / "1.pdopt")["master_weights"]
    assert (tmp_path / "1.pdscaler").is_file()
    assert len(whole) > 15
    for mine, theirs in zip(whole, go(1, tmp_path / "1.pdsparse")):
        np.testing.assert_array_equal(mine, theirs)
