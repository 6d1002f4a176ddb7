"""`SparseEarlyStopping`: early stopping that waits for the target ratio."""

from __future__ import annotations

from typing import Any

import paddle

from ..utils.distributed import is_rank_zero
from .session import FitCallback

_KEY = "early_stopping"


class SparseEarlyStopping(FitCallback, paddle.callbacks.EarlyStopping):
    """`paddle.callbacks.EarlyStopping` that ignores evaluations before the target ratio is reached.

    Such evaluations are neither the best nor do they count as patience. Without a `SparsityCallback` in the same `fit`
    it behaves like Paddle's own. `Checkpoints` saves the best value and the patience used, so that a resumed training
    continues to count. The arguments are Paddle's; of several ranks, rank 0 saves.

    Examples:
        >>> from paddle_sparse_cb import SparseEarlyStopping
        >>> stopping = SparseEarlyStopping("mAP", mode="max", patience=10)
    """

    def begin_training(self) -> None:
        """Resets the patience, or continues from the checkpoint."""
        paddle.callbacks.EarlyStopping.on_train_begin(self)
        saved = self.session.saved(_KEY)
        values = saved.get(self.monitor) if isinstance(saved, dict) else None
        if isinstance(values, list) and len(values) == 2 and all(isinstance(one, (int, float)) for one in values):
            self.best_value, self.wait_epoch = float(values[0]), int(values[1])

    def state(self) -> dict[str, Any]:
        """Returns the best value and the evaluations since then; nothing before the first evaluation that counts."""
        best = getattr(self, "best_value", None)
        if best is None or best in (float("inf"), float("-inf")):  # JSON has no infinity
            return {}
        return {_KEY: {self.monitor: [float(best), self.wait_epoch]}}

    def on_eval_end(self, logs: Any = None) -> None:
        """Compares the evaluation with the best one, once the target ratio is reached."""
        if self.session.target_reached:
            if not is_rank_zero():
                self.save_best_model = False
            self.stopped_epoch = self.session.position.epoch  # Paddle counts its own calls
            super().on_eval_end(logs)
