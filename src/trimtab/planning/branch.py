"""A shorter run that shares a longer one's first updates, where the schedule has a level trunk.

Several lengths for little more than the longest: 2024, arXiv 2405.18392.
"""

from __future__ import annotations

import math
from dataclasses import replace

from trimtab.planning.curve import learning_rates
from trimtab.planning.settings import Settings

LEVEL = {"constant", "constant_with_warmup", "warmup_stable_decay"}
"""Schedules whose rate, between warmup and decay, does not depend on the run's length."""
MIN_DECAY_STEPS = 2


def has_trunk(settings: Settings) -> bool:
    return settings.lr_scheduler_type in LEVEL


def decay_share(settings: Settings) -> float:
    """The share of the updates in which a schedule with a trunk falls."""
    num_updates: int = settings.lr_scheduler_kwargs.get("num_decay_steps", 0)
    return num_updates / settings.num_train_steps


def branch_of(settings: Settings, num_steps: int) -> Settings:
    """The same run of `num_steps` updates: its warmup stays, its decay keeps its share.

    A decay takes two updates at least, since the first one still has the full rate.
    """
    arguments = dict(settings.lr_scheduler_kwargs)
    if arguments.get("num_decay_steps"):
        num_decay_steps = math.ceil(decay_share(settings) * num_steps)
        arguments["num_decay_steps"] = max(MIN_DECAY_STEPS, num_decay_steps)
    return replace(settings, num_train_steps=num_steps, lr_scheduler_kwargs=arguments)


def num_shared_updates(settings: Settings, branch: Settings) -> int:
    """How many updates from the first on have the same rate in both."""
    pairs = zip(learning_rates(settings), learning_rates(branch), strict=False)
    shared = 0
    for one, other in pairs:
        if one != other:
            break
        shared += 1
    return shared
