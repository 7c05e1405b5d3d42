"""A model, or a run's result, that somebody else made: nothing of it runs, and it says so."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.devices import time_briefly
from support.runs import tiny_config, write_rows
from transformers import dynamic_module_utils

import trimtab
from trimtab.cli.app import run


class Canary:
    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self._mark, "ran"))


@pytest.fixture(autouse=True)
def _brief_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    time_briefly(monkeypatch)


@pytest.fixture
def model(tmp_path: Path, tiny_llama_folder: Path) -> Path:
    return Path(shutil.copytree(tiny_llama_folder, tmp_path / "model"))


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def put(file: Path, **entries: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**content, **entries}))


def code(folder: Path) -> None:
    """Code that writes the canary where it is imported, under every name that it is asked by."""
    text = f"import pathlib\npathlib.Path({str(folder.parent / 'canary')!r}).write_text('ran')\n"
    for name in ("own", "modeling_llama", "configuration_llama", "tokenization_llama", "kernels"):
        (folder / f"{name}.py").write_text(text)


def of_config(folder: Path) -> None:
    put(folder / "config.json", auto_map={"AutoModelForCausalLM": "own.Model"})


def of_nested_config(folder: Path) -> None:
    put(folder / "config.json", text_config={"layers": [{"auto_map": {"AutoModel": "own.M"}}]})


def of_config_of_another_version(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    other = {**config, "_attn_implementation_internal": "owner/kernel"}
    (folder / "config.4.0.0.json").write_text(json.dumps(other))
    put(folder / "config.json", configuration_files=["config.4.0.0.json"])


def of_attention_kernel(folder: Path) -> None:
    put(folder / "config.json", _attn_implementation_internal="owner/kernel")


def of_attention_kernel_by_version(folder: Path) -> None:
    put(folder / "config.json", attn_implementation="owner/kernel@main:forward")


def of_attention_kernels_by_part(folder: Path) -> None:
    put(folder / "config.json", attn_implementation={"text_config": "owner/kernel"})


def of_paged_attention_kernel(folder: Path) -> None:
    put(folder / "config.json", _attn_implementation="paged|owner/kernel")


def of_experts_kernel(folder: Path) -> None:
    put(folder / "config.json", _experts_implementation="owner/kernel")


def of_tokenizer(folder: Path) -> None:
    put(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.T", "own.T"]})


def of_generation(folder: Path) -> None:
    put(folder / "generation_config.json", custom_generate="own", auto_map={"A": "own.G"})


def of_processor(folder: Path) -> None:
    put(folder / "processor_config.json", auto_map={"AutoProcessor": "own.P"})


def of_preprocessor(folder: Path) -> None:
    put(folder / "preprocessor_config.json", auto_map={"AutoImageProcessor": "own.P"})


def of_special_tokens(folder: Path) -> None:
    put(folder / "special_tokens_map.json", auto_map={"AutoTokenizer": "own.T"})


WITH_CODE = [
    of_config,
    of_nested_config,
    of_config_of_another_version,
    of_attention_kernel,
    of_attention_kernel_by_version,
    of_attention_kernels_by_part,
    of_paged_attention_kernel,
    of_experts_kernel,
    of_tokenizer,
    of_generation,
    of_processor,
    of_preprocessor,
    of_special_tokens,
]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert "bug of trimtab" not in captured.err
    return captured.err


def options(folder: Path, tmp_path: Path) -> list[str]:
    rows = write_rows(tmp_path / "rows.jsonl", 8)
    return ["--model", str(folder), "--dataset", str(rows)]


@pytest.mark.parametrize("smuggle", WITH_CODE)
@pytest.mark.parametrize("verb", [["inspect"], ["plan", "--quick"]], ids=" ".join)
def test_code_is_refused_by_file_unless_it_is_trusted(
    smuggle: Callable[[Path], None],
    verb: list[str],
    model: Path,
    mark: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code(model)
    smuggle(model)
    message = refused(capsys, *verb, *options(model, tmp_path))
    assert "brings code of its own" in message
    assert "trust_remote_code: true" in message
    assert str(model) in message
    assert not mark.exists()


def test_code_that_is_trusted_does_run(
    model: Path, mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    code(model)
    put(model / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "own.T"]})
    run(["inspect", *options(model, tmp_path), "--trust-remote-code", "true"])
    assert mark.exists()


def embedded_adapter(folder: Path) -> None:
    put(folder / "adapter_config.json", base_model_name_or_path="owner/other", peft_type="LORA")


def bare_adapter(folder: Path) -> None:
    embedded_adapter(folder)
    (folder / "config.json").unlink()


@pytest.mark.parametrize("make", [embedded_adapter, bare_adapter])
def test_an_adapter_is_no_model_and_its_base_is_not_followed(
    make: Callable[[Path], None], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(model)
    message = refused(capsys, "inspect", *options(model, tmp_path))
    assert "holds an adapter (adapter_config.json)" in message


def outside(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "stolen.safetensors")
    put(folder / "model.safetensors.index.json", weight_map={"a": "../stolen.safetensors"})


def absolute(folder: Path) -> None:
    target = folder.parent / "stolen.safetensors"
    (folder / "model.safetensors").rename(target)
    put(folder / "model.safetensors.index.json", weight_map={"a": str(target)})


def pickled_shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "a.bin").write_bytes(pickle.dumps(Canary(folder.parent / "canary")))
    put(folder / "model.safetensors.index.json", weight_map={"a": "a.bin"})


def pickle_named_safetensors(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(Canary(folder.parent / "canary")))


def endless_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")


def nested_header(folder: Path) -> None:
    header = b'{"a":' * 50_000
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)


def overlapping_tensors(folder: Path) -> None:
    header = json.dumps(
        {
            "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
            "b": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
        }
    ).encode()
    content = struct.pack("<Q", len(header)) + header + b"\0" * 16
    (folder / "model.safetensors").write_bytes(content)


def deep_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)


def config_without_end(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(folder / "config.json")


@pytest.mark.parametrize(
    "spoil",
    [
        outside,
        absolute,
        pickled_shard,
        pickle_named_safetensors,
        endless_header,
        nested_header,
        overlapping_tensors,
        deep_config,
        config_without_end,
    ],
)
@pytest.mark.parametrize("verb", [["inspect"], ["plan", "--quick"]], ids=" ".join)
def test_a_spoilt_folder_is_refused(
    spoil: Callable[[Path], None],
    verb: list[str],
    model: Path,
    mark: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(model)
    message = refused(capsys, *verb, *options(model, tmp_path))
    assert str(model) in message
    assert not mark.exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_llama_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    config = tiny_config(folder, tiny_llama_folder, max_steps=1, eval_dataset="none")
    trimtab.train(config)
    return folder / "run"


def with_import(adapter: Path) -> None:
    put(adapter / "adapter_config.json", megatron_config={"a": 1}, megatron_core="own")


def with_auto_mapping(adapter: Path) -> None:
    put(adapter / "adapter_config.json", auto_mapping={"parent_library": "own"})


def with_pattern(adapter: Path) -> None:
    put(adapter / "adapter_config.json", target_modules="(a+)+$")


def with_rank_patterns(adapter: Path) -> None:
    put(adapter / "adapter_config.json", rank_pattern={"(a+)+$": 2})


def of_another_kind(adapter: Path) -> None:
    put(adapter / "adapter_config.json", peft_type="BONE")


def pickled_adapter(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    canary = Canary(adapter.parent.parent / "canary")
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(canary))


def with_tokenizer_code(adapter: Path) -> None:
    put(adapter / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.T", "own.T"]})


def damaged(adapter: Path) -> None:
    os.truncate(adapter / "adapter_model.safetensors", 100)


@pytest.mark.parametrize(
    "spoil",
    [
        with_import,
        with_auto_mapping,
        with_pattern,
        with_rank_patterns,
        of_another_kind,
        pickled_adapter,
        with_tokenizer_code,
        damaged,
    ],
)
def test_a_result_that_was_tampered_with_is_not_generated_from(
    spoil: Callable[[Path], None],
    finished: Path,
    mark: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    spoil(copy / "adapter")
    code(copy / "adapter")
    monkeypatch.syspath_prepend(str(copy / "adapter"))
    message = refused(capsys, "generate", str(copy), "hello", "--max-new-tokens", "1")
    assert str(copy / "adapter") in message
    assert not mark.exists()


def test_an_untouched_result_is_generated_from(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["generate", str(finished), "hello", "--max-new-tokens", "1", "--json"]) == 0
    assert capsys.readouterr().out.startswith("[")
