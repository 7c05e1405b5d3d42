"""A forecast rests on files and datasheets alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.runs import write_rows
from support.tiny import save_tiny_model

import trimtab
from trimtab.errors import ConfigError
from trimtab.workflow.forecasting import forecast_plan


@pytest.fixture
def without_weights(tmp_path: Path) -> dict[str, str]:
    """A configuration whose model is config.json and the tokenizer's files."""
    folder = save_tiny_model(tmp_path / "model", "llama")
    for path in folder.glob("*.safetensors"):
        path.unlink()
    rows = tmp_path / "rows.jsonl"
    write_rows(rows)
    return {"model": str(folder), "dataset": str(rows)}


def test_weights_are_not_needed(without_weights: dict[str, str]) -> None:
    made = forecast_plan(without_weights, device="h100", num_devices=2)
    assert made.device == "NVIDIA H100 SXM, 80 GB"
    assert made.plan.predictions.total_time_s
    assert made.cost is None
    with pytest.raises(ConfigError, match="has no weights"):
        trimtab.plan(without_weights, quick=True)


def test_weights_that_are_there_are_read(tmp_path: Path) -> None:
    """An architecture whose sizes config.json does not tell here."""
    rows = tmp_path / "rows.jsonl"
    write_rows(rows)
    folder = save_tiny_model(tmp_path / "model", "gpt2")
    made = forecast_plan({"model": str(folder), "dataset": str(rows)}, device="l4")
    assert made.plan.predictions.num_steps


def test_the_plan_is_not_to_train(without_weights: dict[str, str]) -> None:
    made = forecast_plan(without_weights, device="h100")
    with pytest.raises(ConfigError, match="quick plan"):
        trimtab.train(made.plan)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"device": "h10"}, "Did you mean h100"),
        ({"device": "h100", "num_devices": 0}, "num_devices is 0"),
        ({"device": "h100", "price_per_device_hour": -1.0}, "price_per_device_hour is -1"),
        ({"device": "h100", "price_per_device_hour": float("nan")}, "price_per_device_hour is nan"),
    ],
)
def test_what_cannot_be_is_refused(
    asked: dict[str, object], told: str, without_weights: dict[str, str]
) -> None:
    with pytest.raises(ConfigError, match=told):
        forecast_plan(without_weights, **asked)  # type: ignore[arg-type]


def test_torch_is_not_loaded(without_weights: dict[str, str]) -> None:
    program = (
        "import sys; from trimtab.workflow.forecasting import forecast_plan; "
        f"forecast_plan({without_weights!r}, device='h100', num_devices=4); "
        "print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
