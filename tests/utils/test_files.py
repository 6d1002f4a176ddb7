import pytest

from paddle_sparse_cb.utils.files import atomic_write, write_text


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
