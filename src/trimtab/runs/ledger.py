"""Append-only files of one JSON object a line.

JSON has no NaN and no infinities: they are written as the strings "NaN", "Infinity" and
"-Infinity" and read back as floats, so that a non-finite loss stays visible in the record.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.runs.atomic import write_text

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True, slots=True)
class LedgerContent:
    """The records in order; `torn_line` is a last line that a crash has cut off, if there is one."""

    records: tuple[dict[str, Any], ...]
    torn_line: str | None = None


@dataclass(frozen=True, slots=True)
class Ledger:
    """A ledger at a path; the file is made by the first record."""

    path: Path

    def append(self, record: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(_line(record))

    def read(self) -> LedgerContent:
        """All records. Raises ValueError for a damaged line that is not the last."""
        if not self.path.exists():
            return LedgerContent(())
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        records: list[dict[str, Any]] = []
        for number, line in enumerate(lines, start=1):
            try:
                records.append(_revived(json.loads(line)))
            except ValueError:
                if number == len(lines):
                    return LedgerContent(tuple(records), torn_line=line)
                raise ValueError(f"{self.path}:{number}: not a JSON record") from None
        return LedgerContent(tuple(records))

    def keep_only(self, keep: Callable[[Mapping[str, Any]], bool]) -> None:
        """Rewrite the ledger with the records that `keep` accepts; a torn line goes."""
        if self.path.exists():
            write_text(self.path, "".join(_line(r) for r in self.read().records if keep(r)))


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(_finite(record), ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _revived(record: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _NON_FINITE.get(value, value) if isinstance(value, str) else value
        for key, value in record.items()
    }
