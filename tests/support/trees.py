"""A folder as one value."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

_STAGED = re.compile(r"(?<=\.staged-)[0-9a-f]{16}")


def tree_digest(folder: Path) -> str:
    """Of all names and contents, but for the lock, which names its process, and staged names."""
    digest = hashlib.sha256()
    for path in sorted(set(folder.rglob("*")) - {folder / ".lock"}):
        digest.update(_STAGED.sub("", str(path.relative_to(folder))).encode() + b"\0")
        if path.is_file():
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
