"""Mutations of files for `tools/fuzz.py`: of their bytes, of numbers in their text, and of their JSON or YAML tree.

Some are damage, and some are bombs: small files that stand for gigabytes or hours.

Every mutation takes a source of random numbers and the content of a file, and returns the damaged content.
"""

from __future__ import annotations

import copy
import json
import pickle
import pickletools
import random
import re
import struct
import zlib
from collections.abc import Callable, Iterator
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


def lie_about_size(source: random.Random, content: bytes) -> bytes:
    """Replaces a few bytes, half of the time in the first 512, by the largest numbers of their width."""
    width = source.choice([1, 2, 4, 8])
    reach = len(content) if source.random() < 0.5 else min(len(content), 512)
    start = source.randrange(max(1, reach - width))
    number = source.choice([(1 << 8 * width) - 1, (1 << 8 * width - 1) - 1, 1 << 8 * width - 2])
    return content[:start] + number.to_bytes(width, source.choice(["little", "big"])) + content[start + width :]


def repeat_opcodes(source: random.Random, content: bytes) -> bytes:
    """Repeats consecutive opcodes of a pickle up to 100,000 times."""
    starts = [position or 0 for _, _, position in pickletools.genops(content)][1:]
    first = source.randrange(len(starts) - 1)
    last = source.randrange(first + 1, min(len(starts), first + 40))
    run = content[starts[first] : starts[last]]
    times = min(source.choice([2, 100, 100_000]), 10_000_000 // len(run))
    return content[: starts[first]] + run * times + content[starts[last] :]


def share_containers(source: random.Random, content: bytes) -> bytes:
    """Replaces a pickle by one of containers in each other, each with the one before several times."""
    value: Any = source.choice([0, "x", b"x" * 1000])
    makers: list[Callable[[list[Any]], Any]] = [
        list,
        tuple,
        lambda parts: {f"{n}": part for n, part in enumerate(parts)},
    ]
    make = source.choice(makers)
    for _ in range(source.choice([10, 30, 100])):
        value = make([value] * source.choice([1, 2, 9]))
    return pickle.dumps({"weight": value}, protocol=source.choice([2, 4]))


def nest(source: random.Random, content: bytes) -> bytes:
    """Replaces a number in a text by lists in lists."""
    depth = source.choice([50, 1000, 30_000])
    spans = [number.span() for number in NUMBER.finditer(content)]
    start, end = source.choice(spans or [(0, 0)])
    return content[:start] + b"[" * depth + b"]" * source.choice([0, depth]) + content[end:]


def nest_tags(source: random.Random, content: bytes) -> bytes:
    """Inserts XML elements in elements, or entities of entities."""
    if source.random() < 0.5:
        return content.replace(b">", b">" + b"<a>" * source.choice([50, 1000, 100_000]), 1)
    entities = b"".join(b'<!ENTITY e%d "%s">' % (level, b"&e%d;" % (level - 1) * 9) for level in range(1, 20))
    return b'<!DOCTYPE a [<!ENTITY e0 "x">' + entities + b"]>" + content.replace(b"thing", b"&e19;")


def multiply_aliases(source: random.Random, content: bytes) -> bytes:
    """Adds YAML aliases of aliases."""
    width = source.choice([1, 2, 9])
    lists = [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]" for level in range(1, 40)]
    return content + "\n".join(["", "a0: &a0 [x]", *lists, ""]).encode()


def include_again(source: random.Random, content: bytes) -> bytes:
    """Makes a recipe include itself or start from itself."""
    own = source.choice(["_BASE_: [recipe.yml, recipe.yml]", "pretrain_weights: recipe:recipe.yml"])
    return content + f"\n{own}\n".encode()


def declare_pixels(source: random.Random, content: bytes) -> bytes:
    """Changes the size in the header of a PNG or JPEG, or replaces the image by an empty file or a GIF."""
    side = source.choice([0, 1, 9_000, 30_000, 65_000])
    if content.startswith(b"\x89PNG"):
        header = content[12:16] + struct.pack(">II", side, side) + content[24:29]
        return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]
    frame = content.find(b"\xff\xc0")
    if source.random() < 0.5 and frame >= 0:
        return content[: frame + 5] + struct.pack(">HH", side, side) + content[frame + 9 :]
    return source.choice([b"", b"GIF89a\1\0\1\0\x80\0\0\xff\xff\xff\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;"])


def send_page(source: random.Random, content: bytes) -> bytes:
    """Replaces a file by what hosts send instead of one."""
    pages = b"<!DOCTYPE html><title>Log in</title>", b'{"error": "expired"}', b"<?xml version='1.0'?><Error/>", b""
    return source.choice(pages)


BINARY = (truncate, flip_bits, flip_bits, replace_bytes, lie_about_size)
PICKLE = (*BINARY, repeat_opcodes, repeat_opcodes, share_containers)
IMAGE = (*BINARY, declare_pixels, declare_pixels)
DOWNLOAD = (*PICKLE, send_page, send_page)
TEXT = (truncate, flip_bits, replace_bytes, replace_number, replace_number)
XML = (*TEXT, nest_tags, nest_tags)
JSON = (*TEXT, nest, mutate_json, mutate_json, mutate_json, mutate_json)
YAML = (*TEXT, nest, multiply_aliases, include_again, mutate_yaml, mutate_yaml, mutate_yaml, mutate_yaml)
