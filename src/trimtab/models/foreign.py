"""What transformers raises over files that it cannot use."""

from __future__ import annotations

from typing import Final

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

UNUSABLE_FILES: Final = (
    ValueError,
    KeyError,
    OSError,
    ImportError,
    AttributeError,
    TypeError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
)


def first_sentence(error: Exception) -> str:
    """The start of a message that may go on for pages: its first line, and what a colon announces.

    It ends with a full stop.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return f"{type(error).__name__}."
    number = 2 if lines[0].endswith(":") else 1
    return " ".join(lines[:number]).rstrip(".:") + "."
