"""ppdet's configuration, read safely: its `_BASE_` format and its registry, without YAML that runs code.

ppdet keeps one registry for the whole process, which `load_config` writes into. `load` starts from a clean one, so
that a second recipe in the same process does not see the first.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError, PipelineError, did_you_mean
from . import allowlist as vocabulary

# Scalars of PaddleDetection's own files that no registered module claims. Those that only its trainer or its C++
# deployment read are accepted, so that its files load as they are.
_PLAIN_KEYS = frozenset("""
    amp amp_level architecture custom_black_list custom_white_list cycle_epoch ema_black_list ema_decay ema_decay_type
    ema_filter_no_grad epoch eval_height eval_size eval_width export filename find_unused_parameters init_loss_scaling
    log_iter map_type metric norm_type num_classes pretrain_weights print_flops print_params pruner resume_weights
    save_dir seed slim snapshot_epoch snapshot_iter use_ema use_gpu use_mlu use_npu use_xpu weights worker_num
""".split())  # noqa: SIM905 a list of quoted words would fill the screen

_MOST_VALUES = 100_000  # in a recipe; PaddleDetection's have some hundreds


@functools.lru_cache(maxsize=1)
def _pristine() -> dict[str, Any]:
    """Ppdet's registry as the import leaves it."""
    import ppdet.core.workspace as workspace
    import ppdet.data
    import ppdet.modeling
    import ppdet.optimizer
    import ppdet.slim  # noqa: F401
    import pycocotools.mask  # noqa: F401  before ppdet: its zlib clashes with paddle's when it comes second

    for name in logging.root.manager.loggerDict:
        if name.startswith("ppdet"):  # each has a level of its own; INFO is a line for every array not loaded
            logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("reader").setLevel(logging.ERROR)  # ppdet's: the stack of an error that is raised as well
    vocabulary.install_allowlist()
    return _copy({name: schema for name, schema in workspace.global_config.items()
                  if isinstance(schema, workspace.SchemaDict) and vocabulary.is_allowed_module(name, schema)})


@functools.lru_cache(maxsize=1)
def _defaults() -> dict[Any, Any]:
    """Default arguments of ppdet's constructors as the import leaves them."""
    classes = [getattr(schema.pymodule, schema.name) for schema in _pristine().values() if hasattr(schema, "pymodule")]
    return {cls.__init__: copy.deepcopy(cls.__init__.__defaults__) for cls in classes
            if getattr(cls.__init__, "__defaults__", None)}


def _copy(registry: dict[str, Any]) -> dict[str, Any]:
    """A copy whose modules' settings are its own; the schemas behind them, which hold modules, are shared."""
    return {name: value.copy() if hasattr(value, "copy") else value for name, value in registry.items()}


@functools.lru_cache(maxsize=1)
def _safe_loader() -> type[yaml.SafeLoader]:
    """A SafeLoader that also knows the tags of PaddleDetection's files (`!CosineDecay` and the like), and no others."""
    _pristine()

    class Loader(yaml.SafeLoader):
        pass

    # YAML 1.1 takes 1e-3, which everybody writes, for a string: it wants 1.0e-3.
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
                                 list("-+0123456789"))
    for tag in vocabulary.TAGS:
        Loader.add_constructor(tag, yaml.Loader.yaml_constructors[tag])
    return Loader


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads one YAML mapping; tags other than ppdet's are refused.

    Raises:
        InputError: no such file, no valid YAML, a tag that would run code, or no mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such recipe")
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, InputError) as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: a recipe is a mapping of keys to values, this is {type(content).__name__}")
    return content


def parse_yaml(text: str) -> Any:
    """Parses YAML; every key in it is a string.

    Raises:
        InputError: it is no valid YAML, has a tag that would run code, or a key that is no string.
    """
    try:
        loader = _safe_loader()(text)
        node = loader.get_single_node()
        _size(node, {})
        content = None if node is None else loader.construct_document(node)
        _require_string_keys(content)
    # ValueError: a date that there is not; AttributeError: a tag on a plain value
    except (yaml.YAMLError, ValueError, RecursionError, AttributeError, OverflowError) as error:
        raise InputError(f"no valid YAML: {' '.join(str(error).split())}") from None
    except TypeError as error:  # a tag's constructor got a key that it does not have
        raise InputError(str(error)) from None
    return content


def _size(node: yaml.Node | None, known: dict[int, int]) -> int:
    """How many values a node stands for, with those of its aliases: a few lines can stand for billions."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = _MOST_VALUES + 1  # what an alias to itself would be
    parts = node.value if isinstance(node, yaml.CollectionNode) else ()
    size = 1 + sum(_size(part, known) for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,)))
    if size > _MOST_VALUES:
        raise ValueError(f"its aliases stand for more than {_MOST_VALUES:,} values")
    known[id(node)] = size
    return size


def _require_string_keys(content: Any) -> None:
    if isinstance(content, dict):
        for key, value in content.items():
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} is no string")
            _require_string_keys(value)
    elif isinstance(content, list):
        for value in content:
            _require_string_keys(value)


def merge(over: dict[str, Any], under: dict[str, Any]) -> dict[str, Any]:
    """Lays one configuration over another, block by block, as ppdet does; returns `under`, changed."""
    from ppdet.core.workspace import dict_merge

    return dict_merge(under, over)


def read_with_bases(path: str | os.PathLike[str], _above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Reads a file with the files its `_BASE_` names below it, relative to it, as ppdet merges them."""
    path = Path(path)
    if path.resolve() in _above:
        raise InputError(f"{path}: its _BASE_ leads back to itself")
    content = read_yaml(path)
    bases = content.pop("_BASE_", None) or []
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise InputError(f"{path}: _BASE_ is a list of file names, got {bases!r}")
    merged: dict[str, Any] = {}
    for base in bases:
        merge(read_with_bases(path.parent / Path(base).expanduser(), (*_above, path.resolve())), merged)
    return merge(content, merged)


def load(content: dict[str, Any], origin: str) -> Any:
    """Puts a configuration into ppdet's registry, in place of any earlier one.

    Args:
        content: the merged mapping, without our own blocks.
        origin: the file's name, for messages.

    Returns:
        ppdet's registry, which `ppdet.core.workspace.create` makes the modules from.

    Raises:
        InputError: a key that neither ppdet's modules nor its files have.
    """
    import ppdet.core.workspace as workspace

    registry = workspace.global_config
    pristine = _pristine()
    for constructor, defaults in _defaults().items():
        # Some change their own default lists: a second LCPAN would get one scale more.
        constructor.__defaults__ = copy.deepcopy(defaults)
    registry.clear()
    registry.update(_copy(pristine))
    modules = {name: schema for name, schema in pristine.items() if isinstance(schema, workspace.SchemaDict)}
    for key, value in content.items():
        if key in modules:
            _check_module(key, value, modules[key], origin)
        elif key not in _PLAIN_KEYS:
            raise InputError(f"{origin}: unknown key {key!r}; {did_you_mean(key, [*modules, *_PLAIN_KEYS])}")
    workspace.merge_config(copy.deepcopy(content))
    return registry


def _check_module(key: str, value: Any, schema: Any, origin: str) -> None:
    if not isinstance(value, dict) or not schema.strict:
        return
    known = {*schema.schema, "name"}
    for name in value:
        if name not in known:
            raise InputError(f"{origin}: unknown key {name!r} in {key}; {did_you_mean(str(name), known)}")


def create(name: str) -> Any:
    """Makes a module of the loaded configuration.

    Raises:
        InputError: ppdet cannot make it from the values given.
    """
    from ppdet.core.workspace import create as make

    with blaming(name):
        return make(name)


@contextlib.contextmanager
def blaming(block: str) -> Iterator[None]:
    """Turns what ppdet raises on bad values into an InputError that names the block they stand in."""
    try:
        yield
    except (InputError, PipelineError):
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, NameError, RuntimeError,
            TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[-300:]  # Paddle's own begin with the stack
        raise InputError(f"{block}: cannot be made from the recipe: {type(error).__name__}: {reason}") from error


@contextlib.contextmanager
def naming(files: str) -> Iterator[None]:
    """Has an InputError about what stands in files name them."""
    try:
        yield
    except InputError as error:
        if str(error).startswith(files):
            raise
        raise InputError(f"{files}: {error}") from error
