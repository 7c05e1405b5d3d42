"""Digests are those of the files, and a file that cannot be read is told where they are asked."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from trimtab.workflow.file_digests import FileDigests


def test_each_file_has_its_own(tmp_path: Path) -> None:
    contents = {"a.json": b"{}", "b.safetensors": bytes(3_000_000), "empty": b""}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    found = FileDigests([tmp_path / name for name in contents]).by_name()
    assert found == {name: hashlib.sha256(each).hexdigest() for name, each in contents.items()}


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    digests = FileDigests([tmp_path / "there", tmp_path / "gone"])
    with pytest.raises(FileNotFoundError, match="gone"):
        digests.by_name()
