import numpy as np
import pytest
from helpers import CORE_ONLY, PADDLE3, Pointwise, slim_checkpoint

from paddle_sparse_cb import InputError, apply_paddleslim_masks

PRUNED = {"expand.weight", "squeeze.1.weight", "squeeze.3.weight", "project.weight", "strided.weight"}


@pytest.mark.skipif(PADDLE3, reason="PaddleSlim's masks do not survive an update there")
def test_paddleslims_masks_are_applied_and_removed():
    network = Pointwise()
    names = list(network.state_dict())
    pruner, saved = slim_checkpoint(network)
    assert len(saved) > len(names)
    assert (saved["expand.weight"] == 0).mean() < 0.05  # dense where the masks say zero
    arrays, masked = apply_paddleslim_masks(saved)
    assert list(arrays) == names
    assert set(masked) == PRUNED
    for name, parameter in network.named_parameters():
        mask = pruner.masks[parameter.name].numpy().astype(bool)
        np.testing.assert_array_equal(arrays[name], np.where(mask, saved[name], 0))
        assert arrays[name].dtype == saved[name].dtype
    assert (arrays["expand.weight"] == 0).mean() == pytest.approx(0.6, abs=0.02)


@pytest.mark.skipif(CORE_ONLY, reason="needs PaddleDetection")
def test_averaged_masks_are_applied():
    from ppdet.optimizer import ModelEMA

    network = Pointwise()
    pruner, _ = slim_checkpoint(network)
    average = ModelEMA(network, decay=0.9)
    pruner.ratio = 0.8
    for ratio in (0.6, *[0.8] * 60):  # one mask update, long ago
        pruner.ratio = ratio
        pruner.update_threshold()
        pruner._update_masks()
        average.update()
    saved = {name: tensor.numpy() for name, tensor in average.apply().items()}
    mask = next(values for name, values in saved.items() if name.startswith("expand") and "w_0_mask" in name)
    assert mask.dtype == np.float32
    assert ((mask > 0) & (mask < 0.5)).any()
    arrays, masked = apply_paddleslim_masks(saved)
    assert set(masked) == PRUNED
    held = pruner.masks[network.expand.weight.name].numpy().astype(bool)
    np.testing.assert_array_equal(arrays["expand.weight"] == 0, ~held)


def test_a_checkpoint_without_masks_is_returned_unchanged(network):
    saved = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    arrays, masked = apply_paddleslim_masks(saved)
    assert masked == ()
    assert arrays.keys() == saved.keys()
    assert all(arrays[name] is saved[name] for name in saved)


def test_masks_that_prune_nothing_are_removed_and_name_no_weight():
    weight = np.ones((2, 3), "float32")
    saved = {"a.weight": weight, "a.linear_0_w_0_mask": np.ones((2, 3), "float32")}
    arrays, masked = apply_paddleslim_masks(saved)
    assert arrays.keys() == {"a.weight"}
    assert arrays["a.weight"] is weight
    assert masked == ()


def test_other_arrays_named_mask_are_kept():
    others = {
        "a.weight": np.ones((2, 2), "float32"),
        "a.attention_mask": np.zeros((2, 2), "float32"),
        "a.linear_0_w_0_mask": np.array([[0, 5.0], [1, 1]], "float32"),  # not between 0 and 1
        "b.linear_1_w_0_mask": np.zeros((2, 2), "float32"),  # without a weight
        "a.count_mask": 3,
    }
    arrays, masked = apply_paddleslim_masks(others)
    assert arrays.keys() == others.keys()
    assert masked == ()


def test_a_mask_that_fits_several_arrays_belongs_to_the_one_that_its_name_refers_to():
    saved = {
        "bn.weight": np.float32([1, 2]),
        "bn.bias": np.float32([3, 4]),
        "bn._mean": np.float32([5, 6]),
        "bn.batch_norm2d_0_w_0_mask": np.float32([1, 1]),
        "bn.batch_norm2d_0_b_0_mask": np.float32([0, 1]),
    }
    arrays, masked = apply_paddleslim_masks(saved)
    assert masked == ("bn.bias",)
    assert arrays["bn.bias"].tolist() == [0, 4]
    assert arrays["bn.weight"].tolist() == [1, 2]
    with pytest.raises(InputError, match="scale_mask: this mask prunes, but it may belong to any of bn.weight, .* bn."):
        apply_paddleslim_masks({**saved, "bn.scale_mask": np.array([False, True])})


def test_a_mask_of_the_network_itself_is_applied():
    arrays, masked = apply_paddleslim_masks({"weight": np.float32([[1, 2]]), "linear_0_w_0_mask": np.float32([[0, 1]])})
    assert arrays["weight"].tolist() == [[0, 2]]
    assert masked == ("weight",)
