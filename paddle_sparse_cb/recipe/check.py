"""`paddle-sparse check`: all that is wrong with a recipe and its data at once, with counts and examples."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..detection import config
from ..detection.datasets.folders import AnnotatedImages
from ..detection.datasets.load import load_annotations
from ..detection.datasets.problems import Problem, find_differences, find_problems
from ..detection.datasets.summary import summarize
from ..detection.network import DetectionNetwork, build_network, build_optimizer
from ..detection.weights import load_matching, read_weights
from ..errors import InputError, PipelineError
from ..pruning.config import PruningConfig
from ..utils.validation import check_count, check_keys
from .build import make_recipe_plan
from .catalogue import find_recipe
from .distillation_block import DistillationBlock
from .options import parse_option
from .output_folder import find_data_to_be_moved
from .preflight import check_plan
from .schema import REQUIRED, Recipe, read_recipe
from .sparsity_block import OTHER_KEYS, PRUNING_KEYS, pruner_settings
from .values import value_errors

_SPLITS = ("TrainDataset", "EvalDataset")
_LEAST_OBJECT = 4  # pixels of the network's input; PicoDet's finest cells have 8


def check(name: str, slim_config: str | None = None, options: Sequence[str] = (), as_json: bool = False) -> None:
    """Prints all problems of a recipe, of the recipes that it starts from, and of their data.

    Args:
        name: a recipe.
        slim_config: a file to merge over it.
        options: values that replace the recipe's.
        as_json: print a list of problems.

    Raises:
        InputError: there is an error; warnings alone are none.
    """
    problems, summary = find_all_problems(find_recipe(name), slim_config, options)
    if as_json:
        print(json.dumps([asdict(problem) for problem in problems], indent=1))
    else:
        print("\n".join([*map(str, problems), *summary]))
    errors = sum(problem.is_error for problem in problems)
    if errors:
        raise InputError(f"{name}: {errors} error{'s'[: errors > 1]} and {len(problems) - errors} warnings")


def find_all_problems(
    path: Path, slim_config: str | None = None, options: Sequence[str] = ()
) -> tuple[list[Problem], list[str]]:
    """Returns all problems of a recipe, and lines that describe the rest.

    Args:
        path: the YAML file.
        slim_config: a file to merge over it.
        options: values that replace the recipe's.

    Raises:
        InputError: the file cannot be read at all.
    """
    content = config.read_with_bases(path)
    if slim_config:
        content = config.merge(config.read_with_bases(slim_config), content)
    for option in options:
        content = config.merge(parse_option(option), content)
    problems = list(_recipe_problems(content))
    data, of_data = _data_problems(content)
    recipe = None
    if not problems:
        with _collect(problems):
            recipe = read_recipe(path, slim_config, options)
    summary = [f"{split}: {summarize(part.content)}" for split, part in data.items()]
    if recipe is not None:
        problems += map(Problem, find_data_to_be_moved(recipe))
        plan = _built_problems(recipe, problems, data.get("TrainDataset"))
        summary += [f"plan: {plan}"] if plan else []
        if recipe.dense:
            below, _ = find_all_problems(recipe.dense.path)
            known = {str(problem) for problem in (*problems, *of_data)}
            problems += [
                replace(problem, text=f"{recipe.dense.path}: {problem.text}")
                for problem in below
                if str(problem) not in known
            ]
    return problems + of_data, summary


@contextlib.contextmanager
def _collect(problems: list[Problem]) -> Iterator[None]:
    """Adds the InputError of a block to the problems."""
    try:
        yield
    except (InputError, PipelineError) as error:
        problems.append(Problem(str(error)))


def _recipe_problems(content: dict[str, Any]) -> Iterator[Problem]:
    """Yields what is wrong with keys and values, each by itself."""
    blocks = ("Sparsity", "UnstructuredPruner")
    for key in REQUIRED:
        if key not in content:
            yield Problem(f"{key} is missing")
    others = {key: value for key, value in content.items() if key not in (*blocks, "Distillation")}
    for error in (*config.unknown_keys(others, "recipe"), *value_errors(content)):
        yield Problem(str(error))
    problems: list[Problem] = []
    with _collect(problems):
        DistillationBlock.read(dict(content))
    yield from problems
    for name in ("TrainReader", "EvalReader"):
        reader = content.get(name)
        problems = []
        with _collect(problems):
            if isinstance(reader, dict) and "batch_size" in reader:
                check_count(f"{name}.batch_size", reader["batch_size"], least=1)
        yield from problems
    for name in blocks:
        block = content.get(name, {})
        if not isinstance(block, dict):
            yield Problem(f"{name} must be a mapping, got {block!r}")
            continue
        for key, value in block.items():
            problems = []
            with _collect(problems):
                check_keys([key], [*PRUNING_KEYS, *OTHER_KEYS], name)
                if key in PRUNING_KEYS:
                    PruningConfig.from_dict(pruner_settings({key: value}))
            yield from problems


def _data_problems(content: dict[str, Any]) -> tuple[dict[str, AnnotatedImages], list[Problem]]:
    """Returns the parts of the data that can be used, and what is wrong with any."""
    usable, problems = {}, []
    for split in _SPLITS:
        part, found = load_annotations(content.get(split), split)
        if part is not None:
            found += [replace(one, text=f"{split}: {one.text}") for one in find_problems(part.content, part.images)]
        if part is not None and not any(problem.is_error for problem in found):
            found += _misfits(part, content, split)
            usable[split] = part
        problems += found
    if len(usable) == len(_SPLITS):
        train, val = usable.values()
        problems += find_differences(train.content, val.content, [train.images, val.images])
    return usable, problems


def _misfits(part: AnnotatedImages, content: dict[str, Any], split: str) -> Iterator[Problem]:
    """Yields what is wrong with data for this recipe only."""
    if len(part.classes) != content.get("num_classes"):
        yield Problem(f"num_classes is {content.get('num_classes')}, but {split} has {len(part.classes)} classes")
    try:
        summary = summarize(part.content)
    except InputError as error:
        yield Problem(f"{split}: {error}")
        return
    reader = content.get("TrainReader")
    batch = reader.get("batch_size") if isinstance(reader, dict) else None
    if split == "TrainDataset" and isinstance(batch, int) and batch > summary.images:
        yield Problem(f"TrainReader.batch_size is {batch}, more than the {summary.images} images with boxes")


def _small_objects(part: AnnotatedImages, size: tuple[int, int]) -> Iterator[Problem]:
    """Yields a warning if objects have a few pixels only at the size of the network's input."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in part.content["images"]}
    small = []
    for annotation in part.content["annotations"]:
        (width, height), (_, _, *sides) = sizes[annotation["image_id"]], annotation["bbox"]
        scaled = sides[0] * size[1] / width, sides[1] * size[0] / height
        if 0 < min(scaled) < _LEAST_OBJECT:
            small.append(f"annotation {annotation['id']}: {scaled[0]:.1f} x {scaled[1]:.1f}")
    if small:
        text = f"boxes of less than {_LEAST_OBJECT} pixels at the input size {size[1]} x {size[0]} are hardly found"
        yield Problem(text, False, len(small), tuple(small[:3]))


def _weights_problems(recipe: Recipe, network: DetectionNetwork) -> Iterator[Problem]:
    """Yields what is wrong with the start weights; nothing is downloaded."""
    source = recipe.content.get("pretrain_weights") or ""
    if not source and recipe.sparsity is not None:
        yield Problem("pretrain_weights is missing; pruning assumes a converged network", False)
    if not source or "://" in source or source.startswith(("recipe:", "sample:")):
        return
    loaded = load_matching(network, read_weights(source), source)
    if loaded.untrained_heads and recipe.sparsity is not None:
        yield Problem(f"{loaded}; train a dense recipe first, and start from it", False)


def _built_problems(recipe: Recipe, problems: list[Problem], train: AnnotatedImages | None) -> str:
    """Adds what is wrong with the parts that are built from a recipe; returns the last line of its plan."""
    network, steps, plan = None, 0, ""
    with _collect(problems):
        registry = config.load(recipe.content, recipe.files)
        network = build_network(registry)
    for name in ("TrainReader", "EvalReader"):
        with _collect(problems):
            reader = config.create(name)
            if train is not None and name == "TrainReader":
                steps = summarize(train.content).images // reader.batch_size
    with _collect(problems):
        if network is not None:
            build_optimizer(network, max(1, steps))
    with _collect(problems):
        if steps and recipe.sparsity is not None:
            recipe.pruning_config().schedule(steps, recipe.content["epoch"] * steps)
    with _collect(problems):
        if train is not None:
            problems += _small_objects(train, recipe.input_size)
    with _collect(problems):
        if network is not None:
            problems += _weights_problems(recipe, network)
    with _collect(problems):
        if network is not None:
            made = make_recipe_plan(recipe, network)
            plan = str(made).splitlines()[-1]
            if recipe.sparsity is not None:
                check_plan(recipe, made)
    return plan
