"""The errors that this package raises on purpose, and hints for misspelt names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """The input is invalid: a recipe, an argument, a path or a checkpoint.

    The message is one line that names the place, the value found and the values allowed. The command line prints it
    without a traceback and exits with 2.
    """


class PipelineError(RuntimeError):
    """A step failed although the input is valid: a tool is missing, or a verification failed.

    The files written before are kept. The command line prints the message without a traceback and exits with 1.
    """


class DivergenceError(PipelineError):
    """The training diverged: a loss or a weight is not finite."""


class RankMismatchError(PipelineError):
    """The ranks of a distributed training do not hold the same masks, or the same teacher."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns a hint for an unknown word: the most similar known word or, if none is similar, up to 12 known words.

    Args:
        word: the word found.
        known: the words allowed.

    Examples:
        >>> did_you_mean("prunning_steps", ["pruning_steps", "ratio"])
        "did you mean 'pruning_steps'?"
    """
    choices = sorted(known)
    near = get_close_matches(word, choices, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    more = ", ..." if len(choices) > 12 else ""
    return f"known: {', '.join(choices[:12])}{more}"
