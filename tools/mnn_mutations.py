"""Damages the `.mnn` and `.onnx` files of a network in every way known, and counts what the verification lets pass.

The manifest is always made anew, so that only the content of the files can give them away. `make soak` runs this; the
last line is the result.
"""

from __future__ import annotations

import contextlib
import functools
import io
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mutations
import numpy as np
import paddle
from verify_mutations import SPEC, Network

from paddle_sparse_cb import GMPPruner, HookContext, make_plan, measure_sparsity
from paddle_sparse_cb.deploy import ConvertMNN, Export, verify
from paddle_sparse_cb.deploy.manifest import NAME as MANIFEST
from paddle_sparse_cb.deploy.manifest import exported_files, record
from paddle_sparse_cb.deploy.mnn.converter import convert
from paddle_sparse_cb.deploy.mnn.reader import read_mnn

FILES = ("model.onnx", "model_dense.mnn", "model_sparse.mnn")
_MUTATIONS: dict[str, Callable[[Path], None]] = {}


def deploy(folder: Path, seed: int = 0) -> HookContext:
    """Prunes a network, exports it and converts it to MNN; returns the context of the hooks."""
    paddle.seed(seed)
    with paddle.utils.unique_name.guard(), contextlib.redirect_stdout(io.StringIO()):
        network = Network()
        plan = make_plan(network, SPEC)
        configs = {"initial_ratio": 0.75, "pruning_steps": 1}
        GMPPruner(network, ratio=0.75, local_sparsity=True, plan=plan, configs=configs).step()
        context = HookContext(network, folder, plan, measure_sparsity(network, plan), 0.75)
        for hook in (Export(SPEC), ConvertMNN()):
            hook(context)
    return context


def problems(context: HookContext, folder: Path) -> list[str]:
    """Verifies a copy of the folder, with a manifest of its own, and returns the names of the checks that fail."""
    artefacts = {name: folder / path.relative_to(context.output) for name, path in context.artefacts.items()}
    copy = replace(context, output=folder, artefacts=artefacts, checks={})
    (folder / MANIFEST).unlink()
    exported = exported_files(folder / "inference" / "model")
    record(folder, exported)
    onnx, *others = [folder / name for name in FILES]
    record(folder, filter(Path.is_file, [onnx]), exported)
    record(folder, filter(Path.is_file, others), filter(Path.is_file, [onnx]))
    with contextlib.redirect_stdout(io.StringIO()):
        verify(copy)
    return [name for name, check in copy.checks.items() if not check["ok"]]


def mutation(function: Callable[[Path], None]) -> Callable[[Path], None]:
    """Adds a function that damages a folder."""
    _MUTATIONS[function.__name__.replace("_", " ")] = function
    return function


def _for_each(name: str, values: list[Any], damage: Callable[[Path, Any], None]) -> None:
    for value in values:
        _MUTATIONS[f"{name} {value}"] = functools.partial(_swapped, damage, value)


def _swapped(damage: Callable[[Path, Any], None], value: Any, folder: Path) -> None:
    damage(folder, value)


def _replace(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    if old not in content or len(old) != len(new):
        raise SystemExit(f"{path.name} does not contain what the mutation replaces")
    path.write_bytes(content.replace(old, new))


def _rewrite_arrays(path: Path, change: Callable[[np.ndarray], np.ndarray], index: int, kind: str) -> None:
    """Changes the weight or bias of one of the convolutions of an `.mnn` file in place."""
    array = getattr(read_mnn(path).convolutions[index], kind)
    _replace(path, array.tobytes(), change(array).astype(array.dtype).tobytes())


def _rename(path: Path) -> None:
    """Gives the second convolution another name."""
    name = read_mnn(path).convolutions[1].name.encode()
    _replace(path, name, name[:-1] + b"_")


def _rewrite_onnx(folder: Path, change: Callable[[Any], None], convert_again: bool) -> None:
    """Changes the graph of the `.onnx` file, and makes the `.mnn` files of it or not."""
    import onnx

    path = folder / "model.onnx"
    model = onnx.load(str(path))
    change(model.graph)
    onnx.save(model, str(path))
    if convert_again:
        for name in FILES[1:]:
            convert(path, folder / name, sparse="sparse" in name)


def _other_activation(graph: Any) -> None:
    next(node for node in graph.node if node.op_type == "Relu").op_type = "Tanh"


def _other_padding(graph: Any) -> None:
    """The stem looks two pixels up and left."""
    node = next(node for node in graph.node if node.op_type == "Conv")
    next(attribute for attribute in node.attribute if attribute.name == "pads").ints[:] = [2, 2, 0, 0]


def _other_epsilon(graph: Any) -> None:
    node = next(node for node in graph.node if node.op_type == "BatchNormalization")
    next(attribute for attribute in node.attribute if attribute.name == "epsilon").f = 0.1


def _other_value(graph: Any, name: str) -> None:
    """Changes the last bit of the first value of a constant."""
    tensors = [(one.name, one) for one in graph.initializer]
    tensors += [(node.output[0], node.attribute[0].t) for node in graph.node if node.op_type == "Constant"]
    tensor = dict(tensors)[name]
    tensor.raw_data = bytes([tensor.raw_data[0] ^ 1]) + tensor.raw_data[1:]


_for_each("missing", list(FILES), lambda folder, name: (folder / name).unlink())
_for_each("empty", list(FILES), lambda folder, name: (folder / name).write_bytes(b""))
for _file in FILES[1:]:
    for _kind in ("values", "bias"):
        for _index in range(4):
            _MUTATIONS[f"another {_kind} of convolution {_index} in {_file}"] = functools.partial(
                lambda folder, file, kind, index: _rewrite_arrays(
                    folder / file, lambda array: array * 1.001 + 1e-4, index, kind
                ),
                file=_file,
                kind=_kind,
                index=_index,
            )
_for_each(
    "not finite",
    list(FILES[1:]),
    lambda folder, name: _rewrite_arrays(folder / name, lambda array: array * np.nan, 1, "bias"),
)
_for_each(
    "an operator renamed in",
    list(FILES[1:]),
    lambda folder, name: _rename(folder / name),
)
for _again in (True, False):
    for _change in (_other_activation, _other_padding, _other_epsilon):
        _MUTATIONS[
            f"{_change.__name__[1:].replace('_', ' ')} in the onnx file{', converted again' if _again else ''}"
        ] = functools.partial(
            lambda folder, change, again: _rewrite_onnx(folder, change, again), change=_change, again=_again
        )
_for_each(
    "another bit, converted again, of",
    ["conv2d_1.w_0", "batch_norm2d_0.w_2", "conv2d_2.b_0", "linear_0.b_0"],
    lambda folder, name: _rewrite_onnx(folder, lambda graph: _other_value(graph, name), True),
)


@mutation
def a_zero_moved(folder: Path) -> None:
    """A sparse kernel reads another input channel."""
    path = folder / "model_sparse.mnn"
    kernel = next(one for one in read_mnn(path).convolutions if one.runs_sparse)
    assert kernel.positions is not None
    moved = kernel.positions.copy()
    gap = int(np.argmax(np.diff(moved.astype(np.int64)) > 1))
    moved[gap] += 1
    _replace(path, kernel.positions.tobytes(), moved.tobytes())


@mutation
def the_dense_file_twice(folder: Path) -> None:
    """The sparse file is a copy of the dense one."""
    shutil.copy(folder / "model_dense.mnn", folder / "model_sparse.mnn")


@mutation
def the_sparse_file_twice(folder: Path) -> None:
    """The dense file is a copy of the sparse one."""
    shutil.copy(folder / "model_sparse.mnn", folder / "model_dense.mnn")


@mutation
def exchanged_files(folder: Path) -> None:
    """Dense and sparse are exchanged."""
    dense, sparse, other = folder / "model_dense.mnn", folder / "model_sparse.mnn", folder / "other"
    dense.rename(other)
    sparse.rename(dense)
    other.rename(sparse)


@mutation
def files_of_another_network(folder: Path) -> None:
    """All three are made of a network with other weights."""
    with tempfile.TemporaryDirectory() as scratch:
        other = deploy(Path(scratch), seed=1)
        for name in FILES:
            shutil.copy(other.output / name, folder / name)


@mutation
def another_exported_model(folder: Path) -> None:
    """The exported model has other weights than the network and the files."""
    with tempfile.TemporaryDirectory() as scratch:
        other = deploy(Path(scratch), seed=1)
        shutil.copytree(other.output / "inference", folder / "inference", dirs_exist_ok=True)


@mutation
def kernels_for_blocks_in_the_dense_file(folder: Path) -> None:
    """The dense file has sparse kernels for blocks."""
    convert(folder / "model.onnx", folder / "model_dense.mnn", sparse=True, block=2)


@mutation
def a_file_that_refers_to_another(folder: Path) -> None:
    """A weight of the `.onnx` file lies elsewhere on the disk."""

    def refer(graph: Any) -> None:
        node = next(node for node in graph.node if node.op_type == "Constant")
        tensor = node.attribute[0].t
        tensor.ClearField("raw_data")
        tensor.data_location = 1
        tensor.external_data.add(key="location", value="../../../etc/passwd")

    import onnx

    path = folder / "model.onnx"
    model = onnx.load(str(path))
    refer(model.graph)
    path.write_bytes(model.SerializeToString())


def known_mutations() -> dict[str, Callable[[Path], None]]:
    """Returns the ways to damage a folder by name."""
    return dict(_MUTATIONS)


def random_mutations(count: int, folder: Path, seed: int) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Yields ways to change bytes of a file."""
    source = random.Random(seed)
    for index in range(count):
        name, change = source.choice(FILES), source.choice(mutations.BINARY)
        content = (folder / name).read_bytes()
        changed = content
        while changed == content:
            changed = change(source, content)
        yield f"{index}: {change.__name__} {name}", functools.partial(_write, name, changed)


def _write(name: str, content: bytes, folder: Path) -> None:
    (folder / name).write_bytes(content)


def main() -> int:
    """Prints the damages that went unnoticed, and how many there were."""
    passed, made = [], 0
    with tempfile.TemporaryDirectory() as scratch:
        context = deploy(Path(scratch, "deployed"))
        for name, damage in [*known_mutations().items(), *random_mutations(100, context.output, 0)]:
            copy = shutil.copytree(context.output, Path(scratch, "copy"))
            damage(copy)
            made += 1
            if not problems(context, copy):
                passed.append(name)
            shutil.rmtree(copy)
    for name in passed:
        print(f"not found: {name}")
    print(f"MNN files damaged {made}, let pass by the verification {len(passed)}")
    return bool(passed)


if __name__ == "__main__":
    sys.exit(main())
