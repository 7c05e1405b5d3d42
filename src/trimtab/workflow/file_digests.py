"""The sha256 of a model's files, taken while the interpreter does other things."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from threading import Thread


class FileDigests:
    """Begins at once, on a thread: hashing holds no lock of the interpreter.

    The thread ends with the process, so that an error is told without waiting for it.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._digests: dict[str, str] = {}
        self._error: OSError | None = None
        self._thread = Thread(target=self._take, daemon=True)
        self._thread.start()

    def by_name(self) -> dict[str, str]:
        """Hexadecimal digests by the files' names, waited for. Raises OSError as reading did."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._digests

    def _take(self) -> None:
        try:
            for file in self._files:
                self._digests[file.name] = sha256_of(file)
        except OSError as error:
            self._error = error


def sha256_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
