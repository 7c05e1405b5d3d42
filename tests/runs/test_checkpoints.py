"""The newest whole checkpoint is found, and the last good one is never removed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from trimtab.errors import ConfigError
from trimtab.runs.atomic import STAGED_PREFIX, staged_folder
from trimtab.runs.checkpoints import (
    Refused,
    checkpoint_name,
    checkpoint_step,
    newest_verified,
    retire,
    step_checkpoints,
)
from trimtab.runs.manifest import write_manifest


def save(folder: Path, step: int) -> Path:
    checkpoint = folder / checkpoint_name(step)
    with staged_folder(checkpoint) as staged:
        (staged / "weights.safetensors").write_bytes(b"w" * 100)
        write_manifest(staged)
    return checkpoint


def steps(folder: Path) -> list[int]:
    return [checkpoint_step(path) for path in step_checkpoints(folder)]


def test_names_sort_by_step_past_six_digits(tmp_path: Path) -> None:
    for step in (1_000_000, 120, 999_999):
        save(tmp_path, step)
    for other in ("best-000120", "step-abc", "step-12", "step-²²²²²²"):
        (tmp_path / other).mkdir()
    assert [path.name for path in step_checkpoints(tmp_path)] == [
        "step-000120",
        "step-999999",
        "step-1000000",
    ]
    with pytest.raises(ValueError, match="best-000120"):
        checkpoint_step(tmp_path / "best-000120")


def test_falls_back_to_the_newest_that_verifies_and_names_the_refused(tmp_path: Path) -> None:
    first, second, third = (save(tmp_path, step) for step in (1, 2, 3))
    (third / "weights.safetensors").write_bytes(b"w" * 99 + b"x")
    (second / "weights.safetensors").unlink()
    found, refused = newest_verified(tmp_path)
    assert found == first
    assert refused == (
        Refused(third, ("weights.safetensors has another content than was written",)),
        Refused(second, ("weights.safetensors is missing",)),
    )


def unreadable(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    original = Path.open

    def refusing(self: Path, *arguments: Any, **named: Any) -> Any:
        if self == file:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))
        return original(self, *arguments, **named)

    monkeypatch.setattr(Path, "open", refusing)


def test_one_that_cannot_be_read_is_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, second = (save(tmp_path, step) for step in (1, 2))
    unreadable(monkeypatch, second / "weights.safetensors")
    with pytest.raises(ConfigError, match=r"step-000002/weights\.safetensors"):
        newest_verified(tmp_path)


def test_one_that_cannot_be_read_is_not_retired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_ = (save(tmp_path, step) for step in (1, 2, 3, 4))
    unreadable(monkeypatch, first / "manifest.json")
    retire(tmp_path, 1)
    assert steps(tmp_path) == [1, 4]


def test_no_checkpoint_and_no_good_checkpoint(tmp_path: Path) -> None:
    assert newest_verified(tmp_path / "absent") == (None, ())
    checkpoint = save(tmp_path, 1)
    (checkpoint / "manifest.json").unlink()
    assert newest_verified(tmp_path) == (
        None,
        (Refused(checkpoint, ("manifest.json is missing",)),),
    )


def test_retires_the_oldest_and_writers_leftovers(tmp_path: Path) -> None:
    for step in range(1, 6):
        save(tmp_path, step)
    (tmp_path / "best-000001").mkdir()
    (tmp_path / f"{STAGED_PREFIX}1234").mkdir()
    retire(tmp_path, 2)
    assert steps(tmp_path) == [4, 5]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best-000001",
        "step-000004",
        "step-000005",
    ]


def test_the_newest_of_a_multiple_is_found_and_stays(tmp_path: Path) -> None:
    for step in (3, 6, 7, 8):
        save(tmp_path, step)
    retire(tmp_path, 1, spared_every=3)
    assert steps(tmp_path) == [6, 7, 8]
    found, _ = newest_verified(tmp_path, every=3)
    assert found is not None
    assert found.name == "step-000006"
    assert newest_verified(tmp_path, every=5) == (None, ())


def test_where_no_step_is_a_multiple_the_newest_stay(tmp_path: Path) -> None:
    for step in (3, 6, 7):
        save(tmp_path, step)
    retire(tmp_path, 2, spared_every=100)
    assert steps(tmp_path) == [6, 7]


def test_the_last_good_one_stays_while_newer_ones_are_torn(tmp_path: Path) -> None:
    good = save(tmp_path, 1)
    for step in (2, 3):
        (save(tmp_path, step) / "weights.safetensors").write_bytes(b"w" * 50)
    with pytest.raises(OSError, match="step-000003") as caught:
        retire(tmp_path, 1)
    assert "weights.safetensors has 50 bytes, not 100" in str(caught.value)
    assert newest_verified(tmp_path)[0] == good
    assert steps(tmp_path) == [1, 2, 3]
    save(tmp_path, 4)
    retire(tmp_path, 1)
    assert steps(tmp_path) == [4]


def test_what_reads_otherwise_than_it_was_written_removes_nothing(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (save(tmp_path, 2) / "weights.safetensors").write_bytes(b"w" * 99 + b"x")
    with pytest.raises(OSError, match="has another content"):
        retire(tmp_path, 1)
    assert steps(tmp_path) == [1, 2]


def test_keeping_none_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(ValueError, match="keep_last is 0"):
        retire(tmp_path, 0)
    assert steps(tmp_path) == [1]
