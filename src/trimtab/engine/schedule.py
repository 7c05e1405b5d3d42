"""The learning rate at each weight update."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import get_scheduler

from trimtab.planning.settings import Settings


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rates by weight update: `rates[i]` is used by update i (0-based).

    A table has no state to advance, so a micro-batch or a skipped fp16 step cannot move it.
    """

    rates: tuple[float, ...]

    def rate(self, num_updates_done: int) -> float:
        return self.rates[min(num_updates_done, len(self.rates) - 1)]


def make_schedule(settings: Settings) -> Schedule:
    """transformers' own schedule, evaluated once for every update of the run."""
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=settings.learning_rate)
    scheduler = get_scheduler(
        settings.lr_scheduler_type,
        optimizer,
        num_warmup_steps=settings.warmup_steps,
        num_training_steps=settings.num_train_steps,
        scheduler_specific_kwargs=dict(settings.lr_scheduler_kwargs),
    )
    rates = []
    for _ in range(settings.num_train_steps):
        rates.append(float(scheduler.get_last_lr()[0]))
        optimizer.step()
        scheduler.step()
    return Schedule(tuple(rates))
