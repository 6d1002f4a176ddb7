import os
import signal

import pytest
from helpers import forked

from paddle_sparse_cb.utils.files import atomic_write, remove_stale_scratch, write_text


def write_half(path):
    with atomic_write(path) as scratch:
        scratch.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def write_and_be_killed(path):
    process = forked(write_half, path)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert [scratch for scratch in path.parent.iterdir() if scratch.name.startswith(f".{path.name}.")]


def test_a_failed_write_leaves_the_previous_file_and_nothing_else(tmp_path):
    path = tmp_path / "report.json"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_write(path) as scratch:
        scratch.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_no_file_replaces_nothing(tmp_path):
    (tmp_path / "precious").mkdir()
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "precious"):
        pass
    assert (tmp_path / "precious").is_dir()


def test_a_file_never_replaces_a_folder(tmp_path):
    (tmp_path / "precious").mkdir()
    with pytest.raises(OSError, match="precious"):
        write_text(tmp_path / "precious", "")
    assert (tmp_path / "precious").is_dir()


def test_the_next_write_removes_the_scratch_files_of_a_killed_process(tmp_path):
    path = tmp_path / "model[1].nb"
    write_and_be_killed(path)
    write_text(path, "new")
    assert list(tmp_path.iterdir()) == [path]


def test_the_scratch_files_of_a_running_process_and_hidden_files_of_others_are_kept(tmp_path):
    write_and_be_killed(tmp_path / "killed.nb")
    (tmp_path / ".5.pdparams.Xa81Bc").write_text("rsync is at work")
    (tmp_path / ".model.nb.backup").mkdir()
    with atomic_write(tmp_path / "model.nb") as scratch:
        remove_stale_scratch(tmp_path)
        scratch.write_text("complete")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"model.nb", ".5.pdparams.Xa81Bc", ".model.nb.backup"}
