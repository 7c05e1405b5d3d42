"""Training speeds that others published, as rows that a prediction can be made for.

Only what one row of a table says is here: device, model, tokens a row, devices, rows of a
micro-batch, micro-batches of an update, recomputation, and tokens a second and device. Left out
are rows in fp8 and those of tensor, pipeline or context parallelism, which trimtab does not plan.
"""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.hyperparameters.config import Method
from trimtab.planning.rules.memory import Checkpointing


@dataclass(frozen=True)
class Source:
    name: str
    where: str
    note: str


@dataclass(frozen=True)
class Row:
    """memory_bytes: of the device with the most, where the source says it."""

    source: Source
    device: str
    model: str
    length: int
    num_devices: int
    num_rows: int
    accumulation: int
    checkpointing: Checkpointing
    tokens_per_s: float
    method: Method = "full"
    memory_bytes: float | None = None
    memory_bytes_per_s: float | None = None
    devices_per_node: int | None = None


GIB = 2**30

LLM_FOUNDRY = Source(
    "llm-foundry",
    "github.com/mosaicml/llm-foundry, scripts/train/benchmarking/README.md (July 2025)",
    "MPT models under FSDP in bf16: every row of a billion weights and more, of 2,048 and of 8,192 "
    "tokens. Not compiled; the A100 nodes have 1,600 Gb/s each.",
)
TORCHTITAN_H100 = Source(
    "torchtitan, H100",
    "github.com/pytorch/torchtitan, benchmarks/llama3_h100_202412_torchtitan.md (December 2024)",
    "Llama 3.1 under FSDP2. The cards have 96 GB at 2.4 TB/s and 500 W in place of 700 W. "
    "Selective recomputation by operation is taken as every second layer.",
)
TORCHTITAN_A100 = Source(
    "torchtitan, A100",
    "github.com/pytorch/torchtitan, docs/performance.md (2024)",
    "Llama 2 and 3 under FSDP2 on 64 cards. Selective recomputation is every second layer, or by "
    "operation, which is taken as such.",
)
KEMPNER_FORGE = Source(
    "KempnerForge",
    "github.com/KempnerInstitute/KempnerForge, benchmarks/mfu_scaling/mfu_scaling.md (April 2026)",
    "Models laid out as Llama 3 under FSDP2, four H200 a node.",
)
TORCHTUNE = Source(
    "torchtune",
    "github.com/pytorch/torchtune, README.md (September 2024)",
    "Rows packed to 2,048 tokens; over 8 cards the published figure is of all of them.",
)
SOURCES = (LLM_FOUNDRY, TORCHTITAN_H100, TORCHTITAN_A100, KEMPNER_FORGE, TORCHTUNE)

# device, model, tokens a row, devices, micro-batch, accumulation, recomputation, tokens/s a device
LLM_FOUNDRY_ROWS = """
h100 mpt-70b 2048 512 8 1 full 1007
h100 mpt-70b 2048 256 8 1 full 1035
h100 mpt-70b 2048 128 8 1 full 1058
h100 mpt-30b 2048 512 8 1 full 2115
h100 mpt-30b 2048 256 8 1 full 2148
h100 mpt-30b 2048 128 8 1 full 2199
h100 mpt-13b 2048 512 16 1 full 4952
h100 mpt-13b 2048 256 16 1 full 4989
h100 mpt-13b 2048 128 16 1 full 5080
h100 mpt-7b 2048 512 6 1 off 9670
h100 mpt-7b 2048 256 6 1 off 10119
h100 mpt-7b 2048 128 6 1 off 10475
h100 mpt-3b 2048 512 8 1 off 21664
h100 mpt-3b 2048 256 8 1 off 22772
h100 mpt-3b 2048 128 8 1 off 23422
h100 mpt-1b 2048 512 12 1 off 39837
h100 mpt-1b 2048 256 12 1 off 42555
h100 mpt-1b 2048 128 12 1 off 44123
h100 mpt-70b 2048 64 8 4 full 1039
h100 mpt-70b 2048 32 2 16 full 882
h100 mpt-30b 8192 8 1 21 full 1384
h100 mpt-30b 2048 32 14 3 full 2308
h100 mpt-30b 2048 16 10 3 full 2263
h100 mpt-30b 2048 8 3 21 full 2002
h100 mpt-13b 2048 64 2 1 off 4800
h100 mpt-13b 2048 32 2 1 off 4811
h100 mpt-13b 2048 16 2 1 off 4767
h100 mpt-13b 2048 8 2 1 off 4792
h100 mpt-7b 8192 8 8 2 full 6935
h100 mpt-7b 2048 8 6 1 off 10643
h100 mpt-3b 8192 8 3 6 off 16578
h100 mpt-3b 2048 64 6 3 off 22525
h100 mpt-3b 2048 32 6 3 off 23021
h100 mpt-3b 2048 16 10 3 off 24142
h100 mpt-1b 8192 8 3 4 off 29157
h100 mpt-1b 2048 64 20 1 off 44402
h100 mpt-1b 2048 32 20 1 off 45130
h100 mpt-1b 2048 16 20 1 off 46037
h100 mpt-1b 2048 8 14 1 off 45455
a100-80 mpt-70b 2048 64 8 4 full 410
a100-80 mpt-70b 2048 32 2 16 full 373
a100-80 mpt-30b 8192 8 1 21 full 574
a100-80 mpt-30b 2048 8 3 21 full 916
a100-80 mpt-13b 8192 8 5 3 full 1795
a100-80 mpt-13b 2048 8 2 3 off 2262
a100-80 mpt-7b 8192 8 8 2 full 3206
a100-80 mpt-7b 2048 8 6 2 off 4641
a100-80 mpt-3b 8192 8 3 6 off 7695
a100-80 mpt-3b 2048 8 10 2 off 10811
a100-80 mpt-1b 8192 8 3 4 off 13814
a100-80 mpt-1b 2048 8 14 4 off 20513
a100-40 mpt-70b 2048 128 4 1 full 376
a100-40 mpt-70b 2048 64 2 1 full 276
a100-40 mpt-30b 2048 128 6 1 full 865
a100-40 mpt-30b 2048 32 4 1 full 857
a100-40 mpt-13b 8192 8 1 16 full 1407
a100-40 mpt-13b 2048 128 16 1 full 1972
a100-40 mpt-13b 2048 64 16 1 full 1976
a100-40 mpt-13b 2048 32 14 1 full 1998
a100-40 mpt-13b 2048 16 10 1 full 1993
a100-40 mpt-13b 2048 8 4 16 full 1668
a100-40 mpt-7b 8192 8 3 4 full 2887
a100-40 mpt-7b 2048 128 18 1 full 3623
a100-40 mpt-7b 2048 64 18 1 full 3665
a100-40 mpt-7b 2048 32 18 1 full 3725
a100-40 mpt-7b 2048 16 16 1 full 3645
a100-40 mpt-7b 2048 8 12 4 full 3679
a100-40 mpt-3b 8192 8 1 8 off 7149
a100-40 mpt-3b 2048 128 6 1 off 9538
a100-40 mpt-3b 2048 64 6 1 off 9736
a100-40 mpt-3b 2048 32 6 1 off 9914
a100-40 mpt-3b 2048 16 5 1 off 9750
a100-40 mpt-3b 2048 8 5 8 off 10065
a100-40 mpt-1b 8192 8 2 8 off 13474
a100-40 mpt-1b 2048 128 10 1 off 18647
a100-40 mpt-1b 2048 64 10 1 off 19001
a100-40 mpt-1b 2048 32 10 1 off 15555
a100-40 mpt-1b 2048 16 8 1 off 19085
a100-40 mpt-1b 2048 8 8 8 off 19271
"""
TORCHTITAN_H100_ROWS = """
h100 llama-8b 8192 8 2 1 2 5762 82.4
h100 llama-8b 8192 8 2 1 2 6667 77.0
h100 llama-8b 8192 128 2 1 2 5605 67.0
h100 llama-8b 8192 128 2 1 2 6514 62.0
"""
TORCHTITAN_A100_ROWS = """
a100-80 llama-8b 8192 64 1 1 2 2904
a100-80 llama-8b 8192 64 1 1 2 2973
a100-80 llama-70b 8192 64 1 1 full 331
a100-80 llama-2-13b 4096 64 2 1 off 2162
a100-80 llama-2-13b 4096 64 2 1 2 1914
a100-80 llama-2-13b 4096 64 2 1 2 1904
a100-80 llama-2-70b 4096 64 1 1 2 355
a100-80 llama-2-70b 4096 64 2 1 full 353
"""
KEMPNER_FORGE_ROWS = """
h200 llama-8b 4096 1 4 2 full 10471 75.16
h200 llama-8b 4096 2 4 2 full 9364 58.11
h200 llama-8b 4096 4 4 2 full 9746 56.90
h200 llama-15b 4096 8 4 4 full 4426 82.42
"""
TORCHTUNE_ROWS = """
rtx-4090 llama-8b 2048 1 2 1 full 1650
rtx-4090 llama-8b 2048 1 2 1 full 3083
a100-80 llama-70b 2048 8 2 1 full 437
"""


def published_rows() -> list[Row]:
    """All rows, source by source, in the order of the published tables."""
    rows = _rows(LLM_FOUNDRY, LLM_FOUNDRY_ROWS)
    rows += _rows(TORCHTITAN_H100, TORCHTITAN_H100_ROWS, memory_bytes_per_s=2.4e12)
    rows += _rows(TORCHTITAN_A100, TORCHTITAN_A100_ROWS)
    rows += _rows(KEMPNER_FORGE, KEMPNER_FORGE_ROWS, devices_per_node=4)
    full, *lora = TORCHTUNE_ROWS.strip().splitlines()
    rows += _rows(TORCHTUNE, full)
    return rows + _rows(TORCHTUNE, "\n".join(lora), method="lora")


def _rows(source: Source, table: str, **shared: object) -> list[Row]:
    rows = []
    for line in table.strip().splitlines():
        device, model, length, num_devices, size, accumulation, recomputed, speed, *memory = (
            line.split()
        )
        rows.append(
            Row(
                source=source,
                device=device,
                model=model,
                length=int(length),
                num_devices=int(num_devices),
                num_rows=int(size),
                accumulation=int(accumulation),
                checkpointing=int(recomputed) if recomputed.isdigit() else recomputed,
                tokens_per_s=float(speed),
                memory_bytes=float(memory[0]) * GIB if memory else None,
                **shared,
            )
        )
    return rows
