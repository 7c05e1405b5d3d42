"""`trimtab plan`: for the device that is here, or for others by their datasheets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.cli.common import Arguments, Debug, Json, observing, print_json
from trimtab.cli.configs import AllowLossy, Dialect, Foreign, TheirDefaults, config_and_options
from trimtab.cli.processes import NumProcesses
from trimtab.errors import ConfigError

if TYPE_CHECKING:
    from trimtab.hyperparameters.layers import ResolvedConfig
    from trimtab.planning.plan import Plan

HERE = re.compile(r"auto|cpu|cuda(:.*)?")
"""What the hyperparameter `device` takes; any other name is a device that is elsewhere."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What was asked of devices that need not be here."""

    device: str
    num_devices: int
    price_per_device_hour: float | None


def plan(
    arguments: Arguments = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Rules and arithmetic alone: nothing is measured.")
    ] = False,
    why: Annotated[
        str | None,
        typer.Option("--why", metavar="NAME", help="Unfold one decision instead of the table."),
    ] = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Measure again what was measured before.")
    ] = False,
    noise_scale: Annotated[
        bool, typer.Option("--noise-scale", help="Probe the gradient noise too, in minutes.")
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="NAME",
            help="auto, cpu, cuda or cuda:N; or a device that is not here, by its datasheet: "
            "h100, a100-80, l4, rtx-4090, mi300x…",
        ),
    ] = None,
    num_devices: Annotated[
        int | None, typer.Option("--num-devices", min=1, help="How many of a device not here.")
    ] = None,
    price: Annotated[
        float | None,
        typer.Option("--price-per-device-hour", min=0, help="Tells the cost, in its currency."),
    ] = None,
    dialect: Dialect = None,
    allow_lossy: AllowLossy = False,
    their_defaults: TheirDefaults = False,
    num_processes: NumProcesses = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Every hyperparameter: value, origin, because; predicted memory and time; what was measured.

    Measures by real weight updates on your rows, and keeps what it found for the next plan. With
    --device and the name of a device that is not here nothing is measured: memory, time and the
    split over --num-devices are predicted from its datasheet.
    """
    import trimtab

    name = None if why is None else _hyperparameter(why)
    given = list(arguments or ())
    elsewhere = _elsewhere(device, num_devices, price, measures=refresh or noise_scale)
    if device is not None and elsewhere is None:
        given += ["--device", device]
    config, options = config_and_options(given, Foreign(dialect, allow_lossy, their_defaults))
    if elsewhere is not None:
        _show_forecast(config, options, elsewhere, name, json_wanted=json_)
        return
    with observing(json_) as observer:
        made = trimtab.plan(
            config,
            options=options,
            observer=observer,
            quick=quick,
            refresh=refresh,
            noise_scale=noise_scale,
            num_ranks=num_processes or 1,
        )
    _show_planned(made, name, is_quick=quick, json_wanted=json_)


def _hyperparameter(name: str) -> str:
    from trimtab.hyperparameters.rendering import canonical_name

    return canonical_name(name)


def _elsewhere(
    device: str | None, num_devices: int | None, price: float | None, *, measures: bool
) -> Elsewhere | None:
    """Raises ConfigError where an option goes with a device elsewhere and none is named, or the
    other way round."""
    if device is None or HERE.fullmatch(device):
        for option, value in (("--num-devices", num_devices), ("--price-per-device-hour", price)):
            if value is not None:
                raise ConfigError(
                    f"{option} goes with --device and a device that is not here.",
                    hint="Name one: --device h100.",
                )
        return None
    if measures:
        raise ConfigError(
            f"on {device} nothing is measured, so --refresh and --noise-scale say nothing there."
        )
    return Elsewhere(device, num_devices or 1, price)


def _show_forecast(
    config: Path | ResolvedConfig | None,
    options: Sequence[tuple[str, str]],
    elsewhere: Elsewhere,
    name: str | None,
    *,
    json_wanted: bool,
) -> None:
    import trimtab
    from trimtab.cli.console import Consoles
    from trimtab.cli.forecast_screen import show_forecast

    with observing(json_wanted) as observer:
        made = trimtab.forecast_plan(
            config,
            device=elsewhere.device,
            num_devices=elsewhere.num_devices,
            price_per_device_hour=elsewhere.price_per_device_hour,
            options=options,
            observer=observer,
        )
    if name is not None:
        _show_planned(made.plan, name, is_quick=True, json_wanted=json_wanted)
    elif json_wanted:
        print_json(made.to_json())
    else:
        show_forecast(Consoles().out, made)


def _show_planned(made: Plan, name: str | None, *, is_quick: bool, json_wanted: bool) -> None:
    from trimtab.cli.console import Consoles
    from trimtab.cli.plan_screen import show_plan
    from trimtab.cli.why_screen import show_why, why_json

    if json_wanted:
        print_json(made.to_json() if name is None else why_json(made, name))
    elif name is None:
        show_plan(Consoles().out, made, is_quick=is_quick)
    else:
        show_why(Consoles().out, made, name)
