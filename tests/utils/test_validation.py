import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_sparse_cb import GMPSchedule, InputError
from paddle_sparse_cb.pruning.masks import prune_count
from paddle_sparse_cb.utils.validation import check_count, check_fraction, check_keys, check_path, check_same

NUMPY_FLOATS = [np.float16, np.float32, np.float64]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0.0),
        (0.75, 0.75),
        (Fraction(3, 4), 0.75),
        (np.float16(0.3), 0.3),
        (np.float32(0.07), 0.07),
        (np.float64(0.1), 0.1),
    ],
)
def test_a_fraction_is_returned_as_the_float_that_is_written_the_same(value, expected):
    checked = check_fraction("ratio", value)
    assert checked == expected
    assert type(checked) is float


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(NUMPY_FLOATS), st.integers(0, 999), st.integers(1, 10**6))
def test_a_numpy_ratio_prunes_exactly_as_many_weights_as_the_decimal_it_is_written_as(numpy_float, thousandths, units):
    ratio = numpy_float(f"0.{thousandths:03d}")
    exact = math.ceil(Fraction(thousandths, 1000) * units)
    assert prune_count(check_fraction("ratio", ratio), units) == exact
    assert prune_count(GMPSchedule(ratio=ratio, initial_ratio=0).at(0), units) == exact
    assert prune_count(ratio, units) == exact


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (75, "ratio must be a fraction from 0.0 to below 1, got 75 (did you mean 0.75?)"),
        (1.0, "ratio must be a fraction from 0.0 to below 1, got 1.0"),
        (-0.1, "got -0.1"),
        ("0.75", "got '0.75'"),
        (True, "got True"),
        (None, "got None"),
        (math.nan, "got nan"),
        (np.float32("inf"), "inf"),
        (np.full((2, 2), 0.5), "got array([[0.5, 0.5], [0.5, 0.5]])"),
    ],
)
def test_a_value_that_is_no_fraction_is_an_error(value, message):
    with pytest.raises(InputError) as error:
        check_fraction("ratio", value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert ("did you mean" in str(error.value)) == (str(value) == "75")


def test_the_smallest_fraction_allowed_may_be_larger_than_zero():
    assert check_fraction("decay", 0.5, least=0.5) == 0.5
    with pytest.raises(InputError, match=r"decay must be a fraction from 0\.5 to below 1, got 0\.4"):
        check_fraction("decay", 0.4, least=0.5)


def test_a_numpy_integer_is_returned_as_an_int():
    checked = check_count("pruning_steps", np.int64(7), least=1)
    assert checked == 7
    assert type(checked) is int


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", True, None])
def test_a_value_that_is_no_count_is_an_error(value):
    with pytest.raises(InputError) as error:
        check_count("pruning_steps", value, least=1)
    assert str(error.value) == f"pruning_steps must be a whole number of at least 1, got {value!r}"


@pytest.mark.parametrize(
    ("key", "hint"),
    [("tuning_epochs", "did you mean 'tunning_epochs'?"), ("zzz", "known: ratio, tunning_epochs"), (3, "known: ")],
)
def test_an_unknown_key_is_an_error_that_names_the_nearest_known_one(key, hint):
    known = ["tunning_epochs", "ratio"]
    check_keys({"ratio": 0.75, "tunning_epochs": 1}, known, "Sparsity")
    with pytest.raises(InputError) as error:
        check_keys({"ratio": 0.75, key: 1}, known, "Sparsity")
    assert str(error.value).startswith(f"Sparsity: unknown argument {key!r}; {hint}")


@pytest.mark.parametrize(
    ("saved", "current", "message"),
    [
        ({"ratio": 0.75}, {"ratio": 0.85}, "2.pdsparse: ratio is 0.75 in the checkpoint and 0.85 in this run"),
        ({"scope": "erk"}, {}, "2.pdsparse: scope is erk in the checkpoint and missing in this run"),
        ({}, {"scope": "erk"}, "2.pdsparse: scope is missing in the checkpoint and erk in this run"),
        (
            {"plan": {"b": [1]}},
            {"plan": {"a": [4], "b": [1]}},
            "2.pdsparse: plan: a is missing in the checkpoint and [4] in this run",
        ),
    ],
)
def test_the_first_difference_of_two_settings_is_an_error_with_both_values(saved, current, message):
    with pytest.raises(InputError) as error:
        check_same(saved, current, "2.pdsparse")
    assert str(error.value) == message
    check_same(saved, saved, "2.pdsparse")


def test_long_values_are_shortened_in_the_message():
    with pytest.raises(InputError) as error:
        check_same({"layers": "x" * 1000}, {"layers": "y"}, "2.pdsparse")
    assert str(error.value) == f"2.pdsparse: layers is {'x' * 200} ... in the checkpoint and y in this run"


def test_a_path_is_text_without_nul(tmp_path):
    assert check_path("folder", str(tmp_path)) == check_path("folder", tmp_path) == tmp_path
    for value in ("a\0b", Path("a\0b"), 5, None, b"folder"):
        with pytest.raises(InputError, match="folder must be a path") as error:
            check_path("folder", value)
        assert str(error.value).isprintable()
