"""ppdet's configuration, read safely: its `_BASE_` format and its registry, without YAML that runs code.

ppdet keeps one registry for the whole process. `load` replaces its content, so that a second recipe in the same
process does not see the first, and `create` leaves it unchanged, so that modules can be created more than once.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError, PipelineError, did_you_mean
from . import allowlist, compat

# Top-level scalars of PaddleDetection's own files that no registered module claims. Those that only its trainer or its
# C++ deployment reads are accepted, so that its files load unchanged.
# fmt: off
PLAIN_KEYS = frozenset({
    "amp", "amp_level", "architecture", "custom_black_list", "custom_white_list", "cycle_epoch", "ema_black_list",
    "ema_decay", "ema_decay_type", "ema_filter_no_grad", "epoch", "eval_height", "eval_size", "eval_width",
    "export", "filename", "find_unused_parameters", "init_loss_scaling", "log_iter", "map_type", "metric",
    "norm_type", "num_classes", "pretrain_weights", "print_flops", "print_params", "pruner", "resume_weights",
    "save_dir", "seed", "slim", "snapshot_epoch", "snapshot_iter", "use_ema", "use_gpu", "use_mlu", "use_npu",
    "use_xpu", "weights", "worker_num",
})
# fmt: on

# Limits on a recipe. Those of PaddleDetection have some hundreds of values in up to 10 files of together 10 kB.
_MAX_VALUES = 100_000  # of a file, aliases expanded
_MAX_FILES = 64  # a file that is included twice counts twice
_MAX_BYTES = 128 << 10  # of all files; the parser reads some 30 kB in a second
_MAX_BITS = 4096  # of an integer; Python refuses to print longer ones
_MAX_DEPTH = 100


@functools.lru_cache(maxsize=1)
def initial_state() -> tuple[dict[str, Any], dict[Any, Any]]:
    """The allowed part of ppdet's registry and its constructors' default arguments, as the import leaves them."""
    workspace = compat.import_ppdet()
    modules = {
        name: schema.copy()
        for name, schema in workspace.global_config.items()
        if isinstance(schema, workspace.SchemaDict) and allowlist.is_allowed_module(name, schema)
    }
    constructors = [getattr(schema.pymodule, schema.name).__init__ for schema in modules.values()]
    defaults = {
        constructor: copy.deepcopy(constructor.__defaults__)
        for constructor in constructors
        if getattr(constructor, "__defaults__", None)
    }
    return modules, defaults


@functools.lru_cache(maxsize=1)
def _safe_loader() -> type[yaml.SafeLoader]:
    """A SafeLoader that also knows the tags of PaddleDetection's files (`!CosineDecay` and the like), and no others."""
    compat.import_ppdet()

    class Loader(yaml.SafeLoader):
        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.depth += 1
            if self.depth > _MAX_DEPTH:  # PaddleSlim raises Python's limit to where an error takes a minute
                raise ValueError(f"more than {_MAX_DEPTH} levels of nesting")
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

    # YAML 1.1 reads 1e-3, which is common in recipes, as a string: it requires 1.0e-3.
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
    for tag in allowlist.TAGS:
        Loader.add_constructor(tag, yaml.Loader.yaml_constructors[tag])
    return Loader


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a YAML mapping; tags other than those of PaddleDetection's files are refused.

    Raises:
        InputError: the file does not exist, is too large, is not valid YAML, has a tag that would run code, or is not a
            mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such recipe")
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{path}: a recipe must have at most {_MAX_BYTES:,} bytes, got {path.stat().st_size:,}")
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, InputError) as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: a recipe must be a mapping of keys to values, got {type(content).__name__}")
    return content


def parse_yaml(text: str) -> Any:
    """Parses YAML whose keys are all strings.

    Raises:
        InputError: the text is not valid YAML, has a tag that would run code, or a key that is not a string.
    """
    try:
        loader = _safe_loader()(text)
        node = loader.get_single_node()
        _count_values(node, {})
        content = None if node is None else loader.construct_document(node)
        _check_values(content)
    # ValueError: an impossible date; AttributeError: a tag on a plain value
    except (yaml.YAMLError, ValueError, RecursionError, AttributeError, OverflowError) as error:
        raise InputError(f"not valid YAML: {' '.join(str(error).split())}") from None
    except TypeError as error:  # unknown argument of a tag's constructor
        raise InputError(str(error)) from None
    return content


def _count_values(node: yaml.Node | None, counts: dict[int, int]) -> int:
    """Counts the values of a node with its aliases expanded: a few lines can stand for billions of values."""
    if id(node) in counts:
        return counts[id(node)]
    counts[id(node)] = _MAX_VALUES + 1  # what an alias to the node itself would add
    parts = node.value if isinstance(node, yaml.CollectionNode) else ()
    children = (part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,)))
    count = 1 + sum(_count_values(child, counts) for child in children)
    if count > _MAX_VALUES:
        raise ValueError(f"more than {_MAX_VALUES:,} values with all aliases expanded")
    counts[id(node)] = count
    return count


def _check_values(content: Any) -> None:
    if isinstance(content, int) and content.bit_length() > _MAX_BITS:
        raise ValueError(f"an integer must have at most {_MAX_BITS} bits, got one of {content.bit_length()}")
    if isinstance(content, str) and ("\0" in content or content != content.encode(errors="ignore").decode()):
        raise ValueError(f"text must not contain NUL or half of a surrogate pair, got {content[:200]!a}")
    if isinstance(content, dict):
        for key, value in content.items():
            _check_values(key)
            if not isinstance(key, str):
                raise ValueError(f"keys must be strings, got {key!r}")
            _check_values(value)
    elif isinstance(content, list):
        for value in content:
            _check_values(value)


def merge(over: dict[str, Any], under: dict[str, Any]) -> dict[str, Any]:
    """Merges `over` into `under` block by block, as ppdet does, and returns `under`."""
    merged: dict[str, Any] = compat.import_ppdet().dict_merge(under, over)
    return merged


def read_with_bases(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a file and the files that its `_BASE_` names, relative to it, and merges them as ppdet does.

    Raises:
        InputError: a file cannot be read (`read_yaml`), `_BASE_` is not a list of file names or includes itself, or the
            files are too many or too large: two files that name each other's successor twice would never be read.
    """
    return _read_with_bases(Path(path), (), [])


def _read_with_bases(path: Path, including: tuple[Path, ...], sizes: list[int]) -> dict[str, Any]:
    """Does the same for a file that others include; `sizes` collects the size of each file that is read."""
    if path.resolve() in including:
        raise InputError(f"{path}: _BASE_ includes the file itself")
    content = read_yaml(path)
    sizes.append(path.stat().st_size)
    if len(sizes) > _MAX_FILES or sum(sizes) > _MAX_BYTES:
        top = including[0] if including else path
        raise InputError(
            f"{top}: _BASE_ must include at most {_MAX_FILES} files of {_MAX_BYTES:,} bytes in all, each counted as "
            f"often as it is named; {path} exceeds that"
        )
    bases = content.pop("_BASE_", None) or []
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise InputError(f"{path}: _BASE_ must be a list of file names, got {bases!r}")
    merged: dict[str, Any] = {}
    for base in bases:
        try:
            file = path.parent / Path(base).expanduser()
        except RuntimeError as error:  # no such user, or a user without a home folder
            raise InputError(f"{path}: _BASE_: {base}: {error}") from None
        merge(_read_with_bases(file, (*including, path.resolve()), sizes), merged)
    return merge(content, merged)


def block_settings(block: Any) -> dict[str, Any]:
    """Returns the settings of a block: a mapping, or what a tag such as !ImageFolder creates, with its `name`."""
    if block is None or isinstance(block, dict):
        return block or {}
    return {**getattr(block, "__dict__", {}), "name": type(block).__name__}


def load(content: dict[str, Any], origin: str) -> Any:
    """Replaces the content of ppdet's registry with a configuration.

    Args:
        content: the merged mapping, without blocks that ppdet does not know.
        origin: the file's name, for messages.

    Returns:
        ppdet's registry, from which `create` builds modules.

    Raises:
        InputError: a key that neither ppdet's modules nor PaddleDetection's files have.
    """
    workspace = compat.import_ppdet()
    modules, _ = initial_state()
    registry = workspace.global_config
    registry.clear()
    registry.update({name: schema.copy() for name, schema in modules.items()})
    for error in unknown_keys(content, origin):
        raise error
    workspace.merge_config(copy.deepcopy(content))
    return registry


def unknown_keys(content: dict[str, Any], origin: str) -> Iterator[InputError]:
    """Yields an error for each key that neither ppdet's modules nor PaddleDetection's files have.

    Args:
        content: the merged mapping, without blocks that ppdet does not know.
        origin: the file's name, for messages.
    """
    modules, _ = initial_state()
    for key, value in content.items():
        if key in modules:
            yield from _unknown_arguments(key, value, modules[key], origin)
        elif key not in PLAIN_KEYS:
            yield InputError(f"{origin}: unknown key {key!r}; {did_you_mean(key, [*modules, *PLAIN_KEYS])}")


def _unknown_arguments(key: str, value: Any, schema: Any, origin: str) -> Iterator[InputError]:
    if not isinstance(value, dict) or not schema.strict:
        return
    known = {*schema.schema, "name"}
    for name in value:
        if name not in known:
            yield InputError(f"{origin}: unknown key {name!r} in {key}; {did_you_mean(str(name), known)}")


def create(name: str) -> Any:
    """Creates a module of the loaded configuration, which stays as it is: the next one will be equal.

    Raises:
        InputError: ppdet cannot create the module from the given values.
    """
    workspace = compat.import_ppdet()
    _, defaults = initial_state()
    with convert_errors(name), compat.preserve_configuration(workspace.global_config, defaults):
        return workspace.create(name)


@contextlib.contextmanager
def convert_errors(block: str) -> Iterator[None]:
    """Converts what ppdet raises on unusable values into an InputError that names the block with these values."""
    try:
        yield
    except (InputError, PipelineError):
        raise
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        MemoryError,
        NameError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        reason = " ".join(str(error).split())[-300:]  # Paddle's own messages begin with the stack
        raise InputError(f"{block}: cannot be created from the recipe: {type(error).__name__}: {reason}") from error


@contextlib.contextmanager
def prefix_errors(files: str) -> Iterator[None]:
    """Prefixes an InputError with the names of the files that it is about."""
    try:
        yield
    except InputError as error:
        if str(error).startswith(files):
            raise
        raise InputError(f"{files}: {error}") from error
