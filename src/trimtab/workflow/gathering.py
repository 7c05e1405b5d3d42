"""How ranks find together: the first one plans, and calls the others once it knows what to train.

They wait at the launcher's store, whose messages are JSON. Training itself exchanges tensors.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, cast

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from trimtab.engine.distributed import Ranks, is_lost_peer
from trimtab.errors import ConfigError, Interrupted
from trimtab.planning.settings import Settings
from trimtab.workflow.launch import Launch

ORDER = "order"
CALLED_OFF = "null"
LONGEST_PLAN = timedelta(days=1)
"""How long ranks wait for the plan. One that waits in vain is ended by its launcher."""
LONGEST_SILENCE = timedelta(hours=1)
"""How long a rank may take over what it does alone, as the first does over writing a result."""

_CALLS: Final = itertools.count()


@dataclass(frozen=True, slots=True)
class Order:
    """What the first rank calls the others to: a plan, its run, and the checkpoint to go on from.

    `checkpoint` is the name of its folder, None for the run's start. `num_threads`: of each rank.
    `changed`: what is another than when the run began, and may change its result.
    """

    run: str
    plan: Mapping[str, Any]
    checkpoint: str | None
    num_threads: int
    changed: Sequence[str] = ()


class Caller:
    """The first rank's end, which may be the only one."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._store = None if launch.num_ranks == 1 else _store()
        self._has_called = False

    @property
    def num_ranks(self) -> int:
        return self._launch.num_ranks

    def call(self, order: Order, settings: Settings) -> Ranks:
        """Have the other ranks begin; returns once all are there.

        Raises ConfigError where the machine has fewer devices than ranks.
        """
        if self._store is None:
            return Ranks()
        _take_own_device(self._launch, settings)
        self._has_called = True
        self._store.set(ORDER, json.dumps(_as_json(order)))
        return _connected(self._launch, self._store, settings)

    def call_off(self) -> None:
        if self._store is not None and not self._has_called:
            self._store.set(ORDER, CALLED_OFF)


@contextmanager
def calling(launch: Launch) -> Iterator[Caller]:
    """Around all that the first rank does. Others that still wait are told where it fails."""
    caller = Caller(launch)
    try:
        yield caller
    except BaseException as error:
        caller.call_off()
        if is_lost_peer(error):
            raise Interrupted(
                "another rank is gone; training had not begun.", hint="Start it again."
            ) from None
        raise
    finally:
        _leave()


@contextmanager
def called(launch: Launch) -> Iterator[tuple[Order, Ranks]]:
    """Around all that another rank does; it tells the first one why it failed.

    Raises Interrupted where the first rank ended before it had a plan.
    """
    store = _store()
    store.wait([ORDER], LONGEST_PLAN)
    message = store.get(ORDER)
    if message == CALLED_OFF.encode():
        raise Interrupted("the first rank ended before it had a plan.")
    order = Order(**json.loads(message))
    settings = _settings(order)
    ranks = Ranks(launch.rank, launch.num_ranks, settings.parallelism == "shard", store)
    try:
        _take_own_device(launch, settings)
        torch.set_num_threads(order.num_threads)
        yield order, _connected(launch, store, settings)
    except BaseException as error:
        ranks.tell_why(error)
        raise
    finally:
        _leave()


def _settings(order: Order) -> Settings:
    from trimtab.planning.plan import Plan

    return Plan.from_json(order.plan).settings()


def _as_json(order: Order) -> dict[str, Any]:
    return {
        "run": order.run,
        "plan": order.plan,
        "checkpoint": order.checkpoint,
        "num_threads": order.num_threads,
        "changed": list(order.changed),
    }


def _store() -> Store:
    """The launcher's, for this call of `train` or `resume` alone: torchrun's outlives the call, and
    the processes that it starts again."""
    # The annotation of torch's own says that it never returns.
    meet = cast(Callable[[str], Iterator[tuple[Store, int, int]]], rendezvous)
    # Machines count their own restarts, so that only those of one are the same in all ranks.
    is_one_machine = os.environ.get("GROUP_WORLD_SIZE") == "1"
    num_restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if is_one_machine else "0"
    return PrefixStore(f"trimtab/{num_restarts}/{next(_CALLS)}", next(meet("env://"))[0])


def _take_own_device(launch: Launch, settings: Settings) -> None:
    device = torch.device(settings.device)
    if device.type != "cuda":
        return
    if ":" in settings.device:
        raise ConfigError(
            f"device is {settings.device}, where {launch.num_ranks} processes each take their own.",
            hint="Write device: cuda, and choose with CUDA_VISIBLE_DEVICES.",
        )
    there = torch.cuda.device_count()
    if there < launch.num_local_ranks:
        raise ConfigError(
            f"{launch.num_local_ranks} processes were started on a machine with {there} CUDA "
            "devices.",
            hint=f"Start {there} on it.",
        )
    torch.cuda.set_device(launch.local_rank)


def _connected(launch: Launch, store: Store, settings: Settings) -> Ranks:
    # What ranks decide by is exchanged on the CPU, where a rank that is gone is noticed at once.
    backend = "cpu:gloo,cuda:nccl" if settings.device.startswith("cuda") else "gloo"
    dist.init_process_group(
        backend,
        store=PrefixStore("exchanges", store),
        rank=launch.rank,
        world_size=launch.num_ranks,
        timeout=LONGEST_SILENCE,
    )
    ranks = Ranks(launch.rank, launch.num_ranks, settings.parallelism == "shard", store)
    # gloo connects at the first exchange, and a rank that is gone before that is waited for. Here
    # a launcher's SIGTERM still ends the waiting; later on it asks for a checkpoint first.
    ranks.sum(0.0)
    return ranks


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
