import contextlib
import struct

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.static import InputSpec

from paddle_sparse_cb import InputError
from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.lite.nb import Operator, OptimizedModel, read_nb
from paddle_sparse_cb.deploy.lite.optimizer import find_optimizer, optimize
from paddle_sparse_cb.deploy.program import read_program

SPEC = [InputSpec([1, 3, 10, 6], "float32", "x")]


def pruned(rows, columns, block, empty=()):
    """A network with a 1x1 convolution of about 75% zeros in blocks of channels; those in `empty` are all zero."""
    network = nn.Sequential(nn.Conv2D(3, columns, 3, padding=1), nn.ReLU(), nn.Conv2D(columns, rows, 1), nn.ReLU())
    kept = np.repeat(np.random.rand(-(-rows // block), columns) < 0.25, block, axis=0)[:rows]
    kept[list(empty)] = False
    network[2].weight.set_value(np.random.randn(rows, columns, 1, 1).astype("float32") * kept[..., None, None])
    return network


@pytest.mark.parametrize(
    ("rows", "columns", "block", "empty"),
    [
        (32, 16, 1, ()),
        (33, 16, 1, ()),
        (31, 24, 1, (0, 1)),
        (40, 16, 1, (5, 6, 7, 38, 39)),
        (9, 7, 1, ()),
        (32, 16, 2, ()),
        (33, 16, 2, ()),
        (31, 24, 2, (0, 1)),
        (40, 16, 2, (6, 7, 38, 39)),
    ],
)
def test_the_weights_decoded_from_the_file_are_the_networks(tmp_path, rows, columns, block, empty):
    network = pruned(rows, columns, block, empty)
    prefix = export(network, tmp_path / "model", SPEC)
    program = read_program(prefix)
    for sparse in (True, False):
        model = read_nb(optimize(prefix, tmp_path / "model.nb", sparse=sparse))
        for name, weight in (("0.weight", network[0].weight), ("2.weight", network[2].weight)):
            convolution = program.convolutions[name]
            operator = model.convolutions[convolution.variable]
            assert operator.sparse == (sparse and name == "2.weight")
            if operator.sparse:  # a kernel for two output channels at a time where their zeros coincide
                assert bool(operator.attributes["flag_semi"]) == (block == 2)
            stored = model.decode_weight(operator, convolution.shape, convolution.pixels)
            np.testing.assert_array_equal(stored, weight.numpy())
    assert program.convolutions["2.weight"].pixels == 60


def test_offsets_for_an_input_of_another_size_are_refused(tmp_path):
    prefix = export(pruned(32, 16, 1), tmp_path / "model", SPEC)
    model = read_nb(optimize(prefix, tmp_path / "model.nb", sparse=True))
    operator = next(one for one in model.operators if one.sparse)
    with pytest.raises(InputError, match=r"model.nb: .* is not a weight of shape \[32, 16, 1, 1\] on an input of 61"):
        model.decode_weight(operator, (32, 16, 1, 1), 61)
    with pytest.raises(InputError, match=r"is not a weight of shape \[32, 8, 1, 1\]"):
        model.decode_weight(operator, (32, 8, 1, 1), 60)


def test_a_damaged_file_raises_input_error_or_reads_differently_but_never_crashes(tmp_path):
    prefix = export(pruned(32, 16, 1), tmp_path / "model", SPEC)
    path = optimize(prefix, tmp_path / "model.nb", sparse=True)
    content, random, read = bytearray(path.read_bytes()), np.random.RandomState(0), 0
    for length in range(0, len(content), len(content) // 40):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match="model.nb"):
            read_nb(path)
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(random.randint(1, 6)):
            damaged[random.randint(0, len(damaged))] = random.randint(0, 256)
        path.write_bytes(damaged)
        with contextlib.suppress(InputError):
            model = read_nb(path)
            for operator in model.operators:
                if operator.weight_variable is not None:
                    model.decode_weight(operator, (32, 16, 1, 1), 60)
            read += 1
    assert read < 300


def test_a_file_that_is_not_a_nb_is_refused_by_name(tmp_path):
    (tmp_path / "notes.nb").write_bytes(b"not a model" * 10)
    with pytest.raises(InputError, match=r"notes.nb: not a .nb file with layout 2"):
        read_nb(tmp_path / "notes.nb")
    with pytest.raises(InputError, match=r"none.nb: no such file"):
        read_nb(tmp_path / "none.nb")


def test_the_optimizer_writes_the_layout_that_is_read(tmp_path):
    prefix = export(nn.Conv2D(3, 4, 1), tmp_path / "model", SPEC)
    model = read_nb(optimize(prefix, tmp_path / "model.nb", sparse=False, optimizer=find_optimizer()))
    assert [one.type for one in model.operators if one.weight_variable] == ["conv2d"]
    assert {str(array.dtype) for array in model.parameters.values()} == {"float32"}
    assert paddle.in_dynamic_mode()


def test_a_convolution_without_a_weight_is_refused_as_damage(tmp_path):
    path = optimize(export(pruned(32, 16, 1), tmp_path / "model", SPEC), tmp_path / "model.nb", sparse=True)
    for name in (b"NonZeroWeights", b"Filter"):
        content = path.read_bytes()
        assert name in content
        path.write_bytes(content.replace(name, name[:-1] + b"_"))
        with pytest.raises(InputError, match=r"model.nb: damaged"):
            read_nb(path)
        path.write_bytes(content)


def shared_tables(count):
    """A `.nb` file whose blocks are all the same one, and its operators too: `count` squared in a few bytes each."""
    one_field, fourth_field, no_field = struct.pack("<3H", 6, 8, 4), struct.pack("<6H", 12, 8, 0, 0, 0, 4), b"\4\0\4\0"
    vector = 4 + 4 * count
    root = 4 + len(one_field + fourth_field + no_field)
    blocks, block = root + 8, root + 8 + vector
    operators, operator = block + 8, block + 8 + vector

    def offsets(start, target):
        return struct.pack(f"<{count + 1}I", count, *(target - (start + 4 + 4 * index) for index in range(count)))

    program = struct.pack("<I", root) + one_field + fourth_field + no_field
    program += struct.pack("<iI", root - 4, blocks - root - 4) + offsets(blocks, block)
    program += struct.pack("<iI", block - 4 - len(one_field), operators - block - 4) + offsets(operators, operator)
    program += struct.pack("<i", operator - 4 - len(one_field + fourth_field))
    return struct.pack("<H16xQ", 2, len(program)) + program


@pytest.mark.timeout(180)
def test_tables_that_are_used_again_and_again_are_refused(tmp_path):
    (tmp_path / "few.nb").write_bytes(shared_tables(1))
    with pytest.raises(InputError, match=r"few.nb: damaged: .*buffer"):  # no parameters; the operators are read
        read_nb(tmp_path / "few.nb")
    (tmp_path / "bomb.nb").write_bytes(shared_tables(30_000))
    with pytest.raises(InputError, match=r"bomb.nb: damaged: its offsets lead to the same places again and again"):
        read_nb(tmp_path / "bomb.nb")


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("shape", "ends"),
    [
        ((400_000, 16, 1, 1), [400_000, 0] * 200_000),  # all values again for every second row
        ((1 << 20, 1 << 20, 1, 1), [1]),
    ],
)
def test_a_sparse_kernel_that_takes_hours_or_terabytes_is_refused(shape, ends, tmp_path):
    names = ("NonZeroWeights", "OcNonZeros", "Diffs")
    arrays = (np.ones(400_000, np.float32), np.array(ends, np.int32), np.zeros(400_000, np.int32))
    inputs = {name: f"w_{name}" for name in names}
    operator = Operator("sparse_conv2d", inputs, {"first_ic": 0, "flag_semi": 0})
    model = OptimizedModel(tmp_path / "model.nb", (operator,), dict(zip(inputs.values(), arrays)))
    with pytest.raises(
        InputError, match=r"model.nb: .* is not a weight of shape .*: the kernel's rows are not in order"
    ):
        model.decode_weight(operator, shape, 60)
