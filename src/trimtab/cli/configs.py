"""The configuration that a command was given, in our words or in another tool's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.errors import ConfigError

if TYPE_CHECKING:
    from trimtab.hyperparameters.layers import ResolvedConfig

Dialect = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="DIALECT",
        help="The tool that CONFIG was written for, where its keys should not decide: axolotl, "
        "llamafactory, llamafactory-v1, trl, transformers or trimtab.",
    ),
]
AllowLossy = Annotated[
    bool,
    typer.Option(
        "--allow-lossy",
        help="Go on without keys of another tool's that change the result and have no counterpart.",
    ),
]
TheirDefaults = Annotated[
    bool,
    typer.Option(
        "--their-defaults",
        help="For what another tool's file leaves out take that tool's default, not `auto`.",
    ),
]


@dataclass(frozen=True, slots=True)
class Foreign:
    """How a file of another tool's is to be read."""

    dialect: str | None = None
    allow_lossy: bool = False
    their_defaults: bool = False


def config_and_options(
    arguments: Sequence[str] | None, foreign: Foreign | None = None
) -> tuple[Path | ResolvedConfig | None, list[tuple[str, str]]]:
    """The configuration and the hyperparameters among the arguments.

    A file of another tool's is translated, with the options on top of it, and what became of its
    keys is told on stderr.
    """
    from trimtab.hyperparameters.options import split_options

    foreign = foreign or Foreign()
    positional, options = split_options(arguments or ())
    if len(positional) > 1:
        raise ConfigError(
            f"one CONFIG is expected, and {len(positional)} came: {', '.join(positional)}.",
            hint="Write hyperparameters as options: --learning-rate 2e-4.",
        )
    if not positional and not options:
        raise ConfigError(
            "there is nothing to go by.",
            hint="Name a config file, or give --model and --dataset.",
        )
    if not positional:
        return None, options
    file = Path(positional[0])
    _refuse_run_folder(file)
    translated = _translated(file, options, foreign)
    return (file, options) if translated is None else (translated, [])


def _refuse_run_folder(folder: Path) -> None:
    from trimtab.runs.folder import RunFolder, is_run

    if is_run(folder):
        own = RunFolder(folder).config_yaml
        raise ConfigError(
            f"{folder} is a run's folder, not a configuration.",
            hint=f"Its configuration is {own}; it goes on with: trimtab resume {folder}",
        )


def _translated(
    file: Path, options: Sequence[tuple[str, str]], foreign: Foreign
) -> ResolvedConfig | None:
    from trimtab.cli.console import Consoles
    from trimtab.cli.import_screen import show_import
    from trimtab.interop.importing import import_config

    imported = import_config(
        file,
        dialect=foreign.dialect,
        options=options,
        allow_lossy=foreign.allow_lossy,
        their_defaults=foreign.their_defaults,
    )
    if imported is None:
        return None
    show_import(Consoles().err, imported, file)
    return imported.resolved
