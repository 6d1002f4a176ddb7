"""`Distillation`: adds the distance to a teacher's outputs and features to the loss of `paddle.Model.fit`."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import paddle
from paddle import nn

from ..errors import InputError
from ..utils.distributed import check_same_on_ranks
from ..utils.layers import network_digest
from ..utils.validation import check_count, check_keys, check_number, check_same
from .distillation_losses import SoftenedLogits, as_float
from .layer_outputs import without_wrapper
from .projections import Projections
from .session import FitCallback
from .teacher_comparison import Compared, Loss, TeacherComparison


class Distillation(FitCallback):
    """Trains a network towards a teacher: a larger network, or the same one before it is pruned.

    Each training batch is also given to the teacher, in evaluation mode and without gradients; that forward pass is the
    cost. What the callback adds to the loss are terms: `logits` compares the outputs, or `loss` does, and `features`
    compares feature maps, each channel normalized. hapi logs them behind the network's own losses, a `SparsityCallback`
    with a `log_dir` writes `train/distillation` and `train/distillation/<term>`, and `TrainingProgress` shows them.
    Evaluations have no such terms. The teacher is not changed, and the order of the callbacks makes no difference.

    Where a feature has another number of channels than the teacher's, a 1x1 projection is trained to predict the
    latter from the former. It is saved by `Checkpoints` (`.pddistill`) and is no part of the trained network.

    Args:
        teacher: a network that is called with the same inputs. It may share no parameter with the trained network.
        loss: `loss(outputs, teacher's outputs)`, which returns a tensor with one value, or several by name. None
            compares logits of shape [..., classes] (`SoftenedLogits`).
        temperature: of the logits; it has no meaning with `loss`.
        weight: factor of what `loss` returns; 0 compares no outputs.
        features: structured names of layers whose outputs are compared, all tensors of each; a dict where the teacher
            has other names. A map is [b, channels, ...], or [b, tokens, channels] with three dimensions.
        feature_weight: factor of the mean over all maps.
        outputs: structured name of the layer, in the network and in the teacher, whose outputs `loss` is given; None
            is the network itself.
        labels: False trains with the terms alone: the loss of the model is not called in training, nor are its
            metrics, so that batches need no labels.
        warmup_epochs: epochs in which all terms rise linearly to their weights.
        decay: lets all terms fall linearly to zero over the training.

    Raises:
        InputError: when created, if an argument is unknown or out of range; at train begin, if a layer does not exist
            or cannot be observed, or the checkpoint was made with another teacher or other settings (see
            `allow_config_change` of `ResumableCallbacks`); at the first batch, if the outputs do not fit.
        RankMismatchError: at train begin, if the ranks have different teachers.

    Examples:
        >>> import paddle
        >>> from paddle_sparse_cb import Distillation
        >>> data = paddle.io.TensorDataset([paddle.rand([32, 8]), paddle.randint(0, 4, [32, 1])])
        >>> teacher = paddle.nn.Sequential(paddle.nn.Linear(8, 64), paddle.nn.ReLU(), paddle.nn.Linear(64, 4))
        >>> network = paddle.nn.Sequential(paddle.nn.Linear(8, 16), paddle.nn.ReLU(), paddle.nn.Linear(16, 4))
        >>> model = paddle.Model(network)
        >>> model.prepare(paddle.optimizer.SGD(0.1, parameters=network.parameters()), paddle.nn.CrossEntropyLoss())
        >>> model.fit(data, batch_size=8, verbose=0, callbacks=[Distillation(teacher, features=["1"])])
    """

    def __init__(
        self,
        teacher: nn.Layer,
        loss: Loss | None = None,
        temperature: float = 4.0,
        weight: float = 1.0,
        features: Sequence[str] | Mapping[str, str] = (),
        feature_weight: float = 1.0,
        outputs: str | None = None,
        labels: bool = True,
        warmup_epochs: int = 0,
        decay: bool = False,
        **unknown: Any,
    ) -> None:
        super().__init__()
        check_keys(unknown, ARGUMENTS, type(self).__name__)
        if not isinstance(teacher, nn.Layer):
            hint = "; give its network" if isinstance(teacher, paddle.Model) else ""
            raise InputError(f"teacher must be a paddle.nn.Layer, got {type(teacher).__name__}{hint}")
        if loss is not None and not callable(loss):
            raise InputError(f"loss must be a function of the outputs and the teacher's outputs, got {loss!r}")
        for name, flag in {"labels": labels, "decay": decay}.items():
            if not isinstance(flag, bool):
                raise InputError(f"{name} must be True or False, got {flag!r}")
        if outputs is not None and not isinstance(outputs, str):
            raise InputError(f"outputs must be the structured name of a layer, got {outputs!r}")
        if check_number("temperature", temperature) == 0:
            raise InputError("temperature must be above 0, got 0")
        self.teacher = teacher
        self.compared = Compared(
            loss or SoftenedLogits(float(temperature)),
            check_number("weight", weight),
            _as_mapping(features),
            check_number("feature_weight", feature_weight),
            outputs or "",
        )
        self.labels, self.warmup_epochs, self.decay = labels, check_count("warmup_epochs", warmup_epochs), decay
        if not self.compared.weight and not (self.compared.features and self.compared.feature_weight):
            raise InputError("weight must be above 0 without features, got 0: nothing would be compared")
        if decay and not labels:
            raise InputError("decay must be False with labels=False, got True: no loss would be left at the end")
        self._original: Any = None  # the model's own loss
        self._reset()

    def _reset(self) -> None:
        self._digest = ""
        self._factor = 1.0
        self._projections = Projections()
        self._comparison: TeacherComparison | None = None
        self._metrics: list[Any] | None = None  # the model's own metrics, while a batch without labels is trained

    def begin_training(self) -> None:
        """Compares the teacher with that of the checkpoint, and adds the terms to the loss of the model."""
        session = self.session
        if session.distillation is not None:
            raise InputError("two Distillations in one fit: use one")
        if not paddle.in_dynamic_mode():
            raise InputError("Distillation: Paddle must be in dynamic mode; call paddle.disable_static()")
        if (self.warmup_epochs or self.decay) and self.params.get("steps") is None:
            raise InputError("Distillation: warmup_epochs and decay need a loader that has a length")
        if self.labels and self.model._loss is None:
            raise InputError("Distillation: the model was prepared without a loss; train it with labels=False")
        self._reset()
        self._digest = network_digest(self.teacher)
        check_same_on_ranks("teacher", self._digest)
        session.distillation = self
        self._restore()
        self._comparison = TeacherComparison(
            without_wrapper(self.model.network), self.teacher, self.compared, self._projections, self._is_training
        )
        if self.model._loss != self._training_loss:  # else another callback has put it back after an earlier fit
            self._original, self.model._loss = self.model._loss, self._training_loss

    def _restore(self) -> None:
        """Continues from the checkpoint that the training resumes from."""
        session = self.session
        if session.resume is None:
            return
        saved, path = session.saved("distillation"), session.resume.path
        if not isinstance(saved, dict):
            if session.allow_config_change:
                return
            raise InputError(f"{path}: the checkpoint was made without Distillation, and this run has one")
        settings = {key: value for key, value in saved.items() if key != "projections"}
        if not session.allow_config_change:
            check_same(settings, self.settings(), f"{path}: distillation")
        if session.resume.has(".pddistill") and settings == self.settings():
            arrays = session.resume.arrays(".pddistill")
            self._projections.restore(saved.get("projections"), arrays, str(path.with_suffix(".pddistill")))

    def settings(self) -> dict[str, Any]:
        """Returns what a resumed run must have in common with this one; plain values."""
        compared, describe = self.compared, getattr(self.compared.loss, "settings", dict)
        name = getattr(compared.loss, "__qualname__", type(compared.loss).__name__)
        return {
            "teacher": self._digest,
            "loss": {"name": name, **describe()},
            "weight": compared.weight,
            "features": dict(compared.features),
            "feature_weight": compared.feature_weight,
            "outputs": compared.outputs,
            "labels": self.labels,
            "warmup_epochs": self.warmup_epochs,
            "decay": self.decay,
        }

    def state(self) -> dict[str, Any]:
        """Returns the settings, and shapes and steps of the projections."""
        return {"distillation": {**self.settings(), "projections": self._projections.state()}}

    def arrays(self) -> dict[str, paddle.Tensor]:
        """Returns the projections and their moments, by name."""
        return self._projections.arrays()

    def on_train_batch_begin(self, step: int, logs: Any = None) -> None:
        """Sets the weight of the terms in this batch, and hides metrics, which need labels, if there are none."""
        super().on_train_batch_begin(step, logs)
        self._factor = self._factor_at(self.session.position.epoch, step)
        if not self.labels:
            self._metrics, self.model._metrics = self.model._metrics, []

    def on_train_batch_end(self, step: int, logs: Any = None) -> None:
        """Shows the metrics again."""
        self._show_metrics()

    def _show_metrics(self) -> None:
        if self._metrics is not None:
            self.model._metrics, self._metrics = self._metrics, None

    def _factor_at(self, epoch: int, batch: int) -> float:
        steps = self.params.get("steps") or 1
        completed, factor = epoch * steps + batch, 1.0
        if self.warmup_epochs:
            factor = min(1.0, (completed + 1) / (self.warmup_epochs * steps))
        if self.decay:
            total = self.params["epochs"] * steps
            factor *= 1 - completed / min(total, self.session.num_iters or total)
        return factor

    def _is_training(self) -> bool:
        return bool(self.model.mode == "train")

    def _training_loss(self, *arguments: Any) -> Any:
        """Replaces the loss of the model: adds the terms to it in training, and nothing in an evaluation."""
        if self._comparison is None or not self._is_training():
            return self._original(*arguments) if self._original else [paddle.full([1], float("nan"))]
        losses: list[paddle.Tensor] = []
        if self.labels:
            found = self._original(*arguments)
            losses = [as_float(loss) for loss in (found if isinstance(found, (list, tuple)) else [found])]
        for loss in losses:
            if loss.size != 1:
                raise InputError(
                    f"Distillation: the loss of the model must be one number, got shape {list(loss.shape)}"
                )
        terms = self._comparison.terms()
        self.session.loss_terms = tuple(terms)
        like = losses[0] if losses else paddle.zeros([1])
        return [*losses, *((self._factor * term).reshape(like.shape).astype(like.dtype) for term in terms.values())]

    def end_training(self) -> None:
        """Gives the model its own loss back; warns if the teacher has changed."""
        self._detach()
        if network_digest(self.teacher) != self._digest:
            warnings.warn(
                "Distillation: the teacher changed during the training, which cannot be resumed bit for bit: it "
                "updates its tensors in evaluation mode, or something else trains it",
                stacklevel=2,
            )

    def close(self) -> None:
        """Gives the model its own loss and metrics back, also after an exception."""
        self._detach()
        self._projections = Projections()

    def _detach(self) -> None:
        self._show_metrics()
        if self._comparison is not None:
            self._comparison.remove()
            self._comparison = None
            if self.model._loss == self._training_loss:  # else something wraps it, and reaches the original through it
                self.model._loss = self._original


def _as_mapping(features: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Returns the names of layers with those in the teacher; raises InputError if these are no names."""
    if isinstance(features, (list, tuple)):
        features = {name: name for name in features}
    if not isinstance(features, Mapping) or not all(isinstance(one, str) for one in (*features, *features.values())):
        raise InputError(
            "features must be a list of structured names of layers, or a dict from them to those of the teacher, got "
            f"{features!r}"
        )
    return dict(features)


ARGUMENTS = tuple(
    name for name in inspect.signature(Distillation.__init__).parameters if name not in ("self", "unknown")
)
