from pathlib import Path

import pytest

from paddle_sparse_cb.utils.files import atomic_write, build_once, cache_dir, write_text


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "report.json"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_write(path) as scratch:
        scratch.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_not_made_takes_nobodys_place(tmp_path):
    (tmp_path / "precious").mkdir()
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "precious"):
        pass
    assert (tmp_path / "precious").is_dir()


def test_a_file_never_takes_the_place_of_a_folder(tmp_path):
    (tmp_path / "precious").mkdir()
    with pytest.raises(OSError, match="precious"):
        write_text(tmp_path / "precious", "")
    assert (tmp_path / "precious").is_dir()


def test_the_cache_is_where_the_user_wants_it(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.delenv("PADDLE_SPARSE_CACHE", raising=False)
    assert cache_dir() == Path("/somewhere/paddle_sparse_cb")
    monkeypatch.setenv("PADDLE_SPARSE_CACHE", "/elsewhere")
    assert cache_dir() == Path("/elsewhere")


def test_a_folder_of_the_cache_is_made_once_and_never_changed(tmp_path):
    def make(content):
        def fill(folder):
            folder.mkdir()
            (folder / content).touch()
        return fill

    def slower(folder):  # another process ends while this one is still at it
        build_once(tmp_path / "tiles", make("first"))
        make("second")(folder)

    for fill in (slower, make("third")):
        build_once(tmp_path / "tiles", fill)
        assert [path.name for path in (tmp_path / "tiles").iterdir()] == ["first"]
    assert len(list(tmp_path.iterdir())) == 1
