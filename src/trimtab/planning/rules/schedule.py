"""How the rate rises and falls: scheduler, its arguments, warmup."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from trimtab.errors import ConfigError
from trimtab.hyperparameters.config import Optimizer, Scheduler
from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.planning.decision import Alternative, Decision
from trimtab.planning.rules.ruling import (
    Ruling,
    counted,
    decision,
    lost_rival,
    told_loss,
    where_set,
)

AUTO_WARMUP_SHARE = Fraction(3, 100)
MIN_AUTO_WARMUP_STEPS = 10
MAX_AUTO_WARMUP_SHARE = Fraction(10, 100)
DEFAULT_MIN_LR_RATE = 0.1
DEFAULT_DECAY_SHARE = Fraction(10, 100)
POLYNOMIAL_LR_END = 1e-7
"""transformers' default for the rate at the end of `polynomial`."""


def share_of_steps(share: float, num_steps: int) -> int:
    """The share in whole updates, rounded up; exact, so 10% of 10,000 is 1,000."""
    return math.ceil(Fraction(str(share)) * num_steps)


def check_scheduler_kwargs(resolved: ResolvedConfig) -> None:
    """Raises ConfigError for an argument that the scheduler does not take, or a wrong value."""
    kwargs = resolved.config.lr_scheduler_kwargs
    scheduler = resolved.config.lr_scheduler_type
    known = _KWARGS[scheduler]
    where = where_set(resolved, "lr_scheduler_kwargs")
    for name, value in kwargs.items():
        if name not in known:
            takes = ", ".join(known) or "none"
            raise ConfigError(
                f"lr_scheduler_kwargs: {name} is no argument of {scheduler}.",
                where=where,
                hint=f"It takes: {takes}.",
            )
        domain, is_in_domain = known[name]
        if not is_in_domain(value):
            raise ConfigError(
                f"lr_scheduler_kwargs: {name} is {value!r}.",
                where=where,
                hint=f"It takes {domain}.",
            )
    if "min_lr" in kwargs and "min_lr_rate" in kwargs:
        raise ConfigError(
            "lr_scheduler_kwargs: min_lr and min_lr_rate both set the lowest rate.",
            where=where,
            hint="Keep one of the two.",
        )


def decide_schedule(
    resolved: ResolvedConfig, *, optim: Optimizer, learning_rate: float, num_steps: int
) -> Ruling:
    """`lr_scheduler_type`, `lr_scheduler_kwargs`, `warmup_steps`, `warmup_ratio`.

    Raises ConfigError for arguments that do not go together with the rate or the run's length.
    """
    scheduler, scheduler_warnings = _scheduler(resolved, optim)
    warmup, warmup_warnings = _warmup(resolved, scheduler.value, num_steps)
    kwargs = _kwargs(resolved, scheduler.value, learning_rate, warmup.value, num_steps)
    ratio = _warmup_ratio(resolved, warmup.value)
    return Ruling((scheduler, kwargs, warmup, ratio), (*scheduler_warnings, *warmup_warnings))


def _scheduler(resolved: ResolvedConfig, optim: Optimizer) -> tuple[Decision, tuple[str, ...]]:
    scheduler = resolved.config.lr_scheduler_type
    if optim == "adamw_schedule_free" and scheduler not in {"constant", "constant_with_warmup"}:
        if resolved.is_set("lr_scheduler_type"):
            told = decision(resolved, "lr_scheduler_type", scheduler, "user", _CURVES[scheduler])
            return told, (
                f"lr_scheduler_type {scheduler} lowers the rate under adamw_schedule_free, whose "
                "averaging of weights takes the place of a schedule; constant_with_warmup is what "
                "its authors use.",
            )
        because = "adamw_schedule_free averages weights in place of a schedule"
        alternatives = (Alternative(scheduler, "would decay the rate twice over"),)
        return (
            Decision(
                "lr_scheduler_type",
                "constant_with_warmup",
                "rule",
                f"{because} (2024, arXiv 2405.15682)",
                alternatives=alternatives,
            ),
            (),
        )
    because = _CURVES[scheduler]
    if resolved.is_set("lr_scheduler_type"):
        return decision(resolved, "lr_scheduler_type", scheduler, "user", because), ()
    told = decision(
        resolved,
        "lr_scheduler_type",
        scheduler,
        "default",
        f"{because}; beats cosine to 10% by 0.77% in pretraining (2025, arXiv 2502.15938)",
        alternatives=(Alternative("cosine", "keeps a higher rate in the first half"),),
        limits="seen at 610M weights in pretraining; the difference is smaller in short tuning",
    )
    return told, ()


def _warmup(
    resolved: ResolvedConfig, scheduler: Scheduler, num_steps: int
) -> tuple[Decision, tuple[str, ...]]:
    asked, ratio = resolved.config.warmup_steps, resolved.config.warmup_ratio
    source = "warmup_steps" if ratio is None else "warmup_ratio"
    if scheduler == "constant":
        because = "constant has no warmup; constant_with_warmup does"
        changed = Decision("warmup_steps", 0, "rule", because)
        is_ignored = ratio not in {None, 0} or asked not in {"auto", 0}
        warning = f"{source} has no effect: {because}."
        return changed, (warning,) if is_ignored else ()
    if ratio is not None:
        steps = share_of_steps(ratio, num_steps)
        told = resolved.origins["warmup_ratio"].where or "set in Python"
        because = f"warmup_ratio {ratio:g} ({told}) of {counted(num_steps, 'update')}"
        because += _win_over(resolved, "warmup_steps")
        made = Decision("warmup_steps", steps, "rule", because)
    elif asked == "auto":
        made = _auto_warmup(num_steps)
    else:
        steps = asked if isinstance(asked, int) else share_of_steps(asked, num_steps)
        because = f"{steps / num_steps:.2g} of {counted(num_steps, 'update')}"
        if isinstance(asked, float):
            because = f"{asked:g} of {counted(num_steps, 'update')} = {steps:,}"
        because += _win_over(resolved, "warmup_ratio")
        made = decision(resolved, "warmup_steps", steps, "user", because)
    if made.value >= num_steps:
        warning = (
            f"{source}: the rate rises over {made.value:,} updates and the run has {num_steps:,}, "
            "so it never reaches learning_rate."
        )
        return made, (warning,)
    return made, ()


def _warmup_ratio(resolved: ResolvedConfig, num_warmup_steps: int) -> Decision:
    ratio = resolved.config.warmup_ratio
    if ratio is None:
        because = "unset: warmup_steps decides" + _win_over(resolved, "warmup_ratio")
        return decision(resolved, "warmup_ratio", None, "default", because)
    because = counted(num_warmup_steps, "update") + _win_over(resolved, "warmup_steps")
    return decision(resolved, "warmup_ratio", ratio, "user", because)


def _win_over(resolved: ResolvedConfig, rival: str) -> str:
    lost = lost_rival(resolved, rival)
    return "" if lost is None else f"; wins over {told_loss(lost)}"


def _auto_warmup(num_steps: int) -> Decision:
    share = math.ceil(AUTO_WARMUP_SHARE * num_steps)
    most = math.floor(MAX_AUTO_WARMUP_SHARE * num_steps)
    steps = min(max(share, MIN_AUTO_WARMUP_STEPS), most)
    because = f"3% of {counted(num_steps, 'update')} is {share:,}"
    if steps == most and most < max(share, MIN_AUTO_WARMUP_STEPS):
        because += f"; at least {MIN_AUTO_WARMUP_STEPS}, but never over 10% = {most:,}"
    elif steps == MIN_AUTO_WARMUP_STEPS and share < MIN_AUTO_WARMUP_STEPS:
        because += f"; at least {MIN_AUTO_WARMUP_STEPS}"
    told = {
        0: "the first update at the full rate, before Adam knows the gradients' scale",
        most: f"10%, the guide's: {most - steps:,} updates more below the full rate",
    }
    return Decision(
        "warmup_steps",
        steps,
        "rule",
        because,
        alternatives=tuple(Alternative(*one) for one in told.items() if one[0] != steps),
        limits="a rule of thumb; not tested on this run",
    )


def _kwargs(
    resolved: ResolvedConfig,
    scheduler: Scheduler,
    learning_rate: float,
    warmup_steps: int,
    num_steps: int,
) -> Decision:
    kwargs = dict(resolved.config.lr_scheduler_kwargs)
    because = "" if kwargs else "none needed"
    added: str | None = None
    if scheduler == "cosine_with_min_lr" and not {"min_lr", "min_lr_rate"} & kwargs.keys():
        kwargs["min_lr_rate"] = DEFAULT_MIN_LR_RATE
        added = "min_lr_rate is required: a tenth of the rate"
    if scheduler == "warmup_stable_decay" and "num_decay_steps" not in kwargs:
        left = max(0, num_steps - warmup_steps)
        kwargs["num_decay_steps"] = min(math.ceil(DEFAULT_DECAY_SHARE * num_steps), left)
        added = f"num_decay_steps is required: 10% of {counted(num_steps, 'update')}"
    _check_against_run(resolved, scheduler, kwargs, learning_rate, warmup_steps, num_steps)
    if added is None:
        return decision(resolved, "lr_scheduler_kwargs", kwargs, "default", because)
    if resolved.is_set("lr_scheduler_kwargs"):
        return decision(resolved, "lr_scheduler_kwargs", kwargs, "user", added)
    return Decision("lr_scheduler_kwargs", kwargs, "rule", added)


def _check_against_run(
    resolved: ResolvedConfig,
    scheduler: Scheduler,
    kwargs: Mapping[str, Any],
    learning_rate: float,
    warmup_steps: int,
    num_steps: int,
) -> None:
    where = where_set(resolved, "lr_scheduler_kwargs")
    if scheduler == "polynomial":
        lr_end = kwargs.get("lr_end", POLYNOMIAL_LR_END)
        if lr_end >= learning_rate:
            raise ConfigError(
                f"polynomial ends at lr_end {lr_end:g}, which is not under learning_rate "
                f"{learning_rate:g}.",
                where=where,
                hint="Set lr_scheduler_kwargs: {lr_end: …} lower.",
            )
        if warmup_steps >= num_steps:
            raise ConfigError(
                f"polynomial has no update left to fall in: {warmup_steps:,} of {num_steps:,} "
                "updates are warmup.",
                where=where_set(resolved, "warmup_steps"),
                hint="Set warmup_steps lower.",
            )
    if scheduler == "cosine_with_min_lr" and kwargs.get("min_lr", 0) > learning_rate:
        raise ConfigError(
            f"min_lr {kwargs['min_lr']:g} is over learning_rate {learning_rate:g}.",
            where=where,
            hint="Set min_lr lower, or min_lr_rate as a share of the rate.",
        )
    if scheduler == "warmup_stable_decay" and kwargs["num_decay_steps"] > max(
        0, num_steps - warmup_steps
    ):
        raise ConfigError(
            f"{warmup_steps:,} updates of warmup and {kwargs['num_decay_steps']:,} of decay are "
            f"more than the run's {num_steps:,}.",
            where=where,
            hint="Set num_decay_steps or warmup_steps lower.",
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_Domain = tuple[str, Callable[[Any], bool]]
_POSITIVE: _Domain = ("a number above 0", lambda value: _is_number(value) and value > 0)
_NON_NEGATIVE: _Domain = ("a number of at least 0", lambda value: _is_number(value) and value >= 0)
_SHARE: _Domain = ("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)
_COUNT: _Domain = (
    "a whole number of at least 1",
    lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 1,
)
_UPDATES: _Domain = (
    "a whole number of updates",
    lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
)
_CURVE: _Domain = (
    "linear, cosine or 1-sqrt",
    lambda value: value in ("linear", "cosine", "1-sqrt"),
)
_KWARGS: Mapping[Scheduler, Mapping[str, _Domain]] = {
    "linear": {},
    "constant": {},
    "constant_with_warmup": {},
    "cosine": {"num_cycles": _POSITIVE},
    "cosine_with_restarts": {"num_cycles": _COUNT},
    "cosine_with_min_lr": {
        "num_cycles": _POSITIVE,
        "min_lr": _NON_NEGATIVE,
        "min_lr_rate": _SHARE,
    },
    "polynomial": {"lr_end": _NON_NEGATIVE, "power": _POSITIVE},
    "inverse_sqrt": {"timescale": _POSITIVE},
    "warmup_stable_decay": {
        "num_decay_steps": _UPDATES,
        "warmup_type": _CURVE,
        "decay_type": _CURVE,
        "min_lr_ratio": _SHARE,
        "num_cycles": _POSITIVE,
    },
}
_CURVES: Mapping[Scheduler, str] = {
    "linear": "falls in a line to 0",
    "cosine": "falls along half a cosine to 0",
    "constant": "stays where it is from the first update on",
    "constant_with_warmup": "stays where warmup brought it",
    "cosine_with_restarts": "falls along a cosine to 0 in each cycle",
    "cosine_with_min_lr": "falls along half a cosine to its lowest rate",
    "polynomial": "falls as a power of the updates left",
    "inverse_sqrt": "falls with the square root of the updates done",
    "warmup_stable_decay": "stays, then falls in its last updates",
}
