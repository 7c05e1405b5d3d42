"""Faults to plant in a run, and digests that show what they left untouched."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import resource
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaModel

from trimtab.engine.loop import Job


def digest(job: Job) -> str:
    """sha256 over every trainable weight and every tensor and number of the optimizer's state."""
    values: dict[str, object] = {
        name: parameter
        for name, parameter in job.model.named_parameters()
        if parameter.requires_grad
    }
    for number, optimizer in enumerate(job.optimizer.optimizers):
        for index, entries in optimizer.state_dict()["state"].items():
            values |= {f"{number}/{index}/{name}": value for name, value in entries.items()}
    return digest_of_tensors(values)


def digest_of_tensors(values: Mapping[str, object]) -> str:
    """sha256 over names and values, in the names' order."""
    found = hashlib.sha256()
    for name, value in sorted(values.items()):
        found.update(name.encode())
        if isinstance(value, torch.Tensor):
            flat = value.detach().cpu().contiguous().flatten()
            found.update(flat.view(torch.uint8).numpy().tobytes())
        else:
            found.update(repr(value).encode())
    return found.hexdigest()


def overflowing_in_half(source: Path, folder: Path) -> Path:
    """A copy of a llama that computes the same function, with products beyond fp16's range.

    The first layer's up projection is multiplied, and its down projection divided, by 2³⁰.
    """
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"] *= 2.0**30
    weights["model.layers.0.mlp.down_proj.weight"] *= 2.0**-30
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def cuda_runs_out() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


def cpu_runs_out() -> None:
    """The CPU allocator's own error: no machine has a quarter of an exabyte."""
    torch.empty(2**58, dtype=torch.uint8)


def run_out_above(
    monkeypatch: pytest.MonkeyPatch,
    num_tokens: int,
    *,
    fail: Callable[[], None] = cuda_runs_out,
    training: bool = True,
    in_backward: bool = False,
    unless_recomputing: bool = False,
) -> list[int]:
    """Let a llama's forward pass run out of memory over so many positions.

    In training or in held-out passes alone; at once, or in the backward pass; also where every
    layer recomputes, or not then. Returns the list of the sizes that failed, filled as they do.
    """
    original = LlamaModel.forward
    failed: list[int] = []

    def run_out(positions: int) -> None:
        failed.append(positions)
        fail()

    @functools.wraps(original)
    def forward(self: LlamaModel, input_ids: torch.Tensor, **arguments: Any) -> Any:
        positions = input_ids.numel()
        is_meant = self.training == training and positions > num_tokens
        if is_meant and unless_recomputing:
            is_meant = not self.layers[0].gradient_checkpointing
        if is_meant and not in_backward:
            run_out(positions)
        output = original(self, input_ids=input_ids, **arguments)
        if is_meant:
            output.last_hidden_state.register_hook(lambda gradient: run_out(positions))
        return output

    monkeypatch.setattr(LlamaModel, "forward", forward)
    return failed


@contextmanager
def no_file_over(num_bytes: int) -> Iterator[Any]:
    """Yields what puts the limit in force; it ends with the context."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def close_folder(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the system refuse to look into the folder, as it does not where tests are root's."""
    stat = Path.stat

    def refusing(self: Path, **named: Any) -> os.stat_result:
        if folder in self.parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return stat(self, **named)

    monkeypatch.setattr(Path, "stat", refusing)
    mkdir = Path.mkdir

    def refusing_to_make(self: Path, *arguments: Any, **named: Any) -> None:
        if folder in self.parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        mkdir(self, *arguments, **named)

    monkeypatch.setattr(Path, "mkdir", refusing_to_make)
