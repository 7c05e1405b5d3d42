"""Truncate, flip, delete, add: each is named by its file."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from trimtab.errors import ConfigError
from trimtab.runs.manifest import MANIFEST, verify, write_manifest
from trimtab.runs.sealed import write_sealed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "weights.safetensors").write_bytes(bytes(range(256)) * 8)
    (tmp_path / "sub" / "state.json").write_text("{}")
    (tmp_path / "empty").write_bytes(b"")
    write_manifest(tmp_path)
    return tmp_path


def test_an_untouched_folder_has_no_problem(folder: Path) -> None:
    assert verify(folder) == ()
    files = json.loads((folder / MANIFEST).read_text())["files"]
    assert list(files) == ["empty", "sub/state.json", "weights.safetensors"]
    assert files["empty"] == {
        "size_bytes": 0,
        "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }


@pytest.mark.parametrize("name", ["weights.safetensors", "sub/state.json"])
def test_each_damage_is_named_by_its_file(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    flipped = bytes([content[0] ^ 1]) + content[1:]
    for damaged, problem in (
        (content[:-1], f"{name} has {len(content) - 1} bytes, not {len(content)}"),
        (content + b"x", f"{name} has {len(content) + 1} bytes, not {len(content)}"),
        (flipped, f"{name} has another content than was written"),
    ):
        (folder / name).write_bytes(damaged)
        assert verify(folder) == (problem,)
    (folder / name).unlink()
    assert verify(folder) == (f"{name} is missing",)


def test_an_added_file_is_a_problem(folder: Path) -> None:
    (folder / "sub" / "extra.bin").write_bytes(b"x")
    assert verify(folder) == ("sub/extra.bin is not in the manifest",)


def test_without_hashes_only_sizes_count(folder: Path) -> None:
    content = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(content[::-1])
    assert verify(folder, hashes=False) == ()
    (folder / "weights.safetensors").write_bytes(content[1:])
    assert len(verify(folder, hashes=False)) == 1


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"files": []}', '{"files": {"a": 1}}', '{"files": {"a": {"size": 1}}}'],
)
def test_a_damaged_manifest_is_a_problem_not_a_crash(folder: Path, content: str) -> None:
    (folder / MANIFEST).write_text(content)
    assert verify(folder) == (f"{MANIFEST} is damaged",)


def test_every_flipped_byte_of_the_manifest_is_its_own_damage(folder: Path) -> None:
    content = (folder / MANIFEST).read_bytes()
    for place in range(len(content)):
        for bit in (1, 4, 32):
            flipped = bytearray(content)
            flipped[place] ^= bit
            (folder / MANIFEST).write_bytes(flipped)
            assert verify(folder, hashes=False) == (f"{MANIFEST} is damaged",)


def cannot_be_opened(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """The system refuses files of this name; a test run by root is refused none."""
    original = Path.open

    def refusing(self: Path, *arguments: Any, **named: Any) -> Any:
        if self.name == name:
            raise OSError(number, os.strerror(number), str(self))
        return original(self, *arguments, **named)

    monkeypatch.setattr(Path, "open", refusing)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
@pytest.mark.parametrize("name", [MANIFEST, "weights.safetensors"])
def test_what_cannot_be_read_may_be_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    cannot_be_opened(monkeypatch, name, number)
    with pytest.raises(ConfigError, match=f"{name}.*{os.strerror(number)}"):
        verify(folder)


def test_files_of_a_folder_that_cannot_be_listed_are_not_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = os.scandir

    def scandir(path: Any) -> Any:
        if Path(path).name == "sub":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ConfigError, match=r"sub.*Permission denied"):
        verify(folder)


def test_what_is_no_file_is_a_problem_not_a_crash(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).mkdir()
    assert verify(folder) == (f"{MANIFEST} cannot be read: Is a directory",)


def test_a_missing_manifest_is_a_problem(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    assert verify(folder) == (f"{MANIFEST} is missing",)


def test_a_manifest_never_leads_outside_its_folder(folder: Path) -> None:
    (folder.parent / "secret").write_text("s")
    files = json.loads((folder / MANIFEST).read_text())["files"]
    files["../secret"] = {"size_bytes": 1, "sha256": "0"}
    write_sealed(folder / MANIFEST, {"files": files})
    assert verify(folder) == ("../secret is missing",)
