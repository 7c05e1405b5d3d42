"""Where words go: results to stdout, progress and notes to stderr."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.console import Console

from trimtab.cli.common import leave_stderr

PLAIN_WIDTH = 120


class _StderrConsole(Console):
    """Falls silent where its reader is gone; rich's own ends the process."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        leave_stderr()


def _console(*, stderr: bool) -> Console:
    kind = _StderrConsole if stderr else Console
    console = kind(stderr=stderr, highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


@dataclass(frozen=True)
class Consoles:
    """`out` carries what was asked for, `err` everything else."""

    out: Console = field(default_factory=lambda: _console(stderr=False))
    err: Console = field(default_factory=lambda: _console(stderr=True))
