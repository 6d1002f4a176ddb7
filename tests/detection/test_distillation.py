"""What a PicoDet teaches another: terms against NumPy, for both kinds of heads."""

import copy

import numpy as np
import paddle
import pytest
from helpers import RECIPES

from paddle_sparse_cb import InputError
from paddle_sparse_cb.detection import config
from paddle_sparse_cb.detection.distillation import DetectionDistillation, TeacherNetwork, check_teacher, head_outputs
from paddle_sparse_cb.detection.network import build_network
from paddle_sparse_cb.utils.layers import network_digest

BINS = 8


def build(recipe="picodet_s_416_trees.yml", **settings):
    content = config.read_with_bases(RECIPES / recipe)
    config.merge(settings, content)
    return build_network(config.load(content, recipe))


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def expected_terms(scores, targets, sides, target_sides):
    """The formulas place by place; arrays of shape [b, places, ...] in float64."""
    entropy = -(targets * np.log(scores) + (1 - targets) * np.log(1 - scores))
    best = targets.max(-1)
    ours, theirs = softmax(sides), softmax(target_sides)
    divergence = (theirs * (np.log(theirs) - np.log(ours))).sum(-1).mean(-1)
    places = max(best.sum(), 1)
    return ((scores - targets) ** 2 * entropy).sum() / places, (best * divergence).sum() / places


@pytest.mark.parametrize("high", [0.9, 0.001])  # of so few objects that the sum of scores is below 1
def test_the_terms_are_those_of_the_papers(high):
    rng = np.random.default_rng(4)
    scores, targets = rng.uniform(0.0001, high, [2, 2, 9, 3])
    sides, target_sides = rng.normal(size=[2, 2, 9, 4, BINS])
    outputs, teacher_outputs = (
        [paddle.to_tensor(one.astype("float32")), paddle.to_tensor(other.reshape([2, 9, -1]).astype("float32"))]
        for one, other in ((scores, sides), (targets, target_sides))
    )
    found = DetectionDistillation(0.7, 0.3)(outputs, teacher_outputs)
    classification, localization = expected_terms(scores, targets, sides, target_sides)
    np.testing.assert_allclose(float(found["classification"]), 0.7 * classification, rtol=1e-4)
    np.testing.assert_allclose(float(found["localization"]), 0.3 * localization, rtol=1e-4)
    assert set(DetectionDistillation(0.7, 0)(outputs, teacher_outputs)) == {"classification"}
    assert set(DetectionDistillation(0, 0.3)(outputs, teacher_outputs)) == {"localization"}


def test_both_kinds_of_heads_give_scores_and_sides_by_place():
    rng = np.random.default_rng(5)
    logits = [paddle.to_tensor(rng.normal(size=[2, 3, size, size]).astype("float32")) for size in (4, 2)]
    maps = [paddle.to_tensor(rng.normal(size=[2, 4 * BINS, size, size]).astype("float32")) for size in (4, 2)]
    scores, sides = head_outputs((logits, maps))
    assert (scores.shape, sides.shape) == ([2, 20, 3], [2, 20, 4, BINS])
    for batch, place, level, row, column in ((1, 6, 0, 1, 2), (0, 18, 1, 1, 0)):
        logit, side = logits[level][batch, :, row, column].numpy(), maps[level][batch, :, row, column].numpy()
        np.testing.assert_allclose(scores[batch, place].numpy(), 1 / (1 + np.exp(-logit)), rtol=1e-5)
        np.testing.assert_array_equal(sides[batch, place].numpy().ravel(), side)
    again = head_outputs((scores, sides.reshape([2, 20, -1]), None, None))
    np.testing.assert_array_equal(again[0].numpy(), scores.numpy())
    np.testing.assert_array_equal(again[1].numpy(), sides.numpy())


@pytest.mark.parametrize("recipe", ["picodet_s_416_trees.yml", "picodet_s_320_coco.yml"])  # PicoHeadV2, PicoHead
def test_a_teacher_returns_the_training_outputs_of_its_head_in_evaluation_mode(recipe):
    network = build(recipe)
    images = paddle.rand([2, 3, 64, 64])
    teacher = TeacherNetwork(network)
    teacher.eval()
    digest = network_digest(teacher)
    with paddle.no_grad():
        outputs = teacher(images, "what else a batch has is not used")
    assert network_digest(teacher) == digest
    assert not any(layer.training for layer in teacher.sublayers())
    features = network.neck(network.backbone({"image": images}))
    expected = head_outputs(network.head.forward_train(features))
    for ours, theirs in zip(head_outputs(outputs), expected):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    scores, sides = head_outputs(outputs)
    assert scores.shape == [2, scores.shape[1], network.head.num_classes]
    assert sides.shape == [2, scores.shape[1], 4, network.head.reg_max + 1]


def test_a_network_has_nothing_to_learn_from_itself_but_the_entropy_of_no_difference():
    network = build()
    teacher = TeacherNetwork(copy.deepcopy(network))
    for layers in (network, teacher):
        layers.eval()
    images = paddle.rand([1, 3, 64, 64])
    terms = DetectionDistillation()(TeacherNetwork(network)(images), teacher(images))
    assert [float(term) for term in terms.values()] == [0, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 3}, "the teacher must have the num_classes of this recipe, 1, got 3"),
        ({"PicoHeadV2": {"reg_max": 11}}, "the teacher must have the reg_max of this recipe, 7, got 11"),
    ],
)
def test_a_teacher_with_another_head_is_an_input_error(settings, message):
    with pytest.raises(InputError, match=message):
        check_teacher(build(), build(**settings))


def test_heads_of_other_places_are_an_input_error():
    one, other = ([paddle.rand([1, places, 2]), paddle.rand([1, places, 4 * BINS])] for places in (4, 5))
    with pytest.raises(InputError, match=r"scores have shape \[1, 5, 2\] and \[1, 4, 2\]"):
        DetectionDistillation()(one, other)


def test_without_boxes_a_training_batch_gives_what_the_head_predicts():
    network = build()
    network.train()
    scores, sides = network(paddle.rand([2, 3, 64, 64]), paddle.ones([2, 2]), paddle.zeros([2, 1], "int64"))
    assert scores.shape[:2] == sides.shape[:2]
    (scores.sum() + sides.sum()).backward()
    assert float(network.backbone.conv1.conv.weight.grad.abs().sum()) > 0
