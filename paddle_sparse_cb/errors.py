"""The error that means: what you gave us cannot work, and here is why in one line."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Bad input from outside: a recipe, an argument, a path, a checkpoint.

    The message is one line that says what was found, where, and what may be there instead. The command line prints
    it without a traceback and exits with 2.
    """


class PipelineError(RuntimeError):
    """A step of the pipeline failed for a reason outside of the input: a tool is missing, or a verification failed.

    What was made before is kept. The command line prints the message without a traceback and exits with 1.
    """


class DivergenceError(PipelineError):
    """The training diverged: a loss or a weight is not finite."""


class RankMismatchError(PipelineError):
    """The ranks of a distributed training no longer hold the same masks."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt word: the nearest known one, else up to 12 of those that are known.

    Example:
        >>> did_you_mean("prunning_steps", ["pruning_steps", "ratio"])
        "did you mean 'pruning_steps'?"
    """
    choices = sorted(known)
    near = get_close_matches(word, choices, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    more = ", ..." if len(choices) > 12 else ""
    return f"known: {', '.join(choices[:12])}{more}"
