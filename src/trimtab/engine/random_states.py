"""Where the random generators stand: what dropout draws next."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trimtab.engine.distributed import ALONE, Ranks


def random_states(ranks: Ranks = ALONE) -> dict[str, Tensor]:
    """The state of every device's generator, by `cpu` or `cuda:N`.

    Of a rank among several, of the CPU's and its own device's (`cuda`).
    """
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        if ranks.num_ranks > 1:
            return states | {"cuda": torch.cuda.get_rng_state()}
        for index, state in enumerate(torch.cuda.get_rng_state_all()):
            states[f"cuda:{index}"] = state
    return states


def set_random_states(states: Mapping[str, Tensor]) -> None:
    """Put back the states of the devices that are there; there may be fewer than when saved."""
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available():
        num_devices = torch.cuda.device_count()
        for name, state in states.items():
            if name != "cpu" and (torch.device(name).index or 0) < num_devices:
                torch.cuda.set_rng_state(state, name)


def seed_of_rank(seed: int, rank: int, num_updates: int = 0) -> int:
    """Another seed for each rank, so that dropout differs; the first rank's is the run's own.

    After `num_updates`, that of a rank which the run has not had before.
    """
    return seed if rank == 0 else seed + 1_000_003 * rank + 7_919 * num_updates


def states_of_all(ranks: Ranks) -> dict[str, Tensor]:
    """Every rank's states; those of ranks behind the first by `RANK/` and the device."""
    named: dict[str, Tensor] = {}
    for name, state in random_states(ranks).items():
        for rank, part in enumerate(ranks.gathered(state)):
            named[f"{rank}/{name}" if rank else name] = part
    return named


def set_state_of_rank(
    states: Mapping[str, Tensor], ranks: Ranks, seed: int, num_updates: int
) -> None:
    """Put back what `states_of_all` saved of this rank; a rank that is new is seeded."""
    prefix = f"{ranks.rank}/" if ranks.rank else ""
    own = {
        name.removeprefix(prefix): state
        for name, state in states.items()
        if name.startswith(prefix) and ("/" in name) == bool(ranks.rank)
    }
    if own:
        set_random_states(own)
    else:
        torch.manual_seed(seed_of_rank(seed, ranks.rank, num_updates))
