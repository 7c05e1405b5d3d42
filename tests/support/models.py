"""Tiny models with the attention that training uses."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import PreTrainedModel

from support.tiny import save_tiny_model
from trimtab.models.loading import load_model
from trimtab.models.source import locate


def packed_model(architecture: str = "llama", *, seed: int = 0) -> PreTrainedModel:
    """The tiny model, loaded the way training loads it, in fp32 and training mode."""
    with TemporaryDirectory() as folder:
        save_tiny_model(Path(folder), architecture, seed=seed)
        model = load_model(
            locate(folder, trust_remote_code=False),
            dtype=torch.float32,
            device=torch.device("cpu"),
            packed_attention=True,
        )
    return model.train()
