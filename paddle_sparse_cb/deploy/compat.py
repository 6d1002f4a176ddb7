"""Workarounds for defects of Paddle and of the runtimes that concern this package alone.

Each names the versions that need it and has a test in tests/deploy/test_compat.py that fails once they no longer do.
The functions that Paddle 3.1 dropped are supplied by `utils.legacy_programs`.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from paddle.jit.dy2static.program_translator import ProgramTranslator

_TELEMETRY = "openvino_telemetry"


def discard_failed_exports() -> None:
    """Clears the parameters that Paddle recorded for exports which then failed.

    Paddle records the parameters of a program under the program's `id` and removes them when the export is complete,
    which a failed export never is. A later program may get the same `id` and with it the parameters of a network that
    no longer exists: `KeyError: 'conv2d_50.w_0'`.

    Needed by: Paddle 2.6.2 and 3.3.1, the first and the last version tested.
    """
    ProgramTranslator.get_instance()._params_recorder.params_dict.clear()


def import_openvino() -> ModuleType:
    """Imports OpenVINO without its telemetry.

    The import alone sends an event to an analytics host and writes an identifier to the home folder, unless the package
    `openvino_telemetry` cannot be imported: then OpenVINO uses a stub of its own that does nothing.

    Needed by: OpenVINO 2026.4.
    """
    absent = object()
    before = sys.modules.get(_TELEMETRY, absent)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # an import of it now raises ImportError
    try:
        return importlib.import_module("openvino")
    finally:
        if before is absent:
            del sys.modules[_TELEMETRY]
        else:
            sys.modules[_TELEMETRY] = before  # type: ignore[assignment]
