from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from trimtab.probes import host_memory as module
from trimtab.probes.host_memory import HostMemory, host_memory

GIB = 2**30


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Control groups as a test writes them; the process is in none."""
    monkeypatch.setattr(module, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(module, "CONTROL_GROUPS", tmp_path / "groups")
    return tmp_path / "groups"


def machine(monkeypatch: pytest.MonkeyPatch, *, total: int, available: int) -> None:
    kind = type(psutil.virtual_memory())
    memory = psutil.virtual_memory()._asdict() | {"total": total, "available": available}
    monkeypatch.setattr(psutil, "virtual_memory", lambda: kind(**memory))


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / f"memory.{name}").write_text(f"{value}\n")


def test_without_control_groups_it_is_the_machines(
    groups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, total=64 * GIB, available=40 * GIB)
    assert host_memory() == HostMemory(64 * GIB, 40 * GIB)


def test_a_job_has_the_least_that_a_group_above_it_leaves(
    groups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, total=256 * GIB, available=230 * GIB)
    (groups.parent / "own").write_text("0::/jobs/of ours/step\n")
    write(groups)
    write(groups / "jobs", max=32 * GIB, current=30 * GIB, stat="anon 1\nactive_file 0")
    stat = f"anon 5\ninactive_file {GIB}\nactive_file {GIB}"
    write(groups / "jobs" / "of ours", max=8 * GIB, current=5 * GIB, stat=stat)
    write(groups / "jobs" / "of ours" / "step", max="max", current=GIB, stat="anon 1")
    assert host_memory() == HostMemory(8 * GIB, 2 * GIB)


def test_a_container_whose_group_has_another_name_inside(
    groups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, total=256 * GIB, available=230 * GIB)
    own = "12:cpu,cpuacct:/docker/1f\n7:memory:/docker/1f\n0::/docker/1f\n"
    (groups.parent / "own").write_text(own)
    stat = f"inactive_file 7\ntotal_inactive_file {GIB}"
    write(groups / "memory", limit_in_bytes=8 * GIB, usage_in_bytes=3 * GIB, stat=stat)
    assert host_memory() == HostMemory(8 * GIB, 6 * GIB)


def test_a_group_without_a_limit_takes_nothing_away(
    groups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, total=64 * GIB, available=40 * GIB)
    (groups.parent / "own").write_text("7:memory:/\n")
    write(groups / "memory", limit_in_bytes=2**63 - 4096, usage_in_bytes=GIB, stat="anon 1")
    assert host_memory() == HostMemory(64 * GIB, 40 * GIB)


def test_more_than_the_limit_in_use_leaves_nothing(
    groups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, total=64 * GIB, available=40 * GIB)
    (groups.parent / "own").write_text("0::/\n")
    write(groups, max=GIB, current=2 * GIB, stat="anon 1")
    assert host_memory() == HostMemory(GIB, 0)
