"""The disk is timed by a file that is gone afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.faults import close_folder

from trimtab.probes import disk
from trimtab.probes.disk import probe_disk


def test_the_disk_of_a_folder_that_is_still_to_be_made_is_timed(tmp_path: Path) -> None:
    (fact,) = probe_disk(tmp_path / "runs" / "first")
    assert fact.id == "disk.save_bytes_per_s"
    assert isinstance(fact.value, float) and fact.value > 0
    assert fact.cost_s > 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_behind_one_that_may_not_be_entered_is_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    close_folder(monkeypatch, closed)
    list(probe_disk(closed / "run"))


def test_nothing_is_told_of_a_disk_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise OSError("read-only")

    monkeypatch.setattr(disk.tempfile, "TemporaryFile", refuse)
    assert list(probe_disk(tmp_path)) == []
