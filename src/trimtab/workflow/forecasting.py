"""A plan for devices that are not here, from files and datasheets alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trimtab.engine.observer import Observer, Silent
from trimtab.errors import ConfigError, DoesNotFit
from trimtab.planning.device_sheets import datasheet_facts, device_sheet
from trimtab.planning.discarding import with_answer
from trimtab.planning.effort import QUICK
from trimtab.planning.fact import Facts
from trimtab.planning.forecast import Forecast, forecast
from trimtab.planning.plan import Plan
from trimtab.planning.planner import make_plan
from trimtab.workflow.light import FileQuestion, LightMaterials
from trimtab.workflow.planning import ConfigLike, not_to_train, output_dir_of, resolve_config


def forecast_plan(
    config: ConfigLike | None = None,
    *,
    device: str,
    num_devices: int = 1,
    price_per_device_hour: float | None = None,
    options: Sequence[tuple[str, str]] = (),
    observer: Observer | None = None,
) -> Forecast:
    """What training would take on `num_devices` of a device that need not be here.

    `device` is a name such as `h100` or `a100-80`; `config` and `options` are those of
    `trimtab.plan`. Nothing is measured, and nothing that was measured here is recalled: the model
    is its config.json (weights are not needed), rows are counted as in a quick plan, and the device
    is its datasheet. Memory is that of one device in bytes, times are in seconds, and the cost is
    in the currency of `price_per_device_hour`. Raises ConfigError, also for a device that is not
    known and a global batch that does not divide; DataError; and DoesNotFit, which says how many
    devices would do.
    """
    if num_devices < 1:
        raise ConfigError(f"num_devices is {num_devices}; it takes 1 and more.")
    if price_per_device_hour is not None and not 0 <= price_per_device_hour < float("inf"):
        raise ConfigError(f"price_per_device_hour is {price_per_device_hour}; it takes 0 and more.")
    sheet = device_sheet(device)
    resolved = resolve_config(config, options)
    light = LightMaterials(resolved.config, observer or Silent(), needs_weights=False)
    facts = Facts().adding(datasheet_facts(sheet))
    output_dir = output_dir_of(resolved)
    while True:
        try:
            answer = make_plan(
                resolved,
                facts,
                output_dir=output_dir,
                num_ranks=num_devices,
                num_shards=1,
                effort=QUICK,
            )
        except DoesNotFit:
            # Asked last of all, so that there is nothing left to be answered.
            break
        if isinstance(answer, Plan):
            break
        for question in answer:
            assert isinstance(question, FileQuestion)
            facts = with_answer(facts, tuple(light.answer(question)))
    made = forecast(
        resolved,
        facts,
        output_dir=output_dir,
        num_devices=num_devices,
        price_per_device_hour=price_per_device_hour,
    )
    splits = tuple(
        one
        if one.plan is None
        else replace(one, plan=replace(not_to_train(one.plan), config_yaml=resolved.to_yaml()))
        for one in made.splits
    )
    return replace(made, splits=splits, chosen=splits[made.splits.index(made.chosen)])
