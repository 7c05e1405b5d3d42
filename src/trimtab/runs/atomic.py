"""Files and folders that are complete or absent, whatever happens while they are written."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STAGED_PREFIX = ".staged-"
FORMER_PREFIX = ".former-"


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file whole: beside its place, synced, then renamed. Raises OSError."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole. Raises ValueError for NaN and infinities, which JSON does not have."""
    write_bytes(path, encode_json(value, indent=2) + b"\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole. Raises OSError, after which a former file is as it was."""
    staged = _staged_name(path)
    try:
        with staged.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def encode_json(value: Any, *, indent: int | None = None) -> bytes:
    """UTF-8 JSON that reads back equal. Raises ValueError for NaN and infinities."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    # A lone surrogate has no UTF-8; its backslash form is JSON's own escape for it.
    return text.encode("utf-8", "backslashreplace")


@contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """A hidden folder to write into, which becomes `final` once every file in it is synced.

    A `final` that is there already is replaced: it stands aside under another name, from which
    `mend` brings it back where the writer was killed in between. On an exception nothing is left
    behind, and a former `final` is as it was.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    staged = _staged_name(final)
    staged.mkdir()
    try:
        yield staged
        for path in sorted(staged.rglob("*")):
            _sync(path)
        sync_folder(staged)
        if final.exists():
            final.rename(_former(final))
        staged.rename(final)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        _bring_back(_former(final))
        raise
    sync_folder(final.parent)
    if _former(final).exists():
        shutil.rmtree(_former(final))


def remove_folder(folder: Path) -> None:
    """Remove a folder so that no half of it is ever seen under its name."""
    doomed = _staged_name(folder)
    folder.rename(doomed)
    sync_folder(folder.parent)
    shutil.rmtree(doomed)


def mend(folder: Path) -> None:
    """Remove what writers that were killed have left in the folder; what they set aside returns."""
    for former in folder.glob(f"{FORMER_PREFIX}*"):
        _bring_back(former)
    for leftover in (*folder.glob(f"{STAGED_PREFIX}*"), *folder.glob(f"{FORMER_PREFIX}*")):
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


def _former(final: Path) -> Path:
    return final.with_name(FORMER_PREFIX + final.name)


def _bring_back(former: Path) -> None:
    final = former.with_name(former.name.removeprefix(FORMER_PREFIX))
    if former.exists() and not final.exists():
        former.rename(final)
        sync_folder(final.parent)


def _staged_name(path: Path) -> Path:
    return path.with_name(f"{STAGED_PREFIX}{secrets.token_hex(8)}")
