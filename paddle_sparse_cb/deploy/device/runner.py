"""Times files through a command that starts a runner, here or on another machine."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ...errors import InputError, PipelineError
from .timing import (
    DeviceTiming,
    Series,
    TimingOptions,
    check_files,
    describe_failure,
    parse_output,
    time_alternately,
)


class Runner:
    """A command that starts a runner. The model is sent to its standard input, so nothing is copied anywhere.

    Args:
        command: the command without arguments, as a list of words or as one line, such as `ssh pi ./lite_runner`. It is
            started without a shell.

    Raises:
        InputError: the command is empty or has an open quotation mark.

    Examples:
        >>> Runner("ssh -p 2222 pi './my runner'").command
        ('ssh', '-p', '2222', 'pi', './my runner')
    """

    def __init__(self, command: str | Sequence[str]) -> None:
        try:
            self.command = tuple(shlex.split(command) if isinstance(command, str) else command)
        except ValueError as error:
            raise InputError(f"runner {command!r}: {error}") from None
        if not self.command:
            raise InputError("runner must be a command such as 'ssh pi ./lite_runner', got an empty one")

    def time(self, files: Sequence[Path], options: TimingOptions) -> list[DeviceTiming]:
        """Times files, alternately.

        Args:
            files: `.nb` or `.mnn` files, as the runner takes them.
            options: how.

        Raises:
            InputError: a file is missing, or the command does not exist.
            PipelineError: the runner failed, took too long, or printed something else.
        """
        check_files(files)
        return time_alternately(files, options, lambda file: self._run(file, options))

    def _run(self, file: Path, options: TimingOptions) -> Series:
        where = f"{shlex.join(self.command)}, {file}"
        with file.open("rb") as model:
            try:
                done = subprocess.run(
                    [*self.command, "-", *options.arguments(file)],
                    stdin=model,
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=options.timeout,
                )
            except OSError as error:
                raise InputError(f"runner {self.command[0]!r} cannot be started: {error.strerror}") from None
            except subprocess.TimeoutExpired:
                raise PipelineError(f"{where}: no result after {options.timeout:g} seconds") from None
        if done.returncode:
            raise describe_failure(where, file, done.returncode, done.stderr)
        return parse_output(where, done.stdout, options.repeats)
