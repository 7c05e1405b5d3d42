"""Size and sha256 of each file of a folder: safetensors loads a flipped byte in silence.

The manifest holds its own sha256 too, so that damage to it is not laid at another file's door.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trimtab.errors import ConfigError
from trimtab.runs.sealed import read_sealed, write_sealed

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class _Entry:
    size_bytes: int
    sha256: str


def write_manifest(folder: Path) -> None:
    """Describe every file that is in the folder now."""
    files = {
        name: {"size_bytes": (folder / name).stat().st_size, "sha256": _sha256(folder / name)}
        for name in sorted(_file_names(folder))
    }
    write_sealed(folder / MANIFEST, {"files": files})


def verify(folder: Path, *, hashes: bool = True) -> tuple[str, ...]:
    """What is wrong with the folder, a sentence for each file; nothing where all is well.

    Without `hashes` only names and sizes are looked at. Raises ConfigError where a file cannot be
    read, for lack of permission or by a disk that fails: it may be whole.
    """
    with _telling_what_cannot_be_read(folder):
        return tuple(_problems(folder, hashes=hashes))


def _problems(folder: Path, *, hashes: bool) -> list[str]:
    try:
        listed = _read_manifest(folder / MANIFEST)
    except FileNotFoundError:
        return [f"{MANIFEST} is missing"]
    except (IsADirectoryError, NotADirectoryError) as error:
        return [f"{MANIFEST} cannot be read: {error.strerror}"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [f"{MANIFEST} is damaged"]
    present = _file_names(folder)
    problems = [f"{name} is not in the manifest" for name in sorted(present - listed.keys())]
    for name, expected in sorted(listed.items()):
        if name not in present:
            problems.append(f"{name} is missing")
            continue
        size = (folder / name).stat().st_size
        if size != expected.size_bytes:
            problems.append(f"{name} has {size} bytes, not {expected.size_bytes}")
        elif hashes and _sha256(folder / name) != expected.sha256:
            problems.append(f"{name} has another content than was written")
    return problems


@contextmanager
def _telling_what_cannot_be_read(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"it cannot be read, and may be whole: {error.strerror}.",
            where=str(error.filename or folder),
            hint="Let it be read and resume again; or move its folder out of the run, to go on "
            "without it.",
        ) from error


def _read_manifest(path: Path) -> dict[str, _Entry]:
    return {name: _Entry(**entry) for name, entry in read_sealed(path)["files"].items()}


def _file_names(folder: Path) -> set[str]:
    # Path.rglob passes over folders that may not be entered.
    found = os.walk(folder, onerror=_raise)
    paths = (Path(parent) / name for parent, _, names in found for name in names)
    files = {path.relative_to(folder).as_posix() for path in paths if path.is_file()}
    return files - {MANIFEST}


def _raise(error: OSError) -> None:
    raise error


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
