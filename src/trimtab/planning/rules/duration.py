"""How long the run is: epochs or updates, and which of the two decides."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from trimtab.errors import ConfigError
from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.planning.decision import Alternative, Decision
from trimtab.planning.fact import Facts
from trimtab.planning.rules.ruling import (
    Ruling,
    counted,
    counted_rows,
    decision,
    lost_rival,
    rounded,
    told_cause,
    told_loss,
    where_set,
)

DEFAULT_EPOCHS = 3.0
MAX_NUM_STEPS = 10_000_000


@dataclass(frozen=True, slots=True)
class Duration:
    num_train_steps: int
    num_updates_per_epoch: int
    ruling: Ruling


def asked_epochs(resolved: ResolvedConfig) -> float:
    epochs = resolved.config.num_train_epochs
    return DEFAULT_EPOCHS if epochs == "auto" else epochs


def num_updates(num_epochs: float, num_rows: int, global_batch_size: int) -> int:
    """Weight updates in so many epochs; an epoch's last update has what is left of it."""
    return math.ceil(Fraction(str(num_epochs)) * math.ceil(num_rows / global_batch_size))


def decide_duration(resolved: ResolvedConfig, facts: Facts, global_batch_size: int) -> Duration:
    """`num_train_epochs`, `max_steps`, and the updates that they come to.

    Raises ConfigError for more than 10 million updates, each of which has a place in the schedule.
    """
    num_rows = facts.integer("rows.num_rows")
    per_epoch = math.ceil(num_rows / global_batch_size)
    max_steps = resolved.config.max_steps
    if max_steps == -1:
        epochs = asked_epochs(resolved)
        num_steps = num_updates(epochs, num_rows, global_batch_size)
    else:
        num_steps = max_steps
        epochs = rounded(max_steps / per_epoch, 6)
    if num_steps > MAX_NUM_STEPS:
        name = "num_train_epochs" if max_steps == -1 else "max_steps"
        raise ConfigError(
            f"{name} asks for {Decimal(num_steps):.2e} updates; a run has at most "
            f"{MAX_NUM_STEPS:,}.",
            where=where_set(resolved, name),
            hint="Set fewer.",
        )
    counts = (
        f"{epochs:g} × {counted(per_epoch, 'update')} of {global_batch_size:,} from "
        f"{counted_rows(facts)} = {counted(num_steps, 'update')}"
    )
    decisions = (
        _epochs(resolved, epochs, num_steps, per_epoch, counts),
        _max_steps(resolved, epochs, num_steps),
    )
    return Duration(num_steps, per_epoch, Ruling(decisions, _warnings(resolved, num_steps, epochs)))


def _epochs(
    resolved: ResolvedConfig, epochs: float, num_steps: int, per_epoch: int, counts: str
) -> Decision:
    facts = ("rows.num_rows",)
    if resolved.config.max_steps == -1:
        because = (
            counts if resolved.is_given("num_train_epochs") else f"Hugging Face's default; {counts}"
        )
        lost = lost_rival(resolved, "max_steps")
        if lost is not None:
            because += f"; they win over {told_loss(lost)}"
        return decision(
            resolved,
            "num_train_epochs",
            float(epochs),
            "default",
            because,
            facts=facts,
            alternatives=() if resolved.is_given("num_train_epochs") else _other_epochs(per_epoch),
            limits="no evidence says how often these rows should be seen; where rows are held out, "
            "the weights that are kept are the best by their loss, so a longer run costs time",
        )
    because = (
        f"max_steps {num_steps:,} decides: {num_steps:,} ÷ {counted(per_epoch, 'update')} an epoch"
    )
    lost = lost_rival(resolved, "num_train_epochs")
    if lost is not None:
        because += f"; it wins over {told_loss(lost)}"
    return Decision("num_train_epochs", float(epochs), "rule", because, facts)


def _other_epochs(per_epoch: int) -> tuple[Alternative, ...]:
    return (
        Alternative(1.0, f"{counted(per_epoch, 'update')}; each row is seen once"),
        Alternative(2 * DEFAULT_EPOCHS, f"{2 * int(DEFAULT_EPOCHS) * per_epoch:,} updates"),
    )


def _max_steps(resolved: ResolvedConfig, epochs: float, num_steps: int) -> Decision:
    lost = lost_rival(resolved, "max_steps")
    if resolved.config.max_steps != -1:
        because = f"{counted(num_steps, 'update')}, {epochs:g} epochs"
        rival = lost_rival(resolved, "num_train_epochs")
        if rival is not None:
            because += f", win over {told_loss(rival)}"
        return decision(resolved, "max_steps", num_steps, "user", because)
    if lost is None:
        return Decision("max_steps", -1, "default", "unset: num_train_epochs decides the length")
    because = f"{epochs:g} epochs = {counted(num_steps, 'update')} win over {told_loss(lost)}"
    return Decision("max_steps", -1, "rule", because)


def _warnings(resolved: ResolvedConfig, num_steps: int, epochs: float) -> tuple[str, ...]:
    lost = lost_rival(resolved, "max_steps")
    if lost is not None and resolved.config.max_steps == -1:
        return (
            f"max_steps {lost.value:,} is ignored: {epochs:g} epochs = "
            f"{counted(num_steps, 'update')} win ({told_cause(lost)}).",
        )
    lost = lost_rival(resolved, "num_train_epochs")
    if lost is not None and resolved.config.max_steps != -1:
        return (
            f"num_train_epochs {lost.value:g} is ignored: max_steps {num_steps:,} wins "
            f"({told_cause(lost)}).",
        )
    return ()
