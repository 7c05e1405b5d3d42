"""Every hyperparameter by name, read from the fields of `TrainingConfig`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from types import MappingProxyType
from typing import Any

from trimtab.hyperparameters.config import TrainingConfig
from trimtab.hyperparameters.declaration import Hyperparameter
from trimtab.hyperparameters.domains import domain_text
from trimtab.hyperparameters.translations import foreign_names

_NEAR = 0.68
"""How alike two names must be to be taken for a slip: above it lie typing errors, below it words
that only share letters."""
_PART = 0.69
"""How alike a name and one of its own words (`beta1`, `warmup`) are taken to be."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One hyperparameter: its name, its declaration and what follows from its type.

    domain: the values that it takes, in words. default: None where `required`.
    """

    name: str
    declaration: Hyperparameter
    domain: str
    default: Any
    required: bool

    @property
    def has_auto(self) -> bool:
        return self.declaration.auto is not None


@cache
def catalogue() -> Mapping[str, Entry]:
    """Every hyperparameter, in the order in which the fields stand."""
    entries: dict[str, Entry] = {}
    for name, field in TrainingConfig.model_fields.items():
        (declaration,) = (note for note in field.metadata if isinstance(note, Hyperparameter))
        entries[name] = Entry(
            name=name,
            declaration=declaration,
            domain=domain_text(field.annotation, field.metadata),
            default=None if field.is_required() else field.get_default(call_default_factory=True),
            required=field.is_required(),
        )
    return MappingProxyType(entries)


@cache
def aliases() -> Mapping[str, str]:
    """The catalogue's name for every alias that means the same in the same unit."""
    found: dict[str, str] = {}
    for entry in catalogue().values():
        for alias in entry.declaration.aliases:
            if alias in found or alias in catalogue():
                raise ValueError(f"alias {alias} of {entry.name} is taken")
            found[alias] = entry.name
    return MappingProxyType(found)


def nearest_names(word: str, n: int = 3) -> list[str]:
    """Up to n names of the catalogue that `word` may be a slip for, the likeliest first.

    Aliases are compared too; the name that they stand for is returned. Empty where nothing is
    near enough to be meant.
    """
    lowered = word.lower().replace("-", "_")
    known = {name: name for name in catalogue()} | dict(aliases()) | foreign_names()
    if lowered in known:
        return [known[lowered]]
    scores: dict[str, float] = {}
    for written, name in known.items():
        alikeness = SequenceMatcher(None, lowered, written, autojunk=False).ratio()
        if f"_{lowered}_" in f"_{written}_":
            alikeness = max(alikeness, _PART)
        if alikeness >= _NEAR:
            scores[name] = max(alikeness, scores.get(name, 0.0))
    return sorted(scores, key=lambda name: -scores[name])[:n]
