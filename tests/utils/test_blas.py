import os
import subprocess
import sys

import pytest

from paddle_sparse_cb.utils.blas import use_vector_instructions

AMD = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu sse2 avx avx2 bmi2\n"


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        (AMD, None, "5"),
        (AMD, "4", "4"),  # the user's choice
        (AMD.replace("avx2", "f16c"), None, None),
        (AMD.replace("AuthenticAMD", "GenuineIntel"), None, None),
    ],
)
def test_fast_kernels_are_selected_on_amd_processors_with_avx2(tmp_path, monkeypatch, text, before, after):
    monkeypatch.delenv("MKL_DEBUG_CPU_TYPE", raising=False)
    if before:
        monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", before)
    (tmp_path / "cpuinfo").write_text(text)
    use_vector_instructions(tmp_path / "cpuinfo")
    assert os.environ.get("MKL_DEBUG_CPU_TYPE") == after


def test_nothing_is_set_where_the_processor_is_not_described(tmp_path, monkeypatch):
    monkeypatch.delenv("MKL_DEBUG_CPU_TYPE", raising=False)
    use_vector_instructions(tmp_path / "cpuinfo")
    assert "MKL_DEBUG_CPU_TYPE" not in os.environ


def test_a_command_selects_them_before_paddle_is_imported():
    code = """
import sys
from paddle_sparse_cb import cli
cli.use_vector_instructions = lambda: print("paddle" in sys.modules)
cli.main(["list"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "False"
