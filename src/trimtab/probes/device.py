"""What the device is, and how fast it multiplies matrices in each number format."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import torch

from trimtab.engine.precision import COMPUTE_DTYPES
from trimtab.errors import ConfigError
from trimtab.planning.fact import Fact
from trimtab.probes.device_identity import NATIVE_CPU_FLAGS, cpu_flags, cpu_name
from trimtab.probes.host_memory import host_memory

MATMUL_SIZE = 768
SECONDS_PER_FORMAT = 0.15
SECONDS_OF_COPIES = 0.1
COPIED_BYTES = {"cpu": 128 << 20, "cuda": 1 << 30}


def choose_device(choice: str) -> torch.device:
    """The torch device for `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises ConfigError where it is not there; a device is never invented.
    """
    if choice == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if re.fullmatch(r"cpu|cuda(:\d+)?", choice) is None:
        raise ConfigError(
            f"device: {choice!r} is not known.", hint="Write auto, cpu, cuda or cuda:N."
        )
    device = torch.device(choice)
    if device.type == "cuda":
        num_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= num_devices:
            raise ConfigError(
                f"device: {choice!r} is not there; this machine has {num_devices} CUDA devices.",
                hint="Take device: auto, which uses what is there.",
            )
    return device


def probe_device(device: torch.device) -> Iterator[Fact]:
    """Facts of `DeviceQuestion`: kind, name, memory, and a timed matmul in each format."""
    started = time.perf_counter()
    if device.type == "cuda":
        free_bytes, total_bytes = torch.cuda.mem_get_info(device)
    else:
        memory = host_memory()
        free_bytes, total_bytes = memory.available_bytes, memory.total_bytes
    name = device_name(device)
    method = "asked of the system"
    cost_s = time.perf_counter() - started
    yield Fact("device.kind", device.type, method=method, cost_s=cost_s)
    yield Fact("device.name", name, method=method)
    yield Fact("device.num_threads", torch.get_num_threads(), "threads", method=method)
    yield Fact("device.memory_bytes", total_bytes, "bytes", device=name, method=method)
    yield Fact("device.memory_available_bytes", free_bytes, "bytes", device=name, method=method)
    for precision, dtype in COMPUTE_DTYPES.items():
        if precision != "fp32":
            yield Fact(
                f"device.native.{precision}",
                is_native(precision, device),
                device=name,
                method="asked of the device",
            )
        rate = _matmul_rate(dtype, device, name, precision)
        if rate is not None:
            yield rate
    yield _bandwidth(device, name)


def device_name(device: torch.device) -> str:
    """The name that facts measured on the device bear."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_properties(device).name)
    return cpu_name(torch.get_num_threads())


def is_native(precision: str, device: torch.device) -> bool:
    """Whether the device computes the format itself; emulation does not count."""
    if device.type == "cuda":
        return precision != "bf16" or torch.cuda.is_bf16_supported(including_emulation=False)
    flags = cpu_flags()
    return any(flag in flags for flag in NATIVE_CPU_FLAGS[precision])


def _matmul_rate(
    dtype: torch.dtype, device: torch.device, name: str, precision: str
) -> Fact | None:
    """The best of repeated square matmuls; None where the device refuses the format."""
    size = MATMUL_SIZE if device.type == "cpu" else 4096
    started = time.perf_counter()
    try:
        left = torch.randn(size, size, device=device, generator=_generator(device)).to(dtype)
        right = torch.randn(size, size, device=device, generator=_generator(device)).to(dtype)
        torch.matmul(left, right)
        seconds: list[float] = []
        while time.perf_counter() - started < SECONDS_PER_FORMAT or len(seconds) < 2:
            _synchronize(device)
            begun = time.perf_counter()
            torch.matmul(left, right)
            _synchronize(device)
            seconds.append(time.perf_counter() - begun)
    except RuntimeError:
        return None
    flops = 2.0 * size**3
    rates = sorted(flops / second for second in seconds)
    return Fact(
        f"device.matmul_flops_per_s.{precision}",
        rates[-1],
        "FLOP/s",
        spread=rates[-1] - rates[len(rates) // 2],
        device=name,
        method=f"best of {len(rates)} products of {size}×{size} matrices; spread: best − median",
        cost_s=time.perf_counter() - started,
    )


def _bandwidth(device: torch.device, name: str) -> Fact:
    """The best of repeated copies of a buffer that no cache holds, bytes read and written."""
    started = time.perf_counter()
    size = COPIED_BYTES[device.type]
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    # The first copy brings the pages in.
    target.copy_(source)
    seconds: list[float] = []
    begun_all = time.perf_counter()
    while time.perf_counter() - begun_all < SECONDS_OF_COPIES or len(seconds) < 2:
        _synchronize(device)
        begun = time.perf_counter()
        target.copy_(source)
        _synchronize(device)
        seconds.append(time.perf_counter() - begun)
    rates = sorted(2.0 * size / second for second in seconds)
    return Fact(
        "device.memory_bandwidth_bytes_per_s",
        rates[-1],
        "bytes/s",
        spread=rates[-1] - rates[len(rates) // 2],
        device=name,
        method=f"best of {len(rates)} copies of {size >> 20} MiB, read and written; "
        "spread: best − median",
        cost_s=time.perf_counter() - started,
    )


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _generator(device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(0)
