"""A hyperparameter's value with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Origin = Literal["user", "measured", "rule", "default"]


@dataclass(frozen=True, slots=True)
class Alternative:
    """A value that was turned down, and why, with its figures."""

    value: Any
    because: str


@dataclass(frozen=True, slots=True)
class Decision:
    """`name` is the hyperparameter; `facts` are the ids of the facts that `because` rests on.

    `limits` says where the reason stops being valid.
    """

    name: str
    value: Any
    origin: Origin
    because: str
    facts: tuple[str, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    limits: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Decision:
        return cls(
            name=record["name"],
            value=record["value"],
            origin=record["origin"],
            because=record["because"],
            facts=tuple(record["facts"]),
            alternatives=tuple(Alternative(**item) for item in record["alternatives"]),
            limits=record["limits"],
        )
