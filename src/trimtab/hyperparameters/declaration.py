"""What a hyperparameter declares of itself; everything users read is rendered from this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

AUTO: Final = "auto"
LARGEST_INT: Final = 2**53
"""Whole numbers above it are not exact as floats, and no quantity here comes near."""
Auto = Literal["auto"]

Family = Literal[
    "model",
    "data",
    "length and padding",
    "batch",
    "duration",
    "learning rate",
    "regularisation and optimizer",
    "precision and memory",
    "LoRA",
    "run",
]


@dataclass(frozen=True, slots=True)
class SearchRange:
    """The interval that a search may propose from; `log` when steps are ratios."""

    low: float
    high: float
    log: bool = True


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """The declaration that annotates a field of `TrainingConfig`.

    Name, type, domain and default are the field's own; they are not repeated here.

    meaning: one sentence. unit: of the value, None for names and switches.
    example: a value that differs from the default, as a file would hold it.
    auto: how the value is decided where it is `auto` (None: the field has no `auto`).
    raising, lowering: what a larger or smaller value does.
    guide: what the practitioner's guide says of it, and where this differs; guide_row: its row.
    evidence: what is known, with its source.
    aliases: names that users bring from other tools, same meaning and unit.
    """

    meaning: str
    family: Family
    example: str
    unit: str | None = None
    auto: str | None = None
    raising: str | None = None
    lowering: str | None = None
    guide: str | None = None
    evidence: str | None = None
    guide_row: int | None = None
    aliases: tuple[str, ...] = ()
    search: SearchRange | None = None


@dataclass(frozen=True, slots=True)
class FreeText:
    """Annotates a `str` in a field's type: what the text stands for, as `a folder's path`."""

    words: str
