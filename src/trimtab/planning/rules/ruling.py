"""What a rule hands back, and how a value that the user set is told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from trimtab.hyperparameters.layers import Overruled, ResolvedConfig
from trimtab.planning.decision import Alternative, Decision, Origin
from trimtab.planning.fact import Facts


@dataclass(frozen=True, slots=True)
class Ruling:
    """Decisions of one family, with sentences for the user about what is unusual or unmeasured."""

    decisions: tuple[Decision, ...]
    warnings: tuple[str, ...] = ()
    not_measured: tuple[str, ...] = ()


def where_set(resolved: ResolvedConfig, name: str) -> str | None:
    """The file and line, or the option, that set the field; None in Python and for defaults."""
    return resolved.origins[name].where


def set_by(resolved: ResolvedConfig, name: str) -> str:
    """`set in config.yaml:3`, `set by --max-steps` or `set in Python`.

    What an earlier layer said of the same field is added, since it lost without a word otherwise.
    """
    origin = resolved.origins[name]
    if origin.layer == "command line":
        told = f"set by {origin.where}"
    else:
        told = f"set in {origin.where or 'Python'}"
    lost = [one for one in resolved.overruled if one.name == name and one.by == name]
    return told + "".join(f", over {one.value} {_place(one.origin.where)}" for one in lost)


def _place(where: str | None) -> str:
    if where is None:
        return "in Python"
    return f"by {where}" if where.startswith("--") else f"in {where}"


def lost_rival(resolved: ResolvedConfig, name: str) -> Overruled | None:
    """The value of the field that was set and lost to the rival field, such as epochs to steps."""
    for lost in resolved.overruled:
        if lost.name == name and lost.by != name:
            return lost
    return None


def told_loss(lost: Overruled) -> str:
    """`max_steps 40 (config.yaml:3: num_train_epochs is set on the command line)`."""
    value = f"{lost.value:,}" if isinstance(lost.value, int) else f"{lost.value:g}"
    return f"{lost.name} {value} ({told_cause(lost)})"


def told_cause(lost: Overruled) -> str:
    """Where the lost value was set, and why it lost."""
    return f"{lost.origin.where or 'set in Python'}: {lost.because}"


def decision(
    resolved: ResolvedConfig,
    name: str,
    value: Any,
    origin: Origin,
    because: str,
    *,
    facts: tuple[str, ...] = (),
    alternatives: tuple[Alternative, ...] = (),
    limits: str | None = None,
) -> Decision:
    """A decision; where the user set the field, the origin is theirs and the place leads.

    A field that the user set to `auto` is left to the plan, and so is its origin.
    """
    if resolved.is_given(name):
        told = set_by(resolved, name)
        because = f"{told}; {because}" if because else told
        origin, limits = "user", None
    return Decision(name, value, origin, because, facts, alternatives, limits)


def rounded(value: float, digits: int = 2) -> float:
    """`value` to so many significant digits."""
    return float(f"{value:.{digits - 1}e}")


def percent(part: float, whole: float) -> str:
    """`3.6%`; two significant digits below ten percent."""
    share = 100 * part / whole
    decimals = max(0, 1 - math.floor(math.log10(share))) if 0 < share < 10 else 0
    return f"{share:.{decimals}f}%"


def counted(number: int, noun: str) -> str:
    """`1 row`, `1,024 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def counted_rows(facts: Facts) -> str:
    """The rows of an epoch; packed ones that are estimated with half of their 95% interval."""
    told = counted(facts.integer("rows.num_rows"), "row")
    spread = facts.by_id["rows.num_rows"].spread
    return told if spread is None else f"an estimated {told} (± {math.ceil(spread):,})"
