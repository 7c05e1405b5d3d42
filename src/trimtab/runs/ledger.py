"""Append-only files of one JSON object a line; non-finite floats as `non_finite` writes them."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.runs.atomic import encode_json, write_bytes
from trimtab.runs.non_finite import as_text, from_text


@dataclass(frozen=True, slots=True)
class LedgerContent:
    """The records in order; `torn_line` is a last line that a crash cut off, if there is one."""

    records: tuple[dict[str, Any], ...]
    torn_line: str | None = None


@dataclass(frozen=True, slots=True)
class Ledger:
    """A ledger at a path, with one writer; the file is made by the first record."""

    path: Path

    def append(self, record: Mapping[str, Any], *, durable: bool = False) -> None:
        """Add a line; it is with the system on return, and on the disk where `durable`.

        Raises OSError where the disk is full, after which the ledger ends as before.
        """
        line = _line(record)
        with self.path.open("a+b", buffering=0) as stream:
            _cut_torn_line(stream.fileno())
            size = os.fstat(stream.fileno()).st_size
            try:
                if stream.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
                if durable:
                    os.fsync(stream.fileno())
            except OSError:
                stream.truncate(size)
                raise

    def read(self) -> LedgerContent:
        """All records. Raises ValueError for a damaged line that is not the last."""
        if not self.path.exists():
            return LedgerContent(())
        # Lines end at b"\n" alone: a JSON text may hold other characters that end lines of text.
        *lines, torn = self.path.read_bytes().split(b"\n")
        records = tuple(
            _record(line, f"{self.path}:{number}") for number, line in enumerate(lines, 1)
        )
        return LedgerContent(records, torn_line=torn.decode(errors="replace") or None)

    def synced_bytes(self) -> int:
        """Put what was added on the disk; returns the ledger's size, 0 where there is none yet."""
        if not self.path.exists():
            return 0
        with self.path.open("rb") as stream:
            os.fsync(stream.fileno())
            return os.fstat(stream.fileno()).st_size

    def cut(
        self,
        num_bytes: int,
        keep: Callable[[Mapping[str, Any]], bool] = lambda record: False,
        keep_before: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> None:
        """Take out what follows the first `num_bytes`, but for records that `keep` accepts.

        Of those before, what `keep_before` refuses goes too: where a line was removed by hand,
        records stand there that were behind. A line that `num_bytes` ends within follows. A torn
        last line goes. Raises ValueError for a damaged line among those that are looked at.
        """
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        end = content.rfind(b"\n", 0, num_bytes) + 1
        head = content[:end]
        if keep_before is not None:
            head = self._kept(head, keep_before)
        kept = head + self._kept(content[end:], keep)
        if kept != content:
            write_bytes(self.path, kept)

    def _kept(self, content: bytes, keep: Callable[[Mapping[str, Any]], bool]) -> bytes:
        lines = content.split(b"\n")[:-1]
        return b"".join(line + b"\n" for line in lines if keep(_record(line, str(self.path))))


def _line(record: Mapping[str, Any]) -> bytes:
    return encode_json(as_text(record)) + b"\n"


def _record(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise ValueError(f"{where}: not a JSON record")
    return {name: from_text(value) for name, value in record.items()}


def _cut_torn_line(descriptor: int) -> None:
    """Cut off a last line without its end: a writer was killed before it came to stand."""
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return
    content = os.pread(descriptor, size, 0)
    os.ftruncate(descriptor, content.rfind(b"\n") + 1)
