"""`SparsityCallback`: the events of `paddle.Model.fit` to the pruner, the curves and the post-train hooks."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import paddle

from ..checkpoints.store import load_checkpoint
from ..errors import InputError, PipelineError
from ..hooks import Hook, HookContext, call_hooks
from ..pruning.distribution import check_scope
from ..pruning.masks import check_block
from ..pruning.min_sparsity import min_sparsity
from ..pruning.optimizer_hook import get_attached_ema
from ..pruning.planner import PRUNE_PARAMS_TYPES, PrunePlan, make_plan
from ..pruning.schedule import GMPSchedule
from ..pruning.statistics import measure_sparsity
from ..utils.distributed import is_rank_zero
from ..utils.finite import check_finite_loss
from ..utils.validation import check_count

if TYPE_CHECKING:
    from ..pruning.pruner import GMPPruner
    from .tensorboard import SparsityWriter


class SparsityCallback(paddle.callbacks.Callback):
    """Prunes a network gradually while `paddle.Model.fit` trains it.

    Weights are zeroed right after each optimizer step, so that every other callback sees the zeros, whatever the
    order of the callbacks. The method assumes a converged dense network to start from.

    Args:
        ratio: the share of weights that ends at zero.
        initial_ratio: the ratio of the first pruning step.
        stable_epochs: epochs before pruning starts.
        pruning_epochs: epochs over which the ratio rises.
        tunning_epochs: epochs at the target, to recover.
        pruning_steps: how many times the ratio rises.
        stable_iterations, pruning_iterations, tunning_iterations: the same in optimizer steps; one that is given
            takes the place of its twin in epochs.
        prune_params_type: `conv1x1_only`, or None for all convolutions and linear layers.
        prune_squeeze_excite: see `make_plan`.
        skip_params_func: PaddleSlim's own, see `make_plan`.
        local_sparsity: each layer gets the ratio; otherwise one ranking over all layers decides.
        scope: `local` or `global`, which `local_sparsity` says too, or `erk`: layers with few weights stay denser.
        regrow: a pruned weight may come back when the masks are renewed.
        curve: how the ratio rises: `cubic`, `linear`, `cosine`, or `constant`, which is the target at once.
        sparse_block: rows (output channels) and columns (input channels) zeroed as one.
        skip: shell patterns over structured names to leave dense, such as `("head.*",)`.
        plan: what to prune (`make_plan`), in place of the rules above.
        log_dir: folder for TensorBoard curves; None writes none.
        log_freq: optimizer steps between two points of a curve.
        per_layer: also a curve for each pruned weight.
        save_dir: the output folder of the post-train hooks.
        resume: a `.pdsparse` file that `Checkpoints` wrote (`last_checkpoint` finds the newest), to go on from:
            network, optimizer, learning rate and masks are loaded. The epochs that are left are for `fit` to train, or
            for `ResumableCallbacks` to tell from those that are done.
        allow_config_change: the training that goes on may have another ratio, schedule, number of steps in an epoch or of
            processes than the one that was saved.
        post_train: hooks, called in order with a `HookContext` when the training has ended. One that has a method
            `before_training(plan, least)` is asked at train begin whether it will do with what is planned.

    Raises:
        InputError: here, when an argument is out of its range; at train begin, when nothing is left to prune, the
            training is too short to reach the target, or Paddle-Lite, if it is to follow, would keep a layer dense.

    Example:
        >>> import numpy as np, paddle
        >>> from paddle_sparse_cb import SparsityCallback, measure_sparsity
        >>> data = paddle.io.TensorDataset([paddle.rand([32, 8]), paddle.randint(0, 4, [32, 1])])
        >>> network = paddle.nn.Linear(8, 4)
        >>> model = paddle.Model(network)
        >>> model.prepare(paddle.optimizer.SGD(0.1, parameters=network.parameters()), paddle.nn.CrossEntropyLoss())
        >>> sparsity = SparsityCallback(ratio=0.75, pruning_epochs=1, tunning_epochs=1, prune_params_type=None)
        >>> model.fit(data, epochs=2, batch_size=8, verbose=0, callbacks=[sparsity])
        >>> measure_sparsity(network).ratio
        0.75
    """

    def __init__(self, ratio: float = 0.75, initial_ratio: float = 0.15, stable_epochs: int = 0,
                 pruning_epochs: int = 150, tunning_epochs: int = 150, pruning_steps: int = 300,
                 stable_iterations: int | None = None, pruning_iterations: int | None = None,
                 tunning_iterations: int | None = None, prune_params_type: str | None = "conv1x1_only",
                 skip_params_func: Callable[[paddle.nn.Layer], set[str]] | None = None, local_sparsity: bool = True,
                 scope: str | None = None, regrow: bool = False, curve: str = "cubic",
                 sparse_block: Sequence[int] = (1, 1), skip: Sequence[str] = (), plan: PrunePlan | None = None,
                 log_dir: str | os.PathLike[str] | None = None, log_freq: int = 20, per_layer: bool = False,
                 save_dir: str | os.PathLike[str] | None = None,
                 resume: str | os.PathLike[str] | None = None, allow_config_change: bool = False,
                 post_train: Sequence[Hook] = (), prune_squeeze_excite: bool = False) -> None:
        super().__init__()
        # The schedule checks these; the lengths follow at train begin, when the steps of an epoch are known.
        GMPSchedule(ratio=ratio, initial_ratio=initial_ratio, pruning_steps=pruning_steps, curve=curve)
        self.ratio, self.initial_ratio = ratio, initial_ratio
        self.pruning_steps, self.curve = pruning_steps, curve
        epochs = {"stable": stable_epochs, "pruning": pruning_epochs, "tunning": tunning_epochs}
        iterations = {"stable": stable_iterations, "pruning": pruning_iterations, "tunning": tunning_iterations}
        self._epochs = {phase: check_count(f"{phase}_epochs", value) for phase, value in epochs.items()}
        self._iterations = {phase: check_count(f"{phase}_iterations", value)
                            for phase, value in iterations.items() if value is not None}
        if prune_params_type not in PRUNE_PARAMS_TYPES:
            raise InputError(f"prune_params_type is 'conv1x1_only' or None, got {prune_params_type!r}")
        if skip_params_func is not None and not callable(skip_params_func):
            raise InputError(f"skip_params_func is a function of the network, got {skip_params_func!r}")
        if not isinstance(skip, (list, tuple)) or not all(isinstance(pattern, str) for pattern in skip):
            raise InputError(f"skip is a list of patterns such as ['head.*'], got {skip!r}")
        if plan is not None and not isinstance(plan, PrunePlan):
            raise InputError(f"plan is what make_plan gives, got {plan!r}")
        for name, value in {"local_sparsity": local_sparsity, "regrow": regrow, "per_layer": per_layer,
                            "prune_squeeze_excite": prune_squeeze_excite, "allow_config_change": allow_config_change}.items():
            if not isinstance(value, bool):
                raise InputError(f"{name} is True or False, got {value!r}")
        if post_train and save_dir is None:
            raise InputError("post_train hooks need save_dir, the folder for what they make")
        if not isinstance(post_train, (list, tuple)) or not all(callable(hook) for hook in post_train):
            raise InputError(f"post_train is a list of callables, got {post_train!r}")
        self.prune_params_type, self.skip_params_func, self.skip = prune_params_type, skip_params_func, tuple(skip)
        self.prune_squeeze_excite = prune_squeeze_excite
        self.local_sparsity, self.scope, self.regrow = local_sparsity, check_scope(scope), regrow
        self.sparse_block, self.plan = check_block(sparse_block), plan
        self.log_dir, self.log_freq, self.per_layer = log_dir, check_count("log_freq", log_freq, least=1), per_layer
        self.save_dir, self.post_train = save_dir, tuple(post_train)
        self.resume, self.allow_config_change = None if resume is None else Path(resume), allow_config_change
        self._averaged = False  # the training that goes on
        self.pruner: GMPPruner | None = None
        self._writer: SparsityWriter | None = None
        self._eval_names: list[str] = []
        self._logged = -1
        self._begun = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Makes the pruner."""
        from ..pruning.pruner import GMPPruner  # here, because PaddleSlim takes seconds to import

        state = None
        if self.resume is not None:
            state = load_checkpoint(self.model, self.resume, self.params.get("steps"), self.allow_config_change)
            self._averaged = state.training.get("ema") is not None
        per_epoch, planned = self._steps()
        if state and planned is not None:
            planned += state.step
        schedule = self.schedule(per_epoch, planned)
        plan = self.plan or make_plan(self.model.network, self._input_spec(), skip=self.skip,
                                      prune_params_type=self.prune_params_type,
                                      skip_params_func=self.skip_params_func, prune_squeeze_excite=self.prune_squeeze_excite)
        configs = asdict(schedule)
        self.pruner = GMPPruner(self.model.network, ratio=configs.pop("ratio"), local_sparsity=self.local_sparsity,
                                scope=self.scope, regrow=self.regrow, sparse_block=self.sparse_block,
                                configs=configs, plan=plan)
        if state:
            self.pruner.restore(state, str(self.resume), self.allow_config_change)
        least = self.min_sparsity(plan)
        for hook in self.post_train:
            if hasattr(hook, "before_training"):
                hook.before_training(plan, least)
        self.pruner.attach(self.model._optimizer)
        self._logged = self.pruner.cur_iteration
        if self.log_dir is not None and is_rank_zero():
            from .tensorboard import SparsityWriter  # here, because tensorboardX takes time to import

            self._writer = SparsityWriter(self.log_dir, self.pruner.cur_iteration + 1 if state else None)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Makes sure that a training whose weights were averaged goes on so: its own ones are in the average's file."""
        if self._averaged and get_attached_ema(self.model) is None:
            raise InputError(f"{self.resume}: the training that it is of has an EMACallback, and this one has none")

    def min_sparsity(self, plan: PrunePlan) -> dict[str, float]:
        """The share of each planned weight that is zero at the target, whatever the weights."""
        return min_sparsity(plan, self.ratio, self.scope or ("local" if self.local_sparsity else "global"),
                              self.sparse_block)

    def schedule(self, per_epoch: int | None, planned: int | None) -> GMPSchedule:
        """The schedule of a training.

        Args:
            per_epoch: optimizer steps of an epoch; None if not known.
            planned: optimizer steps of the training; None if not known.

        Raises:
            InputError: the target would not be reached.
        """
        if per_epoch is None and self._iterations.keys() != self._epochs.keys():
            raise InputError("the loader has no length, so epochs cannot be turned into steps: give "
                             "stable_iterations, pruning_iterations and tunning_iterations")
        lengths = {f"{phase}_iterations": self._iterations.get(phase, epochs * (per_epoch or 0))
                   for phase, epochs in self._epochs.items()}
        schedule = GMPSchedule(ratio=self.ratio, initial_ratio=self.initial_ratio, pruning_steps=self.pruning_steps,
                               curve=self.curve, **lengths)
        if planned is not None and schedule.target_step >= planned:
            raise InputError(
                f"the ratio {self.ratio} would be reached after {schedule.target_step} optimizer steps, but this "
                f"training has {planned} ({per_epoch} an epoch): lower the stable phase "
                f"({schedule.stable_iterations}) or the pruning phase ({schedule.pruning_iterations}), or train longer")
        return schedule

    def _steps(self) -> tuple[int | None, int | None]:
        """Optimizer steps of an epoch and of the training; None where the loader has no length.

        hapi steps the optimizer on every n-th batch (`accumulate_grad_batches`) and on the last one of an epoch, and
        may be told to end after so many batches (`num_iters`).
        """
        batches = self.params.get("steps")
        if batches is None:
            return None, None
        accumulate = getattr(self.model, "_accumulate", 1)
        per_epoch = -(-batches // accumulate)
        limit = getattr(self.model, "num_iters", None)
        if limit is None:
            return per_epoch, self.params["epochs"] * per_epoch
        return per_epoch, limit // batches * per_epoch + limit % batches // accumulate

    def _input_spec(self) -> list[Any] | None:
        """The specs given to `paddle.Model`, if they say all sizes but the batch."""
        specs = self.model._inputs or []
        # A spec that hapi made up itself from forward's argument names has one unknown dimension.
        known = all(spec.shape and len(spec.shape) > 1 and all(size and size > 0 for size in spec.shape[1:])
                    for spec in specs)
        return list(specs) if specs and known else None

    def on_train_batch_begin(self, step: int, logs: Any = None) -> None:
        """Notes the optimizer steps done."""
        assert self.pruner is not None
        self._begun = self.pruner.cur_iteration

    def on_train_batch_end(self, step: int, logs: Any = None) -> None:
        """Ends a training that has diverged, and writes the curves, once every `log_freq` optimizer steps.

        AMP's scaler skips the step of a batch whose loss overflowed, so that this is no error.
        """
        assert self.pruner is not None
        done = self.pruner.cur_iteration
        scaler = getattr(self.model, "_scaler", None)
        if done > self._begun or scaler is None or not scaler.is_enable():
            try:
                check_finite_loss((logs or {}).get("loss"), done)
            except PipelineError:
                self.pruner.detach(self.model._optimizer)  # on_train_end will not be called
                raise
        if self._writer and done % self.log_freq == 0:
            self._log(done, logs or {})

    def _log(self, done: int, logs: dict[str, Any]) -> None:
        assert self.pruner is not None
        assert self._writer is not None
        if done == self._logged:  # a further micro-batch of the same optimizer step, or the end of the training
            return
        self._logged = done
        values = {"sparsity/target": self.pruner.ratio, "train/lr": float(self.model._optimizer.get_lr())}
        if self.per_layer:
            report = measure_sparsity(self.model.network, self.pruner.plan)
            values["sparsity/actual"] = report.ratio
            self._writer.layers(done, report)
        else:
            values["sparsity/actual"] = self.pruner.sparsity()
        if "loss" in logs:
            values["train/loss"] = sum(logs["loss"]) if isinstance(logs["loss"], list) else logs["loss"]
        self._writer.scalars(done, values)

    def on_eval_begin(self, logs: Any = None) -> None:
        """Notes which of the logged values are an evaluation's."""
        self._eval_names = [name for name in (logs or {}).get("metrics", []) if name != "loss"]

    def on_eval_end(self, logs: Any = None) -> None:
        """Writes `eval/<metric>`, such as `eval/mAP`."""
        if self._writer and self.pruner:
            values = {f"eval/{name}": float((logs or {})[name]) for name in self._eval_names
                      if isinstance((logs or {}).get(name), (int, float))}
            self._writer.scalars(self.pruner.cur_iteration, values)

    def on_train_end(self, logs: Any = None) -> None:
        """Finalizes the masks, then runs the hooks."""
        assert self.pruner is not None
        self.pruner.detach(self.model._optimizer)
        report = self.pruner.finalize()
        if self.pruner.ratio < self.ratio:
            warnings.warn(f"the training ended after {self.pruner.cur_iteration} optimizer steps at ratio "
                          f"{self.pruner.ratio:.4f}, before the target {self.ratio}", stacklevel=2)
        if self._writer:
            self._log(self.pruner.cur_iteration, logs or {})
            self._writer.close()
            self._writer = None
        if not self.post_train:
            return
        assert self.save_dir is not None
        call_hooks(self.post_train,
                   HookContext(self.model.network, Path(self.save_dir), self.pruner.plan, report, self.ratio))
