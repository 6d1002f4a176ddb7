"""The `Distillation:` block of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ..errors import InputError
from ..utils.validation import check_count, check_keys, check_number
from .values import check_weights_url

DENSE = "dense"
RECIPE = "recipe:"


@dataclass(frozen=True)
class DistillationBlock:
    """What a recipe learns from a teacher.

    Attributes:
        teacher: `dense`, the network and weights that the recipe starts from; `recipe:FILE`, another recipe's; or a
            file, URL or sample of weights for the recipe's own network.
        classification: weight of the scores, see `DetectionDistillation`.
        localization: weight of the distances to the sides of boxes.
        features: weight of the feature maps of the neck.
        labels: whether the recipe's own losses are trained too.
        warmup_epochs: epochs in which the weights rise.
        decay: whether they fall to zero.
    """

    teacher: str = DENSE
    classification: float = 1.0
    localization: float = 0.5
    features: float = 1.0
    labels: bool = True
    warmup_epochs: int = 0
    decay: bool = False

    @classmethod
    def read(cls, content: dict[str, Any]) -> DistillationBlock | None:
        """Takes the block out of the content of a recipe; None if it has none.

        Raises:
            InputError: a key is unknown or a value out of range; the message names the key.
        """
        if "Distillation" not in content:
            return None
        given = content.pop("Distillation")
        if not isinstance(given, dict):
            raise InputError(f"the Distillation block must be a mapping, got {given!r}")
        check_keys(given, [field.name for field in fields(cls)], "Distillation")
        block = cls(**given)
        if not isinstance(block.teacher, str) or not block.teacher.strip():
            raise InputError(f"Distillation.teacher must be dense, recipe:FILE or weights, got {block.teacher!r}")
        check_weights_url("Distillation.teacher", block.teacher)
        weights = [
            check_number(f"Distillation.{name}", getattr(block, name))
            for name in ("classification", "localization", "features")
        ]
        if not any(weights):
            raise InputError("Distillation: classification, localization and features are all 0: nothing is compared")
        check_count("Distillation.warmup_epochs", block.warmup_epochs)
        for name in ("labels", "decay"):
            if not isinstance(getattr(block, name), bool):
                raise InputError(f"Distillation.{name} must be true or false, got {getattr(block, name)!r}")
        if block.decay and not block.labels:
            raise InputError("Distillation.decay must be false without labels: no loss would be left at the end")
        if block.teacher == DENSE and not content.get("pretrain_weights"):
            raise InputError(
                "Distillation.teacher: dense is the network that the recipe starts from, and it has no pretrain_weights"
            )
        return block

    @property
    def recipe_file(self) -> str | None:
        """The file of `recipe:FILE`."""
        return self.teacher[len(RECIPE) :] if self.teacher.startswith(RECIPE) else None
