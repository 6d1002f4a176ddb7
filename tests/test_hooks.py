from pathlib import Path

import pytest

from paddle_sparse_cb import HookContext, make_plan, measure_sparsity
from paddle_sparse_cb.hooks import call_hooks


class EveryRank:
    every_rank = True

    def __call__(self, context):
        context.metrics["calls"] = context.metrics.get("calls", 0) + 1


@pytest.fixture
def context(network):
    return HookContext(network, Path("x"), make_plan(network), measure_sparsity(network), 0.75)


def test_only_hooks_marked_every_rank_run_on_other_ranks(context, monkeypatch):
    seen = []
    monkeypatch.setattr("paddle.distributed.get_rank", lambda: 1)
    call_hooks([EveryRank(), seen.append], context)
    assert (context.metrics, seen) == ({"calls": 1}, [])
    monkeypatch.setattr("paddle.distributed.get_rank", lambda: 0)
    call_hooks([EveryRank(), seen.append], context)
    assert (context.metrics, seen) == ({"calls": 2}, [context])


def test_hooks_run_in_the_order_given_and_see_what_earlier_ones_added(context):
    def export(context):
        context.artefacts["inference"] = context.output / "model"

    def record(context):
        context.checks["found"] = context.artefacts["inference"]

    call_hooks([export, record], context)
    assert context.checks == {"found": Path("x/model")}
