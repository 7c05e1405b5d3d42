"""Whether this process was started as one of several, by torchrun or by `--num-processes`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from trimtab.errors import ConfigError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class Launch:
    """This process's number among those that its launcher started, on all machines and on this."""

    rank: int = 0
    num_ranks: int = 1
    local_rank: int = 0
    num_local_ranks: int = 1


def current_launch(environment: Mapping[str, str] = os.environ) -> Launch:
    """What the launcher's variables say; a process of its own where they are not all there.

    Raises ConfigError where they are no numbers.
    """
    if any(name not in environment for name in VARIABLES):
        return Launch()
    try:
        return Launch(
            rank=int(environment["RANK"]),
            num_ranks=int(environment["WORLD_SIZE"]),
            local_rank=int(environment["LOCAL_RANK"]),
            num_local_ranks=int(environment.get("LOCAL_WORLD_SIZE", environment["WORLD_SIZE"])),
        )
    except ValueError as error:
        raise ConfigError(f"the launcher's variables {', '.join(VARIABLES)}: {error}.") from error
