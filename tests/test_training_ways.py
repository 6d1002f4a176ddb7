"""Pruned weights stay zero in every training mode of `paddle.Model.fit`, and in combinations of them."""

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
    """Recomputes its activations in the backward pass."""

    def forward(self, x):
        return recompute(super().forward, x) if self.training else super().forward(x)


class BFloat16Conv(nn.Conv2D):
    """Stores its weights in bfloat16 and computes in float32, for which Paddle has CPU kernels."""

    def forward(self, x):
        return nn.functional.conv2d(x, self.weight.astype("float32"), self.bias.astype("float32"))


class BFloat16Network(nn.Sequential):
    def __init__(self):
        super().__init__(
            BFloat16Conv(1, 16, 3),
            nn.ReLU(),
            BFloat16Conv(16, 64, 1),
            nn.ReLU(),
            BFloat16Conv(64, 32, 1),
            nn.AdaptiveAvgPool2D(1),
            nn.Flatten(),
            nn.Linear(32, 10),
        )
        for layer in self.sublayers():
            if isinstance(layer, BFloat16Conv):
                layer.to(dtype="bfloat16")


class TanhNetwork(nn.Sequential):
    """Has no ReLU, which turns NaN into zero, and no running statistics, which would stay NaN."""

    def __init__(self):
        super().__init__(
            nn.Conv2D(1, 16, 3), nn.Tanh(), nn.Conv2D(16, 32, 1), nn.Tanh(), nn.Flatten(), nn.Linear(32 * 36, 10)
        )


class LargeLoss(nn.CrossEntropyLoss):
    """A loss whose gradients overflow in float32 under the largest loss scaling."""

    def forward(self, *args):
        return 20 * super().forward(*args)


class MasterMomentum(paddle.optimizer.Momentum):
    """Paddle's Momentum with master weights; the update is done here, as Paddle has kernels for it on GPUs only."""

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


def gpu_grad_scaler(**keywords):
    """Returns a `GradScaler` as its constructor makes it with a GPU; the operators that it calls run on a CPU too."""
    scaler = paddle.amp.GradScaler(enable=False)
    flag = paddle.to_tensor([False])
    settings = {
        "init_loss_scaling": 1024.0,
        "incr_ratio": 2.0,
        "decr_ratio": 0.5,
        "incr_every_n_steps": 1000,
        "decr_every_n_nan_or_inf": 1,
        "incr_count": 0,
        "decr_count": 0,
        "use_dynamic_loss_scaling": True,
        **keywords,
    }
    vars(scaler).update({f"_{name}": value for name, value in settings.items()}, _enable=True, _found_inf=flag)
    for name in ("value_false", "fp16", "bf16", "fp32"):
        setattr(scaler, f"_temp_found_inf_{name}", flag.clone())
    scaler._scale = paddle.to_tensor([settings["init_loss_scaling"]], "float32")
    scaler._optimizer_states = collections.defaultdict(_refresh_optimizer_state)
    return scaler


class CheckZeros(paddle.callbacks.Callback):
    """Checks the zeros after every batch, before the `SparsityCallback` receives the event, and records the steps."""

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
            pruned = ~pruner.masks[weight.name].numpy()
            assert pruned.sum() == prune_count(ratio, weight.size)
            for tensor in (weight, *pruner.optimizer_tensors(weight)):
                assert (magnitude_bits(tensor).numpy()[pruned] == 0).all(), tensor.name
        counted = {layer.name: layer.zeros for layer in report.layers if layer.pruned}
        assert counted == {layer.name: prune_count(ratio, int(np.prod(layer.shape))) for layer in pruner.plan.pruned}


def fit(
    data,
    network,
    optimizer="Momentum",
    learning_rate=0.01,
    clip=None,
    amp=None,
    scaler=None,
    callbacks=(),
    pruning_iterations=5,
    loss=None,
    **keywords,
):
    """Trains; returns the model, the callback, and the number of completed optimizer steps after each batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a CPU has no AMP, and one process needs no `DataParallel`
        # Without specifications hapi inspects the signature of `forward`, which a wrapper hides.
        model = paddle.Model(
            network, InputSpec([None, 1, 8, 8], "float32", "image"), InputSpec([None, 1], "int64", "label")
        )
        make_optimizer = {
            "Momentum": paddle.optimizer.Momentum,
            "SGD": paddle.optimizer.SGD,
            "AdamW": paddle.optimizer.AdamW,
            "MasterMomentum": MasterMomentum,
        }[optimizer]
        model.prepare(
            make_optimizer(learning_rate, parameters=network.parameters(), grad_clip=clip, multi_precision=True),
            loss or nn.CrossEntropyLoss(),
            paddle.metric.Accuracy(),
            amp_configs=amp,
        )
        model._scaler = scaler
        sparsity = SparsityCallback(
            ratio=0.75, pruning_iterations=pruning_iterations, tunning_iterations=0, pruning_steps=5
        )
        check = CheckZeros(sparsity)
        model.fit(data, epochs=EPOCHS, batch_size=16, verbose=0, callbacks=[check, *callbacks, sparsity], **keywords)
    assert measure_sparsity(network, sparsity.pruner.plan).ratio == 0.75
    return model, sparsity, check.steps


def expected_steps(accumulate, batches=EPOCHS * BATCHES):
    """Returns the optimizer steps after each batch: hapi steps every `accumulate` batches and at an epoch's end."""
    is_step = [(batch + 1) % accumulate == 0 or batch + 1 == BATCHES for _ in range(EPOCHS) for batch in range(BATCHES)]
    return np.cumsum(is_step)[:batches].tolist()


TRAINING_MODES = {
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
    "recompute, accumulation, clip": {
        "make": Recomputed,
        "accumulate_grad_batches": 4,
        "clip": nn.ClipGradByGlobalNorm(0.1),
    },
    "to_static, accumulation, O1": {"wrap": paddle.jit.to_static, "accumulate_grad_batches": 3, "amp": "O1"},
    "DataParallel, recompute, AdamW, num_iters": {
        "make": Recomputed,
        "wrap": paddle.DataParallel,
        "num_iters": 17,
        "optimizer": "AdamW",
    },
    "accumulation, ends within an accumulation": {"accumulate_grad_batches": 4, "num_iters": 25},
}


@pytest.mark.parametrize("with_ema", [False, True], ids=["", "with EMA"])
@pytest.mark.parametrize("mode", TRAINING_MODES)
def test_pruned_weights_stay_zero_and_optimizer_steps_are_counted(first_digits, mode, with_ema):
    keywords = {**TRAINING_MODES[mode]}
    make, wrap = keywords.pop("make", Pointwise), keywords.pop("wrap", lambda network: network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one process needs no `DataParallel`
        network = wrap(make())
    callbacks = [EMACallback(decay=0.9)] if with_ema else []
    _, sparsity, steps = fit(first_digits, network, callbacks=callbacks, **keywords)
    assert steps == expected_steps(
        keywords.get("accumulate_grad_batches", 1), keywords.get("num_iters", EPOCHS * BATCHES)
    )
    assert sparsity.pruner.cur_iteration == steps[-1]
    # The wrapped or compiled network computes with the weights of its state dict.
    network.eval()
    images = paddle.rand([4, 1, 8, 8])
    plain = Pointwise()
    missing, unexpected = plain.set_state_dict(
        {name.replace("_layers.", ""): value for name, value in network.state_dict().items()}
    )
    assert not missing
    assert not unexpected
    plain.eval()
    np.testing.assert_allclose(network(images).numpy(), plain(images).numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_pruned_weights_stay_zero_in_master_weights_and_their_velocity(first_digits, accumulate):
    model, sparsity, steps = fit(
        first_digits,
        BFloat16Network(),
        optimizer="MasterMomentum",
        learning_rate=0.1,
        accumulate_grad_batches=accumulate,
    )
    assert steps == expected_steps(accumulate)
    pruner = sparsity.pruner
    for weight in pruner.weights:
        master, velocity = pruner.optimizer_tensors(weight)
        assert master is model._optimizer._master_weights[weight.name]
        assert master.dtype == velocity.dtype == paddle.float32
        pruned = weight.astype("float32").numpy() == 0
        assert pruned.mean() == 0.75
        np.testing.assert_array_equal(master.numpy() == 0, pruned)
        assert (velocity.numpy()[pruned] == 0).all()
        assert (velocity.numpy() != 0).any()
        assert bool((master.astype("bfloat16").astype("float32") == weight.astype("float32")).all())
        assert bool((master != weight.astype("float32")).any())  # more precise than a copy of the weight


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_step_skipped_by_the_grad_scaler_changes_no_weight_and_is_not_counted(first_digits, accumulate):
    class RecordWeights(paddle.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.after_each_batch = []

        def on_train_batch_end(self, step, logs=None):
            self.after_each_batch.append(
                {name: tensor.astype("float32").numpy() for name, tensor in self.model.network.state_dict().items()}
            )

    recorded = RecordWeights()
    scaler = gpu_grad_scaler(init_loss_scaling=2.0**127)  # overflows until it has been halved a few times
    _, _, steps = fit(
        first_digits,
        TanhNetwork(),
        optimizer="SGD",
        learning_rate=5e-4,
        loss=LargeLoss(),
        amp="O1",
        scaler=scaler,
        callbacks=[recorded],
        accumulate_grad_batches=accumulate,
        pruning_iterations=3,
    )
    unskipped = expected_steps(accumulate)
    skipped = unskipped[-1] - steps[-1]
    assert skipped >= 1
    assert scaler.is_enable()
    assert float(scaler._scale) == 2.0 ** (127 - skipped)
    weights = recorded.after_each_batch
    for current, previous, step, previous_step in zip(weights[1:], weights, steps[1:], steps):
        assert step - previous_step in (0, 1)
        has_changed = any((current[name] != previous[name]).any() for name in current)
        assert has_changed == (step > previous_step)


def test_a_nan_loss_whose_step_the_grad_scaler_skips_is_no_divergence(digits):
    images, labels = digits[:160]
    images = images.clone()
    images[85, 0, 3, 3] = np.nan
    scaler = gpu_grad_scaler()
    losses = []

    class RecordLosses(paddle.callbacks.Callback):
        def on_train_batch_end(self, step, logs=None):
            losses.extend(logs["loss"])

    _, _, steps = fit(
        paddle.io.TensorDataset([images, labels]),
        TanhNetwork(),
        amp="O1",
        scaler=scaler,
        callbacks=[RecordLosses()],
        shuffle=False,
    )
    assert np.isnan(losses).nonzero()[0].tolist() == [5, 15, 25]
    assert steps[-1] == EPOCHS * (BATCHES - 1)


def test_after_training_with_ema_the_master_weights_equal_the_averaged_weights(first_digits):
    model, sparsity, _ = fit(
        first_digits,
        BFloat16Network(),
        optimizer="MasterMomentum",
        learning_rate=0.1,
        callbacks=[EMACallback(decay=0.9)],
    )
    for weight in sparsity.pruner.weights:
        master = model._optimizer._master_weights[weight.name].numpy()
        # Otherwise the next optimizer step would undo the average.
        np.testing.assert_array_equal(weight.astype("float32").numpy(), master)


def test_a_training_with_master_weights_and_loss_scaling_resumes_bit_for_bit(first_digits, tmp_path):
    def train(epochs, resume=None):
        with paddle.utils.unique_name.guard():
            network = BFloat16Network()
            model = paddle.Model(network)
            model.prepare(
                MasterMomentum(0.1, parameters=network.parameters(), multi_precision=True), nn.CrossEntropyLoss()
            )
            model._scaler = gpu_grad_scaler()
            sparsity = SparsityCallback(ratio=0.75, pruning_epochs=2, tunning_epochs=1, pruning_steps=5, resume=resume)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(
                    first_digits,
                    epochs=epochs,
                    batch_size=40,
                    verbose=0,
                    shuffle=False,
                    callbacks=[*([] if resume else [Checkpoints(tmp_path)]), sparsity],
                )
        optimizer = model._optimizer
        state = [*optimizer._master_weights.values(), *optimizer._accumulators["velocity"].values()]
        return [tensor.astype("float32").numpy() for tensor in [*network.parameters(), *state, model._scaler._scale]]

    uninterrupted = train(3)
    assert load_arrays(tmp_path / "1.pdopt")["master_weights"]
    assert (tmp_path / "1.pdscaler").is_file()
    assert len(uninterrupted) > 15
    resumed = train(1, tmp_path / "1.pdsparse")
    assert len(resumed) == len(uninterrupted)
    for expected, actual in zip(uninterrupted, resumed):
        np.testing.assert_array_equal(actual, expected)
