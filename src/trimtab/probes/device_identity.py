"""What the device is, asked of the system and its driver, without torch."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import psutil

from trimtab.errors import ConfigError
from trimtab.planning.fact import Fact
from trimtab.probes.host_memory import host_memory

NATIVE_CPU_FLAGS = {
    "bf16": ("amx_bf16", "avx512_bf16", "bf16"),
    "fp16": ("amx_fp16", "avx512_fp16", "fphp"),
}
BF16_COMPUTE_CAPABILITY = 8.0
"""From Ampere on (CUDA C++ Programming Guide, arithmetic instructions by compute capability)."""
MIB = 2**20
DRIVER_TIMEOUT_S = 10.0
QUERY = "uuid,name,memory.total,memory.free,compute_cap"
DEVICE_FOLDER = Path("/dev")
DEVICE_NODES = ("nvidia[0-9]*", "kfd")
"""What the drivers of NVIDIA and AMD put there for a card."""
NUM_THREADS_TOLD = re.compile(r", \d+ threads$")


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """`num_threads` are those that torch takes; where it is not loaded, as far as can be told."""

    kind: Literal["cpu", "cuda"]
    name: str
    num_threads: int
    memory_bytes: int
    memory_available_bytes: int
    has_bf16: bool
    has_fp16: bool


def identify_device(choice: str) -> DeviceIdentity:
    """The device that `auto`, `cpu`, `cuda` or `cuda:N` means here.

    Raises ConfigError where it is not there, a device is never invented, and where a card is there
    that the driver's own tool does not tell of.
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
    return _card(cards[index])


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


def without_num_threads(name: str) -> str:
    """The device's name without what `cpu_name` adds to it."""
    return NUM_THREADS_TOLD.sub("", name)


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
    memory = host_memory()
    flags = cpu_flags()
    num_threads = _num_threads()
    return DeviceIdentity(
        kind="cpu",
        name=cpu_name(num_threads),
        num_threads=num_threads,
        memory_bytes=memory.total_bytes,
        memory_available_bytes=memory.available_bytes,
        has_bf16=not flags.isdisjoint(NATIVE_CPU_FLAGS["bf16"]),
        has_fp16=not flags.isdisjoint(NATIVE_CPU_FLAGS["fp16"]),
    )


def _num_threads() -> int:
    if "torch" in sys.modules:
        import torch

        return torch.get_num_threads()
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    # As torch does where it has MKL: a thread for each core, not for each of its hyperthreads.
    num_cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    return min(num_cores, len(psutil.Process().cpu_affinity())) if psutil.LINUX else num_cores


def _cuda_cards() -> list[list[str]]:
    """The cards that CUDA_VISIBLE_DEVICES leaves, in its order; none for a torch without CUDA."""
    if not _torch_has_cuda():
        return []
    asked = os.environ.get("CUDA_VISIBLE_DEVICES")
    rows = _listed_cards()
    is_hidden = asked is not None and asked.partition(",")[0].strip() in {"", "-1"}
    is_there = any(True for each in DEVICE_NODES for _ in DEVICE_FOLDER.glob(each))
    if not rows and is_there and not is_hidden:
        raise _untold("a card is there, but nvidia-smi lists none")
    if asked is not None:
        return _visible(rows, asked)
    _check_order(rows)
    return rows


def _listed_cards() -> list[list[str]]:
    """The cells of `QUERY` for each card that nvidia-smi lists."""
    program = shutil.which("nvidia-smi")
    if program is None:
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
    return [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line]


def _visible(rows: list[list[str]], asked: str) -> list[list[str]]:
    """CUDA stops at the first entry that names no card."""
    chosen = []
    for entry in asked.split(","):
        word = entry.strip()
        if word.startswith("MIG-"):
            raise _untold("CUDA_VISIBLE_DEVICES names a part of a card")
        if word.isdigit():
            found = rows[int(word) : int(word) + 1]
        else:
            found = [row for row in rows if word and row[0].startswith(word)]
        if not found:
            break
        if word.isdigit():
            _check_order(rows)
        chosen.append(found[0])
    return chosen


def _check_order(rows: list[list[str]]) -> None:
    """nvidia-smi lists cards by bus, CUDA the fastest first unless told otherwise.

    Raises ConfigError where a card's number may then name another card.
    """
    are_alike = len({tuple(row[1:2]) for row in rows}) <= 1
    if not are_alike and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        raise _untold(
            "the cards differ, and CUDA numbers them as nvidia-smi does only where "
            "CUDA_DEVICE_ORDER is PCI_BUS_ID"
        )


def _card(row: list[str]) -> DeviceIdentity:
    """Raises ConfigError for a figure that the driver does not tell, as `[N/A]`."""
    try:
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
    except ValueError:
        raise _untold(f"nvidia-smi answers {', '.join(row)}") from None


def _untold(reason: str) -> ConfigError:
    return ConfigError(
        f"device: what the CUDA device is cannot be told without torch: {reason}.",
        hint="Plan without --quick, which asks torch, or set device: cpu.",
    )


def _torch_has_cuda() -> bool:
    """Whether the installed torch was built for CUDA or ROCm, read from its version file."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    version = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    return re.search(r"^(cuda|hip)\b[^=]*= *['\"]\d", version, re.MULTILINE) is not None
