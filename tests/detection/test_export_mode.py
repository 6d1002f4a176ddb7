"""PicoDet through the export and Paddle-Lite, with what PaddleDetection's `export:` block can put behind its heads."""

import numpy as np
import paddle
import pytest
from helpers import run_exported
from paddle.static import InputSpec

from paddle_sparse_cb import GMPPruner, HookContext, make_plan, measure_sparsity
from paddle_sparse_cb.deploy import Export, OptimizeLite, verify
from paddle_sparse_cb.deploy.program import read_program
from paddle_sparse_cb.detection.network import build_network

SIZE = 128
SPEC = [InputSpec([1, 3, SIZE, SIZE], "float32"), InputSpec([1, 2], "float32"), InputSpec([1, 1], "int64")]
MODES = {"nms": {}, "no nms": {"nms": False}, "raw heads": {"post_process": False}}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_the_same_layers_run_sparse_whatever_follows_the_heads(mode, registry, tmp_path):
    network = build_network(registry)
    plan = make_plan(network, SPEC, skip=network.prediction_layers())
    GMPPruner(
        network, ratio=0.75, local_sparsity=True, plan=plan, configs={"initial_ratio": 0.75, "pruning_steps": 1}
    ).step()
    context = HookContext(network, tmp_path, plan, measure_sparsity(network, plan), 0.75)
    with network.export_mode(SIZE, SIZE, **MODES[mode]) as (detector, specs):
        for hook in (Export(specs, detector), OptimizeLite(), verify):
            hook(context)
    assert (network.detector.export_post_process, network.detector.export_nms) == (True, True)
    check = context.checks["nb"]
    assert check["ok"]
    assert context.checks["outputs"]["ok"]
    assert check["sparse_convs"] == check["planned"] == 40
    _check_outputs(mode, network, context.artefacts["inference"])


def _check_outputs(mode, network, prefix):
    """Checks that inputs and outputs are those of docs/deploy.md and that the boxes are those of the network."""
    inputs = read_program(prefix).inputs
    assert inputs == {"image": (1, 3, SIZE, SIZE), **({"scale_factor": (1, 2)} if mode == "nms" else {})}
    image = np.random.rand(1, 3, SIZE, SIZE).astype("float32")
    outputs = run_exported(prefix, image, *([np.ones((1, 2), "float32")] if mode == "nms" else []))
    if mode == "nms":
        network.eval()
        expected = network.detector({"image": paddle.to_tensor(image), "scale_factor": paddle.ones([1, 2])})
        np.testing.assert_allclose(outputs[0], expected["bbox"].numpy(), rtol=1e-3, atol=1e-3)
        assert outputs[1] == len(outputs[0])
    elif mode == "no nms":
        boxes, scores = outputs
        assert boxes.shape[::2] == (1, 4)
        assert scores.shape == (1, 1, boxes.shape[1])
    else:
        assert len(outputs) == 8
        assert {output.shape[-1] for output in outputs} == {1, 32}
