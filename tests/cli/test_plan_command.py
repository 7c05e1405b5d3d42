from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.runs import write_rows
from support.tiny import save_tiny_model

from trimtab.cli.app import run


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    rows = tmp_path / "rows.jsonl"
    write_rows(rows)
    model = save_tiny_model(tmp_path / "model", "llama")
    return ["plan", "--model", str(model), "--dataset", str(rows)]


def test_a_device_that_is_not_here(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--device", "h100", "--num-devices", "16", "--price-per-device-hour", "2.5"]
    assert run([*arguments, *options]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "predicted for 16 × NVIDIA H100 SXM, 80 GB; nothing was measured on it" in shown
    assert "replicate, 16 copies" in shown
    assert "shard over 16" in shown
    assert "train does not split so" in shown
    assert "at 2.5 an hour" in shown


def test_its_json(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*arguments, "--device", "rtx-4090", "--num-devices", "2", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["device"] == "NVIDIA GeForce RTX 4090, 24 GB"
    assert [one["num_shards"] for one in record["splits"]] == [1, 2]


def test_one_decision_of_it(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*arguments, "--device", "t4", "--why", "precision"]) == 0
    assert "native on NVIDIA T4, 16 GB, not timed" in " ".join(capsys.readouterr().out.split())


def test_a_device_that_is_here_is_the_hyperparameter(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, "--device", "cpu", "--quick", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    (device,) = (one for one in plan["decisions"] if one["name"] == "device")
    assert (device["value"], device["origin"]) == ("cpu", "user")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--device", "h101"], "Known are b200, h200, h100"),
        (["--num-devices", "4"], "--num-devices goes with --device"),
        (["--device", "cuda", "--price-per-device-hour", "2"], "goes with --device"),
        (["--device", "h100", "--refresh"], "nothing is measured"),
        (["--device", "h100", "--num-devices", "3", "--global-batch-size", "16"], "15 or 18"),
    ],
)
def test_what_does_not_go_together(
    options: list[str], told: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, *options]) == 2
    assert told in " ".join(capsys.readouterr().err.split())
