import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_sparse_cb import InputError
from paddle_sparse_cb.checkpoints.state import TrainingState, file_digest, load_state, save_state

STATE = TrainingState(
    12,
    {"ratio": 0.75, "plan": ["a.weight"]},
    {"a.weight": np.arange(35).reshape(5, 7, 1, 1) % 3 == 0, "b.weight": np.zeros((3, 1), bool)},
    {"epoch": 2, "batch": 5},
    {"2.pdparams": "ab" * 32},
    {"paddle": "2.6.2"},
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("state") / "2.pdsparse"
    save_state(STATE, path)
    return path


def test_a_saved_state_loads_unchanged(written):
    state = load_state(written)
    assert (state.step, state.settings, state.training, state.files, state.versions) == (
        STATE.step,
        STATE.settings,
        STATE.training,
        STATE.files,
        STATE.versions,
    )
    assert list(state.masks) == list(STATE.masks)
    for name, mask in STATE.masks.items():
        np.testing.assert_array_equal(state.masks[name], mask)
        assert state.masks[name].dtype == bool


def test_a_mask_takes_one_bit_per_weight(tmp_path):
    save_state(TrainingState(1, {}, {"weight": np.random.rand(1000, 800) > 0.75}), tmp_path / "s.pdsparse")
    assert (tmp_path / "s.pdsparse").stat().st_size < 800_000 / 8 + 500


def test_a_failed_write_keeps_the_previous_state(written, tmp_path):
    path = tmp_path / "2.pdsparse"
    path.write_bytes(written.read_bytes())
    with pytest.raises(InputError):
        save_state(TrainingState(13, {"ratio": object()}, {}), path)
    assert load_state(path).step == 12
    assert list(tmp_path.iterdir()) == [path]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_truncated_file_or_a_flipped_bit_is_an_input_error_that_names_the_file(written, data):
    content = bytearray(written.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    damaged = written.with_name("damaged.pdsparse")
    damaged.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged\.pdsparse: "):
        load_state(damaged)


@pytest.mark.parametrize(
    "change",
    [
        {"step": -1},
        {"step": "1"},
        {"step": True},
        {"settings": []},
        {"masks": [["a", [1 << 40]]]},
        {"masks": [["a"]]},
        {"masks": [[1, [2]]]},
        {"masks": [["a", [-1]]]},
        {"masks": []},
        {"masks": 3},
        {"files": None},
    ],
)
def test_an_invalid_header_with_a_correct_digest_is_an_input_error(written, change):
    import hashlib

    from paddle_sparse_cb.checkpoints.state import DIGEST_SIZE, MAGIC

    body = written.read_bytes()[len(MAGIC) + DIGEST_SIZE :]
    length = int.from_bytes(body[:8], "little")
    header = json.dumps({**json.loads(body[8 : 8 + length]), **change}).encode()
    body = len(header).to_bytes(8, "little") + header + body[8 + length :]
    path = written.with_name("invalid.pdsparse")
    path.write_bytes(MAGIC + hashlib.sha256(body).digest() + body)
    with pytest.raises(InputError, match=r"invalid\.pdsparse: not a valid .pdsparse file"):
        load_state(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"paddle_sparse_cb pruning state 2\n" + bytes(80)])
def test_a_file_of_another_format_or_version_is_an_input_error(tmp_path, content):
    (tmp_path / "x.pdsparse").write_bytes(content)
    with pytest.raises(InputError, match="not a .pdsparse file of this version"):
        load_state(tmp_path / "x.pdsparse")


def test_a_missing_file_is_an_input_error_that_names_it(tmp_path):
    with pytest.raises(InputError, match=r"missing\.pdsparse: no such file"):
        load_state(tmp_path / "missing.pdsparse")


def test_the_file_digest_covers_the_end_of_a_large_file(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * (3 << 20))
    (tmp_path / "b").write_bytes(b"x" * (3 << 20) + b"y")
    assert len({file_digest(tmp_path / name) for name in "ab"}) == 2
