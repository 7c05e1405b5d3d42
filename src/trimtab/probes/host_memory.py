"""How much memory this process may take: the machine's, or less in a container or a job.

The limits are files of Linux's control groups, those of every group above the process's own too.
Version 2: https://docs.kernel.org/admin-guide/cgroup-v2.html; version 1:
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import psutil

OWN_GROUPS = Path("/proc/self/cgroup")
CONTROL_GROUPS = Path("/sys/fs/cgroup")
_RECLAIMED: Final = ("active_file", "inactive_file")
"""Of what a group uses, the kernel takes back its copies of files before it kills."""


@dataclass(frozen=True, slots=True)
class HostMemory:
    """total_bytes: the most that all processes under one limit may have. available_bytes: what is
    left of it."""

    total_bytes: int
    available_bytes: int


@dataclass(frozen=True, slots=True)
class _Version:
    limit: str
    used: str
    stat_prefix: str


_VERSION_1: Final = _Version("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
_VERSION_2: Final = _Version("memory.max", "memory.current", "")


def host_memory() -> HostMemory:
    memory = psutil.virtual_memory()
    total, available = int(memory.total), int(memory.available)
    for folder, version in _groups():
        try:
            limit = int((folder / version.limit).read_text())
            used = int((folder / version.used).read_text()) - _reclaimed(folder, version)
        except (OSError, ValueError):
            # A group that is not shown here, or has no limit, which is written `max`.
            continue
        total = min(total, limit)
        available = min(available, max(0, limit - used))
    return HostMemory(total, available)


def _groups() -> Iterator[tuple[Path, _Version]]:
    """The folders of the process's group and of those above; in a container these may be its own
    alone, under a name that is not shown there."""
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, group = line.split(":", 2)
        if number == "0":
            root, version = CONTROL_GROUPS, _VERSION_2
        elif "memory" in controllers.split(","):
            root, version = CONTROL_GROUPS / "memory", _VERSION_1
        else:
            continue
        path = PurePosixPath(group.lstrip("/"))
        for each in (path, *path.parents):
            yield root / each, version


def _reclaimed(folder: Path, version: _Version) -> int:
    names = {version.stat_prefix + name for name in _RECLAIMED}
    stat = (folder / "memory.stat").read_text(encoding="utf-8")
    fields = (line.split() for line in stat.splitlines())
    return sum(int(value) for name, value in fields if name in names)
