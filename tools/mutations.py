"""Mutations of files for `tools/fuzz.py`: of their bytes, of numbers in their text, and of their JSON or YAML tree.

Every mutation takes a source of random numbers and the content of a file, and returns the damaged content.
"""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator
from typing import Any

import yaml

BAD_VALUES: tuple[Any, ...] = (
    None,
    True,
    "",
    "x",
    "../..",
    -1,
    0,
    0.5,
    10**12,
    -(10**12),
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    [],
    {},
    [[]],
    ["x", 1],
    {"x": 1},
)
NUMBER = re.compile(rb"-?\d+(\.\d+)?")
BAD_NUMBERS = (b"-1", b"0", b"99999999999", b"-99999999999", b"1" + b"0" * 400, b"1e308", b"nan", b"", b"0x", b"1.5")


def truncate(source: random.Random, content: bytes) -> bytes:
    """Removes the end of a file: a random part, one byte, or all but the first bytes."""
    return content[: source.choice([source.randrange(len(content)), len(content) - 1, source.randrange(64)])]


def flip_bits(source: random.Random, content: bytes) -> bytes:
    """Flips up to eight bits, half of them in the first 512 bytes, which hold the structure."""
    changed = bytearray(content)
    for _ in range(source.choice([1, 1, 2, 8])):
        reach = len(changed) if source.random() < 0.5 else min(len(changed), 512)
        changed[source.randrange(reach)] ^= 1 << source.randrange(8)
    return bytes(changed)


def replace_bytes(source: random.Random, content: bytes) -> bytes:
    """Replaces consecutive bytes by zeros or random bytes, repeats them, or deletes them."""
    start = source.randrange(len(content))
    run = content[start : start + source.choice([1, 4, 16, 256, 4096])]
    other = source.choice([bytes(len(run)), run + run, b"", source.randbytes(len(run))])
    return content[:start] + other + content[start + len(run) :]


def replace_number(source: random.Random, content: bytes) -> bytes:
    """Replaces a number in a text by one that is out of range, of another type, or missing."""
    spans = [number.span() for number in NUMBER.finditer(content)]
    start, end = source.choice(spans or [(0, 0)])
    return content[:start] + source.choice(BAD_NUMBERS) + content[end:]


def _paths(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in children:
        yield (*path, key)
        yield from _paths(value, (*path, key))


def mutate_tree(source: random.Random, tree: Any) -> Any:
    """Removes, replaces, renames or repeats one value of a tree of dicts and lists."""
    changed = copy.deepcopy(tree)
    *path, last = source.choice(list(_paths(changed)))
    parent = changed
    for key in path:
        parent = parent[key]
    how = source.choice(["remove", "replace", "replace", "replace", "move", "wrap"])
    if how == "remove":
        del parent[last]
    elif how == "replace":
        parent[last] = copy.deepcopy(source.choice(BAD_VALUES))
    elif how == "wrap":
        parent[last] = [parent[last]] * 2
    elif isinstance(parent, dict):
        parent[f"{last}_"] = parent.pop(last)
    else:
        parent.append(parent[last])
    return changed


def mutate_json(source: random.Random, content: bytes) -> bytes:
    """Mutates the tree of a JSON file."""
    return json.dumps(mutate_tree(source, json.loads(content))).encode()


def mutate_yaml(source: random.Random, content: bytes) -> bytes:
    """Mutates the tree of a YAML file."""
    return yaml.safe_dump(mutate_tree(source, yaml.safe_load(content))).encode()


BINARY = (truncate, flip_bits, flip_bits, replace_bytes)
TEXT = (truncate, flip_bits, replace_bytes, replace_number, replace_number)
JSON = (*TEXT, mutate_json, mutate_json, mutate_json, mutate_json)
YAML = (*TEXT, mutate_yaml, mutate_yaml, mutate_yaml, mutate_yaml)
