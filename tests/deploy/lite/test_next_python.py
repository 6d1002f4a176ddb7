import sys

import numpy as np
import pytest
from helpers import Pointwise
from paddle.static import InputSpec

from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.lite import next_python
from paddle_sparse_cb.deploy.lite import optimizer as lite
from paddle_sparse_cb.deploy.lite.nb import read_nb
from paddle_sparse_cb.errors import PipelineError


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the only Python that can run the wheel of another one")
def test_where_there_is_no_other_python_the_optimizer_runs_in_this_one_and_writes_the_same(monkeypatch, tmp_path):
    prefix = export(Pointwise(), tmp_path / "model", [InputSpec([1, 1, 8, 8], "float32", "x")])
    expected = read_nb(lite.optimize(prefix, tmp_path / "other.nb", sparse=False))
    monkeypatch.setattr(lite, "find_interpreters", lambda version: iter(()))
    monkeypatch.setattr(lite, "find_spec", lambda name: None)
    monkeypatch.setattr(lite.shutil, "which", lambda name: None)
    monkeypatch.delenv("PADDLE_LITE_OPT", raising=False)
    optimizer = lite.find_optimizer()
    assert optimizer.command[0] == sys.executable
    found = read_nb(lite.optimize(prefix, tmp_path / "this.nb", sparse=False, optimizer=optimizer))
    assert sorted(map(str, found.operators)) == sorted(map(str, expected.operators))
    assert found.parameters.keys() == expected.parameters.keys()
    for name, values in expected.parameters.items():
        np.testing.assert_array_equal(found.parameters[name], values)


def test_a_module_without_its_version_of_python_is_damaged(monkeypatch, tmp_path):
    monkeypatch.setenv("PADDLE_SPARSE_CACHE", str(tmp_path / "cache"))
    module = tmp_path / "wheel" / "paddlelite" / "lite.so"
    module.parent.mkdir(parents=True)
    module.write_bytes(b"ELF")
    with pytest.raises(PipelineError, match=f"{module} is damaged; delete {tmp_path / 'wheel'} to download it again"):
        next_python.adapt_wheel(tmp_path / "wheel", "3.11")
    assert not list((tmp_path / "cache").rglob("*for-3.11"))
