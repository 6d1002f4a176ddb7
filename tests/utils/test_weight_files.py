import contextlib
import os
import pickle
import resource
import struct

import numpy as np
import paddle
import pytest
from paddle.base.proto import framework_pb2

from paddle_sparse_cb import InputError
from paddle_sparse_cb.utils.legacy_programs import legacy_program_format
from paddle_sparse_cb.utils.tensor_files import read_tensors
from paddle_sparse_cb.utils.weight_files import load_arrays, load_inference, parse_program


def test_a_checkpoint_of_paddle_is_read(network, tmp_path):
    path = tmp_path / "model.pdparams"
    paddle.save(network.state_dict(), str(path))
    arrays = load_arrays(path)
    assert list(arrays) == list(network.state_dict())
    np.testing.assert_array_equal(arrays["expand.weight"], network.expand.weight.numpy())


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


class Sneaky:
    def __reduce__(self):
        return eval, ("__import__('os').system('touch pwned')",)


@pytest.mark.parametrize("evil", [Evil(), Sneaky()])
def test_an_untrusted_checkpoint_executes_nothing(evil, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.pdparams").write_bytes(pickle.dumps({"weight": evil}))
    with pytest.raises(InputError, match="which is not allowed in a weight file"):
        load_arrays("model.pdparams")
    assert not (tmp_path / "pwned").exists()


def test_a_damaged_checkpoint_raises_input_error_or_reads_differently_but_never_crashes(network, tmp_path):
    path = tmp_path / "model.pdparams"
    paddle.save(network.state_dict(), str(path))
    content = bytearray(path.read_bytes())
    random = np.random.RandomState(0)
    read = 0
    for _ in range(500):
        damaged = bytearray(content)
        for _ in range(random.randint(1, 5)):
            damaged[random.randint(0, 600 if random.rand() < 0.7 else len(damaged))] = random.randint(0, 256)
        path.write_bytes(damaged)
        with contextlib.suppress(InputError):
            load_arrays(path)
            read += 1
    assert read < 500


def test_an_array_of_objects_is_refused(tmp_path):
    (tmp_path / "model.pdparams").write_bytes(pickle.dumps({"weight": np.array([print], dtype=object)}))
    with pytest.raises(InputError, match=r"model.pdparams: not a weight file"):
        load_arrays(tmp_path / "model.pdparams")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint8", "bool"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_of_every_plain_dtype_are_read(dtype, protocol, tmp_path):
    plain = np.arange(6).reshape(2, 3).astype(dtype)
    arrays = {
        "plain": plain,
        "fortran": np.asfortranarray(plain),
        "empty": np.zeros((0, 3), dtype),
        "scalar": np.float32(3.5),
    }
    (tmp_path / "model.pdparams").write_bytes(pickle.dumps(arrays, protocol=protocol))
    for name, array in load_arrays(tmp_path / "model.pdparams").items():
        np.testing.assert_array_equal(array, arrays[name])
        assert array.dtype == np.asarray(arrays[name]).dtype


def test_a_file_truncated_anywhere_is_refused_by_name(network, tmp_path):
    path = tmp_path / "model.pdparams"
    paddle.save(network.state_dict(), str(path))
    content = path.read_bytes()
    for length in range(0, len(content), len(content) // 50):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match="model.pdparams"):
            load_arrays(path)


def test_a_pickle_of_something_else_and_a_missing_file_are_refused(tmp_path):
    (tmp_path / "list.pdparams").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(InputError, match="it contains a list, not a dict"):
        load_arrays(tmp_path / "list.pdparams")
    with pytest.raises(InputError, match="no such file"):
        load_arrays(tmp_path / "none.pdparams")


def test_the_weights_of_an_exported_model_have_their_structured_names(network, tmp_path):
    network.eval()
    prefix = tmp_path / "model"
    with legacy_program_format():
        paddle.jit.save(network, str(prefix), [paddle.static.InputSpec([1, 1, 8, 8])])
    arrays = load_inference(prefix)
    assert arrays.keys() == network.state_dict().keys()
    np.testing.assert_array_equal(arrays["project.weight"], network.project.weight.numpy())
    assert paddle.in_dynamic_mode()


def test_a_damaged_exported_model_is_refused_by_name(network, tmp_path):
    network.eval()
    prefix = tmp_path / "model"
    with legacy_program_format():
        paddle.jit.save(network, str(prefix), [paddle.static.InputSpec([1, 1, 8, 8])])
    for ending in (".pdmodel", ".pdiparams"):
        content = prefix.with_suffix(ending).read_bytes()
        prefix.with_suffix(ending).write_bytes(content[: len(content) // 2])
        with pytest.raises(InputError, match=f"model{ending}: .*damaged"):
            load_inference(prefix)
        prefix.with_suffix(ending).write_bytes(b"")
        with pytest.raises(InputError, match=f"model{ending}: "):
            load_inference(prefix)
        prefix.with_suffix(ending).write_bytes(content)
    assert paddle.in_dynamic_mode()


def test_a_memo_index_takes_no_memory_up_to_it(tmp_path):
    """Python's unpickler allocates its memo up to the largest index in the file."""
    path = tmp_path / "bomb.pdparams"
    path.write_bytes(b"\x80\x02}r" + (1 << 26).to_bytes(4, "little") + b".")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert load_arrays(path) == {}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


def test_a_dict_that_contains_itself_is_refused(tmp_path):
    endless = {}
    endless["again"] = endless
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(endless))
    with pytest.raises(InputError, match=r"a.pdparams: not a weight file: it is nested deeper than 32 levels"):
        load_arrays(tmp_path / "a.pdparams")


@pytest.fixture
def exported(network, tmp_path):
    """The prefix of an exported model."""
    network.eval()
    with legacy_program_format():
        paddle.jit.save(network, str(tmp_path / "model"), [paddle.static.InputSpec([1, 1, 8, 8])])
    return tmp_path / "model"


@pytest.mark.timeout(180)
def test_a_tensor_of_a_million_dimensions_is_refused_at_once(tmp_path):
    details = framework_pb2.VarType.TensorDesc(data_type=5, dims=[2**62] * 1_000_000).SerializeToString()
    (tmp_path / "model.pdiparams").write_bytes(struct.pack("<IQIi", 0, 0, 0, len(details)) + details)
    with pytest.raises(
        InputError, match=r"model.pdiparams: damaged, or of .*: cannot read w: .* its shape of 1000000 dimensions"
    ):
        read_tensors(tmp_path / "model.pdiparams", [("w", (3, 4))])


def test_a_weight_file_of_holes_is_refused_unread(tmp_path):
    with open(tmp_path / "model.pdparams", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match=r"model.pdparams: a weight file must have at most 8,589,934,592 bytes"):
        load_arrays(tmp_path / "model.pdparams")


def test_a_program_of_more_bytes_than_any_network_is_refused_unread(tmp_path):
    with open(tmp_path / "model.pdmodel", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match=r"model.pdmodel: a program must have at most 67,108,864 bytes, got 1,099,"):
        parse_program(tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "no structured name for 'conv2d"),
        ({}, "no structured name for"),
        ({"structured_name": "depthwise.weight"}, "two variables have the same structured name"),
    ],
)
def test_damaged_structured_names_are_refused_by_name(exported, name, message):
    file = exported.with_suffix(".pdiparams.info")
    names = pickle.loads(file.read_bytes())
    first = next(variable for variable, about in names.items() if about["structured_name"] == "stem.0.weight")
    names[first] = name
    file.write_bytes(pickle.dumps(names))
    with pytest.raises(InputError, match=f"model.pdiparams.info: damaged: {message}"):
        load_inference(exported)


def test_the_weights_of_another_model_are_refused(exported):
    file = exported.with_suffix(".pdiparams")
    file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(InputError, match=r"model.pdiparams: .*: 4 bytes after the tensors of model.pdmodel"):
        load_inference(exported)
    with legacy_program_format():
        paddle.jit.save(paddle.nn.Linear(3, 4), str(exported.parent / "other"), [paddle.static.InputSpec([1, 3])])
    file.write_bytes(exported.with_name("other.pdiparams").read_bytes())
    with pytest.raises(InputError, match=r"model.pdiparams: damaged, or of another model: .* in model.pdmodel"):
        load_inference(exported)
