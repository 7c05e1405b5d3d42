"""Devices that are not at hand, by what their vendors say of them.

Peaks are dense, of matrix products that accumulate in fp32; fp32 is without TF32. Bandwidths are in
bytes a second, and those of links of one direction. Memory is as their drivers count it: a
datasheet's GB are GiB, and ECC takes a sixteenth of a data centre card's GDDR6. A link between
nodes is one device's share of its node's network: that of the vendor's own system where it sells
one (DGX), else an assumption that the source says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from trimtab.errors import ConfigError
from trimtab.hyperparameters.config import Precision
from trimtab.planning.fact import Fact, Facts

T = 1e12
GIB = 2**30
NVLINK_2, NVLINK_3, NVLINK_4, NVLINK_5 = 150e9, 300e9, 450e9, 900e9
PCIE_3, PCIE_4, PCIE_5 = 16e9, 32e9, 64e9
ASSUMED_NETWORK = "network: 100 Gb/s a device are assumed"
MATMUL_RATES = (
    "Machine Learning Engineering Open Book, compute/accelerator, maximum achievable matmul FLOPS "
    "(github.com/stas00/ml-engineering, 2026)"
)
ASSUMED_MATMUL_SHARE = 0.8
"""Of the peak, what the best matrix products reach, where none is recorded: NVIDIA's data centre
cards reach 0.78 to 0.87 in the recorded ones."""


@dataclass(frozen=True, slots=True)
class DeviceSheet:
    """`flops_per_s` are peaks by number format; a format that is not in it is emulated.

    matmul_flops_per_s: what bf16 products were seen to reach, None where that is not recorded.
    """

    title: str
    memory_bytes: int
    flops_per_s: Mapping[Precision, float]
    memory_bytes_per_s: float
    intra_node_bytes_per_s: float
    inter_node_bytes_per_s: float
    source: str
    devices_per_node: int = 8
    matmul_flops_per_s: float | None = field(default=None)

    @property
    def matmul_share(self) -> float:
        """Of a format's peak, what its matrix products reach."""
        if self.matmul_flops_per_s is None:
            return ASSUMED_MATMUL_SHARE
        return self.matmul_flops_per_s / self.flops_per_s["bf16"]


def _peaks(half: float, fp32: float) -> Mapping[Precision, float]:
    """`half`: of bf16 and fp16, in TFLOP/s as `fp32` is."""
    return {"bf16": half * T, "fp16": half * T, "fp32": fp32 * T}


DEVICE_SHEETS: Mapping[str, DeviceSheet] = {
    "b200": DeviceSheet(
        title="NVIDIA B200 SXM, 180 GB",
        memory_bytes=180 * GIB,
        flops_per_s=_peaks(2250, 75),
        memory_bytes_per_s=8.0 * T,
        intra_node_bytes_per_s=NVLINK_5,
        inter_node_bytes_per_s=50e9,
        source="NVIDIA DGX B200 datasheet (8 devices: 1,440 GB, 64 TB/s, 400 Gb/s each), NVIDIA "
        "HGX platform page (dense bf16 and fp32)",
        matmul_flops_per_s=1745 * T,
    ),
    "h200": DeviceSheet(
        title="NVIDIA H200 SXM, 141 GB",
        memory_bytes=141 * GIB,
        flops_per_s=_peaks(989, 67),
        memory_bytes_per_s=4.8 * T,
        intra_node_bytes_per_s=NVLINK_4,
        inter_node_bytes_per_s=50e9,
        source="NVIDIA H200 Tensor Core GPU datasheet; network of the DGX H200",
        matmul_flops_per_s=794.5 * T,
    ),
    "h100": DeviceSheet(
        title="NVIDIA H100 SXM, 80 GB",
        memory_bytes=80 * GIB,
        flops_per_s=_peaks(989, 67),
        memory_bytes_per_s=3.35 * T,
        intra_node_bytes_per_s=NVLINK_4,
        inter_node_bytes_per_s=50e9,
        source="NVIDIA H100 Tensor Core GPU datasheet; network of the DGX H100",
        matmul_flops_per_s=794.5 * T,
    ),
    "a100-80": DeviceSheet(
        title="NVIDIA A100 SXM, 80 GB",
        memory_bytes=80 * GIB,
        flops_per_s=_peaks(312, 19.5),
        memory_bytes_per_s=2.039 * T,
        intra_node_bytes_per_s=NVLINK_3,
        inter_node_bytes_per_s=25e9,
        source="NVIDIA A100 Tensor Core GPU datasheet; network of the DGX A100 (200 Gb/s each)",
        matmul_flops_per_s=271.2 * T,
    ),
    "a100-40": DeviceSheet(
        title="NVIDIA A100 SXM, 40 GB",
        memory_bytes=40 * GIB,
        flops_per_s=_peaks(312, 19.5),
        memory_bytes_per_s=1.555 * T,
        intra_node_bytes_per_s=NVLINK_3,
        inter_node_bytes_per_s=25e9,
        source="NVIDIA A100 Tensor Core GPU datasheet; network of the DGX A100 (200 Gb/s each)",
        matmul_flops_per_s=271.2 * T,
    ),
    "mi300x": DeviceSheet(
        title="AMD Instinct MI300X, 192 GB",
        memory_bytes=192 * GIB,
        flops_per_s=_peaks(1307.4, 163.4),
        memory_bytes_per_s=5.3 * T,
        intra_node_bytes_per_s=448e9,
        inter_node_bytes_per_s=50e9,
        source="AMD Instinct MI300X accelerator data sheet (7 links of 64 GB/s); network: 400 Gb/s "
        "a device are assumed",
        matmul_flops_per_s=668.4 * T,
    ),
    "l40s": DeviceSheet(
        title="NVIDIA L40S, 48 GB",
        memory_bytes=45 * GIB,
        flops_per_s=_peaks(362, 91.6),
        memory_bytes_per_s=0.864 * T,
        intra_node_bytes_per_s=PCIE_4,
        inter_node_bytes_per_s=12.5e9,
        source=f"NVIDIA L40S datasheet; {ASSUMED_NETWORK}",
    ),
    "a10": DeviceSheet(
        title="NVIDIA A10, 24 GB",
        memory_bytes=round(22.5 * GIB),
        flops_per_s=_peaks(125, 31.2),
        memory_bytes_per_s=0.6 * T,
        intra_node_bytes_per_s=PCIE_4,
        inter_node_bytes_per_s=12.5e9,
        source=f"NVIDIA A10 datasheet; {ASSUMED_NETWORK}, and 4 devices a node",
        devices_per_node=4,
    ),
    "l4": DeviceSheet(
        title="NVIDIA L4, 24 GB",
        memory_bytes=round(22.5 * GIB),
        flops_per_s=_peaks(121, 30.3),
        memory_bytes_per_s=0.3 * T,
        intra_node_bytes_per_s=PCIE_4,
        inter_node_bytes_per_s=12.5e9,
        source=f"NVIDIA L4 datasheet; {ASSUMED_NETWORK}",
    ),
    "t4": DeviceSheet(
        title="NVIDIA T4, 16 GB",
        memory_bytes=15 * GIB,
        flops_per_s={"fp16": 65 * T, "fp32": 8.1 * T},
        memory_bytes_per_s=0.32 * T,
        intra_node_bytes_per_s=PCIE_3,
        inter_node_bytes_per_s=12.5e9,
        source=f"NVIDIA T4 datasheet; {ASSUMED_NETWORK}, and 4 devices a node",
        devices_per_node=4,
    ),
    "v100": DeviceSheet(
        title="NVIDIA V100 SXM2, 32 GB",
        memory_bytes=32 * GIB,
        flops_per_s={"fp16": 125 * T, "fp32": 15.7 * T},
        memory_bytes_per_s=0.9 * T,
        intra_node_bytes_per_s=NVLINK_2,
        inter_node_bytes_per_s=6.25e9,
        source="NVIDIA V100 Tensor Core GPU datasheet; network of the DGX-1 (4 × 100 Gb/s)",
    ),
    "rtx-5090": DeviceSheet(
        title="NVIDIA GeForce RTX 5090, 32 GB",
        memory_bytes=32 * GIB,
        flops_per_s=_peaks(209.5, 104.8),
        memory_bytes_per_s=1.792 * T,
        intra_node_bytes_per_s=PCIE_5,
        inter_node_bytes_per_s=12.5e9,
        source=f"NVIDIA RTX Blackwell GPU architecture whitepaper; {ASSUMED_NETWORK}, and 4 "
        "devices a node",
        devices_per_node=4,
    ),
    "rtx-4090": DeviceSheet(
        title="NVIDIA GeForce RTX 4090, 24 GB",
        memory_bytes=24 * GIB,
        flops_per_s=_peaks(165.2, 82.6),
        memory_bytes_per_s=1.008 * T,
        intra_node_bytes_per_s=PCIE_4,
        inter_node_bytes_per_s=12.5e9,
        source=f"NVIDIA Ada GPU architecture whitepaper; {ASSUMED_NETWORK}, and 4 devices a node",
        devices_per_node=4,
    ),
    "rtx-3090": DeviceSheet(
        title="NVIDIA GeForce RTX 3090, 24 GB",
        memory_bytes=24 * GIB,
        flops_per_s=_peaks(71, 35.6),
        memory_bytes_per_s=0.936 * T,
        intra_node_bytes_per_s=PCIE_4,
        inter_node_bytes_per_s=12.5e9,
        source=f"NVIDIA Ampere GA102 GPU architecture whitepaper; {ASSUMED_NETWORK}, and 4 "
        "devices a node",
        devices_per_node=4,
    ),
}

SPELLINGS = {"a100": "a100-80", "3090": "rtx-3090", "4090": "rtx-4090", "5090": "rtx-5090"}
"""Other names that people write."""


def device_sheet(name: str) -> DeviceSheet:
    """The sheet of a device by its name, in either case and with `_` or spaces for `-`.

    Raises ConfigError for one that is not in the table, with those that are.
    """
    word = name.strip().lower().replace("_", "-").replace(" ", "-")
    word = SPELLINGS.get(word, word)
    if word in DEVICE_SHEETS:
        return DEVICE_SHEETS[word]
    near = get_close_matches(word, [*DEVICE_SHEETS, *SPELLINGS], n=1, cutoff=0.6)
    nearest = f" Did you mean {near[0]}?" if near else ""
    raise ConfigError(
        f"device {name!r} is neither here (auto, cpu, cuda, cuda:N) nor among those whose "
        "datasheets are known.",
        hint=f"Known are {', '.join(DEVICE_SHEETS)}.{nearest}",
    )


def datasheet_facts(sheet: DeviceSheet) -> Iterator[Fact]:
    """Facts of `DeviceQuestion`, none of them timed, and those of the family `datasheet`."""
    method = f"datasheet: {sheet.source}"
    name = sheet.title
    yield Fact("device.kind", "cuda", method=method)
    yield Fact("device.name", name, method=method)
    yield Fact("device.memory_bytes", sheet.memory_bytes, "bytes", device=name, method=method)
    yield Fact(
        "device.memory_available_bytes", sheet.memory_bytes, "bytes", device=name, method=method
    )
    yield Fact("device.native.bf16", "bf16" in sheet.flops_per_s, device=name, method=method)
    yield Fact("device.native.fp16", "fp16" in sheet.flops_per_s, device=name, method=method)
    rates = {
        **{f"flops_per_s.{each}": (rate, "FLOP/s") for each, rate in sheet.flops_per_s.items()},
        "memory_bytes_per_s": (sheet.memory_bytes_per_s, "bytes/s"),
        "intra_node_bytes_per_s": (sheet.intra_node_bytes_per_s, "bytes/s"),
        "inter_node_bytes_per_s": (sheet.inter_node_bytes_per_s, "bytes/s"),
        "devices_per_node": (sheet.devices_per_node, "devices"),
    }
    for id, (value, unit) in rates.items():
        yield Fact(f"datasheet.{id}", value, unit, device=name, method=method)
    is_recorded = sheet.matmul_flops_per_s is not None
    yield Fact(
        "datasheet.matmul_share",
        sheet.matmul_share,
        device=name,
        method=f"recorded: {MATMUL_RATES}" if is_recorded else "assumed",
    )


def is_elsewhere(facts: Facts) -> bool:
    """Whether the device is known by its datasheet alone."""
    return "datasheet.matmul_share" in facts
