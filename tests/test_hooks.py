from pathlib import Path

from paddle_sparse_cb import HookContext, make_plan, measure_sparsity
from paddle_sparse_cb.hooks import call_hooks


class EveryRank:
    every_rank = True

    def __call__(self, context):
        context.metrics["seen"] = context.metrics.get("seen", 0) + 1


def test_other_ranks_run_only_the_hooks_that_need_all(network, monkeypatch):
    context = HookContext(network, Path("x"), make_plan(network), measure_sparsity(network), 0.75)
    written = []
    monkeypatch.setattr("paddle.distributed.get_rank", lambda: 1)
    call_hooks([EveryRank(), written.append], context)
    assert (context.metrics, written) == ({"seen": 1}, [])
    monkeypatch.setattr("paddle.distributed.get_rank", lambda: 0)
    call_hooks([EveryRank(), written.append], context)
    assert (context.metrics, written) == ({"seen": 2}, [context])
