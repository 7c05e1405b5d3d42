"""The device as the system tells it; cards are those of a constructed driver."""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec
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
    without_num_threads,
)
from trimtab.probes.host_memory import host_memory

CARDS = """\
GPU-aaaa, NVIDIA Old 8GB, 8192, 8000, 7.5
GPU-bbbb, NVIDIA New 24GB, 24576, 20000, 8.6
"""


@pytest.fixture(autouse=True)
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which drivers put their cards; empty."""
    folder = tmp_path / "dev"
    folder.mkdir()
    monkeypatch.setattr(device_identity, "DEVICE_FOLDER", folder)
    return folder


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A driver tool that lists two cards, CUDA in its order, and a torch built for CUDA."""
    program = tmp_path / "nvidia-smi"
    (tmp_path / "cards").write_text(CARDS)
    program.write_text(f'#!/bin/sh\ncat "{tmp_path}/cards"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    monkeypatch.setattr(device_identity, "_torch_has_cuda", lambda: True)
    return program


def test_the_cpu_is_what_torch_finds() -> None:
    identity = identify_device("cpu")
    assert identity.kind == "cpu"
    assert identity.memory_bytes == host_memory().total_bytes
    assert identity.has_bf16 == is_native("bf16", torch.device("cpu"))
    assert identity.has_fp16 == is_native("fp16", torch.device("cpu"))
    assert identity.name == cpu_name(identity.num_threads)


def test_threads_are_those_of_torch_where_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert identify_device("cpu").num_threads == torch.get_num_threads()


def test_threads_are_told_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert identify_device("cpu").num_threads == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 16 if logical else 8)
    allowed = len(psutil.Process().cpu_affinity()) if psutil.LINUX else 8
    assert identify_device("cpu").num_threads == min(8, allowed)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 2 if logical else 1)
    assert identify_device("cpu").num_threads == 1


def test_a_name_without_its_threads() -> None:
    assert without_num_threads(cpu_name(16)) == without_num_threads(cpu_name(2))
    assert without_num_threads("NVIDIA New 24GB") == "NVIDIA New 24GB"


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


@pytest.mark.parametrize(
    ("version", "has_cuda"),
    [
        ("cuda: Optional[str] = None\nhip: Optional[str] = None\n", False),
        ("cuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n", True),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '6.4.43482'\n", True),
    ],
)
def test_what_torch_was_built_for_is_read_from_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, has_cuda: bool
) -> None:
    (tmp_path / "version.py").write_text(version)
    spec = ModuleSpec("torch", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(device_identity, "find_spec", lambda name: spec)
    assert device_identity._torch_has_cuda() is has_cuda


def test_a_torch_without_cuda_has_no_cards(
    driver: Path, nodes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nodes / "nvidia0").touch()
    monkeypatch.setattr(device_identity, "_torch_has_cuda", lambda: False)
    assert identify_device("auto").kind == "cpu"


@pytest.mark.parametrize("figures", ["[N/A], 8000, 7.5", "8192, [Insufficient Permissions], 7.5"])
def test_figures_that_the_driver_does_not_tell(driver: Path, figures: str) -> None:
    (driver.parent / "cards").write_text(f"{CARDS}GPU-cccc, NVIDIA Odd, {figures}\n")
    with pytest.raises(ConfigError, match=r"cannot be told without torch.*answers GPU-c"):
        identify_device("cuda:2")
    assert identify_device("cuda:1").name == "NVIDIA New 24GB"


@pytest.mark.parametrize("node", ["nvidia0", "kfd"])
def test_a_card_that_is_not_listed_is_not_the_cpu(
    driver: Path, nodes: Path, monkeypatch: pytest.MonkeyPatch, node: str
) -> None:
    (nodes / node).touch()
    (nodes / "nvidiactl").touch()
    driver.write_text("#!/bin/sh\nexit 9\n")
    for choice in ("auto", "cuda"):
        with pytest.raises(ConfigError, match="a card is there, but nvidia-smi lists none"):
            identify_device(choice)
    assert identify_device("cpu").kind == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert identify_device("auto").kind == "cpu"


def test_a_part_of_a_card_is_not_told(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1234")
    with pytest.raises(ConfigError, match="names a part of a card"):
        identify_device("auto")


@pytest.mark.parametrize("order", [None, "FASTEST_FIRST"])
def test_the_order_of_different_cards_is_not_told(
    driver: Path, monkeypatch: pytest.MonkeyPatch, order: str | None
) -> None:
    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    if order is not None:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    for choice in ("auto", "cuda", "cuda:1"):
        with pytest.raises(ConfigError, match="the cards differ"):
            identify_device(choice)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(ConfigError, match="the cards differ"):
        identify_device("cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bbbb,GPU-aaaa")
    assert identify_device("cuda").name == "NVIDIA New 24GB"
    for hidden in ("", "-1", "7"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert identify_device("auto").kind == "cpu"


def test_cards_that_are_alike_are_told_in_any_order(
    driver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    (driver.parent / "cards").write_text(CARDS.replace("Old 8GB", "New 24GB"))
    assert identify_device("cuda:1").name == "NVIDIA New 24GB"


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
