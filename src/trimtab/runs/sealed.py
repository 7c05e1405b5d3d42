"""JSON that holds its own sha256, so that any changed byte is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab.runs.atomic import encode_json, write_bytes

SEAL = "sha256"


def write_sealed(path: Path, record: Mapping[str, Any]) -> None:
    """Write the record whole, with its digest. Raises OSError."""
    write_bytes(path, _sealed(record))


def read_sealed(path: Path) -> dict[str, Any]:
    """The record. Raises OSError, and ValueError where the file is not as it was written."""
    content = path.read_bytes()
    record = json.loads(content)
    if not isinstance(record, dict):
        raise ValueError(f"{path} is not as it was written")
    record.pop(SEAL, None)
    if content != _sealed(record):
        raise ValueError(f"{path} is not as it was written")
    return record


def _sealed(record: Mapping[str, Any]) -> bytes:
    digest = hashlib.sha256(encode_json(record)).hexdigest()
    return encode_json({**record, SEAL: digest}, indent=2) + b"\n"
