"""What the commands share: their arguments' types, the observer, JSON on stdout."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from trimtab.cli.progress import ConsoleObserver
    from trimtab.planning.plan import Plan

HYPERPARAMETERS_HELP = (
    "CONFIG is a YAML file. Any hyperparameter is an option too, and wins over the file: "
    "--learning-rate 2e-4, --max-steps 10, --packing. CONFIG may be left out where --model and "
    "--dataset are given. `trimtab explain` lists them all."
)
TAKES_HYPERPARAMETERS = {"ignore_unknown_options": True}

Arguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="[CONFIG] [--HYPERPARAMETER VALUE]...", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")]


@contextmanager
def observing(json_wanted: bool) -> Iterator[ConsoleObserver]:
    """Progress on stderr; the plan is shown too, unless stdout is for JSON."""
    from trimtab.cli.console import Consoles
    from trimtab.cli.plan_screen import show_plan
    from trimtab.cli.progress import ConsoleObserver

    consoles = Consoles()

    def shown(plan: Plan) -> None:
        if not json_wanted:
            show_plan(consoles.out, plan)

    observer = ConsoleObserver(consoles.err, shown)
    try:
        yield observer
    finally:
        observer.close()


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def complain(text: str) -> None:
    """Print it on stderr with what could steer a terminal made visible."""
    from trimtab.report.words import visible

    with tolerating_lost_stderr():
        sys.stderr.write(visible(text.rstrip()) + "\n")


@contextmanager
def tolerating_lost_stderr() -> Iterator[None]:
    """Around what is written to stderr, which a run must not die of."""
    try:
        yield
    except OSError:
        leave_stderr()


def leave_stderr() -> None:
    """Send stderr nowhere: its reader, as `tee` after Ctrl-C, or its terminal is gone.

    Text that Python still holds for it would fail once more at exit, whose code is then 120.
    """
    with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stderr.fileno())
