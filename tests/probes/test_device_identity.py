"""The device as the system tells it; cards are those of a constructed driver."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
import torch

from trimtab.errors import ConfigError
from trimtab.probes import device_identity
from trimtab.probes.device import is_native
from trimtab.probes.device_identity import (
    DeviceIdentity,
    cpu_name,
    identify_device,
    identity_facts,
)

CARDS = """\
GPU-aaaa, NVIDIA Old 8GB, 8192, 8000, 7.5
GPU-bbbb, NVIDIA New 24GB, 24576, 20000, 8.6
"""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A driver tool that lists two cards, and a torch that was built for CUDA."""
    program = tmp_path / "nvidia-smi"
    (tmp_path / "cards").write_text(CARDS)
    program.write_text(f'#!/bin/sh\ncat "{tmp_path}/cards"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(device_identity, "_torch_has_cuda", lambda: True)
    return program


def test_the_cpu_is_what_torch_finds() -> None:
    identity = identify_device("cpu")
    assert identity.kind == "cpu"
    assert identity.memory_bytes == psutil.virtual_memory().total
    assert identity.has_bf16 == is_native("bf16", torch.device("cpu"))
    assert identity.has_fp16 == is_native("fp16", torch.device("cpu"))
    assert identity.name == cpu_name(identity.num_threads)


def test_threads_are_those_that_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert identify_device("cpu").num_threads == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert identify_device("cpu").num_threads >= 1


def test_cards_as_the_driver_lists_them(driver: Path) -> None:
    old, new = identify_device("cuda"), identify_device("cuda:1")
    assert (old.kind, old.name, old.memory_bytes) == ("cuda", "NVIDIA Old 8GB", 8 * 2**30)
    assert (old.has_bf16, new.has_bf16) == (False, True)
    assert new.memory_available_bytes == 20000 * 2**20
    assert identify_device("auto") == old
    assert identify_device("cpu").kind == "cpu"


@pytest.mark.parametrize(
    ("visible", "name"),
    [("1", "NVIDIA New 24GB"), ("1,0", "NVIDIA New 24GB"), ("GPU-bbbb", "NVIDIA New 24GB")],
)
def test_hidden_cards_are_not_counted(
    driver: Path, monkeypatch: pytest.MonkeyPatch, visible: str, name: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert identify_device("cuda").name == name


@pytest.mark.parametrize("visible", ["", "-1", "7", "GPU-cccc"])
def test_with_every_card_hidden_auto_is_the_cpu(
    driver: Path, monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert identify_device("auto").kind == "cpu"


def test_a_torch_without_cuda_has_no_cards(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("PATH", f"{driver.parent}{os.pathsep}{os.environ['PATH']}")
    if torch.version.cuda is None:
        assert identify_device("auto").kind == "cpu"


def test_a_driver_that_fails_has_no_cards(driver: Path) -> None:
    driver.write_text("#!/bin/sh\nexit 9\n")
    assert identify_device("auto").kind == "cpu"


@pytest.mark.parametrize(
    ("choice", "reason"), [("tpu", "is not known"), ("cuda:5", "this machine has 2 CUDA devices")]
)
def test_devices_that_are_not_there(driver: Path, choice: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        identify_device(choice)


def test_facts_without_rates() -> None:
    identity = DeviceIdentity("cuda", "card", 8, 100, 90, has_bf16=False, has_fp16=True)
    facts = {fact.id: fact.value for fact in identity_facts(identity)}
    assert facts == {
        "device.kind": "cuda",
        "device.name": "card",
        "device.num_threads": 8,
        "device.memory_bytes": 100,
        "device.memory_available_bytes": 90,
        "device.native.bf16": False,
        "device.native.fp16": True,
    }
