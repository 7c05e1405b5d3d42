"""The libraries that a training command begins with, without what it does not use of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


def import_training() -> None:
    """Import what `trimtab.train` is made of; at the first call, most of a command's start."""
    import trimtab

    with _without("scipy"):
        _ = trimtab.train


@contextmanager
def _without(package: str) -> Iterator[None]:
    """Inside, the package cannot be imported, unless it has been.

    transformers imports scipy, a twentieth of the start, for losses of object detection alone. A
    process that is our own can do without these.
    """
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
