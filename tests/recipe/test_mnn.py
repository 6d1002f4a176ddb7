"""`export.mnn` of a recipe: the key, the second export, and the boxes that MNN finds."""

import re
from dataclasses import replace

import paddle
import pytest
from helpers import RECIPES

from paddle_sparse_cb import GMPPruner, InputError
from paddle_sparse_cb.cli import main
from paddle_sparse_cb.deploy import ConvertMNN, isolated, verify
from paddle_sparse_cb.deploy.mnn.converter import convert
from paddle_sparse_cb.deploy.onnx import export_onnx
from paddle_sparse_cb.deploy.program import read_program
from paddle_sparse_cb.deploy.verify import describe
from paddle_sparse_cb.errors import PipelineError
from paddle_sparse_cb.hooks import call_hooks
from paddle_sparse_cb.recipe.build import Run, build, build_plan, load_weights
from paddle_sparse_cb.recipe.mnn import CompareBoxes
from paddle_sparse_cb.recipe.output_folder import run_files
from paddle_sparse_cb.recipe.post_train import ExportDetector, hooks_after_export
from paddle_sparse_cb.recipe.preflight import check_plan, check_trainable
from paddle_sparse_cb.recipe.samples import AddSamples
from paddle_sparse_cb.recipe.schema import read_recipe
from paddle_sparse_cb.recipe.smoke import smoke

SPARSE = RECIPES / "picodet_s_416_trees_sparse75.yml"


def read(*options):
    return read_recipe(SPARSE, options=list(options))


@pytest.mark.parametrize(
    ("options", "block"),
    [
        ([], None),
        (["export.mnn=false"], None),
        (["export.mnn=true"], 1),
        (["export.mnn={}"], 1),
        (["export.mnn.block=1"], 1),
        (["export.mnn.block=4", "Sparsity.sparse_block=[4,1]"], 4),
        (["export.mnn.block=4", "Sparsity.sparse_block=[8,1]"], 4),
    ],
)
def test_the_key_chooses_mnn_and_its_block(options, block):
    recipe = read(*options)
    assert recipe.mnn_block == block
    hooks = [type(hook).__name__ for hook in hooks_after_export(build_only(recipe))]
    assert ("ConvertMNN" in hooks) == (block is not None)
    assert ("CompareBoxes" in hooks) == (block is not None)


def build_only(recipe):
    """A run without network and data, which the hooks need only when called."""
    return Run(recipe, None, None, None, None, None, None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["export.mnn=yes please"], "export.mnn must be true, false or a mapping such as {block: 4}, got 'yes please'"),
        (["export.mnn=4"], "export.mnn must be true, false or a mapping"),
        (["export.mnn.blocks=4"], "export.mnn: unknown argument 'blocks'; did you mean 'block'?"),
        (["export.mnn.block=3"], "MNN's block must be one of 1, 2, 4, 8 output channels, got 3"),
    ],
)
def test_a_bad_key_is_refused(options, message):
    with pytest.raises(InputError) as error:
        read(*options)
    assert message in str(error.value)


def test_the_plan_shows_where_mnn_differs_from_paddle_lite(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", str(SPARSE), "-o", "export.mnn=true"]) == 0
    assert capsys.readouterr().out.endswith("\nsparse in Paddle-Lite: 40 of 40 planned layers; in MNN: 40\n")
    options = ["Sparsity.ratio=0.5", "Sparsity.sparse_block=[4,1]", "export.mnn.block=4"]
    assert main(["plan", str(SPARSE), "-o", *options]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("dense in Paddle-Lite: ") and line.endswith("; sparse in MNN") for line in lines) == 40
    assert lines[-1] == "sparse in Paddle-Lite: 0 of 40 planned layers; in MNN: 40"


def test_a_layer_that_only_mnn_would_run_dense_is_refused_only_with_the_key(monkeypatch):
    options = ["Sparsity.ratio=0.6", "Sparsity.skip=[backbone.*, neck.*]"]
    plan = build_plan(read(*options))
    check_plan(read(*options), plan)
    settings = read(*options).pruning_config()
    monkeypatch.setattr(type(settings), "min_sparsity", lambda self, plan: {one.name: 0.6 for one in plan.pruned})
    check_plan(read(*options), plan)
    with pytest.raises(InputError, match=r"MNN would keep head\.\S+ dense: .* runs sparse above 60%"):
        check_plan(read(*options, "export.mnn=true"), plan)


def test_a_missing_package_is_found_before_the_training(monkeypatch):
    recipe = read("export.mnn=true", "epoch=300")
    run = build_only(recipe)
    run.train_loader, run.plan = range(10), build_plan(recipe)
    monkeypatch.setattr(isolated, "find_spec", lambda name: None)
    with pytest.raises(PipelineError, match="is not installed: pip install 'paddle_sparse_cb"):
        check_trainable(run)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """PicoDet-s with trained weights, pruned at once, after the hooks from the export to the comparison of boxes."""
    folder = tmp_path_factory.mktemp("mnn")
    options = ["export.mnn=true", f"save_dir={folder}"]
    recipe = smoke(read_recipe(RECIPES / "picodet_s_416_coco_lcnet_sparse75.yml", options=options))
    with paddle.utils.unique_name.guard():
        run = build(recipe)
    load_weights(recipe, run, "sample:picodet_s_416_lcnet")
    configs = {"initial_ratio": 0.75, "pruning_steps": 1}
    GMPPruner(run.network, ratio=0.75, local_sparsity=True, plan=run.plan, configs=configs).step()
    weights = folder / "weights.pdparams"
    paddle.save(run.network.state_dict(), str(weights))
    context = run.context(weights)
    call_hooks([ExportDetector(run), ConvertMNN(), AddSamples(run), verify, CompareBoxes(run)], context)
    return run, context


@pytest.mark.slow
@pytest.mark.xdist_group("recipe_mnn")
def test_a_recipe_makes_files_for_mnn_that_find_the_same_boxes(converted):
    run, context = converted
    assert set(context.checks) == {
        "pdparams",
        "pdiparams",
        "pdiparams_no_nms",
        "mnn",
        "manifest",
        "outputs",
        "mnn_boxes",
    }
    assert [name for name, check in context.checks.items() if not check["ok"]] == []
    operators = [read_program(context.artefacts[name]).op_counts for name in ("inference", "inference_no_nms")]
    assert [bool(found["multiclass_nms3"]) for found in operators] == [True, False]
    mnn = context.checks["mnn"]
    assert mnn["planned"] == mnn["sparse_convs"] == 40
    assert mnn["compared"] == mnn["tensors"] == 204
    assert mnn["sparse_error"] < 1e-4
    assert "hardly depend" not in mnn["scope"]
    assert [sample["image"].shape for sample in context.samples] == [(3, 416, 416)] * 2
    assert re.fullmatch(r"ok: \d\d+ boxes in 2 images are .*", describe(context.checks["mnn_boxes"]))
    found = set(run.context(context.artefacts["pdparams"]).artefacts)
    assert found == {"pdparams", "inference", "inference_no_nms", "onnx", "mnn_dense", "mnn_sparse"}
    assert set(run_files(context.output)) >= {"inference_no_nms", "model.onnx", "model_dense.mnn", "model_sparse.mnn"}


@pytest.mark.slow
@pytest.mark.xdist_group("recipe_mnn")
def test_boxes_that_differ_are_counted_and_files_that_failed_are_not_run(converted, tmp_path):
    run, context = converted
    bias = run.network.head.head_cls0.bias
    before = bias.numpy()
    bias.set_value(before + 4)
    other = replace(context, output=tmp_path, artefacts={}, checks={})
    ExportDetector(run)(other)
    bias.set_value(before)
    onnx = export_onnx(other.artefacts["inference_no_nms"], tmp_path / "model.onnx")
    file = convert(onnx, tmp_path / "model_sparse.mnn", sparse=True)
    changed = replace(context, artefacts={**context.artefacts, "mnn_sparse": file}, checks={"mnn": {"ok": True}})
    CompareBoxes(run)(changed)
    (problem,) = changed.checks["mnn_boxes"]["problems"]
    assert re.fullmatch(r"model_sparse.mnn: \d+ boxes differ from those of the exported model", problem)
    failed = replace(changed, checks={"mnn": {"ok": False}})
    CompareBoxes(run)(failed)
    assert set(failed.checks) == {"mnn"}


@pytest.mark.parametrize(("options", "rows"), [([], 1), (["Sparsity.sparse_block=[2,1]"], 2)])
def test_zeros_that_do_not_fill_the_blocks_of_the_kernels_are_refused_before_the_training(options, rows):
    recipe = read("export.mnn.block=4", *options)
    with pytest.raises(InputError, match=f"its zeros are in blocks of {rows} output channels, and only blocks of 4"):
        check_plan(recipe, build_plan(recipe))
