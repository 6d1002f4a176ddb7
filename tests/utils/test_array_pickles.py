"""Pickles that were written to exhaust memory or time, and random ones."""

import collections
import pickle
import pickle as p  # its opcodes
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import same_on_paddle_3
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_sparse_cb import InputError
from paddle_sparse_cb.utils.array_pickles import PickleError, load_pickle
from paddle_sparse_cb.utils.weight_files import load_arrays

pytestmark = same_on_paddle_3

START = b"\x80\x04"


def text(value):
    return p.BINUNICODE + struct.pack("<I", len(value.encode())) + value.encode()


def name(module, attribute):
    return text(module) + text(attribute) + p.STACK_GLOBAL


def put(index):
    return p.LONG_BINPUT + struct.pack("<I", index)


def get(index):
    return p.LONG_BINGET + struct.pack("<I", index)


FLOAT = name("numpy", "dtype") + text("f4") + p.TUPLE1 + p.REDUCE
EMPTY_ARRAY = name("numpy.core.multiarray", "_reconstruct") + p.EMPTY_TUPLE + p.REDUCE


def array(content=p.SHORT_BINBYTES + b"\x04abcd", shape=p.BININT1 + b"\x01" + p.TUPLE1, dtype=FLOAT):
    """An array from the opcodes of its bytes, its shape and its dtype."""
    state = p.MARK + p.BININT1 + b"\x01" + shape + dtype + p.NEWFALSE + content + p.TUPLE
    return EMPTY_ARRAY + state + p.BUILD


def item(value, key="a"):
    """The opcodes of a dict with one item."""
    return START + p.EMPTY_DICT + text(key) + value + p.SETITEM + p.STOP


def doubled(nest, depth=40):
    """Containers in each other: each has the one before twice."""
    level = p.EMPTY_TUPLE
    for index in range(depth):
        level = nest(level + put(index), get(index))
    return level


DICTS = doubled(lambda one, two: p.EMPTY_DICT + text("x") + one + p.SETITEM + text("y") + two + p.SETITEM, 30)
LISTS = doubled(lambda one, two: p.EMPTY_LIST + one + p.APPEND + two + p.APPEND, 30)
TUPLES = doubled(lambda one, two: one + two + p.TUPLE2)
MANY = 50_000
SHARED_TEXT = text("x" * MANY) + put(0)
SHARED_BYTES = p.BINBYTES + struct.pack("<I", MANY) + bytes(MANY) + put(0)

BOMBS = {
    "shared dicts": (item(DICTS), "expands to more than 1,000,000 values"),
    "shared lists": (item(LISTS), "expands to more than 1,000,000 values"),
    "shared tuples": (item(TUPLES), "nested deeper than 32 levels"),
    "a shared tuple as a key": (
        START + p.EMPTY_DICT + TUPLES + p.NONE + p.SETITEM + p.STOP,
        "keys must be text, got tuple",
    ),
    "a shared tuple as a function's name": (
        START + TUPLES + text("x") + p.STACK_GLOBAL + p.STOP,
        "by something other than text",
    ),
    "one text encoded often": (
        item(p.MARK + SHARED_TEXT + (name("_codecs", "encode") + get(0) + text("latin1") + p.TUPLE2 + p.REDUCE) * MANY),
        "encodes more text than it contains",
    ),
    "an array of one content often": (
        item(
            p.EMPTY_LIST
            + p.MARK
            + SHARED_BYTES
            + array(get(0), p.BININT + struct.pack("<i", MANY // 4) + p.TUPLE1) * 1000
            + p.APPENDS
        ),
        "its arrays expand to more than four times the file",
    ),
    "a shape of many sizes often": (
        item(p.MARK + (p.MARK + p.NONE * MANY + p.TUPLE + put(0)) + array(shape=get(0)) * 100 + p.TUPLE),
        "an array without a valid shape",
    ),
    "many arguments often": (
        item(p.MARK + (p.MARK + p.NONE * MANY + p.TUPLE + put(0)) + (name("numpy", "dtype") + get(0) + p.REDUCE) * 99),
        "too many arguments",
    ),
    "a shape without bytes": (
        item(array(shape=p.BININT + struct.pack("<i", 1 << 30) + p.TUPLE1)),
        r"an array of shape \[1073741824\] with 4 bytes",
    ),
    "a shape of enormous sizes": (
        item(array(shape=p.LONG1 + b"\xff" + b"\x7f" * 255 + p.TUPLE1)),
        "an array without a valid shape",
    ),
    "a negative size": (
        item(array(shape=p.BININT + struct.pack("<i", -1) + p.TUPLE1)),
        "an array without a valid shape",
    ),
    "many opcodes": (START + p.EMPTY_DICT + (text("a") + p.NONE + p.SETITEM) * 400_000 + p.STOP, "1,000,000 opcodes"),
    "deep lists": (item(p.EMPTY_LIST * 1000 + p.APPEND * 999), "nested deeper than 32 levels"),
    "a list in itself": (item(p.EMPTY_LIST + put(0) + get(0) + p.APPEND), "nested deeper than 32 levels"),
    "a long number as text": (START + p.LONG + b"9" * 1_000_000 + b"L\n.", "the opcode LONG is not allowed"),
}


@pytest.mark.timeout(180)
@pytest.mark.no_cover  # which would take several times as long
@pytest.mark.parametrize("kind", BOMBS)
def test_a_file_that_expands_to_far_more_than_its_size_is_refused_by_name_in_seconds(kind, tmp_path):
    stored, reason = BOMBS[kind]
    (tmp_path / "bomb.pdparams").write_bytes(stored)
    with pytest.raises(InputError, match=f"bomb.pdparams: not a weight file: .*({reason})") as error:
        load_arrays(tmp_path / "bomb.pdparams")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (pickle.dumps({0: np.zeros(2, np.float32)}), "keys must be text, got int"),
        (pickle.dumps({"a": {1.5: 0}}), "keys must be text, got float"),
        (pickle.dumps({"a": {1, 2}}), "the opcode EMPTY_SET is not allowed"),
        (pickle.dumps({"a": np.array(["x"])}), "an array of dtype 'U1'"),
        (pickle.dumps({"a": np.zeros(2, [("x", "f4")])}), "an array of dtype 'V4'"),
        (item(name("_codecs", "encode") + text("a") + text("idna") + p.TUPLE2 + p.REDUCE), "it calls encode with"),
        (item(name("_codecs", "encode") + p.NONE + text("latin1") + p.TUPLE2 + p.REDUCE), "it calls encode with"),
        (item(name("builtins", "bytes") + p.BININT + b"\xff\xff\xff\x7f" + p.TUPLE1 + p.REDUCE), "it calls bytes with"),
        (item(name("builtins", "tuple") + LISTS + p.TUPLE1 + p.REDUCE), "it calls tuple with"),
        (item(name("os", "system")), "it names os.system, which is not allowed"),
        (item(name("numpy", "dtype")), "it contains a function"),
        (item(FLOAT), "it contains a function or a dtype"),
        (item(array(dtype=p.NONE)), "an array of no dtype"),
        (item(array(content=p.NONE)), "an array without bytes"),
        (item(EMPTY_ARRAY + p.NONE + p.BUILD), "the state of an array is not complete"),
        (item(p.EMPTY_LIST + p.NONE + p.BUILD), "it sets the state of what is not an array"),
        (START + p.STOP, "it leaves other than one value"),
        (START + p.NONE, "it is truncated"),
        (START + p.NONE + p.NONE + p.SETITEM + p.STOP, "an empty stack"),
        (START + p.TUPLE2 + p.STOP, "more values from the stack than there are"),
        (START + p.TUPLE + p.STOP, "a mark that it has not set"),
        (START + get(7) + p.STOP, "a memo index that it has not set"),
        (b"", "it is truncated"),
        (b"\xff", "the opcode b'.xff' is not allowed"),
    ],
)
def test_what_is_not_a_pickle_of_arrays_is_refused_with_the_reason(stored, reason):
    with pytest.raises(PickleError, match=reason):
        load_pickle(stored)


ARRAYS = st.builds(
    lambda shape, dtype, seed, fortran: np.asarray(
        np.random.RandomState(seed).randint(0, 99, shape), dtype=dtype, order="F" if fortran else "C"
    ),
    st.lists(st.integers(0, 4), max_size=4),
    st.sampled_from(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?", ">f4"]),
    st.integers(0, 99),
    st.booleans(),
)
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(), ARRAYS)
TREES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(), inner, max_size=4),
        st.dictionaries(st.text(), inner, max_size=4).map(collections.OrderedDict),
    ),
    max_leaves=20,
)


@given(TREES, st.sampled_from([2, 3, 4, 5]))
@settings(deadline=None)
def test_what_paddle_and_numpy_save_is_read_as_it_was_saved(value, protocol):
    np.testing.assert_equal(load_pickle(pickle.dumps(value, protocol=protocol)), value)


FRAGMENTS = st.one_of(
    st.sampled_from([bytes([code]) for code in b"(]).}aesuRbN\x88\x89\x85\x86\x87t\x93\x94l20"]),
    st.sampled_from([put(0), put(1), get(0), get(1), put(1 << 31), FLOAT, EMPTY_ARRAY, array()]),
    st.sampled_from([text("a"), text("latin1"), SHARED_TEXT, SHARED_BYTES, TUPLES, LISTS, DICTS]),
    st.sampled_from([name(*parts.rsplit(".", 1)) for parts in ("_codecs.encode", "numpy.dtype", "builtins.tuple")]),
    st.integers(-(2**31), 2**31 - 1).map(lambda number: p.BININT + struct.pack("<i", number)),
    st.binary(max_size=8),
)


@pytest.mark.no_cover
@given(st.lists(FRAGMENTS, max_size=60))
@settings(deadline=None, max_examples=300)
def test_a_stream_of_any_opcodes_is_read_or_refused_with_a_value_error(fragments):
    try:
        load_pickle(START + b"".join(fragments) + p.STOP)
    except (ValueError, EOFError):
        return


BOUNDED = """
import resource, sys, zlib, paddle
from pathlib import Path
from paddle_sparse_cb import InputError
from paddle_sparse_cb.utils.weight_files import load_arrays
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (400 << 20), resource.RLIM_INFINITY))
for path in sys.argv[1:]:
    try:
        load_arrays(path)
    except InputError as error:
        print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.serial
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the address space is read from /proc")
def test_no_small_file_takes_more_than_some_hundred_megabytes(tmp_path):
    paths = [tmp_path / f"{number}.pdparams" for number in range(len(BOMBS))]
    for path, (stored, _) in zip(paths, BOMBS.values()):
        path.write_bytes(stored)
    done = subprocess.run([sys.executable, "-c", BOUNDED, *map(str, paths)], capture_output=True, text=True, check=True)
    *messages, kilobytes = done.stdout.splitlines()
    assert len(messages) == len(paths)
    assert int(kilobytes) < 300_000
