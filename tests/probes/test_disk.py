"""The disk is timed by a file that is gone afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.probes import disk
from trimtab.probes.disk import probe_disk


def test_the_disk_of_a_folder_that_is_still_to_be_made_is_timed(tmp_path: Path) -> None:
    (fact,) = probe_disk(tmp_path / "runs" / "first")
    assert fact.id == "disk.save_bytes_per_s"
    assert isinstance(fact.value, float) and fact.value > 0
    assert fact.cost_s > 0
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_told_of_a_disk_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise OSError("read-only")

    monkeypatch.setattr(disk.tempfile, "TemporaryFile", refuse)
    assert list(probe_disk(tmp_path)) == []
