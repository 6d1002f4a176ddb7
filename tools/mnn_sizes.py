"""Prints the sizes of dense and sparse `.mnn` files and the errors of their outputs: the table of docs/deploy.md.

The networks of paddle.vision are untrained. PicoDet-s has PaddleDetection's trained weights and runs on photographs.
All are pruned at once, and each file is verified. Takes two to three minutes.
"""

import contextlib
import io
import os
import tempfile
from pathlib import Path

import paddle
from paddle.static import InputSpec

from paddle_sparse_cb import GMPPruner, HookContext, make_plan, measure_sparsity
from paddle_sparse_cb.deploy import ConvertMNN, Export, fail_on_mismatch, print_verification, verify
from paddle_sparse_cb.utils.tables import markdown_table

RECIPE = Path(__file__).parent.parent / "recipes" / "picodet_s_416_coco_lcnet_sparse75.yml"
WEIGHTS = "sample:picodet_s_416_lcnet"
SPEC = [InputSpec([1, 3, 64, 64], "float32", "image")]
HEADERS = ("", "zeros", "in blocks of", "sparse convolutions", "dense", "sparse", "error, dense", "error, sparse")


def prune(network, plan, ratio, block):
    """Prunes a network at once in blocks of output channels."""
    configs = {"initial_ratio": ratio, "pruning_steps": 1}
    GMPPruner(network, ratio=ratio, local_sparsity=True, plan=plan, sparse_block=(block, 1), configs=configs).step()


def deploy_classifier(name, ratio, block, folder):
    """Converts and verifies an untrained network of paddle.vision."""
    paddle.seed(0)
    network = getattr(paddle.vision.models, name)(num_classes=10)
    plan = make_plan(network, SPEC)
    prune(network, plan, ratio, block)
    context = HookContext(network, folder, plan, measure_sparsity(network, plan), ratio)
    for hook in (Export(SPEC), ConvertMNN(block), verify, fail_on_mismatch):
        hook(context)
    return context


def deploy_picodet(ratio, block, folder):
    """Converts and verifies PicoDet-s."""
    from paddle_sparse_cb.recipe.build import build, load_weights
    from paddle_sparse_cb.recipe.mnn import CompareBoxes
    from paddle_sparse_cb.recipe.post_train import ExportDetector
    from paddle_sparse_cb.recipe.samples import AddSamples
    from paddle_sparse_cb.recipe.schema import read_recipe
    from paddle_sparse_cb.recipe.smoke import smoke

    sparsity = [f"Sparsity.ratio={ratio}", f"Sparsity.sparse_block=[{block},1]"]
    options = ["save_dir=output", f"export.mnn.block={block}", *sparsity]
    recipe = smoke(read_recipe(RECIPE, options=options))
    with paddle.utils.unique_name.guard():
        run = build(recipe)
    load_weights(recipe, run, WEIGHTS)
    prune(run.network, run.plan, ratio, block)
    weights = folder / "weights.pdparams"
    paddle.save(run.network.state_dict(), str(weights))
    context = run.context(weights)
    hooks = (ExportDetector(run), ConvertMNN(block), AddSamples(run), verify, CompareBoxes(run), fail_on_mismatch)
    for hook in hooks:
        hook(context)
    return context


def main() -> None:
    """Prints the verification of the last network and the table."""
    rows = []
    for name in ("mobilenet_v1", "mobilenet_v2", "PicoDet-s 416"):
        for ratio, block in ((0.75, 1), (0.85, 1), (0.75, 4), (0.85, 4)):
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
                os.chdir(folder)
                if name.startswith("PicoDet"):
                    context = deploy_picodet(ratio, block, Path(folder))
                else:
                    context = deploy_classifier(name, ratio, block, Path(folder))
                os.chdir("/")
            check = context.checks["mnn"]
            sizes = [f"{check[kind]:,}" for kind in ("dense_bytes", "sparse_bytes")]
            errors = [f"{check[kind]:.1e}" for kind in ("dense_error", "sparse_error")]
            kernels = f"{check['sparse_convs']} of {check['convs']}"
            rows.append((name, f"{ratio:.0%}", f"{block}x1", kernels, *sizes, *errors))
    print_verification(context)
    print(markdown_table(HEADERS, rows, "lrrrrrrr"))


if __name__ == "__main__":
    main()
