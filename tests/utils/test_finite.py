import numpy as np
import paddle
import pytest
from helpers import Pointwise, classifier
from paddle import nn

from paddle_sparse_cb import Checkpoints, GMPPruner, SparsityCallback
from paddle_sparse_cb.errors import DivergenceError
from paddle_sparse_cb.utils.finite import check_finite, check_finite_loss, make_finite_check

CONFIGS = {"pruning_iterations": 3, "pruning_steps": 3, "initial_ratio": 0.15}


def put(tensor, value, place=0):
    """Sets one element of a tensor."""
    flat = tensor.astype("float32").numpy().ravel()
    flat[place] = value
    tensor.set_value(paddle.to_tensor(flat.reshape(tensor.shape)).astype(tensor.dtype))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("place", [0, 300_000])  # in the first chunk and in the last one
def test_one_value_that_is_not_finite_is_found_among_many(dtype, place):
    tensor = paddle.randn([300_001]).astype(dtype)
    put(tensor, -6e4, place)  # large, but finite in each of the types
    finite = make_finite_check(tensor)
    assert finite()
    for value in (np.nan, np.inf, -np.inf):
        put(tensor, value, place)
        assert not finite()
    put(tensor, 0, place)
    assert finite()


def test_the_check_follows_a_tensor_whose_memory_is_replaced():
    tensor, other = paddle.ones([4]), paddle.to_tensor([1.0, 1.0, 1.0, np.nan], "float64")
    finite = make_finite_check(tensor)
    other._share_buffer_to(tensor)
    assert not finite()


@pytest.mark.parametrize("name", ["project.weight", "depthwise.bias", "bn._variance"])
def test_the_first_parameter_that_is_not_finite_is_named(network, name):
    check_finite(network, "checkpoint 7")
    put(network.state_dict()[name], np.inf)
    with pytest.raises(DivergenceError, match=f"checkpoint 7: the training diverged: {name} is not finite"):
        check_finite(network, "checkpoint 7")


def test_integers_and_infinite_buffers_are_allowed():
    network = nn.Linear(2, 2)
    network.register_buffer("attention", paddle.to_tensor([0.0, -np.inf]))
    network.register_buffer("count", paddle.to_tensor([3]))
    check_finite(network, "checkpoint 7")


@pytest.mark.parametrize("losses", [[np.nan], [0.5, np.inf], np.nan])
def test_a_loss_that_is_not_finite_is_an_error_with_its_step(losses):
    check_finite_loss([0.5, 1.5], 12)
    check_finite_loss(None, 12)  # hapi logs none without a loss function
    with pytest.raises(DivergenceError, match=r"diverged: the loss is (0.5, )?(nan|inf) at optimizer step 12"):
        check_finite_loss(losses, 12)


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_masks_are_not_updated_from_weights_that_are_not_finite(network, scope, value):
    pruner = GMPPruner(network, ratio=0.75, prune_params_type="conv1x1_only", scope=scope, configs=CONFIGS)
    pruner.step()
    masks = {name: mask.numpy().copy() for name, mask in pruner.masks.items()}
    alive = int(np.flatnonzero(network.project.weight.numpy().ravel())[-1])
    put(network.project.weight, value, alive)
    with pytest.raises(DivergenceError, match="diverged: project.weight is not finite at optimizer step 2"):
        pruner.step()
    assert pruner.masks.keys() == masks.keys()
    for name, mask in masks.items():
        np.testing.assert_array_equal(pruner.masks[name].numpy(), mask)


def test_weights_are_not_checked_between_mask_updates(network):
    pruner = GMPPruner(network, ratio=0.75, prune_params_type="conv1x1_only", configs={**CONFIGS, "pruning_steps": 1})
    pruner.step()
    put(network.project.weight, np.nan, int(np.flatnonzero(network.project.weight.numpy().ravel())[0]))
    pruner.step()


class Smooth(nn.Sequential):
    """A network without ReLU, which turns NaN into zeros."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))


class HugeLearningRate(paddle.callbacks.Callback):
    """Raises the learning rate before a batch, counted from 1, so that the training diverges."""

    def __init__(self, batch):
        super().__init__()
        self.remaining = batch

    def on_train_batch_begin(self, step, logs=None):
        self.remaining -= 1
        if self.remaining == 0:
            self.model._optimizer.set_lr(1e30)


def train(data, folder, *callbacks, accumulate=1, network=Pointwise, **keywords):
    """Trains with checkpoints; returns the model, the callback and the message of a divergence, or None."""
    model = classifier(network(), optimizer="SGD")
    sparsity = SparsityCallback(ratio=0.75, **{"pruning_epochs": 1, "tunning_epochs": 1, **keywords})
    try:
        model.fit(
            data,
            epochs=3,
            batch_size=16,
            verbose=0,
            shuffle=False,
            accumulate_grad_batches=accumulate,
            callbacks=[sparsity, Checkpoints(folder), *callbacks],
        )
    except DivergenceError as error:
        return model, sparsity, str(error)
    return model, sparsity, None


@pytest.mark.parametrize("keywords", [{}, {"stable_epochs": 1, "pruning_epochs": 1}], ids=["pruned", "not yet pruned"])
def test_a_huge_learning_rate_ends_the_training_and_keeps_the_last_finite_checkpoint(first_digits, tmp_path, keywords):
    model, sparsity, error = train(first_digits, tmp_path, HugeLearningRate(batch=13), **keywords)
    assert error.startswith("the training diverged: ")
    step = int(error.split("optimizer step ")[1])
    assert 13 <= step <= 15
    assert sparsity.pruner.cur_iteration == step
    assert sorted(path.name for path in tmp_path.glob("*.pdparams")) == ["0.pdparams"]
    saved = paddle.load(str(tmp_path / "0.pdparams"))
    assert all(bool(paddle.isfinite(tensor).all()) for tensor in saved.values())
    assert not {"step", "minimize"} & vars(model._optimizer).keys()


def test_training_can_be_resumed_from_the_checkpoint_before_the_divergence(first_digits, tmp_path):
    model, _, _ = train(first_digits, tmp_path, HugeLearningRate(batch=13))
    model.load(str(tmp_path / "0"))
    model._optimizer.set_lr(0.01)
    sparsity = SparsityCallback(ratio=0.75, pruning_epochs=1, tunning_epochs=1, resume=tmp_path / "0.pdsparse")
    model.fit(first_digits, epochs=2, batch_size=16, verbose=0, shuffle=False, callbacks=[sparsity])
    check_finite(model.network, "here")
    assert sparsity.pruner.cur_iteration == 30
    assert sparsity.pruner.sparsity() == 0.75


def with_nan(digits):
    """Returns 160 digits, with a NaN in the sixth batch of 16."""
    images, labels = digits[:160]
    images = images.clone()
    images[85, 0, 3, 3] = np.nan
    return paddle.io.TensorDataset([images, labels])


@pytest.mark.parametrize("accumulate", [1, 4])
def test_nan_in_the_data_ends_the_training_in_its_batch(digits, tmp_path, accumulate):
    data = with_nan(digits)
    _, _, error = train(data, tmp_path, accumulate=accumulate, network=Smooth, prune_params_type=None, stable_epochs=1)
    # With four batches per step, the sixth batch belongs to the second step, which is not taken.
    done = {1: 6, 4: 1}[accumulate]
    assert error == f"the training diverged: the loss is nan at optimizer step {done}"
    assert not list(tmp_path.glob("*.pdparams"))


def test_nan_that_a_relu_hides_from_the_loss_is_found_before_a_checkpoint(digits):
    model = classifier(Pointwise())
    losses = []

    class RecordLoss(paddle.callbacks.Callback):
        def on_train_batch_end(self, step, logs=None):
            losses.append(logs["loss"])

    model.fit(with_nan(digits), batch_size=16, verbose=0, shuffle=False, callbacks=[RecordLoss()])
    assert len(losses) == 10
    assert np.isfinite(losses).all()
    with pytest.raises(DivergenceError, match="is not finite"):
        check_finite(model.network, "checkpoint 0")


def test_a_training_that_does_not_diverge_runs_to_its_end(first_digits, tmp_path):
    _, sparsity, error = train(first_digits, tmp_path)
    assert error is None
    assert sparsity.pruner.cur_iteration == 30
    assert (tmp_path / "final.pdparams").is_file()
