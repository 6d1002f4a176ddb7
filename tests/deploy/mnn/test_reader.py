import contextlib
import random
import struct

import numpy as np
import pytest
from mutations import BINARY

from paddle_sparse_cb import InputError
from paddle_sparse_cb.deploy.mnn.reader import read_mnn


def change(path, old, new):
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))


def test_the_weights_in_the_files_are_the_networks(converted):
    network = converted.network
    for kind in ("dense", "sparse"):
        file = read_mnn(converted.artefacts[f"mnn_{kind}"])
        assert file.inputs == {"x": (1, 1, 8, 8)}
        assert len(file.outputs) == 1
        assert len(file.convolutions) == 8
        rows = {one.rows: one for one in file.convolutions}
        assert rows[10].weight().tobytes() == np.ascontiguousarray(network.head.weight.numpy().T).tobytes()
        stored = [one for one in file.convolutions if one.weight().shape == (64, 16)]
        for one, layer in zip(stored, (network.expand, network.squeeze[3])):
            assert one.weight().tobytes() == layer.weight.numpy().tobytes()
            assert one.bias.tobytes() == layer.bias.numpy().tobytes()
        assert [one.runs_sparse for one in stored] == [kind == "sparse", False]
        assert [one.is_depthwise for one in file.convolutions].count(True) == 1


def test_files_that_are_no_model_are_refused_by_name(tmp_path):
    for content in (b"", b"not a model" * 10, bytes(1000), b"\xff" * 1000):
        (tmp_path / "a.mnn").write_bytes(content)
        with pytest.raises(InputError, match=r"a.mnn: not an .mnn file, or damaged: "):
            read_mnn(tmp_path / "a.mnn")
    with pytest.raises(InputError, match=r"none.mnn: no such file"):
        read_mnn(tmp_path / "none.mnn")


@pytest.mark.timeout(120)
def test_a_damaged_file_is_refused_or_reads_differently_but_never_crashes(converted):
    path, source, refused = converted.artefacts["mnn_sparse"], random.Random(0), 0
    content = path.read_bytes()
    for _ in range(400):
        path.write_bytes(source.choice(BINARY)(source, content))
        try:
            for one in read_mnn(path).convolutions:
                one.weight()
        except InputError:
            refused += 1
    assert 0 < refused < 400


def positions(converted):
    """The bytes of the positions of the first sparse kernel."""
    kernel = next(one for one in read_mnn(converted.artefacts["mnn_sparse"]).convolutions if one.runs_sparse)
    return kernel, kernel.positions.copy()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda found, size: found[::-1], "not in order"),
        (lambda found, size: np.append(found[:-1], [size]), "not in order, or outside"),
        (lambda found, size: np.append(found[:-1], [2**32 - 1]), "not in order, or outside"),
        (lambda found, size: np.append(found[:1], found[:-1]), "not in order"),
    ],
)
def test_positions_that_mnn_would_follow_out_of_its_memory_are_refused(converted, damage, message):
    kernel, found = positions(converted)
    path = converted.artefacts["mnn_sparse"]
    change(path, found.tobytes(), damage(found, kernel.size).astype("<u4").tobytes())
    with pytest.raises(InputError, match=f"model_sparse.mnn: .* the positions of the sparse kernel of .* {message}"):
        read_mnn(path)


def test_a_wrong_number_of_non_zeros_or_blocks_which_mnn_allocates_memory_by_is_refused(converted):
    _, found = positions(converted)
    path = converted.artefacts["mnn_sparse"]
    content, number = path.read_bytes(), struct.pack("<i", len(found))
    starts = [at for at in range(0, len(content), 4) if content[at : at + 4] == number]
    refused = 0
    for at in starts:
        path.write_bytes(content[:at] + struct.pack("<i", len(found) - 1) + content[at + 4 :])
        with contextlib.suppress(InputError):
            read_mnn(path)
            continue
        refused += 1
    assert refused >= 4  # the lengths of two vectors, NNZElement and blockNumber; others are weights or offsets


def test_a_stored_zero_which_mnn_would_count_as_a_non_zero_is_refused(converted):
    kernel, _ = positions(converted)
    values = kernel.values.copy()
    change(converted.artefacts["mnn_sparse"], values.tobytes(), np.append(values[:-1], np.float32(0)).tobytes())
    with pytest.raises(InputError, match=r"the sparse kernel of \S+ stores zeros"):
        read_mnn(converted.artefacts["mnn_sparse"])


@pytest.mark.timeout(60)
def test_a_kernel_that_stands_for_gigabytes_is_refused(converted):
    kernel, _ = positions(converted)
    path = converted.artefacts["mnn_sparse"]
    content, size = path.read_bytes(), struct.pack("<I", kernel.size)
    for at in range(0, len(content), 4):
        if content[at : at + 4] == size:
            path.write_bytes(content[:at] + struct.pack("<I", 1 << 30) + content[at + 4 :])
            with contextlib.suppress(InputError):
                assert max(one.size for one in read_mnn(path).convolutions) <= 1 << 26
