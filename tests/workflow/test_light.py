"""A quick plan's facts are those of a measured plan, as far as files tell them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.runs import write_rows
from support.tiny import save_tiny_model

from trimtab.data import sampling
from trimtab.engine.observer import Silent
from trimtab.errors import ConfigError, DataError, TrimtabError
from trimtab.hyperparameters.config import TrainingConfig
from trimtab.planning.fact import Facts
from trimtab.planning.questions import (
    DataQuestion,
    DeviceQuestion,
    ModelQuestion,
    TrainingRowsQuestion,
)
from trimtab.workflow.light import FileQuestion, LightMaterials
from trimtab.workflow.materials import Materials

ROWS = TrainingRowsQuestion(
    max_length=32,
    truncation_mode="keep_start",
    packing=True,
    num_eval_rows=8,
    eval_dataset="",
    data_seed=7,
)


def configured(folder: Path, model: Path, **values: Any) -> TrainingConfig:
    rows = folder / "rows.jsonl"
    if not rows.exists():
        write_rows(rows)
    return TrainingConfig.model_validate(
        {"model": str(model), "dataset": str(rows), "device": "cpu", **values}
    )


def both(config: TrainingConfig, question: FileQuestion) -> tuple[Facts, Facts]:
    light = Facts().adding(LightMaterials(config, Silent()).answer(question))
    return light, Facts().adding(Materials(config, Silent()).answer(question))


def values(facts: Facts, *left_out: str) -> dict[str, Any]:
    return {fact.id: fact.value for fact in facts if fact.id not in left_out}


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_model(tmp_path: Path, architecture: str) -> None:
    config = configured(tmp_path, save_tiny_model(tmp_path / "model", architecture))
    light, measured = both(config, ModelQuestion())
    modules = "model.linear_modules"
    assert values(light, modules) == values(measured, modules)
    assert sorted(light.value(modules)) == sorted(measured.value(modules))
    assert light.by_id["model.packing_refusal"].method == "not checked"


@pytest.mark.parametrize(
    "changes",
    [{}, {"chat_template": "plain"}, {"dataset_columns": {"text": "prompt"}}],
    ids=["model", "plain", "text"],
)
def test_the_rows(tmp_path: Path, tiny_llama_folder: Path, changes: dict[str, Any]) -> None:
    config = configured(tmp_path, tiny_llama_folder, **changes)
    light, measured = both(config, DataQuestion())
    assert values(light) == values(measured)
    light, measured = both(config, ROWS)
    assert values(light) == values(measured, "rows.digest")


def test_rows_to_evaluate_on(tmp_path: Path, tiny_llama_folder: Path) -> None:
    separate = write_rows(tmp_path / "eval.jsonl", 10)
    config = configured(tmp_path, tiny_llama_folder, eval_dataset=str(separate))
    light, measured = both(config, DataQuestion())
    assert light.value("data.eval_num_rows") == 10
    assert values(light) == values(measured)
    question = TrainingRowsQuestion(32, "keep_start", False, 10, str(separate), 7)
    light, measured = both(config, question)
    assert values(light) == values(measured, "rows.digest")


def test_estimates_are_marked(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "MAX_SAMPLED_ROWS", 8)
    monkeypatch.setattr(sampling, "NUM_LARGEST_ROWS", 1)
    config = configured(tmp_path, tiny_llama_folder)
    light, measured = both(config, DataQuestion())
    assert light.by_id["data.length_mean"].method == "estimated from 7 of 48 rows"
    assert light.value("data.num_rows") == measured.value("data.num_rows") == 48
    assert light.number("data.num_tokens") == pytest.approx(
        measured.number("data.num_tokens"), rel=0.1
    )
    light, measured = both(config, ROWS)
    told = light.by_id["rows.num_tokens"]
    assert told.method == "estimated from 7 of 48 rows; spread: half of the 95% interval"
    assert told.spread is not None and told.spread > 0
    assert light.number("rows.num_tokens") == pytest.approx(
        measured.number("rows.num_tokens"), rel=0.1
    )


def test_an_estimated_length_refuses_no_row(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(tmp_path, tiny_llama_folder)
    question = replace(ROWS, max_length=40, truncation_mode="error")
    with pytest.raises(DataError, match="longer than max_length 40"):
        list(LightMaterials(config, Silent()).answer(question))
    monkeypatch.setattr(sampling, "MAX_SAMPLED_ROWS", 8)
    monkeypatch.setattr(sampling, "NUM_LARGEST_ROWS", 1)
    light = Facts().adding(LightMaterials(config, Silent()).answer(question))
    assert light.value("rows.key") == question.key
    assert light.integer("rows.num_truncated") > 0
    assert light.by_id["rows.num_truncated"].method == "estimated from 7 of 48 rows"


def test_the_device() -> None:
    config = TrainingConfig(model="m", dataset="d", device="cpu")
    light, measured = both(config, DeviceQuestion("cpu"))
    for name in ("device.kind", "device.memory_bytes", "device.native.bf16"):
        assert light.value(name) == measured.value(name)
    assert not any("flops" in fact.id for fact in light)


@pytest.mark.parametrize(
    ("changes", "content"),
    [
        ({}, '{"prompt": "a", "completion": "b"}\n{"prompt": \n'),
        ({}, '{"prompt": "a", "completion": "b"}\n{"prompt": "c", "completion": 3}\n'),
        ({}, '{"one": "a", "two": "b"}\n'),
        ({"dataset_columns": {"prompt": "no-such"}}, '{"prompt": "a", "completion": "b"}\n'),
        ({"chat_template": "none-such.jinja"}, '{"prompt": "a", "completion": "b"}\n'),
        ({"dataset": "none-such.jsonl"}, ""),
    ],
)
def test_errors_are_those_of_measuring(
    tmp_path: Path, tiny_llama_folder: Path, changes: dict[str, Any], content: str
) -> None:
    (tmp_path / "rows.jsonl").write_text(content)
    config = configured(tmp_path, tiny_llama_folder, **changes)
    told = []
    for materials in (LightMaterials(config, Silent()), Materials(config, Silent())):
        with pytest.raises((ConfigError, DataError)) as caught:
            list(materials.answer(DataQuestion()))
        told.append((type(caught.value), str(caught.value)))
    assert told[0] == told[1]


def test_every_bad_row_is_told_however_few_are_sampled(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "MAX_SAMPLED_ROWS", 8)
    monkeypatch.setattr(sampling, "NUM_LARGEST_ROWS", 1)
    rows = write_rows(tmp_path / "rows.jsonl").read_text()
    (tmp_path / "rows.jsonl").write_text('{"prompt": \n' + rows + '{"prompt": "a"}\n')
    config = configured(tmp_path, tiny_llama_folder)
    with pytest.raises(DataError, match="2 of 50 rows cannot be trained on") as caught:
        list(LightMaterials(config, Silent()).answer(DataQuestion()))
    assert "rows.jsonl:50  no column 'completion'" in str(caught.value)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("none/such.gguf", "there is no file or folder"),
        ("owner/never-fetched", "Plan without --quick, which fetches it"),
    ],
)
def test_models_that_are_not_here(model: str, reason: str) -> None:
    config = TrainingConfig(model=model, dataset="d")
    with pytest.raises(TrimtabError, match=reason):
        list(LightMaterials(config, Silent()).answer(ModelQuestion()))


def test_a_gguf_file_that_was_never_unpacked(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    config = TrainingConfig(model=str(tmp_path / "model.gguf"), dataset="d")
    with pytest.raises(ConfigError, match=r"not unpacked yet.*Plan without --quick once"):
        list(LightMaterials(config, Silent()).answer(ModelQuestion()))
