"""Every architecture trains joined, packed and padded with the same losses, or refuses by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.runs import read_jsonl, tiny_config
from support.tiny import ARCHITECTURES, VOCABULARY_SIZE, save_tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM, MambaConfig

import trimtab


def losses(folder: Path, config: dict[str, Any]) -> list[float]:
    run = Path(trimtab.train({**config, "output_dir": str(folder)}).run)
    return [line["loss"] for line in read_jsonl(run / "metrics.jsonl") if "loss" in line]


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_joined_and_padded_runs_have_the_same_losses(
    tmp_path: Path, architecture: str, method: str
) -> None:
    model = save_tiny_model(tmp_path / "model", architecture)
    config = tiny_config(
        tmp_path, model, method=method, eval_dataset="none", report_samples=0, max_steps=3
    )
    joined = losses(tmp_path / "joined", config)
    for padding in ("longest", "max_length"):
        padded = losses(tmp_path / padding, {**config, "padding": padding, "max_length": 128})
        assert padded == pytest.approx(joined, rel=2e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_packed_epoch_has_the_loss_of_the_same_examples_padded(
    tmp_path: Path, architecture: str
) -> None:
    """One update that holds every example: packed or not, its loss is the corpus's."""
    model = save_tiny_model(tmp_path / "model", architecture)
    config = tiny_config(
        tmp_path, model, eval_dataset="none", report_samples=0, max_steps=1, max_length=128
    )
    whole = losses(tmp_path / "padded", {**config, "padding": "longest", "global_batch_size": 48})
    packed = losses(tmp_path / "packed", {**config, "packing": True, "global_batch_size": 64})
    assert packed == pytest.approx(whole, rel=2e-5)


@pytest.fixture
def mamba(tmp_path: Path) -> Path:
    """A tiny state-space model, in which a document's state runs into the next one's."""
    config = MambaConfig(
        vocab_size=VOCABULARY_SIZE, hidden_size=32, num_hidden_layers=2, state_size=4
    )
    folder = tmp_path / "mamba"
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore")
def test_an_architecture_that_cannot_be_packed_says_so_and_runs_padded(
    tmp_path: Path, mamba: Path
) -> None:
    config = tiny_config(
        tmp_path, mamba, method="full", eval_dataset="none", report_samples=0, max_steps=2
    )
    with pytest.raises(trimtab.ConfigError, match="mamba"):
        trimtab.plan({**config, "packing": True})
    plan = trimtab.plan(config)
    decision = plan.decision("padding")
    assert decision.value == "longest"
    assert "mamba" in decision.because
    assert trimtab.train(plan).num_steps == 2
