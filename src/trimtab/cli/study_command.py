"""`trimtab study`: does a setting matter here?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimtab.cli.common import Arguments, Debug, Json, observing, print_json
from trimtab.cli.configs import AllowLossy, Dialect, Foreign, TheirDefaults, config_and_options
from trimtab.errors import ConfigError
from trimtab.study.design import DEFAULT_SEEDS, Arms, is_arms_argument, read_arms, read_margin

if TYPE_CHECKING:
    from trimtab.study.guide_result import GuideResult
    from trimtab.study.result import StudyResult

ARM_KEYS = ("value", "verdict", "effect_nats", "interval", "seconds", "peak_memory_bytes")
MORE_ARM_KEYS = ("losses", "failures", "learning_rate", "num_tokens")


def study(
    arguments: Arguments = None,
    seeds: Annotated[
        int, typer.Option("--seeds", help="Runs of each value; one alone settles nothing.")
    ] = DEFAULT_SEEDS,
    retune: Annotated[
        bool, typer.Option("--retune", help="Search a learning rate for each value first.")
    ] = False,
    equivalence_margin: Annotated[
        str,
        typer.Option(help="Differences of the loss that count as none, as a share of it."),
    ] = "0.5%",
    guide: Annotated[
        bool, typer.Option("--guide", help="Try the guide's own claims instead of NAME.")
    ] = False,
    dialect: Dialect = None,
    allow_lossy: AllowLossy = False,
    their_defaults: TheirDefaults = False,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Does a setting matter here? A paired experiment: [CONFIG] NAME=VALUE,VALUE...

    The first value is the reference. Runs share rows, order and seeds; each value is better, worse,
    equivalent or undecided. A study that was stopped goes on with the same command.
    """
    import trimtab

    arms, rest = split_arms(arguments or (), guide=guide)
    margin = read_margin(equivalence_margin)
    config, options = config_and_options(rest, Foreign(dialect, allow_lossy, their_defaults))
    with observing(json_) as observer:
        if arms is None:
            if retune:
                raise ConfigError("--retune goes with NAME=VALUE,VALUE, not with --guide.")
            claims = trimtab.study_guide(
                config,
                options=options,
                seeds=seeds,
                equivalence_margin=margin,
                observer=observer,
            )
        else:
            result = trimtab.study(
                config,
                arms.name,
                arms.values,
                options=options,
                seeds=seeds,
                retune=retune,
                equivalence_margin=margin,
                observer=observer,
            )
    if arms is None:
        _show_guide(claims, json_)
    else:
        _show_study(result, json_)


def split_arms(arguments: Sequence[str], *, guide: bool) -> tuple[Arms | None, list[str]]:
    """What is compared, and the other arguments. Raises ConfigError."""
    from trimtab.hyperparameters.options import split_options

    positionals, _ = split_options(arguments)
    found = [word for word in positionals if is_arms_argument(word)]
    hint = "As in: trimtab study config.yaml learning_rate=1e-4,3e-4"
    if guide and found:
        raise ConfigError(f"--guide compares what the guide speaks of, and {found[0]} came too.")
    if not guide and not found:
        raise ConfigError("there is nothing to compare.", hint=hint)
    if len(found) > 1:
        raise ConfigError(
            f"a study moves one hyperparameter, and {len(found)} came: {', '.join(found)}.",
            hint="Study them one after another.",
        )
    rest = list(arguments)
    for word in found:
        rest.remove(word)
    return (read_arms(found[0]) if found else None), rest


def _show_study(result: StudyResult, json_wanted: bool) -> None:
    from trimtab.cli.console import Consoles
    from trimtab.cli.study_screen import show_study

    page = _page(result.folder)
    if json_wanted:
        print_json(study_json(result))
    else:
        show_study(Consoles().out, result, page)


def study_json(result: StudyResult) -> dict[str, Any]:
    """What `--json` prints; without the curves, which result.json has."""
    record = result.to_json()
    arms = [{key: arm[key] for key in (*ARM_KEYS, *MORE_ARM_KEYS)} for arm in record["arms"]]
    return {**record, "arms": arms}


def _show_guide(result: GuideResult, json_wanted: bool) -> None:
    from trimtab.cli.console import Consoles
    from trimtab.cli.study_screen import show_guide

    page = _page(result.folder)
    if json_wanted:
        print_json(result.to_json())
    else:
        show_guide(Consoles().out, result, page)


def _page(folder: str) -> Path:
    import trimtab

    return trimtab.write_report(Path(folder))
