"""The command `trimtab tune`."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.cli.common import Debug, Json, observing, print_json
from trimtab.cli.configs import AllowLossy, Dialect, Foreign, TheirDefaults, config_and_options
from trimtab.errors import ConfigError, Interrupted

if TYPE_CHECKING:
    from trimtab.search.design import SamplerName

MOST_BARE_RUNS = 10
"""A budget without a percent sign is below that; 30 is taken for a slip."""

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[CONFIG] [NAME]... [--HYPERPARAMETER VALUE]...", show_default=False),
]


def tune(
    words: Words = None,
    budget: Annotated[
        str,
        typer.Option(
            "--budget",
            metavar="SHARE",
            help="The share of the planned run's tokens that all runs may take, as 30%.",
        ),
    ] = "30%",
    trials: Annotated[
        int | None,
        typer.Option(
            "--trials", min=2, help="How many runs; as the budget has room for where left out."
        ),
    ] = None,
    sampler: Annotated[
        str, typer.Option("--sampler", help="What proposes: local, tpe, gp, random or grid.")
    ] = "local",
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage", metavar="URL", help="Optuna's storage; a file of the search's folder."
        ),
    ] = None,
    on: Annotated[
        str,
        typer.Option("--on", metavar="WHERE", help="local, ray, or ray:ADDRESS of a cluster."),
    ] = "local",
    dialect: Dialect = None,
    allow_lossy: AllowLossy = False,
    their_defaults: TheirDefaults = False,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Search for the best learning rate, or whatever is named, by short runs; keep it as facts.

    The search starts from the configuration's own value, as --learning-rate 1e-4 sets it, or from
    the plan's. Asked alike again, a search that was stopped goes on.
    """
    import trimtab
    from trimtab.cli.console import Consoles
    from trimtab.cli.tune_screen import show_tune
    from trimtab.report.tune_page import write_tune_page

    share = parse_share(budget)
    names, others = split_names(words or ())
    config, options = config_and_options(others, Foreign(dialect, allow_lossy, their_defaults))
    with observing(json_) as observer:
        try:
            result = trimtab.tune(
                config,
                names,
                options=options,
                budget=share,
                num_trials=trials,
                sampler=_sampler(sampler),
                storage=storage,
                on=on,
                observer=observer,
            )
        except Interrupted as stopped:
            line = shlex.join(["trimtab", *sys.argv[1:]])
            raise Interrupted(stopped.what, hint=f"Go on with: {line}") from None
    page = write_tune_page(Path(result.folder))
    if json_:
        print_json(result.to_json())
    else:
        show_tune(Consoles().out, result, page)


def split_names(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The hyperparameters to search, and everything else: CONFIG and options with their values.

    The first bare word is CONFIG, unless it is a hyperparameter's name and no file's.
    """
    from trimtab.hyperparameters.catalogue import aliases, catalogue
    from trimtab.hyperparameters.options import split_options

    positional, _ = split_options(words)
    known = {*catalogue(), *aliases()}
    has_config = bool(positional) and (positional[0] not in known or Path(positional[0]).is_file())
    names = positional[1:] if has_config else list(positional)
    left = list(words)
    for name in names:
        left.remove(name)
    return names, left


def parse_share(text: str) -> float:
    """`30%` or `0.3`. Raises ConfigError for anything else, and for a `30` that means 30%."""
    matched = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(%?)\s*", text)
    share = float(matched[1]) / (100 if matched[2] else 1) if matched else 0.0
    if matched is None or share <= 0:
        raise ConfigError(f"--budget {text} is no share of a run.", hint="Write it as 30% or 0.3.")
    if share >= MOST_BARE_RUNS and not matched[2]:
        raise ConfigError(
            f"--budget {text} would be {share:g} whole runs.",
            hint=f"Write {share:g}% for a share of one, or {100 * share:g}% for so many.",
        )
    return share


def _sampler(name: str) -> SamplerName:
    from typing import get_args

    from trimtab.search.design import SamplerName

    for known in get_args(SamplerName):
        if name == known:
            found: SamplerName = known
            return found
    listed = ", ".join(get_args(SamplerName))
    raise ConfigError(f"there is no sampler {name}.", hint=f"These are there: {listed}.")
