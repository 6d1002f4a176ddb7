"""A progress bar on a terminal."""

from __future__ import annotations

import atexit
import math
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text


class TerminalBar:
    """A progress bar that stays below the lines printed by any code of this process.

    It is removed by `stop`, or else when the process ends.

    It is drawn from the calling thread only, so that a training that raises leaves no thread behind that keeps drawing.
    """

    _REFRESH_SECONDS = 0.1

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            _Figures(),
            console=Console(),
            auto_refresh=False,
            transient=True,
        )
        self._progress.add_task("", total=None, figures="")
        self._drawn = -math.inf
        atexit.register(self.stop)

    @staticmethod
    def is_possible() -> bool:
        """Whether standard output is a terminal on which the cursor can be moved."""
        return sys.stdout.isatty() and Console().is_interactive

    def is_due(self) -> bool:
        """Whether the last drawing is old enough for another one."""
        return time.monotonic() - self._drawn >= self._REFRESH_SECONDS

    def draw(self, position: str, step: int, steps: int | None, figures: str) -> None:
        """Draws the bar; without a number of steps, as one of unknown length."""
        [task] = self._progress.tasks
        task.description, task.completed, task.total, task.fields["figures"] = position, step, steps, figures
        self._progress.start()
        self._progress.refresh()
        self._drawn = time.monotonic()

    def stop(self) -> None:
        """Erases the bar, and restores the cursor, standard output and standard error.

        A stopped bar cannot be drawn again: rich would erase the lines printed since.
        """
        sys.stdout.flush()  # a last line without a line break, which rich still holds back
        sys.stderr.flush()
        self._progress.stop()
        atexit.unregister(self.stop)


class _Figures(ProgressColumn):
    """Text that is folded in a narrow terminal; a `TextColumn` would be cut."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["figures"])
