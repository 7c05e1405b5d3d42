from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from trimtab.models.own_memory import take_out_of_files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


def test_weights_survive_the_truncation_of_their_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    weights = torch.arange(65_536, dtype=torch.float32)
    save_file({"weight": weights}, path)
    model = nn.Linear(256, 256, bias=False)
    with safe_open(path, framework="pt") as file:
        model.weight = nn.Parameter(file.get_slice("weight")[:].view(256, 256))
    before = model.weight.data_ptr()
    take_out_of_files(model)
    assert model.weight.data_ptr() != before
    os.truncate(path, 16)
    assert torch.equal(model.weight.detach().flatten(), weights)
    take_out_of_files(model)
    assert torch.equal(model.weight.detach().flatten(), weights)
