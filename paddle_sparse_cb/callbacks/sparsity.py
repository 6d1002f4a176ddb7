"""`SparsityCallback`: prunes a network while `paddle.Model.fit` trains it, and calls the post-train hooks."""

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
from ..pruning.layer_rules import PRUNE_SQUEEZE_EXCITE
from ..pruning.mask_updates import MaskRecorder
from ..pruning.planner import PrunePlan
from ..pruning.statistics import SparsityReport
from ..pruning.summary import result_summary, training_summary
from ..utils.distributed import is_rank_zero, rank_zero_info
from ..utils.finite import check_finite_loss
from ..utils.validation import check_flag, check_keys, check_path
from .curves import TrainingCurves
from .forwarding import ForwardingCallback

if TYPE_CHECKING:
    from ..pruning.pruner import GMPPruner


class SparsityCallback(ForwardingCallback):
    """Prunes a network gradually while `paddle.Model.fit` trains it.

    Weights are zeroed right after each optimizer step, so that every other callback sees the zeros. The order of the
    callbacks makes no difference. The method assumes a converged dense network to start from.

    hapi's `logs` of a training batch hold `sparsity`, the share of weights that the masks prune, and `target_sparsity`,
    what the schedule asks for, so that the progress bar and other callbacks show them.

    Args:
        ratio: the target ratio, the share of weights that ends at zero.
        initial_ratio: the ratio of the first pruning step.
        stable_epochs: epochs before pruning starts.
        pruning_epochs: epochs in which the ratio rises.
        tunning_epochs: epochs at the target ratio, to recover.
        pruning_steps: how many times the ratio rises.
        stable_iterations: optimizer steps before pruning starts, in place of `stable_epochs`.
        pruning_iterations: optimizer steps in which the ratio rises, in place of `pruning_epochs`.
        tunning_iterations: optimizer steps at the target ratio, in place of `tunning_epochs`.
        prune_params_type: `conv1x1_only`, or None for all convolutions and linear layers.
        skip_params_func: PaddleSlim's function, see `make_plan`.
        local_sparsity: every layer is pruned to the ratio; otherwise one ranking over all layers decides.
        scope: `uniform` or `global`, the same as `local_sparsity`, or `erk`: layers with few weights stay denser.
        regrow: a pruned weight may be revived when the masks are updated. Costs accuracy at high ratios.
        curve: how the ratio rises: `cubic`, `linear`, `cosine`, or `constant`, which is the target at once.
        sparse_block: rows (output channels) and columns (input channels) that are pruned as one, see `PruningConfig`.
        skip: shell patterns over structured names of weights to leave dense, such as `("head.*",)`.
        plan: the layers to prune (`make_plan`), in place of the rules above; `ratios` and `blocks` are added to it.
        log_dir: folder for TensorBoard curves, see `TrainingCurves`; None writes none.
        log_freq: optimizer steps between two points of a curve.
        per_layer: write a curve for each pruned weight as well.
        visualdl: write the curves for VisualDL as well.
        verbose: print what will be pruned at train begin, and what was pruned at train end; None does so unless `fit`
            is called with `verbose=0`.
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

    Examples:
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
        prune_squeeze_excite: bool = PRUNE_SQUEEZE_EXCITE,
        ratios: Mapping[str, float] | None = None,
        blocks: Mapping[str, Sequence[int]] | None = None,
        visualdl: bool = False,
        verbose: bool | None = None,
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
        if save_dir is not None:
            check_path("save_dir", save_dir)
        if plan is not None and not isinstance(plan, PrunePlan):
            raise InputError(f"plan must come from make_plan, got {plan!r}")
        if post_train and save_dir is None:
            raise InputError("post_train hooks need save_dir, the folder for their output")
        if not isinstance(post_train, (list, tuple)) or not all(callable(hook) for hook in post_train):
            raise InputError(f"post_train must be a list of callables, got {post_train!r}")
        self.plan, self.save_dir, self.post_train = plan, save_dir, tuple(post_train)
        self.resume, self.allow_config_change = resume, check_flag("allow_config_change", allow_config_change)
        self.verbose = verbose if verbose is None else check_flag("verbose", verbose)
        # Created in any case, to check the arguments.
        curves = TrainingCurves(os.curdir if log_dir is None else log_dir, log_freq, per_layer, visualdl)
        self.inner = [] if log_dir is None else [curves]
        self.pruner: GMPPruner | None = None
        self.report: SparsityReport | None = None
        self._steps_before = 0

    def begin_training(self) -> None:
        """Loads the checkpoint to resume from, creates the pruner and attaches it to the optimizer."""
        session = self.session
        if session.pruner is not None:
            raise InputError("two SparsityCallbacks in one fit: use one, with one plan")
        steps = self._load_checkpoint()
        per_epoch, total = session.optimizer_steps(self.params.get("steps"), self.params["epochs"])
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
        session.mask_recorder = MaskRecorder(self.pruner)
        if self.verbose or (self.verbose is None and self.params.get("verbose")):
            rank_zero_info(f"{training_summary(plan, schedule, per_epoch, total)}\n")

    def log_values(self) -> dict[str, float]:
        """Returns the sparsity of the masks and the target of the schedule, for the logs of a training batch."""
        recorder = self.session.mask_recorder
        if recorder is None or self.pruner is None:
            return {}
        return {"sparsity": recorder.last.sparsity, "target_sparsity": self.pruner.overall_ratio}

    def _load_checkpoint(self) -> int:
        """Loads the checkpoint of this callback or of the session, and returns its optimizer steps."""
        resume = self.resume if self.resume is not None else self.session.resume
        if resume is None:
            return 0
        if not isinstance(resume, ResumeState):
            resume = ResumeState.open(resume)
        return self.session.load_checkpoint(resume, self.params.get("steps"), self.allow_config_change)

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
        """Raises DivergenceError if the loss is not finite.

        AMP's scaler skips the step of a batch whose loss overflowed, so that such a loss is no error.
        """
        assert self.pruner is not None
        done = self.pruner.cur_iteration
        losses = (logs or {}).get("loss", [])
        scaler = getattr(self.model, "_scaler", None)
        if done > self._steps_before or scaler is None or not scaler.is_enable():
            check_finite_loss(list(losses) if isinstance(losses, (list, tuple)) else [losses], done)
        super().on_train_batch_end(step, logs)

    def end_training(self) -> None:
        """Detaches the pruner and finalizes the masks."""
        assert self.pruner is not None
        self.pruner.detach(self.model._optimizer)
        self.report = self.pruner.finalize()
        if not self.pruner.is_at_target:
            warnings.warn(
                f"the training ended after {self.pruner.cur_iteration} optimizer steps at ratio "
                f"{self.pruner.overall_ratio:.4f}, before the target {self.pruner.overall_target}",
                stacklevel=2,
            )
        if self.verbose or (self.verbose is None and self.params.get("verbose")):
            rank_zero_info(result_summary(self.report, self.pruner.overall_target))

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
        """Detaches the pruner, also after an exception."""
        if self.pruner is not None:
            self.pruner.detach(self.model._optimizer)


ARGUMENTS = tuple(
    name for name in inspect.signature(SparsityCallback.__init__).parameters if name not in ("self", "unknown")
)
