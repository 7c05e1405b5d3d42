"""The learning rate of every weight update: what a plan shows, and what training takes.

The shapes are those of transformers' schedulers, which a test holds them equal to. They are
written out because a plan is shown without torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from trimtab.hyperparameters.config import Scheduler
from trimtab.planning.rules.schedule import POLYNOMIAL_LR_END
from trimtab.planning.settings import Settings

DEFAULT_TIMESCALE = 10_000
"""transformers' default for `inverse_sqrt` without warmup, in updates."""


def learning_rates(settings: Settings) -> tuple[float, ...]:
    """One rate for each of the settings' `num_train_steps` updates, the first one first."""
    shape = _SHAPES[settings.lr_scheduler_type]
    return tuple(
        settings.learning_rate * shape(settings, i) for i in range(settings.num_train_steps)
    )


def _warming(settings: Settings, update: int) -> float | None:
    """The share of the top rate that warmup has reached; None once it is over."""
    return update / settings.warmup_steps if update < settings.warmup_steps else None


def _progress(settings: Settings, update: int) -> float:
    """The share of the updates after warmup that lie behind this one."""
    left = max(1, settings.num_train_steps - settings.warmup_steps)
    return (update - settings.warmup_steps) / left


def _half_cosine(progress: float, num_cycles: float = 0.5) -> float:
    return 0.5 * (1 + math.cos(2 * math.pi * num_cycles * progress))


def _constant(settings: Settings, update: int) -> float:
    return 1.0


def _after_warmup(
    fall: Callable[[Settings, int], float],
) -> Callable[[Settings, int], float]:
    def shape(settings: Settings, update: int) -> float:
        warming = _warming(settings, update)
        return fall(settings, update) if warming is None else warming

    return shape


def _linear(settings: Settings, update: int) -> float:
    return max(0.0, 1 - _progress(settings, update))


def _cosine(settings: Settings, update: int) -> float:
    num_cycles = settings.lr_scheduler_kwargs.get("num_cycles", 0.5)
    return max(0.0, _half_cosine(_progress(settings, update), num_cycles))


def _cosine_with_restarts(settings: Settings, update: int) -> float:
    num_cycles = settings.lr_scheduler_kwargs.get("num_cycles", 1)
    return max(0.0, _half_cosine((num_cycles * _progress(settings, update)) % 1.0))


def _cosine_with_min_lr(settings: Settings, update: int) -> float:
    arguments = settings.lr_scheduler_kwargs
    lowest = (
        arguments["min_lr"] / settings.learning_rate
        if "min_lr" in arguments
        else arguments["min_lr_rate"]
    )
    height = _half_cosine(_progress(settings, update), arguments.get("num_cycles", 0.5))
    return max(0.0, float(height * (1 - lowest) + lowest))


def _polynomial(settings: Settings, update: int) -> float:
    arguments = settings.lr_scheduler_kwargs
    lowest = arguments.get("lr_end", POLYNOMIAL_LR_END) / settings.learning_rate
    left = 1 - _progress(settings, update)
    return float((1 - lowest) * left ** arguments.get("power", 1.0) + lowest)


def _inverse_sqrt(settings: Settings, update: int) -> float:
    timescale = settings.lr_scheduler_kwargs.get(
        "timescale", settings.warmup_steps or DEFAULT_TIMESCALE
    )
    return float(1 / math.sqrt((update - settings.warmup_steps + timescale) / timescale))


def _warmup_stable_decay(settings: Settings, update: int) -> float:
    arguments = settings.lr_scheduler_kwargs
    lowest = arguments.get("min_lr_ratio", 0.0)
    decay = arguments["num_decay_steps"]
    decay_begins = settings.num_train_steps - decay
    if update < settings.warmup_steps:
        height = _risen(arguments.get("warmup_type", "linear"), update / settings.warmup_steps)
    elif update < decay_begins:
        return 1.0
    else:
        kind, share = arguments.get("decay_type", "cosine"), (update - decay_begins) / decay
        height = (
            _half_cosine(share, arguments.get("num_cycles", 0.5))
            if kind == "cosine"
            else _fallen(kind, share)
        )
    return max(0.0, float(height * (1 - lowest) + lowest))


def _risen(kind: str, share: float) -> float:
    return {
        "linear": share,
        "cosine": 0.5 * (1 - math.cos(math.pi * share)),
        "1-sqrt": 1 - math.sqrt(1 - share),
    }[kind]


def _fallen(kind: str, share: float) -> float:
    return {"linear": 1 - share, "1-sqrt": 1 - math.sqrt(share)}[kind]


_SHAPES: Mapping[Scheduler, Callable[[Settings, int], float]] = {
    "linear": _after_warmup(_linear),
    "cosine": _after_warmup(_cosine),
    "constant": _constant,
    "constant_with_warmup": _after_warmup(_constant),
    "cosine_with_restarts": _after_warmup(_cosine_with_restarts),
    "cosine_with_min_lr": _after_warmup(_cosine_with_min_lr),
    "polynomial": _after_warmup(_polynomial),
    "inverse_sqrt": _after_warmup(_inverse_sqrt),
    "warmup_stable_decay": _warmup_stable_decay,
}
