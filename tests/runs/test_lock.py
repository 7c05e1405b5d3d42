"""One writer in a run folder; a killed one holds nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.errors import ConfigError
from trimtab.runs.folder import RunFolder, create_run
from trimtab.runs.lock import is_being_written, run_lock

_HOLD = """
import sys
from pathlib import Path
from trimtab.runs.folder import RunFolder
from trimtab.runs.lock import run_lock
with run_lock(RunFolder(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_writer_is_refused_by_pid_and_a_kill_leaves_no_lock(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run")
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(run.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match=f"process {holder.pid}") as caught, run_lock(run):
            pass
        assert caught.value.exit_code == 2
        assert is_being_written(run)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert not is_being_written(run)
    with run_lock(run):
        assert run.lock.read_text() == str(os.getpid())


def test_it_is_let_go_at_the_end_and_after_an_exception(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert not is_being_written(run)
    with pytest.raises(KeyError), run_lock(run):
        raise KeyError
    with run_lock(run), pytest.raises(ConfigError), run_lock(run):
        pass
    with run_lock(run):
        pass


def test_a_folder_removed_while_held_does_no_harm(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run")
    with run_lock(run):
        run.lock.unlink()
