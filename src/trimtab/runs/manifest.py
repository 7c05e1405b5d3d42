"""Size and sha256 of each file of a folder: safetensors loads a flipped byte in silence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from trimtab.runs.atomic import write_json

MANIFEST = "manifest.json"


def write_manifest(folder: Path) -> None:
    """Describe every file that is in the folder now."""
    files = {
        name: {"size_bytes": (folder / name).stat().st_size, "sha256": _sha256(folder / name)}
        for name in _file_names(folder)
    }
    write_json(folder / MANIFEST, {"files": files})


def verify(folder: Path) -> tuple[str, ...]:
    """What is wrong with the folder, a sentence for each file; nothing where all is well."""
    try:
        listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return (f"{MANIFEST} is missing",)
    except (ValueError, KeyError, TypeError):
        return (f"{MANIFEST} is damaged",)
    present = _file_names(folder)
    problems = [f"{name} is not in the manifest" for name in sorted(present - listed.keys())]
    for name, expected in sorted(listed.items()):
        if name not in present:
            problems.append(f"{name} is missing")
        elif (folder / name).stat().st_size != expected["size_bytes"]:
            size = (folder / name).stat().st_size
            problems.append(f"{name} has {size} bytes, not {expected['size_bytes']}")
        elif _sha256(folder / name) != expected["sha256"]:
            problems.append(f"{name} has another content than was written")
    return tuple(problems)


def _file_names(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in files} - {MANIFEST}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
