from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny import save_tiny_model, tiny_model
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from trimtab.errors import ConfigError, DoesNotFit
from trimtab.models.attention import IMPLEMENTATION
from trimtab.models.loading import load_model, load_tokenizer
from trimtab.models.source import ModelSource

CPU = torch.device("cpu")


def load_fp32(folder: Path) -> Any:
    return load_model(
        ModelSource("tiny", folder), dtype=torch.float32, device=CPU, packed_attention=False
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_come_in_the_dtype_that_is_asked_for(dtype: torch.dtype, load: Any) -> None:
    model = load("llama", dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert model.config.use_cache is False
    assert not model.training


def test_the_attention_that_is_asked_for(load: Any) -> None:
    assert load("llama").config._attn_implementation == IMPLEMENTATION
    assert load("llama", packed=False).config._attn_implementation == "sdpa"


def test_weights_are_the_files(load: Any) -> None:
    expected = tiny_model("mistral").state_dict()
    actual = load("mistral").state_dict()
    assert expected.keys() == actual.keys()
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


def test_weights_that_are_missing_are_never_made_up(tmp_path: Path) -> None:
    save_tiny_model(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"model\.layers\.1\.mlp\.up_proj\.weight") as refusal:
        load_fp32(tmp_path)
    assert refusal.value.where == str(tmp_path)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    save_tiny_model(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "hidden_size": 64}))
    with pytest.raises(ConfigError, match="cannot be loaded") as refusal:
        load_fp32(tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_a_lack_of_memory_is_named(
    error: RuntimeError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fail)
    with pytest.raises(DoesNotFit, match="weights of tiny in float32 do not fit on cpu"):
        load_fp32(tmp_path)


def test_tokenizer(tiny_sources: dict[str, ModelSource]) -> None:
    tokenizer = load_tokenizer(tiny_sources["llama"])
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.chat_template is not None


def test_no_tokenizer_is_named(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="tokenizer") as refusal:
        load_tokenizer(ModelSource("tiny", tmp_path))
    assert refusal.value.where == str(tmp_path)


def test_nothing_is_written_to_the_screen(
    load: Any, tiny_sources: dict[str, ModelSource], capfd: pytest.CaptureFixture[str]
) -> None:
    load("llama")
    load_tokenizer(tiny_sources["llama"])
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_no_weight_is_a_page_of_its_file(tmp_path: Path) -> None:
    """A file that is truncated while a run goes on would kill the process."""
    save_tiny_model(tmp_path)
    model = load_fp32(tmp_path)
    maps = Path("/proc/self/maps").read_text()
    assert str(tmp_path) not in maps
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
