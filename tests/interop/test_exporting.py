"""Plans in other tools' words: nothing unsaid, and read back to the same values."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from planning.facts import DATA, planned

from trimtab.errors import ConfigError
from trimtab.hyperparameters.catalogue import catalogue
from trimtab.interop.dialects.writers import WRITERS
from trimtab.interop.exporting import export_config, rendered_config
from trimtab.interop.importing import import_config
from trimtab.planning.plan import Plan
from trimtab.planning.settings import LION_BETA2

TOOLS = sorted(WRITERS)
FORMATS = {
    "text": {},
    "prompt_completion": {"prompt": "question", "completion": "answer"},
    "messages": {"messages": "turns"},
    "sharegpt": {},
    "alpaca": {"instruction": "task"},
}
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "method": st.sampled_from(["lora", "full"]),
        "max_length": st.integers(16, 512),
        "truncation_mode": st.sampled_from(["keep_start", "drop", "split", "error"]),
        "packing": st.booleans(),
        "per_device_train_batch_size": st.sampled_from([1, 2, 4, 8]),
        "gradient_accumulation_steps": st.sampled_from([1, 2, 3]),
        "num_train_epochs": st.sampled_from([0.5, 1.0, 2.0, 7.25]),
        "max_steps": st.integers(1, 500),
        "learning_rate": st.floats(1e-7, 1.0),
        "lr_scheduler_type": st.sampled_from(["linear", "cosine", "inverse_sqrt"]),
        "warmup_steps": st.integers(0, 4) | st.floats(0.01, 0.3),
        "optim": st.sampled_from(["adamw", "adam", "sgd", "adafactor", "muon"]),
        "weight_decay": st.floats(0, 0.5),
        "adam_beta1": st.floats(0, 0.99),
        "adam_beta2": st.floats(0.1, 0.9999),
        "adam_epsilon": st.floats(1e-12, 1e-3),
        "max_grad_norm": st.floats(0, 10),
        "precision": st.sampled_from(["bf16", "fp16", "fp32"]),
        "activation_checkpointing": st.sampled_from(["off", "full", 2]),
        "lora_r": st.integers(1, 64),
        "lora_alpha": st.floats(1, 64),
        "lora_dropout": st.sampled_from([0.0, 0.05, 0.5]),
        "target_modules": st.sampled_from([["q_proj", "v_proj"], "all-linear"]),
        "seed": st.integers(0, 2**32 - 1),
        "data_seed": st.integers(0, 2**32 - 1),
        "eval_dataset": st.sampled_from([0.1, "none"]),
        "eval_strategy": st.sampled_from(["steps", "epoch", "no"]),
        "save_total_limit": st.integers(1, 9),
        "completion_only_loss": st.booleans(),
        "assistant_only_loss": st.booleans(),
    },
)


def plan_of(row_format: str, **values: Any) -> Plan:
    if "num_train_epochs" in values:
        values.pop("max_steps", None)
    if values.get("optim") == "muon":
        values.pop("method", None)
    values.setdefault("memory_limit", 10**12)
    columns = {"dataset_columns": FORMATS[row_format]} if FORMATS[row_format] else {}
    return planned(rows={**DATA, "data.format": row_format}, **columns, **values)


def read_back(plan: Plan, tool: str, folder: Path) -> dict[str, Any]:
    """The values that the exported file gives, for what it is said to carry."""
    exported = export_config(plan, tool, folder)
    imported = import_config(exported.file)
    assert imported is not None
    assert imported.dialect.name == tool
    assert [one for one in imported.not_carried if one.changes_result] == []
    left = {one.name for one in exported.not_carried}
    return {
        name: value for name, value in dict(imported.resolved.config).items() if name not in left
    }


def expected(plan: Plan, name: str, tool: str) -> Any:
    value = plan.decision(name).value
    if name == "output_dir":
        return f"{value}-{tool}"
    if name == "chat_template" and value == "model" and tool != "llamafactory":
        return "auto"
    return value


def assert_same(plan: Plan, tool: str, folder: Path) -> None:
    found = read_back(plan, tool, folder)
    is_by_steps = plan.decision("max_steps").value != -1
    for name, value in found.items():
        wanted = expected(plan, name, tool)
        if name == "num_train_epochs" and is_by_steps:
            continue
        if (value == "auto" and name == "chat_template" and wanted == "model") or (
            plan.decision("method").value == "full" and name.startswith(("lora_", "target_"))
        ):
            continue
        if isinstance(wanted, list):
            wanted = tuple(wanted)
        assert value == wanted, (name, value, wanted)


@pytest.mark.parametrize("tool", TOOLS)
@settings(max_examples=25, deadline=None, phases=[Phase.generate])
@given(row_format=st.sampled_from(sorted(FORMATS)), values=VALUES)
def test_what_is_written_reads_back_the_same(
    tool: str, row_format: str, values: dict[str, Any]
) -> None:
    if tool == "llamafactory" and row_format == "text":
        return  # told to be lost, see below
    plan = plan_of(row_format, **values)
    with tempfile.TemporaryDirectory() as folder:
        assert_same(plan, tool, Path(folder) / "theirs")


@pytest.mark.parametrize("tool", TOOLS)
def test_every_hyperparameter_is_written_or_told(tool: str, tmp_path: Path) -> None:
    for row_format in FORMATS:
        plan = plan_of(row_format)
        exported = rendered_config(plan, tool, tmp_path)
        left = [one.name for one in exported.not_carried]
        assert len(left) == len(set(left))
        for one in exported.not_carried:
            assert one.name in catalogue()
            if one.changes_result:
                assert f"# {one.name} is not carried" in exported.files[f"{tool}.yaml"]


@pytest.mark.parametrize(
    ("tool", "row_format", "values", "lost"),
    [
        ("trl", "prompt_completion", {}, "dataset_columns"),
        ("trl", "messages", {"truncation_mode": "drop"}, "truncation_mode"),
        ("trl", "messages", {}, "eval_dataset"),
        ("trl", "messages", {"optim": "adafactor"}, "optim"),
        ("axolotl", "prompt_completion", {}, "chat_template"),
        ("axolotl", "alpaca", {}, "dataset_format"),
        ("axolotl", "text", {"truncation_mode": "drop"}, "truncation_mode"),
        ("axolotl", "messages", {"truncation_mode": "split"}, "truncation_mode"),
        ("trl", "prompt_completion", {}, "chat_template"),
        ("llamafactory", "text", {}, "dataset_format"),
        ("llamafactory", "messages", {"truncation_mode": "keep_start"}, "truncation_mode"),
        ("llamafactory", "messages", {"optim": "muon", "method": "full"}, "optim"),
    ],
)
def test_what_changes_the_result_and_has_no_name_is_told(
    tool: str, row_format: str, values: dict[str, Any], lost: str, tmp_path: Path
) -> None:
    exported = rendered_config(plan_of(row_format, **values), tool, tmp_path)
    assert {one.name: one.changes_result for one in exported.not_carried}[lost] is True


@pytest.mark.parametrize("tool", TOOLS)
def test_embeddings_that_decay_in_the_tool_are_told(tool: str, tmp_path: Path) -> None:
    for values, is_told in (
        ({"method": "full", "weight_decay": 0.1}, True),
        ({"method": "full", "weight_decay": 0.0}, False),
        ({"method": "lora", "weight_decay": 0.1}, False),
    ):
        exported = rendered_config(plan_of("messages", **values), tool, tmp_path)
        assert any("embeddings" in one.why for one in exported.differences) is is_told
        assert ("# not the same here: weight_decay" in exported.files[f"{tool}.yaml"]) is is_told


def test_alpacas_line_break_is_told(tmp_path: Path) -> None:
    differences = rendered_config(plan_of("alpaca"), "llamafactory", tmp_path).differences
    assert ["joined by a line break" in one.why for one in differences] == [True]


def test_texts_that_are_split_need_no_key_of_axolotls(tmp_path: Path) -> None:
    plan = plan_of("text", truncation_mode="split")
    exported = rendered_config(plan, "axolotl", tmp_path)
    assert "truncation_mode" not in [one.name for one in exported.not_carried]
    assert "excess_length_strategy" not in exported.keys
    assert read_back(plan, "axolotl", tmp_path / "theirs")["truncation_mode"] == "split"


def test_strings_without_a_template_need_no_key_of_trls(tmp_path: Path) -> None:
    plan = plan_of("prompt_completion", chat_template="none")
    left = [one.name for one in rendered_config(plan, "trl", tmp_path).not_carried]
    assert "chat_template" not in left


@pytest.mark.parametrize("tool", TOOLS)
def test_a_subset_is_written_apart_from_the_datasets_name(tool: str, tmp_path: Path) -> None:
    plan = plan_of("messages", dataset="some/rows:de")
    plan = replace(plan, paths={})
    assert read_back(plan, tool, tmp_path / "theirs")["dataset"] == "some/rows:de"
    text = "".join(rendered_config(plan, tool, tmp_path).files.values())
    assert "some/rows" in text
    assert "some/rows:de" not in text


def test_lions_second_decay_rate_is_written_as_the_one_it_has_here(tmp_path: Path) -> None:
    plan = plan_of("messages", optim="lion", adam_beta2=0.95)
    keys = rendered_config(plan, "trl", tmp_path).keys
    assert (keys["optim"], keys["adam_beta2"]) == ("lion_32bit", LION_BETA2)


def test_numbers_are_numbers_to_readers_of_yaml_1_1(tmp_path: Path) -> None:
    plan = plan_of("messages", learning_rate=1e-5, eval_strategy="no", eval_dataset="none")
    text = rendered_config(plan, "trl", tmp_path).files["trl.yaml"]
    assert "learning_rate: 1.0e-05\n" in text
    assert 'eval_strategy: "no"\n' in text


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there already"):
        export_config(plan_of("messages"), "trl", tmp_path)


def test_another_tool_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it takes axolotl, llamafactory, trl"):
        export_config(plan_of("messages"), "unsloth", tmp_path / "theirs")
