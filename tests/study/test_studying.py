"""Whole studies of a tiny model: verdicts, what is kept, kills, stops, facts."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.children import child_environment
from support.halting import signalled_where_halted
from support.runs import read_jsonl, tiny_config, write_rows

import trimtab
from trimtab.engine.observer import Silent
from trimtab.errors import ConfigError, DoesNotFit, Interrupted
from trimtab.planning.fact import Facts
from trimtab.planning.rules.studied import with_study
from trimtab.runs.ledger import Ledger
from trimtab.study import trials
from trimtab.study.facts import study_fact
from trimtab.study.result import StudyResult
from trimtab.study.studying import run_study
from trimtab.study.words import caveats
from trimtab.workflow.trial_plans import trial_bench
from trimtab.workflow.trial_runs import TrialOrder, TrialRun, run_trial

SCRIPT = """
import json, sys
from pathlib import Path

config, folder = sys.argv[1:]
import torch
import trimtab
from support.halting import halt
from trimtab.engine.observer import Silent


class Halting(Silent):
    is_first_done = False

    def noted(self, text):
        self.is_first_done |= text.endswith("s in all")

    def advanced(self, amount):
        if self.is_first_done:
            halt(Path(folder))


torch.set_num_threads(1)
wanted = {"seeds": 1, "in_process": True, "observer": Halting()}
trimtab.study(json.loads(config), "learning_rate", [1e-3, 1e-2], **wanted)
"""


class Notes(Silent):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def noted(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def config(tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    write_rows(tmp_path / "rows.jsonl", num_rows=48)
    monkeypatch.chdir(tmp_path)
    return tiny_config(
        tmp_path,
        tiny_llama_folder,
        output_dir="auto",
        learning_rate=1e-3,
        max_steps=6,
        eval_dataset=0.25,
    )


def studied(config: Any, name: str, values: list[Any], **wanted: Any) -> StudyResult:
    return trimtab.study(config, name, values, in_process=True, **wanted)


def test_a_rate_that_matters_is_found_and_kept(config: Any, tmp_path: Path) -> None:
    notes = Notes()
    result = studied(config, "learning_rate", [1e-3, 1e-2], seeds=2, observer=notes)
    reference, arm = result.arms
    assert (reference.verdict, arm.verdict) == (None, "better")
    assert arm.comparison is not None and arm.comparison.effect_nats is not None
    mean_effect = sum(b - a for a, b in zip(reference.losses, arm.losses, strict=True)) / 2
    assert arm.comparison.effect_nats == pytest.approx(mean_effect)
    assert result.seeds == (42, 43)
    assert notes.texts[0].startswith("4 runs: 2 values of learning_rate, 2 seeds each")
    assert [len(curve) for curve in arm.curves] == [6, 6]
    assert arm.seconds > 0 and arm.peak_memory_bytes > 2**26

    folder = tmp_path / result.folder
    kept = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert StudyResult.from_json(kept) == result
    assert len(read_jsonl(folder / "trials.jsonl")) == 4

    again = studied(config, "learning_rate", [1e-3, 1e-2], seeds=2)
    assert again == result
    more = studied(config, "learning_rate", [1e-3, 1e-2, 5e-3], seeds=3)
    assert more.folder == result.folder
    assert more.arms[0].losses[:2] == reference.losses
    assert len(read_jsonl(folder / "trials.jsonl")) == 9
    assert (again.earlier_seeds, more.earlier_seeds) == ((), (2,))


def test_values_that_were_not_compared_before_were_not_read_before(config: Any) -> None:
    studied(config, "learning_rate", [1e-3, 1e-2], seeds=1)
    other = studied(config, "learning_rate", [1e-2, 3e-3], seeds=2)
    assert other.earlier_seeds == ()
    assert studied(config, "learning_rate", [1e-2, 3e-3], seeds=1).earlier_seeds == (2,)


def test_what_was_read_before_another_comparison_is_told(config: Any) -> None:
    studied(config, "learning_rate", [1e-3, 1e-2], seeds=2)
    studied(config, "learning_rate", [1e-3, 3e-3], seeds=2)
    again = studied(config, "learning_rate", [1e-3, 1e-2], seeds=1)
    assert again.earlier_seeds == (2,)


def test_settings_that_follow_from_what_is_compared_are_told(config: Any) -> None:
    config["warmup_steps"] = 2
    result = studied(config, "lr_scheduler_type", ["linear", "constant"], seeds=1)
    assert result.moved_along == {"warmup_steps": (2, 0)}
    assert "Not held: warmup_steps 2, 0 followed from" in " ".join(caveats(result))
    assert not studied(config, "weight_decay", [0.0, 0.1], seeds=1).moved_along


def test_the_planned_global_batch_may_be_named_auto(config: Any) -> None:
    result = studied(config, "global_batch_size", ["auto", 16], seeds=1)
    assert [arm.value for arm in result.arms] == [8, 16]
    assert [arm.num_steps for arm in result.arms] == [6, 3]


def test_without_max_steps_the_epochs_that_were_set_decide(config: Any) -> None:
    del config["max_steps"]
    config["num_train_epochs"] = 2
    result = studied(config, "max_steps", [-1, 3], seeds=1)
    assert [arm.num_steps for arm in result.arms] == [2 * math.ceil(36 / 8), 3]


def test_weights_that_do_not_fit_are_a_run_without_a_loss(
    config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(order: TrialOrder, **arguments: Any) -> TrialRun:
        if order.settings.precision == "bf16":
            raise DoesNotFit("the weights take 9 GiB, and 8 are free.")
        return run_trial(order, **arguments)

    monkeypatch.setattr(trials, "run_trial", run)
    config["precision"] = "fp32"
    result = studied(config, "precision", ["fp32", "bf16"], seeds=1)
    assert result.arms[1].failures == ("the weights take 9 GiB, and 8 are free.",)
    assert math.isfinite(result.arms[0].losses[0])


def test_arms_share_seeds_order_and_scored_rows(config: Any, tmp_path: Path) -> None:
    result = studied(config, "weight_decay", [0.0, 1e-9], seeds=2)
    assert result.arms[1].verdict == "equivalent"
    runs = [line["run"] for line in read_jsonl(tmp_path / result.folder / "trials.jsonl")]
    assert [run["seed"] for run in runs] == [42, 42, 43, 43]
    assert len({tuple(run["row_ids"]) for run in runs}) == 1
    assert runs[0]["update_losses"][0] == runs[1]["update_losses"][0]
    assert runs[0]["update_losses"][0] != runs[2]["update_losses"][0]


def test_micro_batches_that_differ_in_rounding_are_equivalent(config: Any) -> None:
    result = studied(config, "per_device_train_batch_size", [8, 4, 1], seeds=2)
    assert [arm.verdict for arm in result.arms] == [None, "equivalent", "equivalent"]
    assert not result.rate_may_move


def test_a_larger_batch_takes_the_same_rows_and_says_that_it_is_not_retuned(config: Any) -> None:
    config["max_steps"] = 4
    result = studied(config, "global_batch_size", [8, 16], seeds=1)
    assert [len(arm.curves[0]) for arm in result.arms] == [4, 2]
    assert ([arm.num_steps for arm in result.arms], result.num_steps) == ([4, 2], (2, 4))
    assert result.arms[0].num_tokens == pytest.approx(result.arms[1].num_tokens, rel=0.15)
    assert result.rate_may_move and not result.is_retuned
    assert result.arms[1].verdict == "undecided"


def test_retuning_searches_a_rate_for_each_value(config: Any, tmp_path: Path) -> None:
    notes = Notes()
    result = studied(config, "lora_r", [2, 8], seeds=1, retune=True, observer=notes)
    runs = [line["run"] for line in read_jsonl(tmp_path / result.folder / "trials.jsonl")]
    searched = [run for run in runs if run["seed"] == 42 + 1000]
    for arm in result.arms:
        tried = {
            run["overrides"]["learning_rate"]: run["eval_loss"]
            for run in searched
            if run["overrides"]["lora_r"] == arm.value
        }
        assert len(tried) >= 4
        assert arm.learning_rate == min(tried, key=lambda rate: tried[rate])
    assert all("learning_rate" in run["overrides"] for run in runs)
    with pytest.raises(ConfigError, match="the study is of learning rates"):
        studied(config, "learning_rate", [1e-3, 1e-2], retune=True)


def test_a_rate_under_the_schedules_lowest_is_passed_over(config: Any) -> None:
    notes = Notes()
    level = {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 0.09}}
    config |= {**level, "learning_rate": 0.1}
    result = studied(config, "lora_r", [2, 8], seeds=1, retune=True, observer=notes)
    assert any("cannot be run: min_lr" in text for text in notes.texts)
    assert all(arm.learning_rate >= 0.09 for arm in result.arms)


def test_a_rate_is_searched_where_the_arms_optimizer_has_it(config: Any, tmp_path: Path) -> None:
    result = studied(config, "optim", ["adamw", "sgd"], seeds=1, retune=True)
    runs = [line["run"] for line in read_jsonl(tmp_path / result.folder / "trials.jsonl")]
    searched = [run["overrides"] for run in runs if run["seed"] == 42 + 1000]
    (adamw, *_), (sgd, *_) = (
        [each["learning_rate"] for each in searched if each["optim"] == name]
        for name in ("adamw", "sgd")
    )
    bench = trial_bench(config)
    assert adamw == config["learning_rate"]
    prior = bench.learning_rate_prior
    assert sgd == pytest.approx(adamw * prior({"optim": "sgd"}) / prior(), rel=0.01)
    assert sgd > 20 * adamw
    for arm in result.arms:
        tried = [each["learning_rate"] for each in searched if each["optim"] == arm.value]
        assert arm.rate_at_edge == (arm.learning_rate in {min(tried), max(tried)})


def test_a_run_whose_process_died_is_made_again(config: Any, tmp_path: Path) -> None:
    first = studied(config, "learning_rate", [1e-3, 1e-2], seeds=1)
    trials = tmp_path / first.folder / "trials.jsonl"
    lines = [json.loads(line) for line in trials.read_text(encoding="utf-8").splitlines()]
    died = {"eval_loss": None, "diverged": "the process was killed", "died": True}
    lines[1]["run"] |= died
    lines[0]["run"] |= {"eval_loss": None, "diverged": "not finite"}
    trials.unlink()
    for line in lines:
        Ledger(trials).append(line)
    again = studied(config, "learning_rate", [1e-3, 1e-2], seeds=1)
    assert again.arms[0].failures == ("not finite",)
    assert again.arms[1].losses == first.arms[1].losses
    assert again.arms[0].seconds is None


def test_an_arm_without_a_loss_is_worse_and_says_so(config: Any) -> None:
    result = studied(config, "learning_rate", [1e-3, 1e30], seeds=2)
    arm = result.arms[1]
    assert arm.verdict == "worse"
    assert arm.comparison is not None
    assert arm.comparison.because == "came to no loss in 2 of 2 seeds, the reference in 0"
    assert all(arm.failures) and arm.mean_loss is None
    assert StudyResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_values_that_come_to_the_same_runs_are_refused(config: Any) -> None:
    with pytest.raises(ConfigError, match="come to the same runs here"):
        studied(config, "learning_rate", ["auto", 2.5e-4])


def test_a_folder_of_something_else_is_refused(config: Any, tmp_path: Path) -> None:
    result = studied(config, "learning_rate", [1e-3, 1e-2], seeds=1)
    config["output_dir"] = result.folder
    with pytest.raises(ConfigError, match="a study of something else"):
        studied(config, "weight_decay", [0.0, 0.1], seeds=1)
    config["output_dir"] = str(tmp_path)
    with pytest.raises(ConfigError, match="holds other files"):
        studied(config, "weight_decay", [0.0, 0.1], seeds=1)


def test_rows_that_changed_make_another_study(config: Any, tmp_path: Path) -> None:
    first = studied(config, "learning_rate", [1e-3, 1e-2], seeds=1)
    write_rows(tmp_path / "rows.jsonl", num_rows=40)
    second = studied(config, "learning_rate", [1e-3, 1e-2], seeds=1)
    assert first.folder != second.folder


def test_a_later_plan_shows_what_was_found(config: Any) -> None:
    before = trimtab.plan(config, quick=True).decision("learning_rate")
    result = studied(config, "learning_rate", [1e-3, 1e-2], seeds=2)
    studied(config, "weight_decay", [0.0, 1e-9], seeds=2)
    plan = trimtab.plan(config, quick=True)
    decision = plan.decision("learning_rate")
    assert decision.value == before.value
    assert decision.because.startswith(before.because)
    assert "a study here found 0.01 better than 0.001 by" in decision.because
    assert "2 seeds of 6 updates" in decision.because
    assert "study.learning_rate" in decision.facts
    assert "a study here found" in plan.decision("weight_decay").because
    stored = Facts().adding(plan.facts).by_id["study.learning_rate"]
    assert stored.value == json.loads(json.dumps(study_fact(result).value))
    config["method"] = "full"
    assert "study" not in trimtab.plan(config, quick=True).decision("learning_rate").because


def test_a_decision_without_a_study_is_as_it_was(config: Any) -> None:
    decision = trimtab.plan(config, quick=True).decision("optim")
    assert with_study(decision, Facts()) == decision


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_study_that_ends_midway_goes_on(config: Any, tmp_path: Path, end: signal.Signals) -> None:
    config |= {"output_dir": "study"}
    trials = tmp_path / "study" / "trials.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, json.dumps(config), str(tmp_path)],
        cwd=tmp_path,
        env=child_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    _, told = signalled_where_halted(process, end, tmp_path)
    assert process.returncode != 0
    if end == signal.SIGINT:
        assert "The same command goes on with those that are left" in told
    first = trials.read_bytes()
    assert len(read_jsonl(trials)) == 1
    with trials.open("ab") as stream:
        stream.write(b'{"key": "torn')
    plan = json.loads((tmp_path / "study" / "study.json").read_text(encoding="utf-8"))["plan"]

    notes = Notes()
    result = trimtab.study(
        config, "learning_rate", [1e-3, 1e-2], seeds=1, in_process=True, observer=notes
    )
    assert "1 are done already" in notes.texts[0]
    assert trials.read_bytes().startswith(first)
    assert len(read_jsonl(trials)) == 2
    assert len(result.arms[1].curves[0]) == 6
    kept = json.loads((tmp_path / "study" / "study.json").read_text(encoding="utf-8"))["plan"]
    assert kept == plan


def test_a_stop_before_the_first_run_is_told(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import nullcontext

    from trimtab.study import studying
    from trimtab.study.design import arms_of
    from trimtab.study.studying import Wanted
    from trimtab.workflow.planning import resolve_config

    monkeypatch.setattr(studying, "stop_at_update_end", lambda told: nullcontext(lambda: True))
    with pytest.raises(Interrupted, match="its finished runs are kept") as stopped:
        run_study(
            resolve_config(config),
            arms_of("learning_rate", [1e-3, 1e-2]),
            Wanted(1, 0.005, in_process=True),
            Silent(),
        )
    assert stopped.value.exit_code == 75


def test_a_result_is_not_changed_by_json(config: Any) -> None:
    result = studied(config, "learning_rate", [1e-3, 1e-2], seeds=1)
    assert StudyResult.from_json(json.loads(json.dumps(result.to_json()))) == result
    assert replace(result, folder="elsewhere") != result


def test_a_second_ctrl_c_tells_that_finished_runs_are_kept(config: Any) -> None:
    class Impatient(Silent):
        def noted(self, text: str) -> None:
            if text.endswith("s in all"):
                raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="finished runs are kept"):
        trimtab.study(
            config, "learning_rate", [1e-3, 1e-2], seeds=1, in_process=True, observer=Impatient()
        )


def test_without_values_there_is_nothing_to_compare(config: Any) -> None:
    with pytest.raises(ConfigError, match="has no value, and a study compares"):
        trimtab.study(config, "learning_rate", [])
