"""Makes Paddle 3 build programs in Paddle 2's format, the only one that Paddle-Lite reads.

Paddle 3 still has the code for it and switches to it on request. Since 3.1 some functions can no longer append their
operator to such a program (see `paddle/base/dygraph/generated_tensor_methods_patch.py` there). Those that Paddle-Lite
has a kernel for are supplied here, and installed only while `legacy_program_format` is active.

Needed by: Paddle 3.1 to 3.3.1, the last version tested. Paddle 2 needs nothing. A test in
tests/utils/test_legacy_programs.py fails for each function that Paddle can export by itself again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import paddle
from paddle.base.framework import Variable
from paddle.base.layer_helper import LayerHelper

# The operator of the old format for each function, grouped by signature.
_UNARY = {
    name: name
    for name in (
        "abs",
        "acos",
        "asin",
        "ceil",
        "cos",
        "exp",
        "floor",
        "log",
        "log10",
        "log1p",
        "log2",
        "logical_not",
        "round",
        "rsqrt",
        "sigmoid",
        "sign",
        "sin",
        "sqrt",
        "tanh",
    )
}
_BINARY = {
    "multiply": "elementwise_mul",
    "maximum": "elementwise_max",
    "minimum": "elementwise_min",
    "greater_than": "greater_than",
    "logical_and": "logical_and",
    "logical_or": "logical_or",
    "logical_xor": "logical_xor",
}
_REDUCTIONS = {
    "sum": "reduce_sum",
    "amax": "reduce_max",
    "amin": "reduce_min",
    "all": "reduce_all",
    "any": "reduce_any",
}
_BOOLEAN = frozenset({"logical_not", "greater_than", "logical_and", "logical_or", "logical_xor", "all", "any"})


@contextlib.contextmanager
def legacy_program_format() -> Iterator[None]:
    """Makes Paddle 3 build and read programs in Paddle 2's format within the block; does nothing in Paddle 2."""
    if not hasattr(paddle.pir_utils, "OldIrGuard"):
        yield
        return
    originals = [
        (owner, name, getattr(owner, name))
        for name in SUPPLIED_FUNCTIONS
        for owner in (paddle._C_ops, Variable)
        if hasattr(owner, name)
    ]
    was_dynamic = paddle.in_dynamic_mode()
    # `OldIrGuard` restarts the numbers in names, so that later layers would get the names of earlier ones.
    with paddle.utils.unique_name.guard(), paddle.pir_utils.OldIrGuard():
        if was_dynamic:
            paddle.disable_static()  # the guard also enters static mode, in which no layer can be exported
        try:
            for owner, name, original in originals:
                supplied = SUPPLIED_FUNCTIONS[name]
                setattr(owner, name, supplied if owner is Variable else _dispatch(supplied, original))
            yield
        finally:
            for owner, name, original in originals:
                setattr(owner, name, original)


def _dispatch(supplied: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that calls `supplied` for variables of an old program, and Paddle's own for anything else."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        in_program = any(isinstance(value, Variable) for value in (*arguments, *keywords.values()))
        return (supplied if in_program else original)(*arguments, **keywords)

    return call


def _append(op_type: str, inputs: dict[str, Any], attributes: dict[str, Any], dtype: Any) -> Any:
    helper = LayerHelper(op_type)
    output = helper.create_variable_for_type_inference(dtype)
    helper.append_op(type=op_type, inputs=inputs, outputs={"Out": output}, attrs=attributes)
    return output


def _unary(function: str) -> Callable[..., Any]:
    def call(x: Any, name: str | None = None) -> Any:
        return _append(_UNARY[function], {"X": x}, {}, "bool" if function in _BOOLEAN else x.dtype)

    return call


def _binary(function: str) -> Callable[..., Any]:
    def call(x: Any, y: Any, name: str | None = None) -> Any:
        return _append(_BINARY[function], {"X": x, "Y": y}, {"axis": -1}, "bool" if function in _BOOLEAN else x.dtype)

    return call


def _reduction(function: str) -> Callable[..., Any]:
    def call(x: Any, axis: Any = None, dtype: Any = None, keepdim: bool = False, name: str | None = None) -> Any:
        axes = [] if axis is None else list(axis) if isinstance(axis, (list, tuple)) else [axis]
        attributes = {"dim": axes or [0], "keep_dim": keepdim, "reduce_all": not axes or len(axes) == len(x.shape)}
        reduced = _append(_REDUCTIONS[function], {"X": x}, attributes, "bool" if function in _BOOLEAN else x.dtype)
        return reduced if dtype is None else reduced.astype(dtype)

    def without_dtype(x: Any, axis: Any = None, keepdim: bool = False, name: str | None = None) -> Any:
        return call(x, axis, None, keepdim)

    return call if function == "sum" else without_dtype


def _matmul(x: Any, y: Any, transpose_x: bool = False, transpose_y: bool = False, name: str | None = None) -> Any:
    return _append("matmul_v2", {"X": x, "Y": y}, {"trans_x": transpose_x, "trans_y": transpose_y}, x.dtype)


def _argmax(x: Any, axis: Any = None, keepdim: bool = False, dtype: Any = "int64", name: str | None = None) -> Any:
    attributes = {
        "axis": 0 if axis is None else axis,
        "keepdims": keepdim,
        "flatten": axis is None,
        "dtype": 3 if str(dtype).endswith("int64") else 2,
    }
    return _append("arg_max", {"X": x}, attributes, dtype)


def _gelu(x: Any, approximate: bool = False, name: str | None = None) -> Any:
    return _append("gelu", {"X": x}, {"approximate": approximate}, x.dtype)


def _softplus(x: Any, beta: float = 1.0, threshold: float = 20.0, name: str | None = None) -> Any:
    return _append("softplus", {"X": x}, {"beta": float(beta), "threshold": float(threshold)}, x.dtype)


# Each has the signature of the function of the same name in `paddle._C_ops` and of the method of `Variable`.
SUPPLIED_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: _unary(name) for name in _UNARY},
    **{name: _binary(name) for name in _BINARY},
    **{name: _reduction(name) for name in _REDUCTIONS},
    "matmul": _matmul,
    "argmax": _argmax,
    "gelu": _gelu,
    "softplus": _softplus,
}
