from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.tiny import save_tiny_model, tiny_model

from trimtab.errors import ConfigError
from trimtab.models.safety import check_model_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny_model(tmp_path / "model")


def add(file: Path, **entries: Any) -> None:
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**content, **entries}))


def refused(folder: Path, *, trust_remote_code: bool = False) -> ConfigError:
    with pytest.raises(ConfigError) as refusal:
        check_model_folder(folder, trust_remote_code=trust_remote_code)
    assert refusal.value.exit_code == 2
    return refusal.value


def test_a_plain_folder_passes(folder: Path) -> None:
    check_model_folder(folder, trust_remote_code=False)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ("model", "Its model is {run}/model."),
        ("adapter", "merged into a whole model with: trimtab export {run}"),
        ("checkpoints", "goes on with: trimtab resume {run}"),
    ],
)
def test_a_run_is_no_model_and_its_result_is_named(tmp_path: Path, made: str, told: str) -> None:
    run = tmp_path / "run"
    (run / made).mkdir(parents=True)
    (run / "plan.json").write_text("{}")
    refusal = refused(run)
    assert "is a run's folder" in refusal.what
    assert told.format(run=run) in str(refusal)


def test_an_adapter_of_a_run_is_told_with_how_it_is_merged(tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = run / "adapter" / "adapter_config.json"
    config.parent.mkdir(parents=True)
    add(config, peft_type="LORA")
    assert str(refused(run / "adapter")).endswith("merge the adapter into it first.")
    (run / "plan.json").write_text("{}")
    assert str(refused(run / "adapter")).endswith(f"trimtab export {run}")


@pytest.mark.parametrize(
    ("name", "entries", "key"),
    [
        ("config.json", {"auto_map": {"AutoModel": "own.Model"}}, "auto_map"),
        ("config.json", {"text_config": {"auto_map": {}}}, "auto_map"),
        ("config.json", {"parts": [{"auto_map": {}}]}, "auto_map"),
        (
            "config.json",
            {"_attn_implementation_internal": "some/kernel"},
            "_attn_implementation_internal",
        ),
        ("config.json", {"attn_implementation": "some/kernel"}, "attn_implementation"),
        ("config.json", {"_experts_implementation": "a/b"}, "_experts_implementation"),
        ("config.json", {"custom_pipelines": {}}, "custom_pipelines"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["own.T"]}}, "auto_map"),
        ("generation_config.json", {"auto_map": {}}, "auto_map"),
    ],
)
def test_code_of_the_models_own_is_refused_unless_trusted(
    name: str, entries: dict[str, Any], key: str, folder: Path
) -> None:
    add(folder / name, **entries)
    error = refused(folder)
    assert f"({key})" in error.what
    assert error.where == str(folder / name)
    assert "trust_remote_code: true" in (error.hint or "")
    check_model_folder(folder, trust_remote_code=True)


def test_the_name_of_a_built_in_attention_is_no_code(folder: Path) -> None:
    add(folder / "config.json", attn_implementation="sdpa")
    check_model_folder(folder, trust_remote_code=False)


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"a": 1,\n "b": }')


def broken_tokenizer_config(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_bytes(b"\xff\xfe{")


def list_config(folder: Path) -> None:
    (folder / "config.json").write_text("[1]")


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def truncated(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def quantised(folder: Path) -> None:
    add(folder / "config.json", quantization_config={"quant_method": "gptq"})


def outside(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    add(folder / "model.safetensors.index.json", weight_map={"a": "../b.safetensors"})


def index_without_map(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    add(folder / "model.safetensors.index.json", metadata={})


@pytest.mark.parametrize(
    ("spoil", "message", "file"),
    [
        (no_config, "no config.json", ""),
        (broken_config, "not JSON", "config.json:2"),
        (broken_tokenizer_config, "not UTF-8", "tokenizer_config.json"),
        (list_config, "not a JSON object", "config.json"),
        (pickled, "pytorch_model.bin", ""),
        (no_weights, "no weights", ""),
        (truncated, "damaged", "model.safetensors"),
        (quantised, "quantised", "config.json"),
        (outside, "outside the folder", "model.safetensors.index.json"),
        (index_without_map, "no weight_map", "model.safetensors.index.json"),
    ],
)
def test_a_spoilt_folder_is_refused_by_name(
    spoil: Callable[[Path], None], message: str, file: str, folder: Path
) -> None:
    spoil(folder)
    error = refused(folder, trust_remote_code=True)
    assert message in error.what
    assert str(folder) in str(error)
    if file:
        assert error.where == str(folder / file)


def test_pickled_weights_come_with_the_way_out(folder: Path) -> None:
    pickled(folder)
    assert "save_pretrained" in (refused(folder).hint or "")


def test_every_shard_must_be_there_and_whole(tmp_path: Path) -> None:
    tiny_model("qwen3").save_pretrained(tmp_path, max_shard_size="64KB")
    check_model_folder(tmp_path, trust_remote_code=False)
    shard = sorted(tmp_path.glob("*.safetensors"))[-1]
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    assert refused(tmp_path).where == str(shard)
    shard.unlink()
    assert shard.name in refused(tmp_path).what
