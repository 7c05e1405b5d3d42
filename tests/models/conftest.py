"""A folder of every tiny architecture, written once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.tiny import ARCHITECTURES, save_tiny_model
from transformers import PreTrainedModel

from trimtab.models.loading import load_model
from trimtab.models.source import ModelSource, locate

Load = Callable[..., PreTrainedModel]


@pytest.fixture(scope="session")
def tiny_sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSource]:
    """Read-only by agreement."""
    sources = {}
    for architecture in ARCHITECTURES:
        folder: Path = tmp_path_factory.mktemp(architecture)
        save_tiny_model(folder, architecture)
        sources[architecture] = locate(str(folder), trust_remote_code=False)
    return sources


@pytest.fixture
def load(tiny_sources: dict[str, ModelSource]) -> Load:
    def load_tiny(
        architecture: str, *, packed: bool = True, dtype: torch.dtype = torch.float32
    ) -> PreTrainedModel:
        return load_model(
            tiny_sources[architecture],
            dtype=dtype,
            device=torch.device("cpu"),
            packed_attention=packed,
        )

    return load_tiny
