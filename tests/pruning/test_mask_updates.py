import numpy as np
import paddle
import pytest
from helpers import Pointwise

from paddle_sparse_cb import GMPPruner
from paddle_sparse_cb.pruning.mask_updates import (
    MaskRecorder,
    count_changes_on_device,
    count_changes_on_host,
    smallest_on_device,
    smallest_on_host,
)

SCHEDULE = {"pruning_iterations": 4, "pruning_steps": 4, "initial_ratio": 0.2}


def keeps(pruner):
    """The masks as arrays, all True where a layer has none."""
    return [
        pruner.masks[weight.name].numpy() if weight.name in pruner.masks else np.ones(weight.shape, bool)
        for weight in pruner.weights
    ]


@pytest.mark.parametrize("regrow", [False, True])
@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_each_update_is_recorded_with_the_weights_that_changed_sides(regrow, scope):
    pruner = GMPPruner(
        Pointwise(), 0.75, prune_params_type="conv1x1_only", configs=SCHEDULE, scope=scope, regrow=regrow
    )
    recorder, total = MaskRecorder(pruner), sum(weight.size for weight in pruner.weights)
    assert (recorder.updates, recorder.last.sparsity, recorder.thresholds()) == (0, 0.0, [])
    regrown = 0
    for step in range(1, 7):
        before = keeps(pruner)
        pruner.step()
        after, last = keeps(pruner), recorder.last
        assert last.ratios == tuple(1 - keep.mean() for keep in after)
        assert last.sparsity == sum((~keep).sum() for keep in after) / total == pruner.sparsity()
        if step <= 5:  # the ratio rises in each of these steps
            assert (last.step, recorder.updates) == (step, step)
            assert last.newly_pruned == sum((old & ~new).sum() for old, new in zip(before, after)) > 0
            assert last.regrown == sum((~old & new).sum() for old, new in zip(before, after))
            regrown += last.regrown
        assert recorder.updates == min(step, 5)
        for weight in pruner.weights:  # as momentum would, so that pruned weights can come back
            weight.set_value(weight + 0.1 * paddle.randn(weight.shape))
    assert (regrown > 0) == regrow


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_thresholds_are_the_smallest_kept_magnitudes(network, dtype):
    network.to(dtype=dtype)
    pruner = GMPPruner(network, 0.75, prune_params_type="conv1x1_only", configs={**SCHEDULE, "initial_ratio": 0.75})
    recorder = MaskRecorder(pruner)
    pruner.step()
    kept = [weight.astype("float64").numpy().ravel() for weight in pruner.weights]
    expected = [np.abs(values[values != 0]).min() for values in kept]
    np.testing.assert_allclose(recorder.thresholds(), expected, rtol=1e-6)


def test_thresholds_of_blocks_are_their_l1_norms(network):
    pruner = GMPPruner(
        network,
        0.75,
        prune_params_type="conv1x1_only",
        local_sparsity=True,
        sparse_block=(2, 4),
        configs={**SCHEDULE, "initial_ratio": 0.75},
    )
    recorder = MaskRecorder(pruner)
    pruner.step()
    norms = [
        np.abs(weight.numpy()).reshape(weight.shape[0] // 2, 2, weight.shape[1] // 4, 4).sum(axis=(1, 3))
        for weight in pruner.weights
    ]
    np.testing.assert_allclose(recorder.thresholds(), [norm[norm > 0].min() for norm in norms], rtol=1e-6)


def test_changes_on_a_device_are_counted_as_on_the_host():
    old, new = (paddle.rand([50, 7]) > 0.5 for _ in range(2))
    for before, now in ((old, new), (None, new), (old, None), (None, None)):
        counts = [int(count) for count in count_changes_on_device(before, now)]
        assert counts == count_changes_on_host(before, now)


def test_masks_of_an_already_sparse_network_are_described_before_the_first_update(network):
    mask = (paddle.rand(network.expand.weight.shape) > 0.5).astype("float32")
    network.expand.weight.set_value(network.expand.weight * mask)
    pruner = GMPPruner(network, 0.75, prune_params_type="conv1x1_only", configs=SCHEDULE)
    assert MaskRecorder(pruner).last.sparsity == pruner.sparsity() > 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [5, (1 << 18) + 3])  # one chunk and two
def test_the_smallest_magnitude_is_exact_on_the_host_and_on_a_device(dtype, size):
    values = (np.random.uniform(1, 2, size) * np.random.choice([-1, 1], size)).astype(dtype)
    values[-3:] = [-0.0, 0.0, -1e-40]  # a subnormal number in float32
    weight = paddle.to_tensor(values.reshape(1, -1), dtype)
    assert smallest_on_host(weight) == np.abs(values[-1])
    assert int(smallest_on_device(weight, (1, 1))) == np.abs(values[-1:]).view(dtype.replace("float", "int"))[0]


def test_a_tensor_of_zeros_has_no_smallest_magnitude():
    assert smallest_on_host(paddle.zeros([3])) == 0
