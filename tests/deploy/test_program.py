import pickle

import pytest
from paddle.static import InputSpec

from paddle_sparse_cb import InputError
from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.program import read_program

SPEC = [InputSpec([1, 1, 8, 8], "float32", "x")]


@pytest.fixture
def prefix(network, tmp_path):
    return export(network, tmp_path / "model", SPEC)


def test_inputs_and_the_use_of_each_convolution_are_read(prefix):
    program = read_program(prefix)
    assert program.inputs == {"x": (1, 1, 8, 8)}
    assert [(one.name, one.pixels, one.calls, one.may_be_sparse) for one in program.convolutions.values()] == [
        ("stem.0.weight", 64, 1, False),
        ("depthwise.weight", 64, 1, False),
        ("expand.weight", 64, 1, True),
        ("squeeze.1.weight", 1, 1, True),
        ("squeeze.3.weight", 1, 1, True),
        ("project.weight", 64, 1, True),
        ("strided.weight", 64, 1, False),
    ]


def test_a_file_that_is_not_a_program_is_refused_by_name(prefix):
    file = prefix.with_suffix(".pdmodel")
    content = file.read_bytes()
    for damaged in (b"", b"no program", content[: len(content) // 2]):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"model.pdmodel: "):
            read_program(prefix)


def test_a_program_that_lacks_what_an_operator_needs_is_refused_by_name(prefix):
    file = prefix.with_suffix(".pdmodel")
    content = file.read_bytes()
    for old, new in ((b"Filter", b"Filtes"), (b"strides", b"stridet"), (b"batch_norm2d_", b"batch_norm2d\xff")):
        assert old in content
        file.write_bytes(content.replace(old, new))
        with pytest.raises(InputError, match=r"model.pdmodel: damaged"):
            read_program(prefix)


def test_a_convolution_whose_weight_has_no_name_is_refused_and_not_skipped(prefix):
    """A skipped layer would pass every check."""
    file = prefix.with_suffix(".pdiparams.info")
    names = pickle.loads(file.read_bytes())
    file.write_bytes(
        pickle.dumps(
            {variable: about for variable, about in names.items() if about["structured_name"] != "expand.weight"}
        )
    )
    with pytest.raises(InputError, match=r"model.pdiparams.info: damaged, or of another model: it has no name"):
        read_program(prefix)
