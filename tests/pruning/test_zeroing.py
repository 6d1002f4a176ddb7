import numpy as np
import paddle
import pytest

from paddle_sparse_cb.pruning.zeroing import count_alive, make_zeroing, make_zeroing_on_device, make_zeroing_on_host


@pytest.fixture
def mask():
    return paddle.to_tensor([[True, False, True], [False, True, False]])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_pruned_weights_become_zero_and_the_others_stay_as_they_are(mask, dtype):
    tensor = paddle.to_tensor([[1.5, -2.0, -3.0], [4.0, 5e-3, -6.0]]).astype(dtype)
    before = tensor.astype("float32").numpy()
    make_zeroing(tensor, mask)()
    np.testing.assert_array_equal(tensor.astype("float32").numpy(), np.where(mask.numpy(), before, 0))


def test_on_the_host_a_pruned_nan_infinity_or_negative_zero_becomes_positive_zero(mask):
    tensor = paddle.to_tensor([[np.nan, np.nan, 1.0], [np.inf, 2.0, -0.0]], "float32")
    make_zeroing(tensor, mask)()
    bits = tensor.numpy().view("uint32")
    assert (bits[~mask.numpy()] == 0).all()
    assert np.isnan(tensor.numpy()[0, 0])  # kept, and so not hidden


def test_host_and_device_zero_the_same_weights(mask):
    values = paddle.randn([2, 3])
    host, device = values.clone(), values.clone()
    make_zeroing_on_host(host, mask)()
    with paddle.no_grad():
        make_zeroing_on_device(device, mask)()
    np.testing.assert_array_equal(host.numpy(), np.where(mask.numpy(), values.numpy(), 0))
    np.testing.assert_array_equal(device.numpy(), host.numpy())


def test_zeroing_follows_a_tensor_whose_memory_is_replaced(mask):
    tensor = paddle.ones([2, 3])
    zero = make_zeroing(tensor, mask)
    zero()
    other = paddle.full([2, 3], 7.0, "float64")
    other._share_buffer_to(tensor)
    assert tensor.data_ptr() == other.data_ptr()
    zero()
    np.testing.assert_array_equal(other.numpy() == 0, ~mask.numpy())


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_values_that_a_mask_prunes_and_that_are_not_zero_are_counted(mask, dtype):
    tensor = paddle.to_tensor([[1.5, -0.0, -3.0], [4.0, 5e-3, 0.0]]).astype(dtype)
    assert count_alive(tensor, mask) == 1


def test_in_a_large_tensor_each_value_is_counted():
    tensor, mask = paddle.zeros([1200, 1100]), paddle.zeros([1200, 1100], "bool")
    tensor[1199, 1099], tensor[0, 0] = 1e-45, np.nan
    assert count_alive(tensor, mask) == 2
