"""A measuring process that does what its question says: tells of itself, fails, dies, is silent."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab.errors import ConfigError
from trimtab.probes.process import Tell, handed_rows, serve

NUMBERS = (signal.SIGINT, signal.SIGTERM)


def main() -> None:
    serve(_answer)


def _answer(request: Mapping[str, Any], tell: Tell) -> None:
    match request["question"]:
        case "signals":
            tell({"ignored": [signal.getsignal(each) == signal.SIG_IGN for each in NUMBERS]})
        case "itself":
            lengths = [row.num_tokens for row in handed_rows(request)]
            tell({"pid": os.getpid(), "parent": os.getppid(), "lengths": lengths})
        case "memory":
            tell({"own": _file_bytes(os.getpid()), "parents": _file_bytes(os.getppid())})
        case "death":
            tell({"is": "alive"})
            os.kill(os.getpid(), signal.SIGKILL)
        case "silence":
            tell({"pid": os.getpid(), "parent": os.getppid()})
            time.sleep(600)
        case "exit":
            raise SystemExit("no room")
        case _:
            raise ConfigError("a value is wrong.", where="file:3", hint="Take another.")


def _file_bytes(pid: int) -> int:
    """Of the process's resident set what is of files."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssFile:"):
            return int(line.split()[1]) * 1024
    raise AssertionError
