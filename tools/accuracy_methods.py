"""The methods that `make accuracy` compares: a pruner with levers, at a ratio and in blocks, and its recipe."""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from paddle_sparse_cb.errors import InputError
from paddle_sparse_cb.recipe.schema import Recipe, read_recipe

RECIPES = Path(__file__).parent.parent / "recipes"
START = "picodet_s_garments.yml"
SPARSE = {0.75: "picodet_s_garments_sparse75.yml"}  # all higher ratios use the recipe for 85%
SPARSE_HIGH = "picodet_s_garments_sparse85.yml"
RATIOS = (0.75, 0.85, 0.90)
ALLOCATED = {ratio: f"picodet_s_garments_sparse{100 * ratio:g}_allocated.yml" for ratio in RATIOS}
BLOCKS = ((1, 1), (4, 1), (2, 1))


@dataclass(frozen=True)
class Lever:
    """What a method does beside plain pruning.

    Attributes:
        title: its name in the table.
        options: what it changes in the recipe, as `-o` takes it.
        ratios: it takes the ratios of layers from the recipe in `ALLOCATED`.
        of_blocks: it makes a difference for blocks only.
        of_pruning: it makes no difference for a dense model.
        of_paddleslim: it makes a difference for PaddleSlim's pruner only.
    """

    title: str
    options: tuple[str, ...] = ()
    ratios: bool = False
    of_blocks: bool = False
    of_pruning: bool = False
    of_paddleslim: bool = False


PRUNERS = {
    "start": "dense start",
    "dense": "dense, trained on",
    "gmp": "GMP",
    "oneshot": "one-shot",
    "paddleslim": "PaddleSlim's GMP",
}
DENSE = ("start", "dense")
PADDLESLIM = "paddleslim"
# Prunes to the target ratio in the first step; all epochs are left to recover.
_ONE_SHOT = ("Sparsity.curve=constant", "Sparsity.stable_epochs=0", "Sparsity.pruning_epochs=0")
ZEROED = "zeroed"
_TEACHER = "teacher: dense, classification: 10, localization: 10, features: 3"
LEVERS = {
    "distill": Lever("distilled", (f"Distillation={{{_TEACHER}}}",)),
    "unlabelled": Lever("distilled without labels", (f"Distillation={{{_TEACHER}, labels: false}}",)),
    "distill_default": Lever("distilled, default weights", ("Distillation={teacher: dense}",)),
    "allocate": Lever("ratios per layer", ratios=True, of_pruning=True),
    "permute": Lever("channels permuted", ("Sparsity.permute_channels=true",), of_blocks=True, of_pruning=True),
    "global": Lever("one ranking over all layers", ("Sparsity.scope=global",), of_pruning=True),
    "erk": Lever("ERK ratios", ("Sparsity.scope=erk",), of_pruning=True),
    "regrow": Lever("pruned weights revived", ("Sparsity.regrow=true",), of_pruning=True),
    "linear": Lever("the ratio rises linearly", ("Sparsity.curve=linear",), of_pruning=True),
    "cosine": Lever("the ratio rises along a cosine", ("Sparsity.curve=cosine",), of_pruning=True),
    ZEROED: Lever("weights zeroed before mask updates", of_paddleslim=True, of_pruning=True),
    "se": Lever("SE pruned", ("Sparsity.prune_squeeze_excite=true",), of_pruning=True),
}


@dataclass(frozen=True)
class Size:
    """The number of epochs and images, and the images of a batch; `None` keeps those of the recipes."""

    epochs: int | None = None
    images: int | None = None
    batch: int | None = None

    def options(self, recipe: Recipe) -> list[str]:
        """Returns the options that give a recipe these images, and scale its phases to these epochs."""
        options = [f"{split}Dataset.sample_num={self.images}" for split in ("Train", "Eval") if self.images]
        options += [f"TrainReader.batch_size={self.batch}"] if self.batch else []
        if self.epochs is None:
            return options
        before = recipe.content["epoch"]
        schedulers = [
            {**scheduler, "max_epochs": self.epochs} if scheduler["name"] == "CosineDecay" else scheduler
            for scheduler in recipe.content["LearningRate"]["schedulers"]
        ]
        options += [f"epoch={self.epochs}", f"LearningRate.schedulers={json.dumps(schedulers)}"]
        if recipe.sparsity is None:
            return options
        pruning = max(1, recipe.sparsity["pruning_epochs"] * self.epochs // before)
        pruning_steps = recipe.sparsity["pruning_steps"] * self.epochs // before
        if self.images:  # PaddleSlim's pruner demands more than ten optimizer steps for each pruning step
            batch = self.batch or recipe.content["TrainReader"]["batch_size"]
            pruning_steps = min(pruning_steps, pruning * (self.images // batch) // 11)
        return [
            *options,
            f"Sparsity.pruning_epochs={pruning}",
            f"Sparsity.pruning_steps={max(1, pruning_steps)}",
            f"Sparsity.tunning_epochs={self.epochs - pruning}",
        ]


@dataclass(frozen=True)
class Method:
    """A row of the table. Its name is such as `dense`, `gmp85+distill` or `gmp75_4x1+distill+permute`.

    Attributes:
        pruner: a key of `PRUNERS`.
        ratio: the target ratio; 0 for a dense model.
        block: rows and columns that are pruned as one.
        levers: keys of `LEVERS`.
    """

    pruner: str
    ratio: float = 0.0
    block: tuple[int, int] = (1, 1)
    levers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.pruner not in PRUNERS or not set(self.levers) <= set(LEVERS):
            raise InputError(
                f"a method is one of {', '.join(PRUNERS)}, followed by any of "
                f"{', '.join(f'+{name}' for name in LEVERS)}, got {'+'.join((self.pruner, *self.levers))}"
            )

    def __str__(self) -> str:
        ratio = f"{100 * self.ratio:g}" if self.ratio else ""
        block = f"_{self.block[0]}x{self.block[1]}" if self.block != (1, 1) else ""
        return f"{self.pruner}{ratio}{block}{''.join(f'+{lever}' for lever in self.levers)}"

    @classmethod
    def parse(cls, name: str) -> Method:
        """Returns the method of a name, as `str` gives it.

        Raises:
            InputError: it is no such name.
        """
        found = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)?(?:_(\d+)x(\d+))?((?:\+\w+)*)", name)
        if not found:
            raise InputError(f"a method has a name such as gmp75_4x1+distill, got {name!r}")
        pruner, ratio, rows, columns, levers = found.groups()
        return cls(
            pruner,
            float(ratio or 0) / 100,
            (int(rows or 1), int(columns or 1)),
            tuple(levers.split("+")[1:]),
        )

    @property
    def title(self) -> str:
        """What the table calls it; ratio and block have columns of their own."""
        return ", ".join([PRUNERS[self.pruner], *(LEVERS[lever].title for lever in self.levers)])

    @property
    def is_meaningful(self) -> bool:
        """Whether all of its levers make a difference."""
        levers = [LEVERS[lever] for lever in self.levers]
        return not any(
            (lever.of_blocks and self.block == (1, 1))
            or (lever.of_pruning and self.pruner in DENSE)
            or (lever.of_paddleslim and self.pruner != PADDLESLIM)
            or (lever.ratios and self.ratio not in ALLOCATED)
            for lever in levers
        )

    def recipe(self, size: Size, more: Iterable[str] = ()) -> Recipe:
        """Returns the recipe to train, which is the same for all methods but for what their names say.

        Args:
            size: epochs and images.
            more: further options, which take precedence.
        """
        file = RECIPES / (START if self.pruner == "start" else SPARSE.get(self.ratio or 0.75, SPARSE_HIGH))
        options = size.options(read_recipe(file))
        if self.pruner not in DENSE:
            options += [f"Sparsity.ratio={self.ratio}", f"Sparsity.sparse_block={list(self.block)}"]
        if self.pruner == "oneshot":
            options += _ONE_SHOT
        options += [option for lever in self.levers for option in LEVERS[lever].options]
        if any(LEVERS[lever].ratios for lever in self.levers):
            if self.ratio not in ALLOCATED:
                raise InputError(f"{self}: there are ratios per layer for {', '.join(map('{:.0%}'.format, ALLOCATED))}")
            allocated = read_recipe(RECIPES / ALLOCATED[self.ratio]).sparsity or {}
            options.append(f"Sparsity.ratios={json.dumps(allocated['ratios'])}")
        return read_recipe(file, options=[*options, *more])

    def digest(self, size: Size) -> str:
        """Returns what a result must have in common with this recipe to be one of this method."""
        return _digest(self, size)


@functools.cache
def _digest(method: Method, size: Size) -> str:
    return method.recipe(size).digest


DENSE_START = Method("start")


def combine(
    methods: Iterable[str], ratios: Iterable[float] = RATIOS, blocks: Iterable[tuple[int, int]] = ((1, 1),)
) -> list[Method]:
    """Returns methods in all ratios and blocks, without those whose levers have nothing to act on.

    Args:
        methods: pruners with levers, such as `gmp+distill`.
        ratios: target ratios.
        blocks: rows and columns.

    Raises:
        InputError: an unknown pruner or lever.
    """
    found: list[Method] = []
    for block, ratio, name in itertools.product(blocks, ratios, methods):
        pruner, *levers = name.split("+")
        dense = pruner in DENSE
        method = Method(pruner, 0.0 if dense else ratio, (1, 1) if dense else block, tuple(levers))
        if method.is_meaningful and method not in found:
            found.append(method)
    return sorted(found, key=lambda method: method.pruner not in DENSE)


# What is compared without --methods.
DEFAULT = [
    *combine(["dense", "dense+distill"]),
    *combine(["gmp", "gmp+distill", "gmp+distill+allocate", "oneshot", "paddleslim"]),
    *combine(["gmp", "gmp+distill+permute", "gmp+distill+permute+allocate"], blocks=BLOCKS[1:]),
]
