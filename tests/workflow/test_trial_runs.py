from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.runs import read_jsonl, tiny_config, write_rows

import trimtab
from trimtab.data import streaming, updates
from trimtab.engine.building import batching
from trimtab.engine.evaluation import RowLosses
from trimtab.engine.stops import StopRequested
from trimtab.errors import ConfigError, DataError
from trimtab.planning.branch import branch_of
from trimtab.workflow import trial_runs
from trimtab.workflow.trial_plans import TrialBench, trial_bench
from trimtab.workflow.trial_process import run_trial_apart, trial_server
from trimtab.workflow.trial_runs import TrialOrder, TrialRun, UpdatesDone, run_trial

RunTrial = Callable[..., TrialRun]


def bench_of(folder: Path, model: Path, **changes: Any) -> TrialBench:
    write_rows(folder / "rows.jsonl", num_rows=64)
    return trial_bench(tiny_config(folder, model, **changes))


@pytest.fixture(scope="module")
def forked() -> Iterator[RunTrial]:
    """`run_trial_apart` whose processes need not import anything."""
    with trial_server() as server:
        yield partial(run_trial_apart, server=server)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_llama_folder: Path) -> TrialBench:
    return bench_of(tmp_path_factory.mktemp("bench"), tiny_llama_folder, learning_rate=1e-3)


def without_costs(run: TrialRun) -> TrialRun:
    return replace(run, seconds=0.0, total_seconds=0.0, peak_memory_bytes=0)


@pytest.mark.parametrize("layout", [{}, {"padding": "longest"}, {"packing": True}])
def test_a_trial_of_the_plans_length_is_the_run(
    tmp_path: Path, tiny_llama_folder: Path, layout: dict[str, Any]
) -> None:
    changes = {**layout, "lora_dropout": 0.1, "learning_rate": 1e-2}
    bench = bench_of(tmp_path, tiny_llama_folder, **changes)
    run = run_trial(bench.order())
    trimtab.train(bench.plan)
    metrics = read_jsonl(tmp_path / "run" / "metrics.jsonl")
    last = [line["eval_loss"] for line in metrics if "eval_loss" in line][-1]
    assert run.eval_loss == pytest.approx(last, rel=1e-5)
    assert run.num_tokens == sum(line["num_tokens"] for line in metrics if "loss" in line)
    assert run.update_losses == tuple(line["loss"] for line in metrics if "loss" in line)
    assert math.fsum(run.row_losses) / sum(run.row_num_trainable_tokens) == run.eval_loss
    assert len(run.row_losses) == bench.plan.settings().num_eval_rows == len(set(run.row_ids))


@pytest.mark.parametrize(
    "layout", [{"global_batch_size": 4}, {"global_batch_size": 2, "packing": True}]
)
def test_a_trial_on_a_long_file_is_the_run(
    tmp_path: Path,
    tiny_llama_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    layout: dict[str, Any],
    forked: RunTrial,
) -> None:
    monkeypatch.setattr(streaming, "MIN_STREAMED_ROWS", 64)
    monkeypatch.setattr(updates, "PACKED_WINDOW_ROWS", 16)
    bench = bench_of(
        tmp_path, tiny_llama_folder, max_length=64, max_steps=4, learning_rate=1e-2, **layout
    )
    order = bench.order()
    assert len(order.train_rows) in {16, 32}
    assert bench.order({"learning_rate": 1e-3}).train_rows is order.train_rows
    run = forked(order)
    trimtab.train(bench.plan)
    metrics = read_jsonl(tmp_path / "run" / "metrics.jsonl")
    assert run.update_losses == tuple(line["loss"] for line in metrics if "loss" in line)


def test_nothing_is_written(bench: TrialBench) -> None:
    run_trial(bench.order(num_steps=2))
    assert not Path(bench.plan.settings().output_dir).exists()


def test_a_process_of_its_own_gives_the_same_and_a_peak_of_its_own(bench: TrialBench) -> None:
    order = bench.order({"learning_rate": 3e-3}, num_steps=2)
    here = run_trial(order)
    told: list[UpdatesDone] = []
    apart = run_trial_apart(order, on_update=told.append)
    assert without_costs(apart) == without_costs(here)
    assert [done.num_updates for done in told] == [1, 2]
    assert 0 < told[0].num_tokens < told[1].num_tokens == apart.num_tokens
    assert 0 < apart.seconds < apart.total_seconds
    assert apart.peak_memory_bytes > 2**26
    assert TrialRun.from_json(json.loads(json.dumps(apart.to_json()))) == apart


def test_only_what_is_moved_is_moved(bench: TrialBench) -> None:
    base = bench.plan.settings()
    assert bench.order().settings == base
    moved = bench.order({"learning_rate": 2e-3, "weight_decay": 0.1}).settings
    assert moved == replace(base, learning_rate=2e-3, weight_decay=0.1)


def test_a_proxy_is_annealed_over_its_own_length(tmp_path: Path, tiny_llama_folder: Path) -> None:
    bench = bench_of(tmp_path, tiny_llama_folder, max_steps=40, warmup_steps=8)
    settings = bench.order(num_steps=10).settings
    assert (settings.num_train_steps, settings.warmup_steps) == (10, 5)
    assert bench.order(num_steps=20).settings.warmup_steps == 8
    assert bench.order({"global_batch_size": 16}, num_steps=20).settings.warmup_steps == 4
    assert settings.learning_rate == bench.plan.settings().learning_rate
    assert bench.order({"warmup_ratio": 0.3}, num_steps=10).settings.warmup_steps == 3


@pytest.mark.parametrize("warmup", [{"warmup_ratio": 0.1}, {"warmup_steps": 0.1}])
def test_a_share_of_warmup_is_one_of_another_schedule_too(
    tmp_path: Path, tiny_llama_folder: Path, warmup: dict[str, float]
) -> None:
    bench = bench_of(
        tmp_path, tiny_llama_folder, max_steps=40, lr_scheduler_type="constant", **warmup
    )
    assert bench.plan.settings().warmup_steps == 0
    assert bench.order({"lr_scheduler_type": "linear"}).settings.warmup_steps == 4
    shorter = bench.order({"lr_scheduler_type": "linear"}, num_steps=20).settings
    assert shorter.warmup_steps == 4


LEVEL: dict[str, Any] = {
    "lr_scheduler_type": "warmup_stable_decay",
    "lr_scheduler_kwargs": {"num_decay_steps": 2},
    "warmup_steps": 1,
    "max_steps": 8,
    "learning_rate": 1e-2,
}


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "full"},
        {"method": "full", "precision": "bf16"},
        {"method": "full", "optim": "adamw_schedule_free", "lr_scheduler_type": "constant"},
        {"method": "full", "optim": "muon", "packing": True},
        {"lora_dropout": 0.2, "lr_scheduler_type": "linear"},
        {"lora_dropout": 0.2, "gradient_accumulation_steps": 2},
    ],
    ids=lambda changes: ", ".join(map(str, changes.values())),
)
def test_a_branch_and_its_trunk_are_the_runs_apart(
    tmp_path: Path, tiny_llama_folder: Path, changes: dict[str, Any]
) -> None:
    asked = {**LEVEL, **changes}
    if asked["lr_scheduler_type"] != LEVEL["lr_scheduler_type"]:
        asked.pop("lr_scheduler_kwargs")
    bench = bench_of(tmp_path, tiny_llama_folder, **asked)
    told: list[UpdatesDone] = []
    order = replace(bench.order(), branch_num_steps=4)
    both = run_trial(order, on_update=told.append)
    long = run_trial(bench.order())
    short = run_trial(replace(bench.order(), settings=branch_of(bench.order().settings, 4)))
    assert both.branch is not None
    assert without_costs(replace(both, branch=None)) == without_costs(long)
    num_own = len(both.branch.update_losses)
    shared = {"linear": 2, "constant": 4}.get(asked["lr_scheduler_type"], 3)
    assert num_own == 4 - shared
    same = replace(short, num_tokens=0, update_losses=short.update_losses[shared:])
    assert without_costs(replace(both.branch, num_tokens=0)) == without_costs(same)
    assert [done.num_updates for done in told] == list(range(1, 8 + num_own + 1))
    assert order.num_updates == len(told)
    assert told[-1].num_tokens == both.num_tokens + both.branch.num_tokens
    assert TrialRun.from_json(json.loads(json.dumps(both.to_json()))) == both
    if num_own == 1:
        assert 0 < both.branch.num_tokens < both.num_tokens / 4


def test_a_trunk_that_diverges_leaves_a_branch_that_did(bench: TrialBench) -> None:
    diverging = bench.order({"learning_rate": 1e30, "max_grad_norm": 0.0, "method": "full"})
    run = run_trial(replace(diverging, branch_num_steps=2))
    assert run.branch is not None and run.diverged is not None
    assert run.branch.diverged is not None
    assert (run.branch.num_tokens, run.branch.num_steps) == (0, 2)


def test_a_moved_batch_takes_the_same_rows(bench: TrialBench) -> None:
    base = bench.plan.settings()
    moved = bench.order({"global_batch_size": 4}).settings
    assert (moved.global_batch_size, moved.num_train_steps) == (4, 2 * base.num_train_steps)
    assert moved.learning_rate == base.learning_rate
    pieces = bench.order(
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    ).settings
    assert (pieces.global_batch_size, pieces.num_train_steps) == (8, base.num_train_steps)
    assert pieces.per_device_train_batch_size == 2
    whole = run_trial(bench.order({"per_device_train_batch_size": 8}))
    in_pieces = run_trial(bench.order({"per_device_train_batch_size": 2}))
    assert in_pieces.eval_loss == pytest.approx(whole.eval_loss, rel=1e-5)


@pytest.mark.parametrize("length", [{"max_steps": -1}, {"max_steps": 7}])
@pytest.mark.parametrize("size", [8, 32])
def test_a_moved_batch_takes_the_same_rows_where_updates_are_not_full(
    tmp_path: Path, tiny_llama_folder: Path, length: dict[str, int], size: int
) -> None:
    held_out = {"eval_dataset": 0.2}
    bench = bench_of(tmp_path, tiny_llama_folder, global_batch_size=16, **held_out, **length)
    orders = [bench.order(), bench.order({"global_batch_size": size})]
    rows = [num_rows_seen(order) for order in orders]
    assert len(orders[0].train_rows) % 16
    assert abs(rows[0] - rows[1]) <= (16 if size == 32 and length["max_steps"] == 7 else 0)


def num_rows_seen(order: TrialOrder) -> int:
    made = updates.updates(order.train_rows, batching(order.settings), updates.DataPosition(0, 0))
    return sum(len(each.row_ids) for each in islice(made, order.settings.num_train_steps))


def test_seeds_move_the_order_and_not_the_held_out_rows(bench: TrialBench) -> None:
    runs = [run_trial(bench.order(seed=seed, num_steps=3)) for seed in (1, 1, 2)]
    assert without_costs(runs[0]) == without_costs(runs[1])
    assert runs[0].row_losses != runs[2].row_losses
    assert runs[0].row_ids == runs[2].row_ids


def test_held_out_rows_stay_whole_where_training_rows_are_cut(bench: TrialBench) -> None:
    cut = run_trial(bench.order({"max_length": 32}, num_steps=2))
    whole = run_trial(bench.order(num_steps=2))
    assert cut.row_num_trainable_tokens == whole.row_num_trainable_tokens
    assert cut.num_tokens < whole.num_tokens


def test_what_diverges_is_a_result(bench: TrialBench, forked: RunTrial) -> None:
    for run in (run_trial, forked):
        order = bench.order({"learning_rate": 1e30, "max_grad_norm": 0.0, "method": "full"})
        ended = run(order)
        assert ended.diverged is not None and "update" in ended.diverged
        assert (ended.row_losses, ended.eval_loss) == ((), None)


def test_rows_that_were_scored_for_nothing_are_counted(
    bench: TrialBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = bench.order(num_steps=2)
    sound = run_trial(order)
    scored = trial_runs.row_losses

    def lost(*arguments: Any, **more: Any) -> RowLosses:
        found = scored(*arguments, **more)
        return replace(found, losses=(math.inf, *found.losses[1:]))

    monkeypatch.setattr(trial_runs, "row_losses", lost)
    run = run_trial(order)
    assert run.diverged == "not finite: a held-out row's loss"
    assert run.num_eval_tokens == sound.num_eval_tokens > 0
    assert not run.ran_out_of_memory


def test_a_stop_ends_at_an_update(bench: TrialBench, forked: RunTrial) -> None:
    done: list[UpdatesDone] = []
    for run in (run_trial, forked):
        with pytest.raises(StopRequested):
            run(bench.order(), on_update=done.append, stop_requested=lambda: len(done) > 1)
        done.clear()


def test_what_cannot_be_moved_is_refused(bench: TrialBench) -> None:
    for name in ("model", "dataset", "seed", "eval_steps"):
        with pytest.raises(ConfigError, match=name):
            bench.order({name: 1})
    with pytest.raises(ConfigError, match="learning_rat"):
        bench.order({"learning_rat": 1e-3})
    with pytest.raises(ConfigError, match="length"):
        bench.order({"max_steps": 3}, num_steps=2)
    assert bench.order({"lr": 2e-3}).overrides == {"learning_rate": 2e-3}


def test_without_held_out_rows_there_is_no_bench(tmp_path: Path, tiny_llama_folder: Path) -> None:
    with pytest.raises(DataError, match="no row is held out"):
        bench_of(tmp_path, tiny_llama_folder, eval_dataset="none")


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_what_a_user_can_mend_is_told_as_it_is(bench: TrialBench, forked: RunTrial) -> None:
    order = bench.order(num_steps=1)
    wanting = replace(order, settings=replace(order.settings, optim="adamw_8bit"))
    for run in (run_trial, forked):
        with pytest.raises(ConfigError, match=r"needs the package bitsandbytes.*Install it"):
            run(wanting)


def test_a_trial_that_dies_while_a_stop_is_asked_for_has_no_result(
    bench: TrialBench, forked: RunTrial
) -> None:
    is_stopped = False
    seen: UpdatesDone | None = None

    def killed(done: UpdatesDone) -> None:
        nonlocal seen
        seen = seen or done
        for each in psutil.Process().children(recursive=True):
            # The fork server's child, not the server.
            if not each.children():
                each.kill()

    order = bench.order(num_steps=40)
    dead = forked(order, on_update=killed)
    assert dead.diverged is not None and dead.died
    assert seen is not None and dead.num_tokens >= seen.num_tokens > 0
    assert dead.total_seconds > 0

    def killed_and_stopped(done: UpdatesDone) -> None:
        nonlocal is_stopped
        killed(done)
        is_stopped = True

    with pytest.raises(StopRequested):
        forked(order, on_update=killed_and_stopped, stop_requested=lambda: is_stopped)
