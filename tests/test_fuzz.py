import fuzz
import mutations
import pytest


@pytest.mark.slow
def test_a_damaged_file_of_any_kind_is_named_or_read_and_nothing_else():
    counted = fuzz.fuzz(files=8 * len(fuzz.KINDS), seed=11)
    assert counted.failures == []
    assert sum(counted.outcomes.values()) == 8 * len(fuzz.KINDS)
    for kind in fuzz.KINDS:
        assert counted.outcomes[kind, fuzz.REFUSED], kind


def _crash(folder):
    raise KeyError(folder)


def _unnamed(folder):
    from paddle_sparse_cb import InputError

    raise InputError("something is wrong somewhere")


def _ends(folder):
    import os

    os.abort()


def _hangs(folder):
    import time

    time.sleep(1000)


@pytest.mark.slow
@pytest.mark.parametrize(("read", "outcome"), [
    (_crash, fuzz.CRASH), (_unnamed, fuzz.UNNAMED), (_ends, fuzz.CRASH), (_hangs, fuzz.HANG)])
def test_what_may_not_be_is_counted_and_named(read, outcome, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 2)
    kind = fuzz.Kind("report", "report.json", (mutations.truncate,), read)
    monkeypatch.setitem(fuzz.KINDS, "report", kind)
    counted = fuzz.fuzz(files=2, seed=0, kept=tmp_path, kinds=["report"], processes=1)
    assert counted.outcomes == {("report", outcome): 2}
    assert len(counted.failures) == 2
    assert (tmp_path / "0" / "report.json").is_file()
