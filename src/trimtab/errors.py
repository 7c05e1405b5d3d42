"""What can go wrong, and the exit code that each kind has.

    TrimtabError
    ├── ConfigError      2   the configuration is wrong
    ├── DataError        3   the data is wrong
    ├── GuardStop        4   stopped by the guard
    ├── DoesNotFit       5   does not fit in memory
    └── Interrupted     75   interrupted, saved, resumable

A message is one short paragraph: what, where (file and line), what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class TrimtabError(Exception):
    """Base of every error that a user can cause or mend.

    `what` names the offending values, `where` is a file and line (or an option), `hint` says
    what to do. `str()` joins them to the paragraph that the command line prints.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        self.what = what
        self.where = where
        self.hint = hint
        located = f"{where}: {what}" if where else what
        # A table ends with a line's end, and the hint stands below it.
        gap = "" if located.endswith("\n") else " "
        super().__init__(f"{located}{gap}{hint}" if hint else located)

    def to_json(self) -> dict[str, str | None]:
        """What `error_from_json` makes the error of again, in another process."""
        kind = type(self).__name__
        return {"kind": kind, "what": self.what, "where": self.where, "hint": self.hint}


class ConfigError(TrimtabError):
    """The configuration, a path in it or the model that it names cannot be used."""

    exit_code = 2


class DataError(TrimtabError):
    """The rows cannot be trained on."""

    exit_code = 3


class GuardStop(TrimtabError):
    """A bad number was met; the weights were not touched by it."""

    exit_code = 4


class DoesNotFit(TrimtabError):
    """The plan or the step needs more memory than there is."""

    exit_code = 5


class Interrupted(TrimtabError):
    """Asked to stop; the run is saved and can be resumed."""

    exit_code = 75


def error_from_json(record: Mapping[str, Any] | None) -> TrimtabError | None:
    """The error that `to_json` wrote; None of None."""
    if record is None:
        return None
    kinds = {kind.__name__: kind for kind in TrimtabError.__subclasses__()}
    kind = kinds.get(record["kind"], TrimtabError)
    return kind(record["what"], where=record["where"], hint=record["hint"])
