"""`SyncBuffers`: the running statistics of rank 0 on every rank, for evaluations."""

from __future__ import annotations

from typing import Any

import paddle

from ..utils.distributed import is_distributed


class SyncBuffers(paddle.callbacks.Callback):
    """Broadcasts the buffers of rank 0 when an evaluation begins, running statistics of batch norms among them.

    Each rank evaluates a share of the images. Without this callback the ranks would evaluate networks that differ in
    their running statistics, and none of them would be the network that rank 0 saves.
    """

    @paddle.no_grad()
    def on_eval_begin(self, logs: Any = None) -> None:
        """Broadcasts every tensor that receives no gradient."""
        if is_distributed():
            for tensor in self.model.network.state_dict().values():
                if tensor.stop_gradient:
                    paddle.distributed.broadcast(tensor, src=0)
