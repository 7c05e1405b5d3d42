"""Whether ranks that train together each hold the whole model, or a part of it."""

from __future__ import annotations

from typing import Final, Literal

from trimtab.errors import ConfigError
from trimtab.hyperparameters.config import Optimizer
from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.hyperparameters.units import format_bytes
from trimtab.planning.decision import Alternative
from trimtab.planning.rules.choice import MemoryRoom
from trimtab.planning.rules.ruling import Ruling, decision, where_set

Division = Literal["replicate", "shard"]

OPTIMIZERS_OF_SHARDS: Final[tuple[Optimizer, ...]] = ("adamw", "adam", "sgd")
"""Those whose step looks at each number of a weight by itself. The others look at whole matrices,
at blocks of numbers, or are not known to take a part of a weight."""


def choose_parallelism(
    resolved: ResolvedConfig, num_ranks: int, replica_bytes: int, room: MemoryRoom
) -> Division:
    """Shards only where the least that a replica needs is more than there is; see below."""
    asked = resolved.config.parallelism
    if asked != "auto":
        return asked
    return "replicate" if num_ranks == 1 or room.holds(replica_bytes) else "shard"


def decide_parallelism(
    resolved: ResolvedConfig,
    value: Division,
    *,
    num_ranks: int,
    optim: Optimizer,
    replica_bytes: int,
    shard_bytes: int,
    room: MemoryRoom,
) -> Ruling:
    """`parallelism`, for which `value` was chosen; both bytes are the least that a rank needs.

    Replicas come first, since they exchange gradients once in an update and shards their weights
    in every layer (PyTorch FSDP, 2023, arXiv 2304.11277). Raises ConfigError for shards under an
    optimizer that cannot be right on parts of weights.
    """
    limit = f"the limit of each rank is {format_bytes(room.limit_bytes)}"
    replica = f"a replica needs {format_bytes(replica_bytes)} at the least"
    part = f"a shard needs {format_bytes(shard_bytes)} at the least"
    if num_ranks == 1:
        return Ruling(
            (decision(resolved, "parallelism", value, "rule", "one rank has the whole model"),)
        )
    if value == "shard" and optim not in OPTIMIZERS_OF_SHARDS:
        raise ConfigError(
            f"optim: {optim} cannot work on shards of weights ({replica}; {limit}).",
            where=where_set(resolved, "optim"),
            hint=f"Take optim: {', '.join(OPTIMIZERS_OF_SHARDS)}; or parallelism: replicate "
            "with a smaller model or method: lora.",
        )
    other: Division = "shard" if value == "replicate" else "replicate"
    return Ruling(
        (
            decision(
                resolved,
                "parallelism",
                value,
                "rule",
                f"{replica if value == 'replicate' else f'{replica} and {part}'}; {limit}",
                facts=("model.num_parameters", "device.memory_available_bytes"),
                alternatives=(Alternative(other, replica if value == "shard" else part),),
                limits="by arithmetic; what exchanges take was not timed",
            ),
        ),
        not_measured=("seconds that ranks take to exchange gradients or weights",),
    )
