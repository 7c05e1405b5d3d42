from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.children import child_environment
from support.halting import signalled_where_halted
from support.ray_double import RayDouble
from support.runs import tiny_config, write_rows
from support.search_runs import DESIGN, run_of

import trimtab
from trimtab.engine.observer import Silent
from trimtab.errors import ConfigError, DataError, DoesNotFit, Interrupted
from trimtab.models import source
from trimtab.search import liveness
from trimtab.search.ray_execution import RayExecutor
from trimtab.search.record import TuneResult
from trimtab.search.storage import Trials, open_storage
from trimtab.workflow.trial_plans import TrialBench
from trimtab.workflow.trial_runs import TrialOrder

BUDGET: dict[str, Any] = {"budget": 7.5, "num_trials": 5}
START = 1e-4


class Told(Silent):
    """Keeps notes, and counts updates; `at_update` is called with how many were told."""

    def __init__(self, at_update: Any = lambda number: None) -> None:
        self.notes: list[str] = []
        self.num_updates = 0
        self._at_update = at_update
        self._is_run = False

    def noted(self, text: str) -> None:
        self.notes.append(text)

    def activity(self, name: str, total: int | None = None) -> None:
        self._is_run = name.startswith("run ")

    def advanced(self, amount: int) -> None:
        if self._is_run:
            self.num_updates += amount
            self._at_update(self.num_updates)


def config_of(folder: Path, model: Path, **changes: Any) -> dict[str, Any]:
    write_rows(folder / "rows.jsonl", num_rows=96)
    asked: dict[str, Any] = {
        "max_steps": 12,
        "eval_dataset": 0.4,
        "output_dir": str(folder / "tune"),
        "method": "full",
        "learning_rate": START,
    }
    return tiny_config(folder, model, **asked | changes)


def without_costs(result: TuneResult) -> TuneResult:
    runs = tuple(replace(run, seconds=0.0) for run in result.runs)
    return replace(result, runs=runs, cost=replace(result.cost, seconds=0.0), folder="")


@pytest.fixture(scope="module")
def tuned(
    tmp_path_factory: pytest.TempPathFactory, tiny_llama_folder: Path
) -> tuple[dict[str, Any], TuneResult, list[str]]:
    config = config_of(tmp_path_factory.mktemp("tuned"), tiny_llama_folder)
    told = Told()
    return config, trimtab.tune(config, observer=told, **BUDGET), told.notes


def test_it_moves_from_a_rate_that_is_far_too_low(tuned: Any) -> None:
    _, result, _ = tuned
    assert result.is_changed and result.test.is_better
    assert result.start == {"learning_rate": START}
    assert result.values["learning_rate"] > 3 * START
    losses = {run.values["learning_rate"]: run.search_loss for run in result.runs}
    assert min(losses, key=losses.__getitem__) == result.best["learning_rate"]
    # No run is made twice: where the sampler proposes nothing new there are fewer.
    assert 4 <= len(losses) == len(result.runs) <= 5
    assert result.runs[0].is_start
    assert result.num_search_rows == result.num_test_rows == 19


def test_every_token_is_charged(tuned: Any) -> None:
    _, result, _ = tuned
    assert result.cost.num_tokens == sum(run.num_tokens for run in result.runs) > 0
    assert 0 < result.cost.share_of_run <= BUDGET["budget"]
    assert result.cost.seconds == pytest.approx(sum(run.seconds for run in result.runs))


def test_progress_tells_the_best_so_far(tuned: Any) -> None:
    _, result, notes = tuned
    told = [note for note in notes if "best so far learning_rate" in note]
    assert len(told) == len({run.values["learning_rate"] for run in result.runs})
    assert told[-1].endswith(f"best so far learning_rate {result.best['learning_rate']:g}")
    assert any(note.startswith("a search of 5 runs of 12 updates") for note in notes)


def test_asked_again_it_is_told_again_at_no_cost(tuned: Any) -> None:
    config, result, _ = tuned
    told = Told()
    assert trimtab.tune(config, observer=told, **BUDGET) == result
    assert told.num_updates == 0 and "finished" in told.notes[0]


def test_another_search_does_not_take_its_folder(tuned: Any) -> None:
    config, _, _ = tuned
    with pytest.raises(ConfigError, match="another configuration, budget or sampler"):
        trimtab.tune(config, budget=9.0)
    with pytest.raises(ConfigError, match="output_dir"):
        trimtab.train({**config, "learning_rate": 1e-3})


def test_the_next_plan_takes_it_and_says_so(tmp_path: Path, tiny_llama_folder: Path) -> None:
    config = config_of(tmp_path, tiny_llama_folder)
    prior = trimtab.plan({**config, "learning_rate": "auto"}, quick=True).decision("learning_rate")
    result = trimtab.tune(config, **BUDGET)
    assert result.facts_kept
    decision = trimtab.plan({**config, "learning_rate": "auto"}, quick=True).decision(
        "learning_rate"
    )
    assert (decision.value, decision.origin) == (result.values["learning_rate"], "measured")
    assert result.verdict in decision.because and prior.value != decision.value
    asked = trimtab.plan(config, quick=True).decision("learning_rate")
    assert asked.value == START and "of a finished tune" in asked.because
    other = {**config, "learning_rate": "auto", "optim": "sgd"}
    assert "tune" not in trimtab.plan(other, quick=True).decision("learning_rate").because


def test_a_start_that_nothing_was_told_from_is_not_handed_on_as_measured(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    nothing_learnt = 1e-15
    config = config_of(tmp_path, tiny_llama_folder, learning_rate=nothing_learnt)
    asked = {**config, "learning_rate": "auto"}
    prior = trimtab.plan(asked, quick=True).decision("learning_rate")
    result = trimtab.tune(config, budget=6.0, num_trials=4)
    assert result.values == {"learning_rate": nothing_learnt}
    assert not result.facts_kept and result.not_kept in {
        "no other run can be told from the plan's own",
        "no value is shown to be better than the plan's own",
    }
    assert trimtab.plan(asked, quick=True).decision("learning_rate").value == prior.value


def test_runs_of_a_second_length_branch_off_where_the_schedule_has_a_trunk(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    level = {"lr_scheduler_type": "constant_with_warmup", "max_steps": 40, "warmup_steps": 2}
    config = config_of(tmp_path, tiny_llama_folder, **level)
    told = Told()
    result = trimtab.tune(config, budget=4.5, num_trials=4, observer=told)
    short = {run.values["learning_rate"]: run for run in result.runs if run.is_short}
    long = {run.values["learning_rate"]: run for run in result.runs if not run.is_short}
    assert short.keys() == long.keys() and len(long) == 4
    assert 30 <= result.num_steps < 40
    assert {run.num_steps for run in short.values()} == {result.num_steps // 3}
    assert {run.num_tokens for run in short.values()} == {0}
    assert told.num_updates == 4 * result.num_steps
    assert all(run.search_loss > long[rate].search_loss for rate, run in short.items())
    assert result.horizon is not None
    assert result.horizon.short_num_steps == result.num_steps // 3
    assert result.cost.share_of_run <= 4.5
    assert any("branches off" in note for note in told.notes)


def test_the_plans_own_value_stays_where_nothing_is_gained(
    tmp_path: Path, tiny_llama_folder: Path, tuned: Any
) -> None:
    rate = tuned[1].best["learning_rate"]
    config = config_of(tmp_path, tiny_llama_folder, learning_rate=rate)
    result = trimtab.tune(config, sampler="grid", budget=6.0, num_trials=4)
    assert result.values == {"learning_rate": rate} or result.test.is_better
    assert len(result.runs) == 4


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
def test_other_samplers_are_had_by_name_and_draw_alike_again(
    tmp_path: Path, tiny_llama_folder: Path, sampler: Any
) -> None:
    results = [
        trimtab.tune(
            config_of(tmp_path, tiny_llama_folder, output_dir=str(tmp_path / place)),
            sampler=sampler,
            budget=6.0,
            num_trials=4,
        )
        for place in ("one", "other")
    ]
    assert without_costs(results[0]) == without_costs(results[1])
    assert len({run.values["learning_rate"] for run in results[0].runs}) == 4


def test_several_at_once_and_one_without_a_start(tmp_path: Path, tiny_llama_folder: Path) -> None:
    config = config_of(tmp_path, tiny_llama_folder, learning_rate=1e-3)
    result = trimtab.tune(config, ["learning_rate", "weight_decay"], budget=7.0, num_trials=4)
    assert result.start == {"learning_rate": 1e-3, "weight_decay": 0.0}
    assert len(result.runs) == 5 and result.runs[0].is_start
    assert set(result.plateau) == {"learning_rate", "weight_decay"}


@pytest.mark.parametrize("sampler", ["local", "random"])
def test_runs_that_are_begun_together_are_not_the_same(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch, sampler: Any
) -> None:
    ray = RayDouble()
    made = RayExecutor(ray, num_at_once=4)
    monkeypatch.setattr("trimtab.search.ray_execution.ray_executor", lambda on: made)
    config = config_of(tmp_path, tiny_llama_folder)
    result = trimtab.tune(config, sampler=sampler, on="ray", budget=6.0, num_trials=4)
    assert ray.most_under_way == 4 and len(ray.tasks) == 4
    rates = sorted(run.values["learning_rate"] for run in result.runs)
    assert len(rates) == 4
    assert sampler == "random" or min(b / a for a, b in pairwise(rates)) > 1.8


def test_a_value_that_is_under_way_is_waited_for(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = RayDouble()
    made = RayExecutor(ray, num_at_once=4)
    monkeypatch.setattr("trimtab.search.ray_execution.ray_executor", lambda on: made)
    config = config_of(tmp_path, tiny_llama_folder, max_steps=40, global_batch_size=4)
    result = trimtab.tune(
        config, ["global_batch_size"], sampler="random", on="ray", budget=8.0, num_trials=6
    )
    sizes = [run.values["global_batch_size"] for run in result.runs]
    assert len(set(sizes)) == len(sizes) == len(ray.tasks) < 6


def test_a_search_that_is_stopped_goes_on_as_if_it_had_not_been(
    tmp_path: Path, tiny_llama_folder: Path, tuned: Any
) -> None:
    def interrupt(number: int) -> None:
        if number == 30:
            signal.raise_signal(signal.SIGINT)

    config = config_of(tmp_path, tiny_llama_folder)
    with pytest.raises(Interrupted, match="2 finished runs are kept"):
        trimtab.tune(config, observer=Told(interrupt), **BUDGET)
    told = Told()
    result = trimtab.tune(config, observer=told, **BUDGET)
    assert told.num_updates == (len(result.runs) - 2) * 12
    assert without_costs(result).runs == without_costs(tuned[1]).runs
    assert result.verdict == tuned[1].verdict


KILLED = """
import json, sys
from pathlib import Path

config, budget, folder = sys.argv[1:]
import trimtab
from support.halting import halt
from trimtab.engine.observer import Silent


class Halting(Silent):
    num_runs = 0

    def noted(self, text):
        self.num_runs += "nats per token" in text
        if self.num_runs == 2:
            halt(Path(folder))


trimtab.tune(json.loads(config), observer=Halting(), **json.loads(budget))
"""


def test_a_search_that_is_killed_goes_on(
    tmp_path: Path, tiny_llama_folder: Path, tuned: Any
) -> None:
    config = config_of(tmp_path, tiny_llama_folder)
    orders = (json.dumps(config), json.dumps(BUDGET), str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", KILLED, *orders],
        env=child_environment(),
        text=True,
    )
    signalled_where_halted(process, signal.SIGKILL, tmp_path)
    finished = _num_finished(tmp_path / "tune" / "trials.db")
    assert finished == 2
    told = Told()
    result = trimtab.tune(config, observer=told, **BUDGET)
    assert told.num_updates == (len(result.runs) - finished) * 12
    assert without_costs(result).runs == without_costs(tuned[1]).runs


def _num_finished(database: Path) -> int:
    import sqlite3
    from contextlib import closing

    if not database.exists():
        return 0
    try:
        with closing(sqlite3.connect(database, timeout=1)) as connection:
            asked = "SELECT COUNT(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED')"
            return int(connection.execute(asked).fetchone()[0])
    except sqlite3.OperationalError:
        return 0


SHARING = """
import json, sys
from pathlib import Path

config, budget, folder, storage = sys.argv[1:]
import trimtab
from support.halting import halt
from trimtab.engine.observer import Silent


class Halting(Silent):
    is_second_run = False

    def activity(self, name, total=None):
        self.is_second_run = name.startswith("run 2 ")

    def advanced(self, amount):
        if self.is_second_run:
            halt(Path(folder))


result = trimtab.tune(
    json.loads(config), observer=Halting(), storage=storage, **json.loads(budget)
)
print(json.dumps(result.to_json()))
"""


class Releasing(Told):
    """Lets the other process go on when there is nothing left but to wait for it."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self.waited_for: list[str] = []

    def activity(self, name: str, total: int | None = None) -> None:
        super().activity(name, total)
        if name.startswith("waiting"):
            self.waited_for.append(name)
            (self._folder / "released").touch()


def test_two_processes_share_a_storage_and_come_to_the_same(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    config = config_of(tmp_path, tiny_llama_folder)
    other = {**config, "output_dir": str(tmp_path / "other")}
    orders = (json.dumps(other), json.dumps(BUDGET), str(tmp_path), url)
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SHARING, *orders],
        env=child_environment(),
        text=True,
        stdout=subprocess.PIPE,
    )
    while not (tmp_path / "halted").exists():
        assert process.poll() is None
        time.sleep(0.01)
    told = Releasing(tmp_path)
    result = trimtab.tune(config, observer=told, storage=url, **BUDGET)
    shown, _ = process.communicate(timeout=300)
    assert told.waited_for[0] == "waiting for 1 run of other processes"
    # The other one made the first run and the second, in which it was halted.
    assert told.num_updates == 12 * (len(result.runs) - 2)
    theirs = TuneResult.from_json(json.loads(shown))
    assert without_costs(theirs).runs == without_costs(result).runs
    assert theirs.values == result.values and theirs.verdict == result.verdict


def test_the_plans_own_run_is_made_by_one_process_of_those_that_share(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    config = config_of(tmp_path, tiny_llama_folder, learning_rate=1e-3)
    asked: dict[str, Any] = {"storage": url, "budget": 7.0, "num_trials": 3, "sampler": "random"}

    class Stopping(Told):
        def activity(self, name: str, total: int | None = None) -> None:
            if name.startswith("the plan's own"):
                raise KeyboardInterrupt

    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("socket.gethostname", lambda: "elsewhere")
        with pytest.raises(KeyboardInterrupt):
            trimtab.tune(config, ["weight_decay"], observer=Stopping(), **asked)
    monkeypatch.setattr(liveness, "SILENT_S", 3.0)
    told = Told()
    result = trimtab.tune(config, ["weight_decay"], observer=told, **asked)
    # The claim of a process that nobody here can look up holds until it has been silent.
    own = next(place for place, note in enumerate(told.notes) if "weight_decay 0:" in note)
    assert len(result.runs) == 4 and result.runs[0].is_start
    assert own == len(told.notes) - 1


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_run_that_another_machine_left_is_made_again(
    tmp_path: Path,
    tiny_llama_folder: Path,
    tuned: Any,
    monkeypatch: pytest.MonkeyPatch,
    is_shared: bool,
) -> None:
    options = {"storage": f"sqlite:///{tmp_path / 'shared.db'}"} if is_shared else {}

    def stop(number: int) -> None:
        if number == 18:
            raise KeyboardInterrupt

    config = config_of(tmp_path, tiny_llama_folder)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("socket.gethostname", lambda: "elsewhere")
        # As a kill leaves it: under way, by a process that nobody here can look up.
        elsewhere.setattr(Trials, "give_back", lambda self, number: None)
        with pytest.raises(Interrupted):
            trimtab.tune(config, observer=Told(stop), **options, **BUDGET)
    monkeypatch.setattr(liveness, "SILENT_S", 1.0)
    told = Told()
    result = trimtab.tune(config, observer=told, **options, **BUDGET)
    assert told.num_updates == (len(result.runs) - 1) * 12
    if not is_shared:
        assert without_costs(result).runs == without_costs(tuned[1]).runs


def test_a_storage_of_ones_own(tmp_path: Path, tiny_llama_folder: Path) -> None:
    import optuna

    config = config_of(tmp_path, tiny_llama_folder)
    url = f"sqlite:///{tmp_path / 'own.db'}"
    result = trimtab.tune(config, storage=url, budget=6.0, num_trials=4)
    assert not (tmp_path / "tune" / "trials.db").exists()
    storage = optuna.storages.RDBStorage(url)
    (study,) = optuna.get_all_study_summaries(storage)
    assert study.best_trial is not None
    assert study.best_trial.value == min(
        run.search_loss for run in result.runs if run.search_loss is not None
    )
    storage.remove_session()
    storage.engine.dispose()
    with pytest.raises(ConfigError, match="storage cannot be opened"):
        trimtab.tune(
            {**config, "output_dir": str(tmp_path / "other")}, storage="nosuch://x", **BUDGET
        )


def test_too_small_a_budget_and_too_few_rows_say_what_to_do(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    config = config_of(tmp_path, tiny_llama_folder)
    with pytest.raises(ConfigError, match="--budget"):
        trimtab.tune(config, budget=0.3)
    with pytest.raises(DataError, match="Set eval_dataset"):
        trimtab.tune({**config, "eval_dataset": 0.1}, **BUDGET)
    assert not (tmp_path / "tune").exists()


def test_a_rate_that_no_run_can_have_is_told_and_not_asked_again(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    config = config_of(
        tmp_path,
        tiny_llama_folder,
        learning_rate=1e-3,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr": 5e-4},
    )
    result = trimtab.tune(config, sampler="grid", budget=7.5, num_trials=5)
    below = [run for run in result.runs if run.values["learning_rate"] < 5e-4]
    assert len(result.runs) == 5 and len(below) == 2
    for run in below:
        assert run.diverged.startswith("cannot be run: min_lr 0.0005 is over learning_rate")
        assert run.num_tokens == run.num_eval_tokens == 0


def test_a_value_that_does_not_fit_is_told_and_the_search_goes_on(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordered = TrialBench.order

    def order(bench: TrialBench, overrides: Any = None, **changes: Any) -> TrialOrder:
        if (overrides or {}).get("learning_rate", 0) > START:
            raise DoesNotFit("the updates take 9 GiB, and 8 are allowed.")
        return ordered(bench, overrides, **changes)

    monkeypatch.setattr(TrialBench, "order", order)
    result = trimtab.tune(config_of(tmp_path, tiny_llama_folder), **BUDGET)
    above = [run for run in result.runs if run.values["learning_rate"] > START]
    assert above and all("cannot be run: the updates take 9" in run.diverged for run in above)
    assert result.best is not None


def test_a_runs_text_is_kept_in_parts_that_any_database_holds(tmp_path: Path) -> None:
    run = run_of(1e-4, 1.0, row_ids=tuple(range(20_000)))
    url = f"sqlite:///{tmp_path / 'trials.db'}"
    with open_storage(url) as opened:
        trials = Trials(opened, "a", DESIGN, "", is_shared=False)
        trials.keep_reference(run)
        proposed = trials.next(1)
        assert proposed is not None
        trials.keep(proposed.number, run, 1.0)
    with open_storage(url) as opened:
        again = Trials(opened, "a", DESIGN, "", is_shared=False)
        assert again.reference == run
        assert [each.run for each in again.finished()] == [run]
        study_id = opened.get_study_id_from_name("a")
        values = [
            *opened.get_study_user_attrs(study_id).values(),
            *opened.get_all_trials(study_id)[0].user_attrs.values(),
        ]
    assert len(json.dumps(run.to_json())) > 2**16
    assert max(len(json.dumps(value)) for value in values) < 2**16


def test_a_search_of_a_model_that_was_fetched_for_it_is_told_again(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []

    def snapshot(name: str, *_: Any) -> Path:
        fetched.append(name)
        return tiny_llama_folder

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(source, "_snapshot", snapshot)
    monkeypatch.setattr(
        source, "_local_snapshot", lambda name: tiny_llama_folder if fetched else None
    )
    config = config_of(tmp_path, Path("someone/model"), output_dir="auto")
    result = trimtab.tune(config, **BUDGET)
    assert fetched[0] == "someone/model"
    assert trimtab.tune(config, **BUDGET) == result
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_other_rows_are_another_search(tmp_path: Path, tiny_llama_folder: Path) -> None:
    config = config_of(tmp_path, tiny_llama_folder)
    trimtab.tune(config, sampler="grid", budget=6.0, num_trials=4)
    rows = (tmp_path / "rows.jsonl").read_text()
    (tmp_path / "rows.jsonl").write_text(rows.replace("e", "o", 40))
    with pytest.raises(ConfigError, match="other rows"):
        trimtab.tune(config, sampler="grid", budget=6.0, num_trials=4)


def test_the_step_after_a_start_that_diverged_is_down(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    diverging = 20.0
    config = config_of(
        tmp_path, tiny_llama_folder, learning_rate=diverging, optim="sgd", max_steps=60
    )
    result = trimtab.tune(config, budget=2.0)
    rates = [run.values["learning_rate"] for run in result.runs]
    assert rates[0] == max(rates) == diverging and result.runs[0].diverged is not None
    assert all(run.diverged is None for run in result.runs[1:])
    assert result.is_changed and result.values["learning_rate"] < 3


def test_what_diverged_is_made_up_for_by_what_it_left_of_the_budget(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    config = config_of(tmp_path, tiny_llama_folder, learning_rate=20.0, optim="sgd", max_steps=160)
    budget = 2.0
    result = trimtab.tune(config, sampler="random", budget=budget)
    designed = 6
    runs = [run for run in result.runs if not run.is_short]
    num_sound = sum(run.diverged is None for run in runs)
    assert num_sound <= designed < len(runs)
    assert result.cost.share_of_run <= budget
    again = trimtab.tune(
        {**config, "output_dir": str(tmp_path / "asked")},
        sampler="random",
        budget=budget,
        num_trials=6,
    )
    assert sum(not run.is_short for run in again.runs) == designed
