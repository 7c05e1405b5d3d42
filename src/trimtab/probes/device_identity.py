"""What the device is, asked of the system and its driver, without torch."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import psutil

from trimtab.errors import ConfigError
from trimtab.planning.fact import Fact

NATIVE_CPU_FLAGS = {
    "bf16": ("amx_bf16", "avx512_bf16", "bf16"),
    "fp16": ("amx_fp16", "avx512_fp16", "fphp"),
}
BF16_COMPUTE_CAPABILITY = 8.0
"""From Ampere on (CUDA C++ Programming Guide, arithmetic instructions by compute capability)."""
MIB = 2**20
DRIVER_TIMEOUT_S = 10.0
QUERY = "uuid,name,memory.total,memory.free,compute_cap"


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """`num_threads` are those that torch takes on this machine by itself."""

    kind: Literal["cpu", "cuda"]
    name: str
    num_threads: int
    memory_bytes: int
    memory_available_bytes: int
    has_bf16: bool
    has_fp16: bool


def identify_device(choice: str) -> DeviceIdentity:
    """The device that `auto`, `cpu`, `cuda` or `cuda:N` means here.

    Raises ConfigError where it is not there; a device is never invented.
    """
    if choice != "auto" and re.fullmatch(r"cpu|cuda(:\d+)?", choice) is None:
        raise ConfigError(
            f"device: {choice!r} is not known.", hint="Write auto, cpu, cuda or cuda:N."
        )
    cards = [] if choice == "cpu" else _cuda_cards()
    if choice == "cpu" or (choice == "auto" and not cards):
        return _cpu()
    index = int(choice.partition(":")[2] or 0)
    if index >= len(cards):
        raise ConfigError(
            f"device: {choice!r} is not there; this machine has {len(cards)} CUDA devices.",
            hint="Take device: auto, which uses what is there.",
        )
    return cards[index]


def available_memory(identity: DeviceIdentity) -> Fact:
    """The one fact of a device that is never recalled."""
    return Fact(
        "device.memory_available_bytes",
        identity.memory_available_bytes,
        "bytes",
        device=identity.name,
        method="asked of the system now",
    )


def identity_facts(identity: DeviceIdentity) -> Iterator[Fact]:
    """Facts of `DeviceQuestion` without the timed ones."""
    name, method = identity.name, "asked of the system, nothing timed"
    yield Fact("device.kind", identity.kind, method=method)
    yield Fact("device.name", name, method=method)
    yield Fact("device.num_threads", identity.num_threads, "threads", method=method)
    yield Fact("device.memory_bytes", identity.memory_bytes, "bytes", device=name, method=method)
    yield available_memory(identity)
    yield Fact("device.native.bf16", identity.has_bf16, device=name, method=method)
    yield Fact("device.native.fp16", identity.has_fp16, device=name, method=method)


def cpu_flags() -> frozenset[str]:
    """The processor's feature flags as Linux lists them; empty where they cannot be read."""
    listed = _cpuinfo("flags", "features")
    if listed is None:
        return frozenset({"bf16", "fphp"} if platform.machine() == "arm64" else ())
    return frozenset(listed.split())


def cpu_name(num_threads: int) -> str:
    """The processor's model with the number of threads in use."""
    model = _cpuinfo("model name") or platform.processor() or platform.machine()
    return f"{model}, {num_threads} threads"


def _cpuinfo(*keys: str) -> str | None:
    file = Path("/proc/cpuinfo")
    if not file.exists():
        return None
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in keys:
            return value.strip()
    return None


def _cpu() -> DeviceIdentity:
    memory = psutil.virtual_memory()
    flags = cpu_flags()
    num_threads = _num_threads()
    return DeviceIdentity(
        kind="cpu",
        name=cpu_name(num_threads),
        num_threads=num_threads,
        memory_bytes=memory.total,
        memory_available_bytes=memory.available,
        has_bf16=not flags.isdisjoint(NATIVE_CPU_FLAGS["bf16"]),
        has_fp16=not flags.isdisjoint(NATIVE_CPU_FLAGS["fp16"]),
    )


def _num_threads() -> int:
    """As OpenMP counts them, which torch follows."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(psutil.Process().cpu_affinity()) if psutil.LINUX else psutil.cpu_count(False) or 1


def _cuda_cards() -> list[DeviceIdentity]:
    """The cards that CUDA_VISIBLE_DEVICES leaves, in its order; none for a torch without CUDA."""
    program = shutil.which("nvidia-smi")
    if program is None or not _torch_has_cuda():
        return []
    try:
        done = subprocess.run(
            [program, f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=DRIVER_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    if done.returncode != 0:
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line]
    return [_card(row) for row in _visible(rows)]


def _visible(rows: list[list[str]]) -> list[list[str]]:
    """CUDA stops at the first entry that names no card."""
    asked = os.environ.get("CUDA_VISIBLE_DEVICES")
    if asked is None:
        return rows
    chosen = []
    for entry in asked.split(","):
        word = entry.strip()
        if word.isdigit():
            found = rows[int(word) : int(word) + 1]
        else:
            found = [row for row in rows if word and row[0].startswith(word)]
        if not found:
            break
        chosen.append(found[0])
    return chosen


def _card(row: list[str]) -> DeviceIdentity:
    _, name, total_mib, free_mib, compute_capability = row
    return DeviceIdentity(
        kind="cuda",
        name=name,
        num_threads=_num_threads(),
        memory_bytes=int(total_mib) * MIB,
        memory_available_bytes=int(free_mib) * MIB,
        has_bf16=float(compute_capability) >= BF16_COMPUTE_CAPABILITY,
        has_fp16=True,
    )


def _torch_has_cuda() -> bool:
    """Whether the installed torch was built for CUDA, read from its version file."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    version = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    return re.search(r"^cuda\b[^=]*= *['\"]\d", version, re.MULTILINE) is not None
