"""Quick and recalled plans: what they ask for, and that they load no heavy library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.constructed import ConstructedMaterials
from support.runs import tiny_config

import trimtab
from trimtab.engine.observer import Silent
from trimtab.errors import ConfigError
from trimtab.planning.fact import Facts
from trimtab.probes import resident
from trimtab.workflow.planning import Sources

HEAVY = ("torch", "transformers", "peft", "datasets", "pandas", "matplotlib")
SCRIPT = f"""
import sys
import trimtab
from support.constructed import ConstructedMaterials
from trimtab.hyperparameters.config import TrainingConfig
from trimtab.workflow.planning import Sources

config = {{"model": sys.argv[1], "dataset": sys.argv[2], "max_steps": 6, "device": "cpu"}}
quick = trimtab.plan(config, quick=True)
assert quick.predictions.num_steps == 6
constructed = ConstructedMaterials(TrainingConfig.model_validate(config))
Sources.materials = property(lambda self: constructed)
trimtab.plan(config)
print(*constructed.asked)
constructed.asked.clear()
trimtab.plan(config)
print("then", *constructed.asked)
print("heavy", *[name for name in {HEAVY!r} if name in sys.modules])
"""


@pytest.fixture(autouse=True)
def _empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))


class Notes(Silent):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def noted(self, text: str) -> None:
        self.texts.append(text)


def constructed(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> ConstructedMaterials:
    """Materials whose measurements are made up, in the place of the real ones."""
    resolved = trimtab.TrainingConfig.model_validate(config)
    materials = ConstructedMaterials(resolved)
    monkeypatch.setattr(Sources, "materials", property(lambda self: materials))
    return materials


def test_quick_and_recalled_plans_load_no_heavy_library(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    config = tiny_config(tmp_path, tiny_llama_folder)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, config["model"], config["dataset"]],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    first, second, heavy = done.stdout.splitlines()
    assert {"DeviceQuestion", "ModelQuestion", "DataQuestion", "TrialsQuestion"} <= {*first.split()}
    assert second == "then"
    assert heavy == "heavy"


def test_a_quick_plan_measures_nothing(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path, tiny_llama_folder)
    materials = constructed(config, monkeypatch)
    plan = trimtab.plan(config, quick=True)
    assert materials.asked == []
    assert plan.predictions.num_steps == 6
    assert not any(fact.id.startswith("trials.") for fact in plan.facts)


def test_a_quick_plan_uses_what_was_measured(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path, tiny_llama_folder)
    constructed(config, monkeypatch)
    measured = trimtab.plan(config)
    held = Facts().adding(measured.facts).integer("trials.process_bytes")
    monkeypatch.setattr(resident, "held_bytes", lambda device: held)
    quick = trimtab.plan(config, quick=True)
    assert quick.predictions == measured.predictions
    assert any(fact.id == "trials.points" for fact in quick.facts)
    assert sum(fact.cost_s for fact in measured.facts) > 0
    assert sum(fact.cost_s for fact in quick.facts) == 0


def test_refresh_measures_all_again(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path, tiny_llama_folder)
    materials = constructed(config, monkeypatch)
    trimtab.plan(config)
    first = [*materials.asked]
    trimtab.plan(config, refresh=True)
    assert materials.asked == first * 2


def test_a_quick_plan_with_recalled_rows_is_not_trained(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path, tiny_llama_folder)
    trimtab.inspect(config)
    for file in (tmp_path / "cache" / "facts").iterdir():
        facts = json.loads(file.read_text())["facts"]
        if any(fact["id"] == "model.architecture" for fact in facts):
            file.unlink()
    plan = trimtab.plan(config, quick=True)
    assert "recalled" in Facts().adding(plan.facts).by_id["rows.key"].method
    with pytest.raises(ConfigError, match="this is a quick plan"):
        trimtab.train(plan)


def test_looking_at_rows_asks_for_no_trial(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path, tiny_llama_folder)
    with monkeypatch.context() as patched:
        constructed(config, patched)
        trimtab.plan(config)
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=3")
    notes = Notes()
    inspection = trimtab.inspect(config, observer=notes)
    assert not any("allocator" in text for text in notes.texts)
    assert not any(fact.id.startswith("trials.") for fact in inspection.plan.facts)


def test_a_quick_plan_is_not_trained(tmp_path: Path, tiny_llama_folder: Path) -> None:
    plan = trimtab.plan(tiny_config(tmp_path, tiny_llama_folder), quick=True)
    with pytest.raises(ConfigError, match="this is a quick plan"):
        trimtab.train(plan)
    assert not (tmp_path / "run").exists()
