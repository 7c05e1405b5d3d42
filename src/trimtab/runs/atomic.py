"""Files and folders that are complete or absent, whatever happens while they are written."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STAGED_PREFIX = ".staged-"


def write_text(path: Path, text: str) -> None:
    """Write a file whole: beside its place, synced, then renamed. Raises OSError."""
    descriptor, name = tempfile.mkstemp(prefix=STAGED_PREFIX, dir=path.parent)
    staged = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        staged.chmod(0o644)
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole. Raises ValueError for NaN and infinities, which JSON does not have."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """A hidden folder to write into, which becomes `final` once every file in it is synced.

    A `final` that is there already is replaced. On an exception nothing is left behind.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=STAGED_PREFIX, dir=final.parent))
    staged.chmod(0o755)
    try:
        yield staged
        for path in sorted(staged.rglob("*")):
            _sync(path)
        sync_folder(staged)
        if final.exists():
            shutil.rmtree(final)
        staged.rename(final)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    sync_folder(final.parent)


def remove_staged(folder: Path) -> None:
    """Remove what writers that were killed have left in the folder."""
    for leftover in folder.glob(f"{STAGED_PREFIX}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def sync_folder(folder: Path) -> None:
    """Make the folder's names durable."""
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
