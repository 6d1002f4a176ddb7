"""Ways to damage a file: as bytes, as text with numbers in it, and as the mappings and lists that it holds."""

import copy
import json
import random
import re

import yaml

BAD_VALUES = (None, True, "", "x", "../..", -1, 0, 0.5, 10**12, -(10**12), 10**400, 1e308, float("nan"), float("inf"),
              [], {}, [[]], ["x", 1], {"x": 1})
NUMBER = re.compile(rb"-?\d+(\.\d+)?")
BAD_NUMBERS = (b"-1", b"0", b"99999999999", b"-99999999999", b"1" + b"0" * 400, b"1e308", b"nan", b"", b"0x", b"1.5")


def cut(source: random.Random, content: bytes) -> bytes:
    """A file cut short, by one byte or by nearly all."""
    return content[:source.choice([source.randrange(len(content)), len(content) - 1, source.randrange(64)])]


def flip(source: random.Random, content: bytes) -> bytes:
    """Some bits are others, more often in the head, where the structure is."""
    changed = bytearray(content)
    for _ in range(source.choice([1, 1, 2, 8])):
        reach = len(changed) if source.random() < 0.5 else min(len(changed), 512)
        changed[source.randrange(reach)] ^= 1 << source.randrange(8)
    return bytes(changed)


def rewrite(source: random.Random, content: bytes) -> bytes:
    """A run of bytes is zeroed, doubled, deleted or random."""
    start = source.randrange(len(content))
    run = content[start:start + source.choice([1, 4, 16, 256, 4096])]
    other = source.choice([bytes(len(run)), run + run, b"", source.randbytes(len(run))])
    return content[:start] + other + content[start + len(run):]


def renumber(source: random.Random, content: bytes) -> bytes:
    """A number in a text is another."""
    found = source.choice(list(NUMBER.finditer(content)) or [re.match(rb"", content)])
    return content[:found.start()] + source.choice(BAD_NUMBERS) + content[found.end():]


def _places(tree, path=()):
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in children:
        yield (*path, key)
        yield from _places(value, (*path, key))


def restructure(source: random.Random, tree):
    """A value somewhere in a tree is removed, renamed, doubled or another."""
    changed = copy.deepcopy(tree)
    *path, last = source.choice(list(_places(changed)))
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


def in_json(source: random.Random, content: bytes) -> bytes:
    """A JSON file with another tree."""
    return json.dumps(restructure(source, json.loads(content))).encode()


def in_yaml(source: random.Random, content: bytes) -> bytes:
    """A YAML file with another tree."""
    return yaml.safe_dump(restructure(source, yaml.safe_load(content))).encode()


BINARY = (cut, flip, flip, rewrite)
TEXT = (cut, flip, rewrite, renumber, renumber)
JSON = (*TEXT, in_json, in_json, in_json, in_json)
YAML = (*TEXT, in_yaml, in_yaml, in_yaml, in_yaml)
