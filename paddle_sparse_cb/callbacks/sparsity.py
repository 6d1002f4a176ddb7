"""`SparsityCallback`: passes the events of `paddle.Model.fit` to the pruner, the curves and the post-train hooks."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import paddle

from ..checkpoints.position import ResumeState
from ..errors import InputError
from ..hooks import Hook, HookContext, call_hooks
from ..pruning.config import PruningConfig
from ..pruning.planner import PrunePlan
from ..pruning.statistics import SparsityReport
from ..utils.distributed import is_rank_zero
from ..utils.finite import check_finite_loss
from ..utils.validation import check_count, check_keys, check_path
from .session import FitCallback

if TYPE_CHECKING:
    from ..pruning.pruner import GMPPruner
    from .curves import TrainingCurves


class SparsityCallback(FitCallback):
    """Prunes a network gradually while `paddle.Model.fit` trains it.

    Weights are zeroed right after each optimizer step, so that every other callback sees the zeros. The order of the
    callbacks makes no difference. The method assumes a converged dense network to start from.

    Args:
        ratio: the target ratio, the share of weights that ends at zero.
        initial_ratio: the ratio of the first pruning step.
        stable_epochs: epochs before pruning starts.
        pruning_epochs: epochs in which the ratio rises.
        tunning_epochs: epochs at the target ratio, to recover.
        pruning_steps: how many times the ratio rises.
        stable_iterations, pruning_iterations, tunning_iterations: the same phases in optimizer steps; a value takes
            precedence over the one in epochs.
        prune_params_type: `conv1x1_only`, or None for all convolutions and linear layers.
        skip_params_func: PaddleSlim's function, see `make_plan`.
        local_sparsity: every layer is pruned to the ratio; otherwise one ranking over all layers decides.
        scope: `uniform` or `global`, the same as `local_sparsity`, or `erk`: layers with few weights stay denser.
        regrow: a pruned weight may be revived when the masks are updated.
        curve: how the ratio rises: `cubic`, `linear`, `cosine`, or `constant`, which is the target at once.
        sparse_block: rows (output channels) and columns (input channels) that are pruned as one, see `PruningConfig`.
        skip: shell patterns over structured names of weights to leave dense, such as `("head.*",)`.
        plan: the layers to prune (`make_plan`), in place of the rules above; `ratios` and `blocks` are added to it.
        log_dir: folder for TensorBoard curves; None writes none.
        log_freq: optimizer steps between two points of a curve.
        per_layer: write a curve for each pruned weight as well.
        save_dir: the output folder of the post-train hooks.
        resume: the checkpoint to resume from: a `.pdsparse` file that `Checkpoints` wrote, or a `ResumeState`
            (`find_checkpoint` finds the newest one). Network, optimizer, learning rate and masks are loaded. Train the
            remaining epochs, or let `ResumableCallbacks` skip the completed ones.
        allow_config_change: the resumed run may have another ratio, schedule, epoch length or number of ranks than the
            run that was saved.
        post_train: hooks, called in order with a `HookContext` when the training has ended. A hook that has a method
            `before_training(plan, min_sparsity)` or `check_network(network)` is asked at train begin and may raise
            InputError.
        prune_squeeze_excite: see `make_plan`.
        ratios: target ratios of single layers by pattern, such as `{"head.*": 0.6}`, see `PruningConfig`.
        blocks: rows and columns of single layers by pattern, such as `{"backbone.*": (4, 1)}`, see `PruningConfig`.

    Raises:
        InputError: when created, if an argument is unknown or out of range; at train begin, if no layer is left to
            prune, the ratio cannot be reached with these layers or in this training, or a hook cannot use the plan.

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

    prunes = True
    stage = 1

    def __init__(
        self,
        ratio: float = 0.75,
        initial_ratio: float = 0.15,
        stable_epochs: int = 0,
        pruning_epochs: int = 150,
        tunning_epochs: int = 150,
        pruning_steps: int = 300,
        stable_iterations: int | None = None,
        pruning_iterations: int | None = None,
        tunning_iterations: int | None = None,
        prune_params_type: str | None = "conv1x1_only",
        skip_params_func: Callable[[paddle.nn.Layer], set[str]] | None = None,
        local_sparsity: bool = True,
        scope: str | None = None,
        regrow: bool = False,
        curve: str = "cubic",
        sparse_block: Sequence[int] = (1, 1),
        skip: Sequence[str] = (),
        plan: PrunePlan | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        log_freq: int = 20,
        per_layer: bool = False,
        save_dir: str | os.PathLike[str] | None = None,
        resume: str | os.PathLike[str] | ResumeState | None = None,
        allow_config_change: bool = False,
        post_train: Sequence[Hook] = (),
        prune_squeeze_excite: bool = False,
        ratios: Mapping[str, float] | None = None,
        blocks: Mapping[str, Sequence[int]] | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        check_keys(unknown, ARGUMENTS, type(self).__name__)
        self.config = PruningConfig(
            ratio,
            initial_ratio,
            stable_epochs,
            pruning_epochs,
            tunning_epochs,
            pruning_steps,
            stable_iterations,
            pruning_iterations,
            tunning_iterations,
            prune_params_type,
            skip_params_func,
            local_sparsity,
            scope,
            regrow,
            curve,
            sparse_block,
            skip,
            prune_squeeze_excite,
            {} if ratios is None else ratios,
            {} if blocks is None else blocks,
        )
        for name, folder in {"log_dir": log_dir, "save_dir": save_dir}.items():
            if folder is not None:
                check_path(name, folder)
        if plan is not None and not isinstance(plan, PrunePlan):
            raise InputError(f"plan must come from make_plan, got {plan!r}")
        for name, value in {"per_layer": per_layer, "allow_config_change": allow_config_change}.items():
            if not isinstance(value, bool):
                raise InputError(f"{name} must be True or False, got {value!r}")
        if post_train and save_dir is None:
            raise InputError("post_train hooks need save_dir, the folder for their output")
        if not isinstance(post_train, (list, tuple)) or not all(callable(hook) for hook in post_train):
            raise InputError(f"post_train must be a list of callables, got {post_train!r}")
        self.plan = plan
        self.log_dir, self.log_freq, self.per_layer = log_dir, check_count("log_freq", log_freq, least=1), per_layer
        self.save_dir, self.post_train = save_dir, tuple(post_train)
        self.resume, self.allow_config_change = resume, allow_config_change
        self.pruner: GMPPruner | None = None
        self.report: SparsityReport | None = None
        self._curves: TrainingCurves | None = None
        self._losses: list[float] = []  # of the last training batch
        self._steps_before = 0

    def begin_training(self) -> None:
        """Loads the checkpoint to resume from, creates the pruner and attaches it to the optimizer."""
        session = self.session
        if session.pruner is not None:
            raise InputError("two SparsityCallbacks in one fit: use one, with one plan")
        steps = self._load_checkpoint()
        per_epoch, total = self._optimizer_steps()
        schedule = self.config.schedule(per_epoch, total if total is None or not session.resume else total + steps)
        given = self.config.set_layer_values(self.plan) if self.plan else None
        plan = given or self.config.make_plan(self.model.network, self._input_spec())
        self.pruner = session.pruner = self.config.make_pruner(self.model.network, schedule, plan)
        if session.resume:
            self.pruner.restore(
                replace(session.resume.state, step=steps), str(session.resume.path), self.allow_config_change
            )
        least = self.config.min_sparsity(plan)
        for hook in self.post_train:
            if hasattr(hook, "before_training"):
                hook.before_training(plan, least)
            if hasattr(hook, "check_network") and is_rank_zero():
                hook.check_network(self.model.network)
        self.pruner.attach(self.model._optimizer)
        self._losses = []
        if self.log_dir is not None and is_rank_zero():
            from .curves import TrainingCurves  # tensorboardX takes time to import

            self._curves = TrainingCurves(
                self.pruner, self.log_dir, self.log_freq, self.per_layer, is_resumed=session.resume is not None
            )

    def _load_checkpoint(self) -> int:
        """Loads the checkpoint of this callback or of the session, and returns its optimizer steps."""
        resume = self.resume if self.resume is not None else self.session.resume
        if resume is None:
            return 0
        if not isinstance(resume, ResumeState):
            resume = ResumeState.open(resume)
        return self.session.load_checkpoint(resume, self.params.get("steps"), self.allow_config_change)

    def _optimizer_steps(self) -> tuple[int | None, int | None]:
        """Optimizer steps of an epoch and of this `fit`; None where the loader has no length.

        hapi steps the optimizer at every n-th batch (`accumulate_grad_batches`) and at the last batch of an epoch, and
        may be told to end after a number of batches (`num_iters`).
        """
        batches = self.params.get("steps")
        if batches is None:
            return None, None
        accumulate = getattr(self.model, "_accumulate", 1)
        per_epoch = -(-batches // accumulate)
        limit = self.session.num_iters
        if limit is None:
            return per_epoch, self.params["epochs"] * per_epoch
        return per_epoch, limit // batches * per_epoch + limit % batches // accumulate

    def _input_spec(self) -> list[Any] | None:
        """The specs given to `paddle.Model`, if they fix every size but the batch."""
        specs = self.model._inputs or []
        # A spec that hapi derived from the names of forward's arguments has one unknown dimension.
        known = all(
            spec.shape and len(spec.shape) > 1 and all(size and size > 0 for size in spec.shape[1:]) for spec in specs
        )
        return list(specs) if specs and known else None

    def on_train_batch_begin(self, step: int, logs: Any = None) -> None:
        """Notes the completed optimizer steps."""
        assert self.pruner is not None
        super().on_train_batch_begin(step, logs)
        self._steps_before = self.pruner.cur_iteration

    def on_train_batch_end(self, step: int, logs: Any = None) -> None:
        """Raises DivergenceError if the loss is not finite, and writes a point of the curves every `log_freq` steps.

        AMP's scaler skips the step of a batch whose loss overflowed, so that such a loss is no error.
        """
        assert self.pruner is not None
        done = self.pruner.cur_iteration
        losses = (logs or {}).get("loss", [])
        self._losses = list(losses) if isinstance(losses, (list, tuple)) else [losses]
        scaler = getattr(self.model, "_scaler", None)
        if done > self._steps_before or scaler is None or not scaler.is_enable():
            check_finite_loss(self._losses, done)
        if self._curves:
            self._curves.add_step(self.model._optimizer, self._losses, self.session.loss_terms)

    def on_eval_begin(self, logs: Any = None) -> None:
        """Passes the names of the metrics to the curves."""
        if self._curves:
            self._curves.begin_evaluation(logs or {})

    def on_eval_end(self, logs: Any = None) -> None:
        """Writes `eval/<metric>`, such as `eval/mAP`."""
        if self._curves:
            self._curves.add_evaluation(logs or {})

    def end_training(self) -> None:
        """Detaches the pruner, finalizes the masks and writes the last points of the curves."""
        assert self.pruner is not None
        self.pruner.detach(self.model._optimizer)
        self.report = self.pruner.finalize()
        if not self.pruner.is_at_target:
            warnings.warn(
                f"the training ended after {self.pruner.cur_iteration} optimizer steps at ratio "
                f"{self.pruner.overall_ratio:.4f}, before the target {self.pruner.overall_target}",
                stacklevel=2,
            )
        if self._curves:
            self._curves.add_step(self.model._optimizer, self._losses, self.session.loss_terms, is_last=True)

    def after_training(self) -> None:
        """Calls the post-train hooks."""
        if self.post_train:
            assert self.pruner is not None
            assert self.report is not None
            assert self.save_dir is not None
            plan, target = self.pruner.plan, self.pruner.overall_target
            context = HookContext(self.model.network, Path(self.save_dir), plan, self.report, target)
            context.min_sparsity = self.config.min_sparsity(plan)
            call_hooks(self.post_train, context)

    def close(self) -> None:
        """Detaches the pruner and closes the event file, also after an exception."""
        if self.pruner is not None:
            self.pruner.detach(self.model._optimizer)
        if self._curves:
            self._curves.close()
            self._curves = None


ARGUMENTS = tuple(
    name for name in inspect.signature(SparsityCallback.__init__).parameters if name not in ("self", "unknown")
)
