"""A process that waits at a point of its own choosing, so that a signal comes to it there and only
there, however slow either side is."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

POLL_S = 0.005


def halt(folder: Path) -> None:
    """In the child: say that it is there, and wait until it is released or killed."""
    (folder / "halted").touch()
    while not (folder / "released").exists():
        time.sleep(POLL_S)


def wait_until_halted(process: subprocess.Popen[str], folder: Path) -> None:
    while not (folder / "halted").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(POLL_S)


def signalled_where_halted(
    process: subprocess.Popen[str], number: int, folder: Path
) -> tuple[str, str]:
    """In the parent: send the signal where the child has halted; its stdout and stderr."""
    wait_until_halted(process, folder)
    process.send_signal(number)
    (folder / "released").touch()
    return process.communicate(timeout=300)
