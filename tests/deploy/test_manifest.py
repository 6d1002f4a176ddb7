import json

import pytest

from paddle_sparse_cb import InputError
from paddle_sparse_cb.deploy.manifest import find_problems, record


@pytest.fixture
def made(tmp_path):
    """A folder with two files, the second made from the first."""
    source, result = tmp_path / "model.pdiparams", tmp_path / "model.nb"
    source.write_text("weights")
    result.write_text("kernels")
    record(tmp_path, [source])
    record(tmp_path, [result], [source])
    return source, result


def test_unchanged_files_have_no_problems(made, tmp_path):
    assert find_problems(tmp_path, made) == []


def test_a_changed_a_missing_and_an_unknown_file_are_named(made, tmp_path):
    source, result = made
    result.write_text("other")
    assert find_problems(tmp_path) == [f"{result} was changed after it was made"]
    result.unlink()
    assert find_problems(tmp_path) == [f"{result} is missing"]
    record(tmp_path, [source])
    (tmp_path / "more.nb").write_text("more")
    assert f"{tmp_path / 'more.nb'} is not in manifest.json" in find_problems(tmp_path, [tmp_path / "more.nb"])


def test_a_file_that_was_made_from_an_earlier_version_is_stale(made, tmp_path):
    source, result = made
    source.write_text("other weights")
    record(tmp_path, [source])
    assert find_problems(tmp_path) == [f"{result} is stale: it was made from another model.pdiparams"]
    record(tmp_path, [result], [source])
    assert find_problems(tmp_path) == []


def test_a_folder_can_be_moved(made, tmp_path):
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    try:
        assert find_problems(moved, [moved / "model.nb"]) == []
    finally:
        moved.rename(tmp_path)


def test_a_source_outside_of_the_folder_may_be_gone(made, tmp_path):
    output = tmp_path / "output"
    output.mkdir()
    (output / "model.nb").write_text("kernels")
    record(output, [output / "model.nb"], [made[0]])
    made[0].unlink()
    assert find_problems(output) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:40],
        lambda text: "[]",
        lambda text: '{"files": {"a": {}}}',
        lambda text: '{"files": {"a": {"sha256": 1, "made_from": {}}}}',
        lambda text: text.replace("model.nb", "other.nb"),
        lambda text: json.dumps(json.loads(text)),
        lambda text: "[" * 100_000,
    ],
)
def test_a_damaged_manifest_is_an_input_error(made, tmp_path, change):
    path = tmp_path / "manifest.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=r"manifest.json: damaged: "):
        find_problems(tmp_path)


def test_without_a_manifest_nothing_is_known(tmp_path):
    assert find_problems(tmp_path) == [
        f"{tmp_path / 'manifest.json'} is missing, so that nothing says which files belong together"
    ]
