"""Where words go: results to stdout, progress and notes to stderr."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.console import Console

PLAIN_WIDTH = 120


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


@dataclass(frozen=True)
class Consoles:
    """`out` carries what was asked for, `err` everything else."""

    out: Console = field(default_factory=lambda: _console(stderr=False))
    err: Console = field(default_factory=lambda: _console(stderr=True))
