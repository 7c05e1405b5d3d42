"""Facts that were measured before, one file an answer, kept for the next plan."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from trimtab.runs.atomic import write_json
from trimtab.runs.cache import cache_folder

STORE_FORMAT = 1
MAX_ANSWERS_OF_SUBJECT = 8
"""Of a subject whose files or libraries change, the newest answers that are kept."""


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """The facts that answered one question, as JSON objects, and under which fingerprint.

    `measured_at` is local time with its offset from UTC.
    """

    facts: tuple[Mapping[str, Any], ...]
    fingerprint: Mapping[str, str]
    measured_at: datetime


@dataclass(frozen=True, slots=True)
class FactStore:
    """A folder with a file for each subject and fingerprint.

    A subject is a digest of what was asked about which model and data. Writers replace whole
    files, so that several processes can share the folder. A file that cannot be read is no answer.
    """

    folder: Path

    def answer(self, subject: str, fingerprint: Mapping[str, str]) -> StoredAnswer | None:
        """What was measured of the subject under just this fingerprint."""
        return _read(self._path(subject, fingerprint), fingerprint)

    def latest(self, subject: str) -> StoredAnswer | None:
        """What was measured of the subject last, under any fingerprint."""
        answers = map(_read, self.folder.glob(f"{subject}-*.json"))
        found = [answer for answer in answers if answer is not None]
        return max(found, key=lambda answer: answer.measured_at, default=None)

    def remember(
        self, subject: str, fingerprint: Mapping[str, str], facts: Sequence[Mapping[str, Any]]
    ) -> None:
        """Keep the answer, and the newest few of its subject.

        Where the folder cannot be written, or a number is one that JSON lacks, nothing is kept.
        """
        record = {
            "format": STORE_FORMAT,
            "measured_at": datetime.now().astimezone().isoformat(timespec="seconds"),
            "fingerprint": dict(fingerprint),
            "facts": [dict(fact) for fact in facts],
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self._path(subject, fingerprint), record)
            self._forget_old(subject)
        except (OSError, ValueError):
            return

    def _forget_old(self, subject: str) -> None:
        files = self.folder.glob(f"{subject}-*.json")
        newest_first = sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True)
        for file in newest_first[MAX_ANSWERS_OF_SUBJECT:]:
            file.unlink(missing_ok=True)

    def _path(self, subject: str, fingerprint: Mapping[str, str]) -> Path:
        parts = "-".join(fingerprint[name][:8] for name in sorted(fingerprint))
        return self.folder / f"{subject}-{parts}.json"


def user_fact_store() -> FactStore:
    """The store in the user's cache folder."""
    return FactStore(cache_folder() / "facts")


def _read(path: Path, fingerprint: Mapping[str, str] | None = None) -> StoredAnswer | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        answer = StoredAnswer(
            facts=tuple(dict(fact) for fact in record["facts"]),
            fingerprint=dict(record["fingerprint"]),
            measured_at=datetime.fromisoformat(record["measured_at"]),
        )
        is_known = record["format"] == STORE_FORMAT and answer.measured_at.tzinfo is not None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    matches = fingerprint is None or answer.fingerprint == dict(fingerprint)
    return answer if is_known and matches else None
