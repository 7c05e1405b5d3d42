"""Names of a model's modules, told together where they differ in numbers alone, and matched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

Parts = tuple[str, ...]


def is_named(name: str, target: str) -> bool:
    """Whether a target of adapters means the module: its name, or the whole parts of its end."""
    return name == target or name.endswith(f".{target}")


def folded(names: Iterable[str]) -> list[str]:
    """`layers.0-31.mlp.up_proj` for 32 names that differ in that number.

    A name's last part is left as it is. `unfolded` gives the names back.
    """
    found = [tuple(name.split(".")) for name in names]
    for place in reversed(range(max(map(len, found), default=0))):
        found = [*_joined(found, place)]
    return [".".join(parts) for parts in found]


def unfolded(name: str) -> list[str]:
    """The names that a folded one stands for."""
    return [".".join(parts) for parts in product(*map(_numbers, name.split(".")))]


def _joined(names: Iterable[Parts], place: int) -> Iterator[Parts]:
    """The names, with those in one that differ in the number at `place` and follow each other."""
    numbers: dict[tuple[Parts, Parts], list[int]] = {}
    for parts in names:
        before, after = parts[:place], parts[place + 1 :]
        if after and parts[place].isdecimal():
            numbers.setdefault((before, after), []).append(int(parts[place]))
        else:
            numbers[parts, ()] = []
    for (before, after), found in numbers.items():
        if not found:
            yield before
        for first, last in _runs(sorted(found)):
            yield (*before, str(first) if first == last else f"{first}-{last}", *after)


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """First and last of each run of numbers that follow each other; they rise."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _numbers(part: str) -> list[str]:
    first, dash, last = part.partition("-")
    if not dash or not (first.isdecimal() and last.isdecimal()):
        return [part]
    return [str(number) for number in range(int(first), int(last) + 1)]
