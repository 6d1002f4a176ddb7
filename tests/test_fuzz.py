import fuzz
import mutations
import pytest


@pytest.mark.slow
def test_a_damaged_file_is_either_rejected_by_name_or_read():
    result = fuzz.fuzz(files=8 * len(fuzz.KINDS), seed=11)
    assert result.failures == []
    assert sum(result.outcomes.values()) == 8 * len(fuzz.KINDS)
    for kind in fuzz.KINDS:
        assert result.outcomes[kind, fuzz.REJECTED], kind


def _raise_key_error(folder):
    raise KeyError(folder)


def _raise_without_name(folder):
    from paddle_sparse_cb import InputError

    raise InputError("invalid input")


def _abort(folder):
    import os

    os.abort()


def _hang(folder):
    import time

    time.sleep(1000)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("read", "outcome"),
    [(_raise_key_error, fuzz.CRASH), (_raise_without_name, fuzz.UNNAMED), (_abort, fuzz.CRASH), (_hang, fuzz.HANG)],
)
def test_a_reader_that_fails_is_counted_and_its_file_is_kept(read, outcome, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "TIMEOUT", 2)
    kind = fuzz.Kind("report", "report.json", (mutations.truncate,), read)
    monkeypatch.setitem(fuzz.KINDS, "report", kind)
    result = fuzz.fuzz(files=2, seed=0, kept=tmp_path, kinds=["report"], processes=1)
    assert result.outcomes == {("report", outcome): 2}
    assert len(result.failures) == 2
    assert (tmp_path / "0" / "report.json").is_file()
