import copy

import numpy as np
import paddle
import pytest
from paddle import nn

from paddle_sparse_cb.detection.depthwise import use_fast_depthwise
from paddle_sparse_cb.detection.network import build_network


def results(network, image):
    """Returns the output, and the gradients of the image and of the weight."""
    image = paddle.to_tensor(image, stop_gradient=False)
    out = network(image)
    (out * paddle.linspace(-1, 2, out.size).reshape(out.shape)).sum().backward()
    return [tensor.numpy() for tensor in (out, image.grad, network[0].weight.grad)]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [
        ((12, 9), 3, 1, 1),
        ((12, 9), 3, 2, 1),
        ((7, 8), 5, 1, 2),
        ((7, 8), 5, 2, 2),
        ((5, 5), 5, 1, 0),
        ((9, 8), 7, 2, 3),
        ((8, 9), 2, 1, 1),
    ],
)
def test_output_and_gradients_equal_those_of_paddle(size, kernel, stride, padding):
    network = nn.Sequential(nn.Conv2D(6, 6, kernel, stride, padding, groups=6, bias_attr=False))
    image = np.random.randn(3, 6, *size).astype("float32")
    theirs = results(network, image)
    network[0].weight.clear_grad()
    assert use_fast_depthwise(network) == 1
    for ours, their in zip(results(network, image), theirs):
        np.testing.assert_allclose(ours, their, rtol=1e-5, atol=1e-5)


def test_other_convolutions_keep_the_computation_of_paddle():
    others = [
        nn.Conv2D(4, 4, 3),
        nn.Conv2D(4, 4, 3, groups=2),
        nn.Conv2D(4, 8, 3, groups=4, bias_attr=False),
        nn.Conv2D(4, 4, 3, groups=4),
        nn.Conv2D(4, 4, 3, groups=4, dilation=2, bias_attr=False),
        nn.Conv2D(4, 4, 3, groups=4, padding=3, bias_attr=False),
        nn.Conv2D(4, 4, 3, groups=4, padding="SAME", bias_attr=False),
        nn.Conv2D(4, 4, 3, groups=4, padding=1, padding_mode="reflect", bias_attr=False),
    ]
    assert use_fast_depthwise(nn.LayerList(others)) == 0


def test_a_detector_keeps_its_outputs_and_names(registry):
    network = build_network(registry)
    network.eval()
    names = list(network.state_dict())
    fast = copy.deepcopy(network)
    assert use_fast_depthwise(fast) == 33
    assert list(fast.state_dict()) == names
    image = paddle.randn([1, 3, 64, 64])
    maps = [each.neck(each.backbone({"image": image})) for each in (fast, network)]
    for ours, theirs in zip(*maps):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-3, atol=1e-4)


def test_an_input_that_is_changed_in_place_is_an_error_and_no_wrong_gradient():
    network = nn.Sequential(nn.Conv2D(6, 6, 3, padding=1, groups=6, bias_attr=False))
    use_fast_depthwise(network)
    image = paddle.rand([1, 6, 5, 5]) * 1
    loss = network(image).sum()
    image.add_(paddle.ones_like(image))
    with pytest.raises((OSError, RuntimeError), match="in place"):  # Paddle 2.6 raises errors of backward as OSError
        loss.backward()
