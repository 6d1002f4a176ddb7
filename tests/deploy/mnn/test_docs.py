"""The table of docs/mnn.md: sizes of `.mnn` files, and errors of their outputs."""

import re
from pathlib import Path

import mnn_sizes
import pytest

TEXT = (Path(__file__).parents[3] / "docs" / "mnn.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("block", [1, 4])
def test_the_files_have_the_sizes_in_the_table_and_errors_of_its_magnitude(tmp_path, block):
    (row,) = re.findall(rf"\| mobilenet_v2 +\| +85% \| +{block}x1 \| +34 of 53 \|(.*)\|", TEXT)
    cells = [cell.strip().replace(",", "") for cell in row.split("|")]
    check = mnn_sizes.deploy_classifier("mobilenet_v2", 0.85, block, tmp_path).checks["mnn"]
    assert check["sparse_convs"] == 34
    # paddle2onnx 1 and 2 name the operators differently.
    assert [check["dense_bytes"], check["sparse_bytes"]] == pytest.approx([int(cell) for cell in cells[:2]], rel=0.01)
    assert max(check["dense_error"], check["sparse_error"]) < 10 * float(cells[3])
