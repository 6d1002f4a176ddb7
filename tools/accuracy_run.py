"""Trains and evaluates one method with one seed for `make accuracy`, in a process of its own."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from accuracy_methods import DENSE, DENSE_START, PADDLESLIM, ZEROED, Method, Size

from paddle_sparse_cb.recipe.sparsity_block import training_settings
from paddle_sparse_cb.utils.files import atomic_write, write_text


def result_path(output: Path, method: Method, seed: int) -> Path:
    """Returns the file of a result."""
    return output / f"{method}_seed{seed}.json"


def start_weights(output: Path) -> Path:
    """Returns the file of the dense start, which all methods share."""
    return output / "start.pdparams"


def run(method: Method, seed: int, output: Path, size: Size) -> None:
    """Trains and evaluates a method and writes its result; saves the weights of the dense start."""
    import paddle

    from paddle_sparse_cb.callbacks.resume import ResumableCallbacks
    from paddle_sparse_cb.detection.network import SetEpoch
    from paddle_sparse_cb.recipe.build import build, load_weights
    from paddle_sparse_cb.recipe.distillation import build_distillation
    from paddle_sparse_cb.recipe.permute import permute_run

    options = [f"seed={seed}"]
    if method != DENSE_START:
        options.append(f"pretrain_weights={json.dumps(str(start_weights(output)))}")
    recipe = method.recipe(size, options)
    trained = build(recipe)
    load_weights(recipe, trained, recipe.content["pretrain_weights"])
    if method.pruner not in DENSE:
        permute_run(trained)
    epochs, steps = recipe.content["epoch"], len(trained.train_loader)
    callbacks = [SetEpoch(), *make_pruning(method, trained), *build_distillation(recipe, trained.network)]
    start = time.time()
    print(f"{method} seed {seed}: {epochs} epochs of {steps} steps", flush=True)
    trained.model.fit(
        trained.train_loader,
        epochs=epochs,
        verbose=2,
        log_freq=50,
        callbacks=[ResumableCallbacks(callbacks, trained.train_loader, seed=seed)],
    )
    seconds = time.time() - start
    metrics = trained.evaluate()
    if method == DENSE_START:
        with atomic_write(start_weights(output)) as scratch:
            paddle.save(trained.network.state_dict(), str(scratch))
    result = {
        "method": str(method),
        "seed": seed,
        "digest": method.digest(size),
        "steps": epochs * steps,
        "mAP": metrics["mAP"],
        "AP50": metrics["AP50"],
        **_zeros_and_macs(method, trained),
        "seconds": seconds,
    }
    write_text(result_path(output, method, seed), json.dumps(result, indent=1))
    print(json.dumps(result), flush=True)


def _zeros_and_macs(method: Method, trained: Any) -> dict[str, float]:
    """Returns the share of zeros in all weights that can be pruned, and of multiply-accumulates that remain.

    Layers that an allocation of ratios leaves dense count as well, so that all methods are measured alike.
    """
    from paddle_sparse_cb import measure_sparsity
    from paddle_sparse_cb.recipe.build import build_plan
    from paddle_sparse_cb.recipe.layer_ratios import without_ratios

    if method.pruner in DENSE:
        return {"zeros": 0.0, "macs": 1.0}
    plan = build_plan(without_ratios(trained.recipe))
    found = {layer.name: layer for layer in measure_sparsity(trained.network, trained.plan).layers}
    planned = [found[layer.name] for layer in plan.pruned]
    total = sum(layer.macs or 0 for layer in plan.layers)
    skipped = sum((layer.macs or 0) * found[layer.name].ratio for layer in plan.pruned)
    return {
        "zeros": sum(layer.zeros for layer in planned) / sum(layer.numel for layer in planned),
        "macs": 1 - skipped / total,
    }


def make_pruning(method: Method, trained: Any) -> list[Any]:
    """Returns the callback that prunes, if the method does."""
    from paddle_sparse_cb import SparsityCallback

    if method.pruner in DENSE:
        return []
    if method.pruner == PADDLESLIM:
        return [_paddleslim(trained, ZEROED in method.levers)]
    return [SparsityCallback(**training_settings(trained.recipe.sparsity), plan=trained.plan)]


def _paddleslim(trained: Any, zeroed: bool) -> Any:
    """Returns a callback that calls PaddleSlim's pruner as PaddleDetection's trainer does, on the same layers.

    Args:
        trained: the network and its plan.
        zeroed: zero the pruned weights before each step of the pruner, which the trainer does not do.
    """
    import paddle
    from paddleslim import GMPUnstructuredPruner

    from paddle_sparse_cb.utils.layers import named_weights

    network, settings = trained.network, trained.recipe.pruning_config()
    planned = {layer.name for layer in trained.plan.pruned}
    keep = {weight.name for name, _, weight in named_weights(network) if name in planned}
    skip = {parameter.name for parameter in network.parameters() if parameter.name not in keep}
    skip |= {layer.full_name() for layer in network.sublayers() if "Norm" in type(layer).__name__}
    schedule = settings.schedule(len(trained.train_loader), None)
    configs = {
        "pruning_strategy": "gmp",
        "resume_iteration": 0,
        "pruning_steps": schedule.pruning_steps,
        "initial_ratio": schedule.initial_ratio,
        "stable_iterations": schedule.stable_iterations,
        "pruning_iterations": schedule.pruning_iterations,
        "tunning_iterations": schedule.tunning_iterations,
    }
    pruner = GMPUnstructuredPruner(
        network,
        ratio=schedule.ratio,
        skip_params_func=lambda _: skip,
        prune_params_type="conv1x1_only",
        local_sparsity=True,
        sparse_block=list(settings.sparse_block),
        configs=configs,
    )

    class PruneStep(paddle.callbacks.Callback):
        def on_train_batch_end(self, step: int, logs: Any = None) -> None:
            if zeroed:
                pruner.update_params()
            pruner.step()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            pruner.update_params()

    return PruneStep()


def main() -> None:
    """Runs the method and seed of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", type=Method.parse)
    parser.add_argument("seed", type=int)
    parser.add_argument("--output", type=Path, required=True)
    for name in ("epochs", "images", "batch"):
        parser.add_argument(f"--{name}", type=int)
    given = parser.parse_args()
    run(given.method, given.seed, given.output, Size(given.epochs, given.images, given.batch))


if __name__ == "__main__":
    main()
