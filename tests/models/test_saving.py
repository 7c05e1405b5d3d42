"""What is saved is what is loaded again, in a process that knows nothing of this project."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.faults import no_file_over
from support.tiny import CHATML, tiny_model
from torch import Tensor
from transformers import AutoTokenizer, GenerationConfig

from trimtab.models.adapters import add_lora, trainable_parameters
from trimtab.models.loading import load_tokenizer
from trimtab.models.saving import save_result
from trimtab.models.source import ModelSource

FRESH_PROCESS = """
import sys, json, torch, warnings
from peft import AutoPeftModelForCausalLM
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

logits = {}
for name, folder in json.loads(sys.argv[1]).items():
    loader = AutoPeftModelForCausalLM if name.startswith("lora") else AutoModelForCausalLM
    model = loader.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("the quick brown fox", return_tensors="pt").input_ids
    logits[name] = model(input_ids=ids).logits.detach()
save_file(logits, sys.argv[2])
assert not any(module.startswith("trimtab") for module in sys.modules)
"""
CASES = [
    (method, architecture)
    for method in ("lora", "full")
    for architecture in ("llama", "qwen3", "gemma3_text", "gpt2", "mistral")
]


def trained(model: Any, method: str) -> Any:
    """The model as training might leave it: every trainable weight moved."""
    if method == "lora":
        model = add_lora(model, r=4, alpha=8.0, dropout=0.5, target_modules="all-linear", seed=0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model


def save(model: Any, folder: Path, base: ModelSource, **changes: Any) -> None:
    save_result(
        model,
        load_tokenizer(base),
        folder,
        **{"base": base, "chat_template": CHATML, "pad_token": "<|reserved_0|>", **changes},
    )


@pytest.fixture(scope="module")
def logits(
    tmp_path_factory: pytest.TempPathFactory, tiny_sources: dict[str, ModelSource]
) -> dict[str, tuple[Tensor, Tensor]]:
    """For every case the logits here, and those of the saved folder in a fresh process."""
    from trimtab.models.loading import load_model

    root = tmp_path_factory.mktemp("results")
    here: dict[str, Tensor] = {}
    folders: dict[str, str] = {}
    for method, architecture in CASES:
        name = f"{method}-{architecture}"
        source = tiny_sources[architecture]
        base = load_model(
            source, dtype=torch.float32, device=torch.device("cpu"), packed_attention=True
        )
        model = trained(base, method).eval()
        folders[name] = str(root / name)
        save(model, root / name, source)
        ids = load_tokenizer(source)("the quick brown fox", return_tensors="pt").input_ids
        here[name] = model(input_ids=ids).logits.detach()
    output = root / "logits.safetensors"
    subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, json.dumps(folders), str(output)],
        check=True,
        timeout=240,
    )
    there = load_file(output)
    return {name: (here[name], there[name]) for name in folders}


@pytest.mark.parametrize(("method", "architecture"), CASES)
def test_a_fresh_process_gets_the_same_logits(
    method: str, architecture: str, logits: dict[str, tuple[Tensor, Tensor]]
) -> None:
    here, there = logits[f"{method}-{architecture}"]
    torch.testing.assert_close(there, here, atol=2e-6, rtol=0)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_safetensors_tokenizer_template_and_nothing_pickled(
    method: str, tmp_path: Path, load: Any, tiny_sources: dict[str, ModelSource]
) -> None:
    save(trained(load("llama"), method), tmp_path, tiny_sources["llama"], chat_template="{{ 1 }}")
    names = {path.name for path in tmp_path.iterdir()}
    weights = "adapter_model.safetensors" if method == "lora" else "model.safetensors"
    assert {weights, "tokenizer.json", "chat_template.jinja", "generation_config.json"} <= names
    assert {path.suffix for path in tmp_path.iterdir()} <= {
        ".safetensors",
        ".json",
        ".jinja",
        ".md",
    }
    assert (tmp_path / "chat_template.jinja").read_text() == "{{ 1 }}"
    assert AutoTokenizer.from_pretrained(tmp_path).pad_token == "<|reserved_0|>"
    assert "trimtab" not in "".join(path.read_text() for path in tmp_path.glob("*config.json"))


def test_an_adapter_names_its_base_and_holds_only_itself(
    tmp_path: Path, load: Any, tiny_sources: dict[str, ModelSource]
) -> None:
    base = tiny_sources["llama"]
    model = trained(load("llama", dtype=torch.bfloat16), "lora")
    model.active_peft_config.base_model_name_or_path = "elsewhere"
    save(model, tmp_path, base)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base.folder)
    assert config["inference_mode"] is True
    weights = load_file(tmp_path / "adapter_model.safetensors")
    assert all("lora_" in name for name in weights)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert len(weights) == len(trainable_parameters(model))


def test_a_whole_model_keeps_the_precision_it_was_trained_in(
    tmp_path: Path, load: Any, tiny_sources: dict[str, ModelSource]
) -> None:
    model = trained(load("mistral"), "full")
    save(model, tmp_path, tiny_sources["mistral"])
    weights = load_file(tmp_path / "model.safetensors")
    parameters = dict(model.named_parameters())
    assert weights.keys() == parameters.keys()
    assert all(torch.equal(weights[name], parameters[name]) for name in weights)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["dtype"] == "float32"
    assert config["use_cache"] is True
    assert model.config.use_cache is False


@pytest.mark.parametrize("method", ["lora", "full"])
def test_generation_stops_at_the_end_of_turn_that_was_taught(
    method: str, tmp_path: Path, load: Any, tiny_sources: dict[str, ModelSource]
) -> None:
    base = tiny_sources["llama"]
    model = trained(load("llama"), method)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2)
    causal = model.get_base_model() if method == "lora" else model
    causal.generation_config = model.generation_config
    save(model, tmp_path / "taught", base)
    save(model, tmp_path / "untaught", base, chat_template=None)
    end_of_turn = load_tokenizer(base).convert_tokens_to_ids("<|im_end|>")
    taught = GenerationConfig.from_pretrained(tmp_path / "taught")
    assert taught.eos_token_id == [end_of_turn, 2]
    assert taught.pad_token_id == 5
    assert GenerationConfig.from_pretrained(tmp_path / "untaught").eos_token_id == 2
    assert causal.generation_config.eos_token_id == 2


def test_a_generation_config_that_transformers_reads_but_does_not_write(
    tmp_path: Path, load: Any, tiny_sources: dict[str, ModelSource]
) -> None:
    model = trained(load("llama"), "full")
    model.generation_config.temperature = 0.6
    model.generation_config.do_sample = False
    save(model, tmp_path, tiny_sources["llama"])
    assert GenerationConfig.from_pretrained(tmp_path).pad_token_id == 5


@pytest.mark.parametrize(
    ("method", "target_modules", "num_bytes"),
    [("full", "all-linear", 20_000), ("lora", "all-linear", 8_000), ("lora", ["q_proj"], 8_000)],
    ids=["a model", "an adapter", "the tokenizer of a small adapter"],
)
def test_a_folder_that_takes_no_more_is_told_as_the_system_tells_it(
    tmp_path: Path,
    tiny_sources: dict[str, ModelSource],
    method: str,
    target_modules: Any,
    num_bytes: int,
) -> None:
    model: Any = tiny_model()
    if method == "lora":
        model = add_lora(model, r=4, alpha=8.0, dropout=0.0, target_modules=target_modules, seed=0)
    with no_file_over(num_bytes) as limit:
        limit()
        with pytest.raises(OSError, match="File too large"):
            save(model, tmp_path, tiny_sources["llama"])
