"""Importing the libraries of training in less time, which is most of what a process begins with."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lean_imports() -> Iterator[None]:
    """For a process of our own, which can do without what transformers imports for others."""
    with uncollected(), _without("scipy"):
        yield


@contextmanager
def uncollected() -> Iterator[None]:
    """Inside, garbage is not looked for.

    What libraries make while they are imported stays: to search it a dozen times over takes a tenth
    of the time and finds nothing.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _without(package: str) -> Iterator[None]:
    """Inside, the package cannot be imported, unless it has been.

    transformers imports scipy, a twentieth of the start, for losses of object detection alone.
    """
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
