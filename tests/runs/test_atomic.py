"""A file or folder is whole or absent, wherever its writer dies."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.runs import atomic
from trimtab.runs.atomic import (
    FORMER_PREFIX,
    STAGED_PREFIX,
    mend,
    remove_folder,
    staged_folder,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_json_reads_back_equal_with_any_text(tmp_path: Path) -> None:
    value = {"text": "naïve \u2028 日本 \ud800 </script>", "numbers": [1, 2.5, None, True]}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value
    assert "日本" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_refuses_what_it_cannot_say_and_keeps_the_former_file(
    tmp_path: Path, value: float
) -> None:
    write_json(tmp_path / "a.json", {"loss": 1.0})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": value})
    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": 1.0}
    assert names(tmp_path) == ["a.json"]


def test_a_failed_rename_leaves_the_former_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "a.txt", "old")

    def fail(self: Path, target: Path) -> None:
        raise OSError("no")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no"):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_files_honour_the_umask(tmp_path: Path) -> None:
    former = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "x")
        with staged_folder(tmp_path / "b"):
            pass
    finally:
        os.umask(former)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o750


def test_folder_appears_whole(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "final"
    with staged_folder(final) as staged:
        (staged / "sub").mkdir()
        (staged / "sub" / "file").write_text("content")
        assert not final.exists()
        assert staged.parent == final.parent
    assert (final / "sub" / "file").read_text() == "content"
    assert names(final.parent) == ["final"]


def test_folder_is_absent_after_an_exception_and_the_former_stays(tmp_path: Path) -> None:
    final = tmp_path / "final"
    with pytest.raises(KeyboardInterrupt), staged_folder(final) as staged:
        (staged / "file").write_text("half")
        raise KeyboardInterrupt
    assert names(tmp_path) == []
    with staged_folder(final) as staged:
        (staged / "file").write_text("old")
    with pytest.raises(RuntimeError), staged_folder(final) as staged:
        (staged / "file").write_text("half")
        raise RuntimeError
    assert (final / "file").read_text() == "old"
    assert names(tmp_path) == ["final"]


def test_folder_replaces_a_former_one_entirely(tmp_path: Path) -> None:
    final = tmp_path / "final"
    for name in ("old", "new"):
        with staged_folder(final) as staged:
            (staged / name).write_text(name)
    assert names(final) == ["new"]
    assert names(tmp_path) == ["final"]


def test_everything_is_synced_before_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []
    final = tmp_path / "final"
    real_sync = atomic._sync

    def note(path: Path) -> None:
        synced.append((path.name, final.exists()))
        real_sync(path)

    monkeypatch.setattr(atomic, "_sync", note)
    with staged_folder(final) as staged:
        (staged / "sub").mkdir()
        (staged / "sub" / "inner").write_text("x")
        (staged / "outer").write_text("x")
        staged_name = staged.name
    before_the_name = {name for name, is_named in synced if not is_named}
    assert before_the_name == {"sub", "inner", "outer", staged_name}
    assert synced[-1] == (tmp_path.name, True)


_KILLED_AT_A_CALL = """
import os, signal, sys
from pathlib import Path
from trimtab.runs.atomic import staged_folder, write_text

folder, remaining = Path(sys.argv[1]), int(sys.argv[2])

def countdown(event, arguments):
    global remaining
    if event in {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "shutil.rmtree"}:
        if str(folder) in str(arguments) or event == "os.rename":
            if remaining == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            remaining -= 1

sys.addaudithook(countdown)
write_text(folder / "state.json", "new" * 1000)
with staged_folder(folder / "checkpoint") as staged:
    for name in ("a", "b"):
        (staged / name).write_text("new" * 1000)
"""


def test_killed_at_every_open_and_rename_all_names_hold_whole_contents(tmp_path: Path) -> None:
    whole = {"old": "old" * 1000, "new": "new" * 1000}
    seen_states = set()
    for call in range(40):
        folder = tmp_path / str(call)
        folder.mkdir()
        write_text(folder / "state.json", whole["old"])
        with staged_folder(folder / "checkpoint") as staged:
            for name in ("a", "b"):
                (staged / name).write_text(whole["old"])
        command = [sys.executable, "-c", _KILLED_AT_A_CALL, str(folder), str(call)]
        ended = subprocess.run(command, check=False, capture_output=True)
        assert ended.returncode in {0, -signal.SIGKILL}, ended.stderr
        state = (folder / "state.json").read_text()
        assert state in whole.values()
        checkpoint = folder / "checkpoint"
        contents: set[str] = set()
        if checkpoint.exists():
            assert names(checkpoint) == ["a", "b"]
            contents = {(checkpoint / name).read_text() for name in ("a", "b")}
            assert len(contents) == 1 and contents <= set(whole.values())
        seen_states.add((state, *contents))
        mend(folder)
        assert names(folder) == ["checkpoint", "state.json"]
        if ended.returncode == 0:
            break
    assert ended.returncode == 0
    assert (whole["old"], whole["old"]) in seen_states
    assert (whole["new"], whole["old"]) in seen_states
    assert (whole["new"], whole["new"]) in seen_states


def test_a_folder_set_aside_comes_back_unless_its_successor_is_there(tmp_path: Path) -> None:
    for name in (f"{FORMER_PREFIX}a", f"{FORMER_PREFIX}b", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    mend(tmp_path)
    assert names(tmp_path) == ["a", "b"]
    assert (tmp_path / "a" / "file").read_text() == f"{FORMER_PREFIX}a"
    assert (tmp_path / "b" / "file").read_text() == "b"


def test_a_folder_whose_successor_could_not_take_its_place_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with staged_folder(tmp_path / "a") as staged:
        (staged / "file").write_text("old")
    original = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name.startswith(STAGED_PREFIX):
            raise OSError("no")
        return original(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no"), staged_folder(tmp_path / "a") as staged:
        (staged / "file").write_text("new")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a" / "file").read_text() == "old"


def test_a_removed_folder_loses_its_name_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "file").write_text("x")
    monkeypatch.setattr(atomic.shutil, "rmtree", lambda path: None)
    remove_folder(tmp_path / "gone")
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.startswith(".")
    monkeypatch.undo()
    mend(tmp_path)
    assert names(tmp_path) == []
