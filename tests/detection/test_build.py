import contextlib

import numpy as np
import paddle
import pytest
from helpers import RECIPES
from paddle.static import InputSpec

from paddle_sparse_cb import InputError, make_plan
from paddle_sparse_cb.detection import config
from paddle_sparse_cb.detection.build import build_detector, build_metric
from paddle_sparse_cb.detection.metric import CocoMAP
from paddle_sparse_cb.detection.network import LOSS_NAMES, DetectionLoss, build_network


@pytest.fixture
def content():
    """The demo's recipe on a few small images."""
    content = config.read_with_bases(RECIPES / "picodet_s_416_trees.yml")
    content["TrainDataset"]["sample_num"] = content["EvalDataset"]["sample_num"] = 2
    content["TrainReader"].update(batch_size=2)
    content["TrainReader"]["batch_transforms"][0]["BatchRandomResize"]["target_size"] = [192]
    return content


def test_a_detector_trains_and_is_measured_through_paddle_model(content):
    detector = build_detector(content, "r.yml")
    before = detector.network.backbone.conv1.conv.weight.numpy()
    detector.model.fit(detector.train_loader, epochs=1, verbose=0)
    assert not np.array_equal(detector.network.backbone.conv1.conv.weight.numpy(), before)
    result = detector.model.evaluate(detector.eval_loader, verbose=0)
    assert {"mAP", "AP50"} <= result.keys()
    assert np.isfinite(result["mAP"])


def test_the_losses_of_a_batch_come_in_the_order_of_their_names(content):
    detector = build_detector(content, "r.yml")
    network = detector.network
    batch = next(iter(detector.train_loader))
    losses = [float(loss) for loss in DetectionLoss()(*network(*batch))]
    inputs = dict(zip(("image", "scale_factor", "im_id", "gt_bbox", "gt_class", "pad_gt_mask"), batch), epoch_id=0)
    theirs = network.detector(inputs)
    assert DetectionLoss.names == LOSS_NAMES
    assert losses == pytest.approx([float(theirs[name]) for name in LOSS_NAMES], rel=1e-3)
    assert len(set(losses)) == 3


def test_a_plan_is_the_same_before_and_after_the_depthwise_convolutions_are_replaced(content):
    spec = [InputSpec([1, 3, 64, 64], "float32"), InputSpec([1, 2], "float32"), InputSpec([1, 1], "int64")]
    plain = build_network(config.load(content, "r.yml"))
    assert str(make_plan(plain, spec)) == str(make_plan(build_detector(content, "r.yml").network, spec))


def test_equal_seeds_give_equal_weights(content):
    def weights():
        paddle.seed(3)
        return {name: value.numpy() for name, value in build_detector(content, "r.yml").network.state_dict().items()}

    first, second = weights(), weights()
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_mixed_precision_and_unused_parameters_are_given_to_paddle_model(content, monkeypatch):
    given = []
    monkeypatch.setattr(
        "paddle_sparse_cb.detection.compat.find_unused_parameters",
        lambda find: given.append(find) or contextlib.nullcontext(),
    )
    detector = build_detector(content, "r.yml", amp={"level": "O1"}, find_unused_parameters=True)
    assert detector.model._adapter._amp_level == "O1"
    assert given == [True]
    assert build_detector(content, "r.yml").model._adapter._amp_level == "O0"
    assert given == [True, False]


def test_the_metric_measures_the_images_of_the_evaluation_loader(content):
    detector = build_detector(content, "r.yml")
    metric = build_metric(detector.eval_loader)
    assert isinstance(metric, CocoMAP)
    ids = [int(number) for *_, batch in detector.eval_loader for number in batch.numpy().ravel()]
    for number in ids:
        metric.update(np.full((1, 1, 6), -1, "float32"), np.array([[number]]))
    assert metric.accumulate() == [0.0, 0.0]


def test_an_error_of_any_part_is_an_input_error(content):
    content["LCNet"]["scale"] = "wide"
    with pytest.raises(InputError, match="PicoDet: cannot be created from the recipe"):
        build_detector(content, "r.yml")
