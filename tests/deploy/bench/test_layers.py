"""Milliseconds of each layer."""

import json
import math

import pytest

from paddle_sparse_cb.deploy.bench.layers import LayerModel, measure_layers

from .conftest import RATIO, RUNTIMES, SIZE

pytestmark = RUNTIMES
PRUNED = ["expand.weight", "project.weight"]


@pytest.fixture(scope="module")
def measured(models):
    described = [LayerModel(models / "dense.mnn", "dense", RATIO), LayerModel(models / "sparse.mnn", "sparse", RATIO)]
    return measure_layers(described, models / "model", PRUNED, seconds=0.3)


def test_the_layers_have_the_names_shapes_and_macs_of_the_network(measured):
    layers = {layer["name"]: layer for layer in measured["layers"]}
    expand = layers["expand.weight"]
    assert expand["shape"] == [64, 16, 1, 1]
    assert expand["output_size"] == [SIZE, SIZE]
    assert expand["macs"] == 64 * 16 * SIZE * SIZE
    assert expand["purpose"] == "pruned convolutions"
    assert layers["stem.0.weight"]["purpose"] == "other convolutions"
    assert layers["depthwise.weight"]["purpose"] == "depthwise convolutions"
    assert layers["depthwise.weight"]["macs"] == 16 * 9 * SIZE * SIZE
    assert layers["strided.weight"]["output_size"] == [SIZE // 2, SIZE // 2]
    assert layers["strided.weight"]["purpose"] == "other 1x1 convolutions"
    assert {layer["purpose"] for layer in measured["layers"]} >= {"pooling", "layout, concatenation, split"}


def test_every_layer_has_a_time_for_every_model(measured):
    for layer in measured["layers"]:
        assert layer["ms_dense"] > 0
        assert [(one["ratio"], one["block"]) for one in layer["sparse"]] == [(RATIO, [1, 1])]
        assert layer["sparse"][0]["ms"] > 0
    dense, sparse = measured["models"]
    assert math.isclose(dense["ms"], sum(layer["ms_dense"] for layer in measured["layers"]))
    assert math.isclose(sparse["ms"], sum(layer["sparse"][0]["ms"] for layer in measured["layers"]))


def test_the_result_can_be_saved_and_names_the_machine(measured):
    assert json.loads(json.dumps(measured)) == measured
    assert measured["machine"]["cpu"]
    assert (measured["runtime"], measured["threads"]) == ("MNN", 1)
