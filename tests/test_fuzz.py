import os
import signal
import time

import fuzz
import mutations
import pytest

from paddle_sparse_cb import InputError


@pytest.mark.slow
def test_a_damaged_file_is_either_rejected_by_name_or_read():
    result = fuzz.fuzz(files=6 * len(fuzz.KINDS), seed=11, processes=1)
    assert result.failures == []
    assert sum(result.outcomes.values()) == 6 * len(fuzz.KINDS)
    for kind in fuzz.KINDS:
        assert result.outcomes[kind, fuzz.REJECTED], kind


def _raise_key_error(folder):
    raise KeyError(folder)


def _raise_without_name(folder):
    raise InputError("invalid input")


def _die(folder):
    os.kill(os.getpid(), signal.SIGKILL)


def _hang(folder):
    time.sleep(1000)


READERS = {
    "key error": (_raise_key_error, fuzz.CRASH),
    "no name": (_raise_without_name, fuzz.UNNAMED),
    "death": (_die, fuzz.CRASH),
    "hang": (_hang, fuzz.HANG),
}


@pytest.mark.slow
def test_a_reader_that_fails_is_counted_and_its_file_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "TIMEOUT", 8)
    for name, (read, _) in READERS.items():
        monkeypatch.setitem(fuzz.KINDS, name, fuzz.Kind("report", "report.json", (mutations.truncate,), read))
    result = fuzz.fuzz(files=len(READERS), seed=0, kept=tmp_path, kinds=list(READERS), processes=1)
    assert result.outcomes == {(name, outcome): 1 for name, (_, outcome) in READERS.items()}
    assert len(result.failures) == len(READERS)
    assert all((tmp_path / str(number) / "report.json").is_file() for number in range(len(READERS)))
