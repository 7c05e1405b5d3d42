"""A measured value, and where it came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

FactValue = float | int | str | bool | None | list[Any] | dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fact:
    """One answer of a probe. `id` names the quantity (`data.length_p99`); units are in `unit`.

    `spread` is in the same unit as `value` (what it is, `method` says); `cost_s` is the time
    that the measurement took, in seconds.
    """

    id: str
    value: FactValue
    unit: str | None = None
    spread: float | None = None
    device: str | None = None
    method: str = ""
    cost_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Fact:
        return cls(**record)


@dataclass(frozen=True)
class Facts:
    """Facts by id. Adding returns a new value; a later fact of the same id replaces the earlier."""

    by_id: Mapping[str, Fact] = field(default_factory=dict)

    def adding(self, facts: Iterable[Fact]) -> Facts:
        return Facts({**self.by_id, **{fact.id: fact for fact in facts}})

    def of(self, family: str) -> tuple[Fact, ...]:
        """The facts whose ids begin with `family` and a dot."""
        return tuple(fact for fact in self if fact.id.startswith(f"{family}."))

    def without(self, family: str) -> Facts:
        return Facts({fact.id: fact for fact in self if not fact.id.startswith(f"{family}.")})

    def __iter__(self) -> Iterator[Fact]:
        return iter(self.by_id.values())

    def __contains__(self, fact_id: str) -> bool:
        return fact_id in self.by_id

    def number(self, fact_id: str) -> float:
        """The value of a numeric fact. Raises KeyError where it is not there."""
        value = self.by_id[fact_id].value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"fact {fact_id} is {value!r}, not a number")
        return value

    def integer(self, fact_id: str) -> int:
        return int(self.number(fact_id))

    def text(self, fact_id: str) -> str:
        value = self.by_id[fact_id].value
        if not isinstance(value, str):
            raise TypeError(f"fact {fact_id} is {value!r}, not a text")
        return value

    def value(self, fact_id: str) -> FactValue:
        return self.by_id[fact_id].value
