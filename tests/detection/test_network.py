import numpy as np
import paddle
import pytest
from helpers import RECIPES
from paddle import nn
from paddle.static import InputSpec

from paddle_sparse_cb import InputError, make_plan
from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.program import read_program
from paddle_sparse_cb.detection import compat, config
from paddle_sparse_cb.detection import network as networks
from paddle_sparse_cb.detection.config import create
from paddle_sparse_cb.detection.network import DetectionLoss, DetectionNetwork, SetEpoch

SPEC = [InputSpec([1, 3, 256, 256], "float32"), InputSpec([1, 2], "float32"), InputSpec([1, 1], "int64")]


@pytest.fixture
def picodet(registry):
    return networks.build_network(registry)


def batch(images=2, size=256):
    boxes = paddle.to_tensor([[[8.0, 8, 40, 40], [0, 0, 0, 0]]] * images)
    return [
        paddle.rand([images, 3, size, size]),
        paddle.ones([images, 2]),
        paddle.arange(images).reshape([-1, 1]),
        boxes,
        paddle.zeros([images, 2, 1], dtype="int64"),
        paddle.to_tensor([[[1.0], [0.0]]] * images),
    ]


def test_state_dict_has_the_names_of_paddledetection(registry):
    detector = create("PicoDet")
    assert list(DetectionNetwork(detector).state_dict()) == list(detector.state_dict())


def test_training_returns_three_finite_losses_with_gradients(picodet):
    losses = picodet(*batch())
    assert [loss.shape for loss in losses] == [[1]] * 3
    assert all(np.isfinite(float(loss)) for loss in losses)
    paddle.add_n(DetectionLoss()(*losses)).backward()
    assert float(picodet.backbone.conv1.conv.weight.grad.abs().sum()) > 0


def test_evaluation_returns_boxes_of_a_fixed_shape_and_the_image_ids(picodet):
    picodet.eval()
    boxes, ids = picodet(*batch(3)[:3])
    assert boxes.shape == [3, 100, 6]
    assert ids.numpy().ravel().tolist() == [0, 1, 2]
    assert np.isnan(float(DetectionLoss()(boxes, ids)[0]))


def test_boxes_are_padded_with_class_minus_one(picodet):
    found = paddle.to_tensor([[0.0, 0.9, 1, 2, 3, 4], [0, 0.8, 1, 2, 3, 4], [0, 0.7, 5, 6, 7, 8]])
    padded = picodet.pad_boxes(found, paddle.to_tensor([2, 0, 1])).numpy()
    assert (padded[:, :, 0] >= 0).sum(axis=1).tolist() == [2, 0, 1]
    assert padded[2, 0, 2:].tolist() == [5, 6, 7, 8]


def test_the_squeeze_excite_blocks_at_the_ends_of_stages_are_found_by_their_blocks(picodet):
    assert picodet.stage_end_squeezes() == [f"backbone.blocks6.1.se.conv{number}.weight" for number in (1, 2)]


def test_prediction_layers_and_squeeze_excite_blocks_stay_dense(picodet):
    plan = make_plan(picodet, SPEC, skip=picodet.prediction_layers())
    dense = {layer.name: layer.reason for layer in plan.layers if not layer.pruned}
    assert len(plan.pruned) == 40
    assert all(f"head.head_{kind}{level}.weight" in dense for kind in ("cls", "reg") for level in range(4))
    squeezed = [name for name, reason in dense.items() if reason == "1x1 output"]
    assert squeezed == [f"backbone.blocks6.{block}.se.conv{conv}.weight" for block in (0, 1) for conv in (1, 2)] + [
        f"head.conv_feat.se.{level}.fc.weight" for level in range(4)
    ]


def test_set_epoch_switches_the_label_assigner(picodet):
    callback = SetEpoch()
    callback.set_model(paddle.Model(picodet, inputs=picodet.input_spec()))
    callback.on_epoch_begin(101)
    assert picodet.epoch == 101
    assert all(np.isfinite(float(loss)) for loss in picodet(*batch()))  # the task-aligned assigner


def test_the_optimizer_and_its_learning_rate_come_from_the_configuration(picodet):
    optimizer = networks.build_optimizer(picodet, steps_per_epoch=10)
    assert type(optimizer).__name__ == "AdamW"
    assert optimizer.get_lr() == pytest.approx(1e-4)  # 0.001, warmed up from a tenth


@pytest.mark.parametrize(
    "content",
    [
        {"LCNet": {"scale": 300}},
        {"LCPAN": {"out_channels": 10**7}},
        {"num_classes": 10**9},
        {"PicoHeadV2": {"conv_feat": {"num_convs": 10**9}}},
    ],
)
@pytest.mark.timeout(180)
def test_a_network_that_would_exhaust_the_memory_is_refused_before_it_is_allocated(content):
    content = config.merge(content, config.read_with_bases(RECIPES / "picodet_s_416_trees.yml"))
    make = paddle.nn.Layer.create_parameter
    with pytest.raises(InputError, match="PicoDet: the network has more than 100,000,000 weights"):
        networks.build_network(config.load(content, "r.yml"))
    assert paddle.nn.Layer.create_parameter is make


@pytest.mark.parametrize(
    "schedule",
    [
        "{name: CosineDecay, max_epochs: 1000000000}",
        "{name: ExpWarmup, epochs: 99999999}",
        "{name: LinearWarmup, steps: 100000000000}",
    ],
)
@pytest.mark.timeout(180)
def test_a_learning_rate_schedule_with_too_many_steps_is_refused(schedule):
    content = config.read_with_bases(RECIPES / "picodet_s_416_trees.yml")
    content["LearningRate"]["schedulers"][1] = config.parse_yaml(schedule)
    picodet = networks.build_network(config.load(content, "r.yml"))
    with pytest.raises(InputError, match="LearningRate: .* has .* steps, at most 20,000,000"):
        networks.build_optimizer(picodet, 10)


def test_sync_bn_is_plain_batch_norm_on_cpus(registry, monkeypatch):
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    monkeypatch.setattr("paddle.distributed.parallel._global_parallel_env", None)  # so that it is read again
    registry["norm_type"] = "sync_bn"
    network = networks.build_network(registry)
    assert paddle.distributed.get_world_size() == 2
    assert not any(isinstance(layer, nn.SyncBatchNorm) for layer in network.sublayers())


def test_sync_bn_is_batch_norm_in_evaluation_and_export(registry, tmp_path):
    detector = create("PicoDet")
    detector.eval()
    image, names = paddle.rand([1, 3, 64, 64]), list(detector.state_dict())
    before = [level.numpy() for level in detector.backbone({"image": image})]
    norms = sum(isinstance(layer, nn.BatchNorm2D) for layer in detector.sublayers())
    converted = compat.convert_sync_batch_norm(detector)
    assert sum(isinstance(layer, nn.SyncBatchNorm) for layer in converted.sublayers()) == norms
    assert list(converted.state_dict()) == names
    converted.eval()
    for level, expected in zip(converted.backbone({"image": image}), before):
        np.testing.assert_array_equal(level.numpy(), expected)
    block = converted.backbone.conv1  # all of them have the same class
    kinds = read_program(export(block, tmp_path / "model", [InputSpec([1, 3, 64, 64])])).op_counts
    assert kinds["batch_norm"] == 1
