"""A trial in a process of its own: its peak memory is its own, and it may die of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from trimtab.engine.stops import StopRequested
from trimtab.models.source import ModelSource
from trimtab.planning.settings import Settings
from trimtab.probes.client import ProbeDied, asked
from trimtab.probes.fork_server import ForkServer
from trimtab.probes.process import Tell, handed_rows, serve
from trimtab.workflow.trial_runs import (
    OnUpdate,
    TrialOrder,
    TrialRun,
    UpdatesDone,
    run_trial,
    run_without_losses,
)

MODULE = "trimtab.workflow.trial_process"
UPDATE_TIMEOUT_S = 3600.0
"""The longest that one update, or the loading or scoring around them, may take."""


def trial_server() -> ForkServer:
    """For many runs of `run_trial_apart`; to be closed after them."""
    return ForkServer(MODULE)


def run_trial_apart(
    order: TrialOrder,
    *,
    server: ForkServer | None = None,
    on_update: OnUpdate = lambda done: None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> TrialRun:
    """As `run_trial`, in a process of its own; `server` forks it where it can.

    A process that dies is a trial that diverged, with the reason, unless a stop was asked for
    meanwhile. An error that a user can mend is raised as it was there, another one as ProbeDied.
    """
    request = {
        "settings": asdict(order.settings),
        "source": {**asdict(order.source), "folder": str(order.source.folder)},
        "num_train_rows": len(order.train_rows),
        "max_eval_length": order.max_eval_length,
        "overrides": dict(order.overrides),
        "branch_num_steps": order.branch_num_steps,
        "packs_in_windows": order.packs_in_windows,
        "num_threads": torch.get_num_threads(),
    }
    rows = (*order.train_rows, *order.eval_rows)
    started, done = time.perf_counter(), UpdatesDone()
    try:
        with asked(
            request, rows, timeout_s=UPDATE_TIMEOUT_S, module=MODULE, server=server
        ) as answers:
            for answer in answers:
                if "trial" in answer:
                    return TrialRun.from_json(answer["trial"])
                done = UpdatesDone(**answer["updates"])
                on_update(done)
                if stop_requested():
                    raise StopRequested
    except ProbeDied as died:
        if stop_requested():
            raise StopRequested from None
        if died.user_error is not None:
            raise died.user_error from None
        if not died.is_deadly:
            raise
        seconds = time.perf_counter() - started
        reason = f"after update {done.num_updates}: {died.reason}"
        return dead_run(order, reason, num_tokens=done.num_tokens, total_seconds=seconds)
    raise AssertionError("the process ended without a result")


def dead_run(
    order: TrialOrder, reason: str, *, num_tokens: int = 0, total_seconds: float = 0.0
) -> TrialRun:
    """Its tokens are those of the updates that it told, and so the least that it took."""
    settings = order.settings
    return run_without_losses(
        order.overrides,
        seed=settings.seed,
        num_steps=settings.num_train_steps,
        reason=reason,
        num_tokens=num_tokens,
        total_seconds=total_seconds,
        died=True,
    )


def main() -> None:
    """The process: one order on stdin, the updates that are done and the result on stdout."""
    serve(_answer)


def _answer(request: Mapping[str, Any], tell: Tell) -> None:
    torch.set_num_threads(request["num_threads"])
    rows = tuple(handed_rows(request))
    num_train_rows = request["num_train_rows"]
    source = request["source"]
    order = TrialOrder(
        settings=Settings.from_values(request["settings"]),
        source=ModelSource(**{**source, "folder": Path(source["folder"])}),
        train_rows=rows[:num_train_rows],
        eval_rows=rows[num_train_rows:],
        max_eval_length=request["max_eval_length"],
        overrides=request["overrides"],
        branch_num_steps=request["branch_num_steps"],
        packs_in_windows=request["packs_in_windows"],
    )
    run = run_trial(order, on_update=lambda done: tell({"updates": asdict(done)}))
    tell({"trial": run.to_json()})
