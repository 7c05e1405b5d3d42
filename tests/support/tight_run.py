"""A process whose run meets its memory's end: `python tight_run.py CONFIG ROOM_MIB KILL_AFTER`.

CONFIG is JSON. From update 2 on the address space may grow by ROOM_MIB (0: no limit). With
KILL_AFTER 1 the process kills itself after the first update in a changed recipe.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path

import torch

import trimtab
from trimtab.engine.observer import Silent
from trimtab.runs.records import EventRecord, UpdateRecord

PAGE_BYTES = 4096


class Tightening(Silent):
    """Sets the limit after update 2, and kills after a change of recipe."""

    def __init__(self, room_bytes: int, *, kills: bool) -> None:
        self._room_bytes = room_bytes
        self._kills = kills
        self._has_changed = False

    def updated(self, record: UpdateRecord, num_steps: int) -> None:
        if self._kills and self._has_changed:
            os.kill(os.getpid(), signal.SIGKILL)
        if record.step == 2 and self._room_bytes:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            limit = pages * PAGE_BYTES + self._room_bytes
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def happened(self, event: EventRecord) -> None:
        self._has_changed |= event.event == "recipe changed"


if __name__ == "__main__":
    torch.set_num_threads(1)
    config, room_mib, kill_after = sys.argv[1:]
    observer = Tightening(int(room_mib) * 2**20, kills=kill_after == "1")
    trimtab.train(json.loads(config), observer=observer)
