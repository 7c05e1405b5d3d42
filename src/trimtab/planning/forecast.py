"""What a run would take on devices that are not at hand, by the split that is fastest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from trimtab.errors import ConfigError, DoesNotFit, TrimtabError
from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.planning.draft import Draft
from trimtab.planning.fact import Facts
from trimtab.planning.plan import Plan
from trimtab.planning.rules.choice import NEAR_BEST
from trimtab.planning.rules.parallelism import OPTIMIZERS_OF_SHARDS
from trimtab.planning.step_time import Split, StepTerms

MOST_DEVICES = 1024
"""As far as more devices are looked for where those asked about do not hold the run."""


@dataclass(frozen=True, slots=True)
class SplitForecast:
    """One split's plan and the seconds of its updates; both None where it does not fit.

    runs: whether `train` splits so; others are there to compare with.
    """

    split: Split
    runs: bool
    plan: Plan | None
    terms: StepTerms | None

    @property
    def tokens_per_s(self) -> float | None:
        """Of one device."""
        if self.plan is None or self.terms is None:
            return None
        num_tokens = self.plan.predictions.tokens_per_step
        if num_tokens is None:
            return None
        return num_tokens / self.terms.update_s / self.split.num_devices

    def to_json(self) -> dict[str, Any]:
        predicted = None if self.plan is None else self.plan.predictions
        settings = None if self.plan is None else self.plan.settings()
        return {
            "num_devices": self.split.num_devices,
            "num_shards": self.split.num_shards,
            "num_copies": self.split.num_copies,
            "runs": self.runs,
            "fits": self.plan is not None,
            "memory_bytes_per_device": predicted and predicted.worst_case_memory_bytes,
            "update_s": self.terms and self.terms.update_s,
            "terms": self.terms and asdict(self.terms),
            "tokens_per_s_per_device": self.tokens_per_s,
            "per_device_train_batch_size": settings and settings.per_device_train_batch_size,
            "gradient_accumulation_steps": settings and settings.gradient_accumulation_steps,
            "activation_checkpointing": settings and settings.activation_checkpointing,
        }


@dataclass(frozen=True, slots=True)
class Forecast:
    """`chosen` is one of `splits`; its plan is the forecast's. cost: in the price's currency."""

    device: str
    chosen: SplitForecast
    splits: tuple[SplitForecast, ...]
    price_per_device_hour: float | None = None

    @property
    def plan(self) -> Plan:
        assert self.chosen.plan is not None
        return self.chosen.plan

    @property
    def terms(self) -> StepTerms:
        assert self.chosen.terms is not None
        return self.chosen.terms

    @property
    def device_hours(self) -> float:
        total_time_s = self.plan.predictions.total_time_s or 0.0
        return self.chosen.split.num_devices * total_time_s / 3600

    @property
    def cost(self) -> float | None:
        if self.price_per_device_hour is None:
            return None
        return self.price_per_device_hour * self.device_hours

    def to_json(self) -> dict[str, Any]:
        return {
            "device": self.device,
            "is_predicted": True,
            "split": self.chosen.to_json(),
            "splits": [one.to_json() for one in self.splits],
            "device_hours": self.device_hours,
            "price_per_device_hour": self.price_per_device_hour,
            "cost": self.cost,
            "plan": self.plan.to_json(),
        }


def forecast(
    resolved: ResolvedConfig,
    facts: Facts,
    *,
    output_dir: str,
    num_devices: int,
    price_per_device_hour: float | None = None,
) -> Forecast:
    """The fastest split of those that `train` makes, and the others beside it; of splits that are
    equally fast, within 3%, the one of most copies. `parallelism` is kept where it is set.

    `facts` are those of model, rows and a device that is known by its datasheet. Raises ConfigError
    as a plan does, also for an optimizer that cannot work on the shards that it would take, and
    DoesNotFit, with the fewest devices that would do, where no split fits.
    """
    splits = tuple(
        _forecast_split(resolved, facts, output_dir, Split(num_devices, num_shards))
        for num_shards in _shard_counts(resolved, facts, num_devices)
    )
    fitting = [one for one in splits if one.runs and one.plan is not None]
    if not fitting:
        raise _does_not_fit(resolved, facts, output_dir, num_devices)
    best_s = min(_total_time_s(one) for one in fitting)
    chosen = next(one for one in fitting if NEAR_BEST * _total_time_s(one) <= best_s)
    return Forecast(facts.text("device.name"), chosen, splits, price_per_device_hour)


def _shard_counts(resolved: ResolvedConfig, facts: Facts, num_devices: int) -> Iterator[int]:
    """A copy on each, one copy on all, and between them whole nodes and powers of two of them.

    Only those that the configuration allows.
    """
    config = resolved.config
    if config.parallelism == "replicate":
        yield 1
        return
    if config.parallelism == "auto":
        yield 1
        if num_devices == 1 or config.optim not in OPTIMIZERS_OF_SHARDS:
            return
    count = facts.integer("datasheet.devices_per_node")
    counts = {num_devices}
    while count < num_devices:
        if num_devices % count == 0:
            counts.add(count)
        count *= 2
    yield from sorted(counts)


def _forecast_split(
    resolved: ResolvedConfig, facts: Facts, output_dir: str, split: Split
) -> SplitForecast:
    runs = split.num_shards in {1, split.num_devices}
    try:
        draft = _draft(resolved, facts, output_dir, split)
        return SplitForecast(split, runs, draft.plan, draft.step_terms)
    except DoesNotFit:
        return SplitForecast(split, runs, None, None)


def _draft(resolved: ResolvedConfig, facts: Facts, output_dir: str, split: Split) -> Draft:
    return Draft(resolved, facts, output_dir, split.num_devices, split.num_shards, is_final=True)


def _total_time_s(one: SplitForecast) -> float:
    assert one.plan is not None
    assert one.plan.predictions.total_time_s is not None
    return one.plan.predictions.total_time_s


def _does_not_fit(
    resolved: ResolvedConfig, facts: Facts, output_dir: str, num_devices: int
) -> DoesNotFit:
    """The refusal of the split that needs least of each device, with how many would do.

    Raises ConfigError where the optimizer cannot work on that split.
    """
    is_sharded = num_devices > 1 and resolved.config.parallelism != "replicate"

    def refusal(count: int) -> TrimtabError | None:
        num_shards = 1 if resolved.config.parallelism == "replicate" else count
        try:
            _ = _draft(resolved, facts, output_dir, Split(count, num_shards)).plan
        except (DoesNotFit, ConfigError) as error:
            return error
        return None

    error = refusal(num_devices)
    assert error is not None
    if isinstance(error, ConfigError):
        raise error
    more = 2 * num_devices
    while more <= MOST_DEVICES and refusal(more) is not None:
        more *= 2
    enough = f"{more:,} of them hold it; else: " if more <= MOST_DEVICES else ""
    where = f"on {num_devices:,} × {facts.text('device.name')}"
    how = ", sharded over all of them" if is_sharded else ""
    return DoesNotFit(
        f"{where}{how}: {error.what}",
        where=error.where,
        hint=f"{enough}{error.hint}",
    )
