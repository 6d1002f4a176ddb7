import numpy as np
import paddle
import pytest

from paddle_sparse_cb.pruning import zeroing as module
from paddle_sparse_cb.pruning.zeroing import zeroing


@pytest.fixture
def mask():
    return paddle.to_tensor([[True, False, True], [False, True, False]])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_what_the_mask_drops_is_zero_and_the_rest_untouched(mask, dtype):
    tensor = paddle.to_tensor([[1.5, -2.0, -3.0], [4.0, 5e-3, -6.0]]).astype(dtype)
    before = tensor.astype("float32").numpy()
    zeroing(tensor, mask)()
    np.testing.assert_array_equal(tensor.astype("float32").numpy(), np.where(mask.numpy(), before, 0))


def test_on_the_host_nothing_survives_it_neither_nan_nor_a_sign(mask):
    tensor = paddle.to_tensor([[np.nan, np.nan, 1.0], [np.inf, 2.0, -1.0]], "float32")
    zeroing(tensor, mask)()
    bits = tensor.numpy().view("uint32")
    assert (bits[~mask.numpy()] == 0).all()
    assert np.isnan(tensor.numpy()[0, 0])


def test_host_and_device_zero_the_same(mask):
    values = paddle.randn([2, 3])
    host, device = values.clone(), values.clone()
    module._on_host(host, mask)()
    with paddle.no_grad():
        module._on_device(device, mask)()
    np.testing.assert_array_equal(host.numpy(), device.numpy())


def test_a_tensor_that_has_been_given_other_memory_is_zeroed_there(mask):
    tensor = paddle.ones([2, 3])
    zero = zeroing(tensor, mask)
    zero()
    other = paddle.full([2, 3], 7.0, "float64")
    other._share_buffer_to(tensor)
    assert tensor.data_ptr() == other.data_ptr()
    zero()
    np.testing.assert_array_equal(other.numpy() == 0, ~mask.numpy())
