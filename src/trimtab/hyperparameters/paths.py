"""Which texts can be a path, so that none reaches the file system that it cannot take."""

from __future__ import annotations

import unicodedata
from pathlib import PurePath
from typing import Final

MAX_PATH_BYTES: Final = 4095
MAX_NAME_BYTES: Final = 255
"""The limits of Linux and macOS; a name on Windows is shorter still."""
_UNUSABLE: Final = {"Cc", "Cs"}
"""Unicode's control characters, and halves of surrogate pairs, which UTF-8 cannot write."""


def path_problem(text: str) -> str | None:
    """Why the text cannot be a path; None where it can."""
    if any(unicodedata.category(character) in _UNUSABLE for character in text):
        return "It holds control characters, which no path should."
    if len(text.encode()) > MAX_PATH_BYTES:
        return f"It is longer than a path may be ({MAX_PATH_BYTES:,} bytes)."
    if any(len(part.encode()) > MAX_NAME_BYTES for part in PurePath(text).parts):
        return f"A name in it is longer than a file's name may be ({MAX_NAME_BYTES} bytes)."
    return None


def usable_path(text: str) -> str:
    """The text. Raises ValueError where it cannot be a path."""
    problem = path_problem(text)
    if problem is not None:
        raise ValueError(problem)
    return text
