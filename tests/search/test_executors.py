from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.ray_double import NodeDiedError, OutOfMemoryError, RayDouble, WorkerCrashedError
from support.runs import tiny_config, write_rows

from trimtab.engine.stops import StopRequested
from trimtab.errors import ConfigError
from trimtab.search.executors import Executor, LocalExecutor
from trimtab.search.ray_execution import RayExecutor, ray_executor
from trimtab.workflow.trial_plans import TrialBench, trial_bench
from trimtab.workflow.trial_runs import TrialOrder, TrialRun, run_trial

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_llama_folder: Path) -> TrialBench:
    folder = tmp_path_factory.mktemp("executors")
    write_rows(folder / "rows.jsonl", num_rows=64)
    return trial_bench(tiny_config(folder, tiny_llama_folder, learning_rate=1e-3))


@pytest.fixture(scope="module")
def ray() -> Iterator[object]:
    import warnings

    import ray

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.fixture(params=["here", "apart", "four at once", pytest.param("ray", marks=needs_ray)])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param == "four at once":
        made: Executor = RayExecutor(RayDouble(), num_at_once=4)
    elif request.param == "ray":
        made = RayExecutor(request.getfixturevalue("ray"), num_at_once=1)
    else:
        made = LocalExecutor(apart=request.param == "apart")
    with closing(made):
        yield made


def asking(orders: list[TrialOrder]) -> Callable[[], tuple[int, TrialOrder] | None]:
    left = list(enumerate(orders))
    return lambda: left.pop(0) if left else None


def results(executor: Executor, orders: list[TrialOrder]) -> list[tuple[int, TrialRun]]:
    return list(
        executor.results(asking(orders), on_update=lambda done: None, stop_requested=lambda: False)
    )


def without_costs(run: TrialRun) -> TrialRun:
    return replace(run, seconds=0.0, total_seconds=0.0, peak_memory_bytes=0)


def test_all_give_what_a_trial_gives_here(executor: Executor, bench: TrialBench) -> None:
    orders = [
        bench.order({"learning_rate": 2e-3}, num_steps=2),
        bench.order({"learning_rate": 1e30, "max_grad_norm": 0.0, "method": "full"}, num_steps=4),
        bench.order({"global_batch_size": 4}, num_steps=2, seed=7),
    ]
    found = dict(results(executor, orders))
    assert {number: without_costs(run) for number, run in found.items()} == {
        number: without_costs(run_trial(order)) for number, order in enumerate(orders)
    }
    assert found[1].diverged is not None
    assert all(run.total_seconds > 0 for run in found.values())


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (WorkerCrashedError(), "its worker died"),
        (OutOfMemoryError(), "ran out of memory"),
        (NodeDiedError(), "its machine was lost"),
    ],
)
def test_a_worker_that_dies_is_a_trial_that_diverged(
    bench: TrialBench, error: Exception, told: str
) -> None:
    orders = [bench.order({"learning_rate": rate}, num_steps=2) for rate in (1e-3, 2e-3, 3e-3)]
    found = dict(results(RayExecutor(RayDouble(dying={1: error}), num_at_once=2), orders))
    assert found[1].diverged is not None and told in found[1].diverged and found[1].died
    assert found[1].overrides == {"learning_rate": 2e-3} and found[1].num_steps == 2
    assert found[0].diverged is None and found[2].diverged is None
    other = RayExecutor(RayDouble(dying={1: ValueError("a bug")}), num_at_once=2)
    with pytest.raises(ValueError, match="a bug"):
        results(other, orders)


def test_more_threads_than_any_machine_has_are_refused(bench: TrialBench) -> None:
    executor = RayExecutor(RayDouble(num_cpus=0), num_at_once=1)
    with pytest.raises(ConfigError, match="no machine of this Ray has more than 0"):
        results(executor, [bench.order(num_steps=2)])


def test_a_worker_that_a_stop_ends_has_not_diverged(bench: TrialBench) -> None:
    executor = RayExecutor(RayDouble(dying={0: WorkerCrashedError()}), num_at_once=1)
    asked_before = iter([False, True])
    with pytest.raises(StopRequested):
        list(
            executor.results(
                asking([bench.order(num_steps=2)]),
                on_update=lambda done: None,
                stop_requested=lambda: next(asked_before),
            )
        )


def test_nothing_to_do_is_no_result(executor: Executor) -> None:
    assert results(executor, []) == []


def test_a_stop_gives_up_what_is_under_way(executor: Executor, bench: TrialBench) -> None:
    order = bench.order(num_steps=500)
    started = time.perf_counter()
    with pytest.raises(StopRequested):
        list(
            executor.results(
                asking([order]), on_update=lambda done: None, stop_requested=lambda: True
            )
        )
    assert time.perf_counter() - started < 60


def test_a_place_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="local, ray"):
        ray_executor("slurm")


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_it_is_said_how_to_have_it() -> None:
    with pytest.raises(ConfigError, match=r"trimtab\[ray\]"):
        ray_executor("ray")
