"""Fixtures for every test: offline, few threads, tiny models."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch
from hypothesis import settings
from support.tiny import save_tiny_model

torch.set_num_threads(1)

# Fuzzing that tries the same examples on every machine, fast or slow; `--hypothesis-profile long`
# tries many others.
settings.register_profile("reproducible", derandomize=True, deadline=None, database=None)
settings.register_profile("long", max_examples=20_000, deadline=None)
settings.load_profile("reproducible")


@pytest.fixture(scope="session")
def tiny_llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with a tiny llama and its tokenizer. Read-only by agreement."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what trimtab caches out of the user's home, and no fact from one test to the next."""
    cache = tmp_path_factory.getbasetemp() / "trimtab-cache"
    shutil.rmtree(cache / "facts", ignore_errors=True)
    monkeypatch.setenv("TRIMTAB_CACHE", str(cache))
