"""Workarounds for defects of Paddle that concern this package alone.

Each names the versions that need it and has a test in tests/deploy/test_compat.py that fails once Paddle no longer
does. The functions that Paddle 3.1 dropped are supplied by `utils.legacy_programs`.
"""

from __future__ import annotations

from paddle.jit.dy2static.program_translator import ProgramTranslator


def discard_failed_exports() -> None:
    """Clears the parameters that Paddle recorded for exports which then failed.

    Paddle records the parameters of a program under the program's `id` and removes them when the export is complete,
    which a failed export never is. A later program may get the same `id` and with it the parameters of a network that
    no longer exists: `KeyError: 'conv2d_50.w_0'`.

    Needed by: Paddle 2.6.2 and 3.3.1, the first and the last version tested.
    """
    ProgramTranslator.get_instance()._params_recorder.params_dict.clear()
