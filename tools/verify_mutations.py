"""Damages the files of a training in every way known, and at random, and counts what the verification lets pass.

A small network is trained with a weight average and deployed; each damage is made to a copy of its folder. `make soak`
runs this; the last line is the result.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mutations
import numpy as np
import paddle
from paddle import nn
from paddle.static import InputSpec

from paddle_sparse_cb import Checkpoints, EMACallback, HookContext, SparsityCallback
from paddle_sparse_cb.checkpoints.state import file_digest, load_state, save_state
from paddle_sparse_cb.checkpoints.verify import verify_checkpoints
from paddle_sparse_cb.deploy import Export, OptimizeLite, verify
from paddle_sparse_cb.deploy.lite.nb import read_nb
from paddle_sparse_cb.deploy.manifest import NAME as MANIFEST
from paddle_sparse_cb.deploy.manifest import exported_files, record
from paddle_sparse_cb.hooks import Hook
from paddle_sparse_cb.utils.weight_files import load_arrays, load_parameters, parse_program

SPEC = [InputSpec([1, 3, 16, 16], "float32", "x")]
FP16 = OptimizeLite({"enable_fp16": "true"})
NB = ("model_sparse.nb", "model_dense.nb", "model_sparse_fp16.nb", "model_dense_fp16.nb")
_MUTATIONS: dict[str, Callable[[Path], None]] = {}


class Network(nn.Layer):
    """Convolutions with and without a batch norm, two of them pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2D(3, 16, 3, padding=1, bias_attr=False), nn.BatchNorm2D(16), nn.ReLU())
        self.expand, self.norm = nn.Conv2D(16, 64, 1, bias_attr=False), nn.BatchNorm2D(64)
        self.project, self.head = nn.Conv2D(64, 32, 1), nn.Linear(32, 4)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Returns the scores of four classes."""
        x = nn.functional.relu(self.norm(self.expand(self.stem(x))))
        return self.head(nn.functional.relu(self.project(x)).mean([2, 3]))


def train(folder: Path) -> HookContext:
    """Trains and deploys a network; returns the context of its last hook."""
    paddle.seed(0)
    found: list[HookContext] = []
    with paddle.utils.unique_name.guard(), contextlib.redirect_stdout(io.StringIO()):
        network = Network()
        model = paddle.Model(network, SPEC)
        optimizer = paddle.optimizer.Adam(1e-2, parameters=network.parameters())
        model.prepare(optimizer, nn.CrossEntropyLoss())
        data = paddle.io.TensorDataset([paddle.rand([64, 3, 16, 16]), paddle.randint(0, 4, [64, 1])])
        checkpoints = folder / "checkpoints"

        def name_checkpoint(context: HookContext) -> None:
            context.artefacts["pdparams"] = checkpoints / "final.pdparams"

        hooks: list[Hook] = [name_checkpoint, Export(SPEC), FP16, verify, found.append]
        sparsity = SparsityCallback(
            ratio=0.75, pruning_epochs=2, tunning_epochs=1, pruning_steps=2, save_dir=folder, post_train=hooks
        )
        callbacks = [sparsity, EMACallback(), Checkpoints(checkpoints)]
        model.fit(data, epochs=3, batch_size=16, verbose=0, callbacks=callbacks)
    return found[0]


def problems(context: HookContext, folder: Path) -> list[str]:
    """Verifies everything in a copy of the folder and returns what is wrong."""
    artefacts = {name: folder / path.relative_to(context.output) for name, path in context.artefacts.items()}
    copy = replace(context, output=folder, artefacts=artefacts, checks={})
    with contextlib.redirect_stdout(io.StringIO()):
        verify(copy)
    failed = [name for name, check in copy.checks.items() if not check["ok"]]
    return failed + verify_checkpoints(folder / "checkpoints")[1]


def mutation(function: Callable[[Path], None]) -> Callable[[Path], None]:
    """Adds a function that damages a folder."""
    _MUTATIONS[function.__name__.replace("_", " ")] = function
    return function


def _refresh(folder: Path) -> None:
    """Makes the manifest one of the damaged files, so that only their content can give them away."""
    (folder / MANIFEST).unlink()
    checkpoint, exported = folder / "checkpoints" / "final.pdparams", exported_files(folder / "inference" / "model")
    record(folder, [checkpoint])
    record(folder, exported, [checkpoint])
    record(folder, [folder / name for name in NB], exported)


def _rewrite_checkpoint(folder: Path, name: str, suffix: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the arrays of a checkpoint, and its state to name the changed file."""
    file = folder / "checkpoints" / f"{name}{suffix}"
    arrays = load_arrays(file)
    change(arrays)
    paddle.save(arrays, str(file))
    state = load_state(file.with_suffix(".pdsparse"))
    save_state(replace(state, files={**state.files, file.name: file_digest(file)}), file.with_suffix(".pdsparse"))
    _refresh(folder)


def _rewrite_exported(folder: Path, change: Callable[[np.ndarray], np.ndarray], only: str = "") -> None:
    """Changes the tensors of `.pdiparams` in place whose variables contain a text."""
    prefix = folder / "inference" / "model"
    file = Path(f"{prefix}.pdiparams")
    content = file.read_bytes()
    for variable, array in load_parameters(prefix).items():
        if only in variable and array.dtype == np.float32:
            content = content.replace(array.tobytes(), change(array).astype(np.float32).tobytes())
    file.write_bytes(content)
    _refresh(folder)


def _rewrite_nb(folder: Path, file: str, change: Callable[[np.ndarray], np.ndarray], only: str = "") -> None:
    """Changes the tensors of a `.nb` file in place whose variables contain a text."""
    path = folder / file
    content = path.read_bytes()
    for variable, array in read_nb(path).parameters.items():
        if only in variable and array.dtype == np.float32:
            content = content.replace(array.tobytes(), change(array).astype(np.float32).tobytes())
    path.write_bytes(content)
    _refresh(folder)


def _for_each(name: str, values: Iterable[Any], damage: Callable[[Path, Any], None]) -> None:
    for value in values:
        text = " and ".join(value) if isinstance(value, tuple) else value
        _MUTATIONS[f"{name} {text}"] = functools.partial(_swapped, damage, value)


def _swapped(damage: Callable[[Path, Any], None], value: Any, folder: Path) -> None:
    damage(folder, value)


_for_each(
    "missing",
    [
        MANIFEST,
        *NB,
        *(f"inference/model{suffix}" for suffix in (".pdmodel", ".pdiparams", ".pdiparams.info")),
        *(f"checkpoints/{name}" for name in ("final.pdparams", "1.pdsparse", "0.pdopt")),
    ],
    lambda folder, name: (folder / name).unlink(),
)
_for_each(
    "every weight times",
    [-3, 1.001],
    lambda folder, factor: _rewrite_nb(folder, "model_sparse.nb", lambda array: array * factor, "nonzeros_output"),
)
_for_each(
    "every FP16 weight times",
    [-3, 1.001],
    lambda folder, factor: _rewrite_nb(folder, "model_sparse_fp16.nb", lambda array: array * factor, "nonzeros_output"),
)
_for_each(
    "biases of 1e6 in",
    NB,
    lambda folder, file: _rewrite_nb(folder, file, lambda array: array * 0 + 1e6, ".b_0"),
)
_for_each(
    "NaN in the exported",
    [".b_0", ".w_1", ".w_2", "conv2d"],
    lambda folder, only: _rewrite_exported(folder, lambda array: array * np.nan, only),
)
_for_each(
    "another value of",
    ["norm._mean", "head.weight", "stem.0.weight", "project.bias"],
    lambda folder, name: _rewrite_checkpoint(
        folder, "final", ".pdparams", lambda arrays: arrays.update({name: arrays[name] + np.float32(1e-3)})
    ),
)
_for_each(
    "dense weights in checkpoint",
    ["1", "2", "final"],
    lambda folder, name: _rewrite_checkpoint(
        folder, name, ".pdparams", lambda arrays: arrays.update({"expand.weight": arrays["expand.weight"] + 1})
    ),
)


@mutation
def dense_averages(folder: Path) -> None:
    """The average of a pruned weight is not zero."""
    key = "average.expand.weight"
    _rewrite_checkpoint(folder, "2", ".pdema", lambda arrays: arrays.update({key: arrays[key] + 1}))


@mutation
def moments_of_NaN(folder: Path) -> None:
    """The optimizer's state diverged."""

    def change(arrays: dict[str, Any]) -> None:
        name = next(name for name, array in arrays.items() if np.ndim(array) == 4)
        arrays[name] = arrays[name] * np.nan

    _rewrite_checkpoint(folder, "2", ".pdopt", change)


@mutation
def garbage_as_optimizer_state(folder: Path) -> None:
    """A file that is no pickle, which the state names all the same."""
    file = folder / "checkpoints" / "2.pdopt"
    file.write_bytes(b"garbage")
    state = load_state(file.with_suffix(".pdsparse"))
    save_state(replace(state, files={**state.files, file.name: file_digest(file)}), file.with_suffix(".pdsparse"))


@mutation
def the_state_of_another_epoch(folder: Path) -> None:
    """`final.pdsparse` is a copy of an earlier one."""
    shutil.copy(folder / "checkpoints" / "1.pdsparse", folder / "checkpoints" / "final.pdsparse")


@mutation
def masks_of_an_earlier_ratio(folder: Path) -> None:
    """The last checkpoint holds the network and the masks of the second epoch."""
    checkpoints = folder / "checkpoints"
    early, late = load_state(checkpoints / "0.pdsparse"), load_state(checkpoints / "2.pdsparse")
    save_state(replace(late, masks=early.masks), checkpoints / "2.pdsparse")


@mutation
def a_checkpoint_of_another_network(folder: Path) -> None:
    """A checkpoint whose head has another number of classes."""
    change = lambda arrays: arrays.update({"head.bias": np.zeros(7, np.float32)})  # noqa: E731
    _rewrite_checkpoint(folder, "0", ".pdparams", change)


@mutation
def files_made_from_an_earlier_export(folder: Path) -> None:
    """Exported again from other weights, and not optimized again."""
    prefix = folder / "inference" / "model"
    file = Path(f"{prefix}.pdiparams")
    content = file.read_bytes()
    array = load_parameters(prefix)["linear_0.b_0"]
    file.write_bytes(content.replace(array.tobytes(), (array + 1).tobytes()))
    record(folder, exported_files(prefix), [folder / "checkpoints" / "final.pdparams"])


@mutation
def renamed_operators(folder: Path) -> None:
    """The exported program computes something else."""
    file = folder / "inference" / "model.pdmodel"
    file.write_bytes(file.read_bytes().replace(b"\x04relu", b"\x04tanh"))


def _rewrite_program(folder: Path, change: Callable[[Any], None]) -> None:
    """Changes the operators of the exported program, recorded as they are."""
    prefix = folder / "inference" / "model"
    program = parse_program(prefix)
    change(program.blocks[0].ops)
    Path(f"{prefix}.pdmodel").write_bytes(program.SerializeToString())
    _refresh(folder)


def _set_attribute(operators: Any, operator: str, name: str, **value: Any) -> None:
    """Sets an attribute of the first operator of a type: `f` for a number, `ints` for a list."""
    attributes = next(one for one in operators if one.type == operator).attrs
    attribute = next(one for one in attributes if one.name == name)
    for kind, new in value.items():
        attribute.ClearField(kind)
        attribute.MergeFrom(type(attribute)(**{kind: new}))


def _other_activation(operators: Any) -> None:
    next(one for one in operators if one.type == "relu").type = "tanh"


_PROGRAMS: dict[str, Callable[[Any], None]] = {
    "another activation": _other_activation,
    "an epsilon of 0.1": lambda operators: _set_attribute(operators, "batch_norm", "epsilon", f=0.1),
    "another padding": lambda operators: _set_attribute(operators, "conv2d", "paddings", ints=[2, 0, 2, 0]),
    "an operator that writes a file": lambda operators: setattr(operators[-2], "type", "save"),
}
_for_each("program with", list(_PROGRAMS), lambda folder, name: _rewrite_program(folder, _PROGRAMS[name]))


def _copy(folder: Path, names: tuple[str, str]) -> None:
    """Replaces the second file by a copy of the first one, recorded as it is."""
    shutil.copy(folder / names[0], folder / names[1])
    _refresh(folder)


def _exchange(folder: Path, names: tuple[str, str]) -> None:
    """Exchanges two files, recorded as they are."""
    first, second, other = folder / names[0], folder / names[1], folder / "other"
    first.rename(other)
    second.rename(first)
    other.rename(second)
    _refresh(folder)


_PAIRS = [(first, second) for first in NB for second in NB if first != second]
_for_each("one file twice", _PAIRS, _copy)
_for_each("exchanged", [pair for pair in _PAIRS if pair[0] < pair[1]], _exchange)


@mutation
def a_flag_for_pairs_of_channels(folder: Path) -> None:
    """The FP16 file asks for the kernel that reads the weights in another order."""
    path = folder / "model_sparse_fp16.nb"
    content = path.read_bytes()
    changed = content.replace(b"flag_semi", b"flag_none")
    assert changed != content
    path.write_bytes(changed)
    _refresh(folder)


def known_mutations() -> dict[str, Callable[[Path], None]]:
    """Returns the ways to damage a folder by name."""
    return dict(_MUTATIONS)


def random_mutations(count: int, folder: Path, seed: int) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Yields ways to change bytes of a random file."""
    source = random.Random(seed)
    files = sorted(file.relative_to(folder) for file in folder.rglob("[!.]*") if file.is_file())
    for index in range(count):
        name, change = source.choice(files), source.choice(mutations.BINARY)
        content = (folder / name).read_bytes()
        changed = content
        while changed == content:
            changed = change(source, content)
        yield f"{index}: {change.__name__} {name}", functools.partial(_write, name, changed)


def _write(name: Path, content: bytes, folder: Path) -> None:
    (folder / name).write_bytes(content)


def count_let_pass(count: int, seed: int = 0) -> tuple[int, list[str]]:
    """Makes every damage and `count` random ones.

    Returns:
        The number of damages, and the names of those that the verification let pass.
    """
    passed, made = [], 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "trained")
        context = train(folder)
        _check_undamaged(context, folder, Path(scratch, "undamaged"))
        for name, damage in [*known_mutations().items(), *random_mutations(count, folder, seed)]:
            copy = Path(scratch, "copy")
            shutil.copytree(folder, copy)
            damage(copy)
            made += 1
            if not problems(context, copy):
                passed.append(name)
            shutil.rmtree(copy)
    return made, passed


def _check_undamaged(context: HookContext, folder: Path, copy: Path) -> None:
    """Ends the program if the verification fails on a copy, also with a manifest of its own."""
    shutil.copytree(folder, copy)
    found = problems(context, copy)
    _refresh(copy)
    found += problems(context, copy)
    if found:
        raise SystemExit(f"the verification fails without any damage: {'; '.join(found)}")


def main() -> int:
    """Prints the damages that went unnoticed, and how many there were."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--random", type=int, default=200, help="random damages")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    made, passed = count_let_pass(options.random, options.seed)
    for name in passed:
        print(f"not found: {name}")
    print(f"files damaged {made}, let pass by the verification {len(passed)}")
    return bool(passed)


if __name__ == "__main__":
    sys.exit(main())
