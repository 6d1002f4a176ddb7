import numpy as np
import paddle
import pytest

from paddle_sparse_cb.utils.float_bits import count_zero_bits, host_bits, is_on_host, magnitude_bits, magnitudes

ASCENDING = [0.0, 4e-45, 1e-44, 1e-9, 2e-9, 0.5, 3.0, np.inf]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_bits_are_ordered_as_the_magnitudes_and_zero_for_zeros_only(dtype, sign):
    values = [0.0, 0.125, 0.5, 3.0, np.inf, np.nan]
    tensor = paddle.to_tensor([sign * value for value in values], "float32").astype(dtype)
    on_host = magnitudes(host_bits(tensor)).tolist()
    for bits in (magnitude_bits(tensor).numpy().tolist(), on_host):
        assert bits[0] == 0
        assert bits == sorted(set(bits))


def test_numbers_that_paddle_takes_for_zero_or_equal_have_bits_of_their_own():
    tensor = paddle.to_tensor(ASCENDING, "float32")
    if paddle.__version__ < "3":
        assert bool((tensor[:5] == 0).all())  # the defect that the bits avoid
    for bits in (magnitude_bits(tensor).numpy().tolist(), magnitudes(host_bits(tensor)).tolist()):
        assert bits == sorted(set(bits))
    assert count_zero_bits(host_bits(tensor)) == 1


def test_what_is_written_to_the_bits_of_a_tensor_is_in_the_tensor():
    tensor = paddle.to_tensor([[1.0, 2.0], [3.0, 4.0]])
    host_bits(tensor)[1:3] = 0
    assert tensor.numpy().tolist() == [[1.0, 0.0], [0.0, 4.0]]


def test_a_tensor_whose_elements_are_not_in_order_is_not_accessed():
    tensor = paddle.rand([4, 6])
    assert is_on_host(tensor)
    if hasattr(tensor, "strides") and not tensor.transpose([1, 0]).is_contiguous():
        assert not is_on_host(tensor.transpose([1, 0]))


@pytest.mark.parametrize("zeros", [0, 1, 300_000])
def test_zeros_are_counted_over_all_chunks(zeros):
    values = np.ones(600_001, "float32")
    values[600_001 - zeros :] = -0.0
    assert count_zero_bits(host_bits(paddle.to_tensor(values))) == zeros
