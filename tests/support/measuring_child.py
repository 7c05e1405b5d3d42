"""A measuring process that does what its question says: tells of itself, fails, dies, is silent."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from typing import Any

import psutil

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
            own, parents = (psutil.Process(pid) for pid in (os.getpid(), os.getppid()))
            # What psutil calls shared is what is of files.
            tell({"own": own.memory_info().shared, "parents": parents.memory_info().shared})
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
