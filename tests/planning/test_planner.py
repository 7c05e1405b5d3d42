from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import pytest
from planning.facts import (
    CARD_8GB,
    CARD_24GB,
    CARD_80GB,
    CPU,
    DATA,
    GB,
    LLAMA_135M,
    PLAIN_CPU,
    QUICK,
    as_facts,
    config,
    data,
    planned,
    rows_for,
)

from trimtab.errors import ConfigError
from trimtab.hyperparameters.catalogue import catalogue
from trimtab.hyperparameters.config import TrainingConfig
from trimtab.planning.fact import Fact, Facts
from trimtab.planning.plan import Plan
from trimtab.planning.planner import make_plan
from trimtab.planning.questions import (
    DataQuestion,
    DeviceQuestion,
    ModelQuestion,
    TrainingRowsQuestion,
)

DEVICES = {"cpu": CPU, "plain cpu": PLAIN_CPU, "8": CARD_8GB, "24": CARD_24GB, "80": CARD_80GB}


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
def test_every_field_has_one_decision_in_the_catalogues_order(
    device: dict[str, object], method: str
) -> None:
    plan = planned(device=device, method=method)
    assert [one.name for one in plan.decisions] == list(TrainingConfig.model_fields)


@pytest.mark.parametrize(
    "values",
    [
        {"method": "lora"},
        {"method": "full", "eval_dataset": "none"},
        {"eval_strategy": "epoch"},
        {"per_device_train_batch_size": 16, "activation_checkpointing": "off"},
    ],
)
def test_auto_that_is_written_is_as_auto_that_is_left_out(values: dict[str, object]) -> None:
    tight = PLAIN_CPU | {"device.memory_available_bytes": 4 * GB}
    written = {one.name: "auto" for one in catalogue().values() if one.has_auto}
    plain = planned(config(**values), device=tight)
    asked = planned(config(**(written | values)), device=tight)
    assert asked.decisions == plain.decisions
    assert asked.warnings == plain.warnings


@pytest.mark.parametrize("method", ["lora", "full"])
def test_no_value_is_left_open_and_every_reason_is_given(method: str) -> None:
    plan = planned(method=method)
    assert [one.name for one in plan.decisions if one.value == "auto"] == []
    assert [one.name for one in plan.decisions if not one.because.strip()] == []


def test_decisions_rest_on_facts_of_the_plan() -> None:
    plan = planned()
    known = {fact.id for fact in plan.facts}
    named = {fact_id for one in plan.decisions for fact_id in one.facts}
    assert named <= known
    assert {one.name for one in plan.decisions if one.origin == "measured"} <= {
        one.name for one in plan.decisions if one.facts
    }


def test_settings_are_complete_and_equal_the_decisions() -> None:
    plan = planned(target_modules=["q_proj", "v_proj"])
    settings = asdict(plan.settings())
    decided = {one.name: one.value for one in plan.decisions} | dict(plan.derived)
    decided["target_modules"] = ("q_proj", "v_proj")
    assert settings == {name: decided[name] for name in settings}
    assert settings["num_train_steps"] == plan.predictions.num_steps
    assert settings["pad_token_id"] == 17
    assert settings["num_eval_rows"] == 51


@pytest.mark.parametrize("values", [{}, {"method": "full", "optim": "lion"}, {"packing": True}])
def test_json_round_trip(values: dict[str, object]) -> None:
    plan = planned(**values)
    again = Plan.from_json(json.loads(json.dumps(plan.to_json(), allow_nan=False)))
    assert again == plan
    assert again.settings() == plan.settings()


def test_first_questions_are_asked_together() -> None:
    answer = make_plan(config(device="cuda:1"), Facts(), output_dir="r")
    assert answer == (DeviceQuestion("cuda:1"), ModelQuestion(), DataQuestion())
    only_device = make_plan(config(), as_facts(CPU), output_dir="r")
    assert only_device == (ModelQuestion(), DataQuestion())


def test_rows_are_asked_for_under_the_decided_lengths_and_split() -> None:
    known = as_facts({**CPU, **LLAMA_135M, **DATA})
    answer = make_plan(config(seed=7, packing=True), known, output_dir="r")
    assert answer == (TrainingRowsQuestion(320, "keep_start", True, 51, "", 7),)
    answer = make_plan(
        config(data_seed=5, max_length=100, truncation_mode="drop", eval_dataset="none"),
        known,
        output_dir="r",
    )
    assert answer == (TrainingRowsQuestion(100, "drop", False, 0, "", 5),)


def test_rows_of_their_own_for_evaluation() -> None:
    rows = data(eval_num_rows=77)
    known = as_facts({**CPU, **LLAMA_135M, **rows})
    answer = make_plan(config(eval_dataset="e.jsonl"), known, output_dir="r")
    assert answer == (TrainingRowsQuestion(320, "keep_start", False, 77, "e.jsonl", 42),)
    plan = planned(eval_dataset="e.jsonl", rows=rows)
    assert plan.settings().eval_dataset == "e.jsonl"
    assert plan.settings().num_eval_rows == 77


def test_rows_under_another_key_are_no_answer() -> None:
    known = {**CPU, **LLAMA_135M, **DATA}
    (other,) = make_plan(config(max_length=64), as_facts(known), output_dir="r")
    assert isinstance(other, TrainingRowsQuestion)
    stale = as_facts({**known, **rows_for(other, known, {})})
    answer = make_plan(config(max_length=128), stale, output_dir="r")
    assert isinstance(answer, tuple)
    assert answer[0].max_length == 128  # type: ignore[union-attr]


def test_question_keys_differ_with_every_argument() -> None:
    base = TrainingRowsQuestion(64, "drop", False, 5, "", 1)
    others = [
        TrainingRowsQuestion(65, "drop", False, 5, "", 1),
        TrainingRowsQuestion(64, "split", False, 5, "", 1),
        TrainingRowsQuestion(64, "drop", True, 5, "", 1),
        TrainingRowsQuestion(64, "drop", False, 6, "", 1),
        TrainingRowsQuestion(64, "drop", False, 5, "e", 1),
        TrainingRowsQuestion(64, "drop", False, 5, "", 2),
    ]
    assert base.key == TrainingRowsQuestion(64, "drop", False, 5, "", 1).key
    assert len({base.key, *(other.key for other in others)}) == 7


@pytest.mark.parametrize(
    "values",
    [
        {"packing": True, "padding": "longest"},
        {"lr_scheduler_kwargs": {"power": 2.0}},
        {
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 4,
            "global_batch_size": 15,
        },
    ],
)
def test_contradictions_are_told_before_anything_is_measured(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        make_plan(config(**values), Facts(), output_dir="r")


def test_the_users_values_stand_with_their_place() -> None:
    plan = planned(learning_rate=2e-4, seed=9)
    for name, value in {"learning_rate": 2e-4, "seed": 9}.items():
        assert plan.decision(name).value == value
        assert plan.decision(name).origin == "user"
        assert plan.decision(name).because.startswith("set in Python")
    assert plan.decision("data_seed").value == 9
    assert plan.decision("data_seed").origin == "rule"
    assert planned(data_seed=3).decision("data_seed").value == 3


def test_every_settable_field_keeps_the_users_value() -> None:
    asked: dict[str, object] = {
        "trust_remote_code": True,
        "dataset_split": "test",
        "dataset_columns": {"prompt": "q", "completion": "a"},
        "dataset_text_field": "body",
        "completion_only_loss": False,
        "assistant_only_loss": False,
        "on_bad_row": "skip",
        "truncation_mode": "drop",
        "padding": "longest",
        "padding_side": "left",
        "pad_to_multiple_of": 8,
        "per_device_eval_batch_size": 3,
        "weight_decay": 0.1,
        "adam_beta1": 0.8,
        "adam_beta2": 0.95,
        "adam_epsilon": 1e-6,
        "max_grad_norm": 0.5,
        "precision": "fp32",
        "activation_checkpointing": 3,
        "lora_r": 8,
        "lora_alpha": 8.0,
        "lora_dropout": 0.1,
        "eval_strategy": "epoch",
        "save_steps": 7,
        "save_total_limit": 5,
        "logging_steps": 3,
        "report_samples": 1,
        "max_new_tokens": 9,
        "chat_template": "t.jinja",
    }
    plan = planned(**asked)
    assert {name: plan.decision(name).value for name in asked} == asked
    assert {plan.decision(name).origin for name in asked} == {"user"}


def test_what_is_not_measured_is_named() -> None:
    told = " ".join(planned().not_measured)
    for words in ("memory", "learning rate", "noise scale", "seconds"):
        assert words in told


def test_what_was_measured_under_other_settings_is_not_used_and_paid_for() -> None:
    known = Facts().adding(planned().facts)
    trials = [Fact("trials.key", "of other settings", cost_s=8.0), Fact("trials.points", [])]
    plan = make_plan(config(), known.adding(trials), output_dir="runs/r", effort=QUICK)
    assert isinstance(plan, Plan)
    assert not any(fact.id.startswith("trials.") for fact in plan.facts)
    assert {fact.id: fact.cost_s for fact in plan.facts if fact.cost_s} == {"discarded.trials": 8.0}


def test_the_planner_is_light() -> None:
    code = (
        "import sys; import trimtab.planning.planner; "
        "print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
