"""Quick and recalled plans: what they ask for, and that they load no heavy library."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.children import child_environment
from support.constructed import ConstructedMaterials
from support.runs import tiny_config

import trimtab
from trimtab.engine.observer import Silent
from trimtab.errors import ConfigError
from trimtab.hyperparameters.config import TrainingConfig
from trimtab.planning.fact import Facts
from trimtab.planning.noise import OVER_A_RUN, NoiseScale, noise_facts
from trimtab.planning.plan import Plan
from trimtab.probes import resident
from trimtab.workflow.planning import Sources
from trimtab.workflow.recalling import remember_run_facts

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
        env=child_environment(),
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


def test_paths_are_kept_whole_whatever_their_names(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path, tiny_llama_folder, eval_dataset="plain", chat_template="plain")
    (tmp_path / "model").symlink_to(tiny_llama_folder)
    lines = Path(config["dataset"]).read_text().splitlines(keepends=True)
    for name, rows in (("none", lines[:40]), ("plain", lines[40:])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text("".join(rows))
    monkeypatch.chdir(tmp_path)
    plan = trimtab.plan(config | {"model": "model", "dataset": "none"}, quick=True)
    assert dict(plan.paths) == {
        name: str(tmp_path / value)
        for name, value in {"model": "model", "dataset": "none", "eval_dataset": "plain"}.items()
    }


@pytest.mark.parametrize(
    ("name", "split", "is_told"),
    [("rows.jsonl", "test", True), ("rows.jsonl", "train", False), (".", "test", False)],
)
def test_a_split_of_a_file_is_told(
    tmp_path: Path, tiny_llama_folder: Path, name: str, split: str, is_told: bool
) -> None:
    config = tiny_config(tmp_path, tiny_llama_folder, dataset_split=split)
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(config["dataset"], folder / "rows.jsonl")
    plan = trimtab.plan(config | {"dataset": str(folder / name)}, quick=True)
    told = "dataset_split test is not looked for: a file has no splits."
    assert (told in plan.warnings) is is_told


def test_a_folder_that_training_will_refuse_is_told(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    config = tiny_config(tmp_path, tiny_llama_folder)
    output_dir = Path(str(config["output_dir"]))
    output_dir.mkdir()
    notes = Notes()
    trimtab.plan(config, quick=True, observer=notes)
    assert notes.texts == []
    (output_dir / "notes.txt").write_text("mine")
    trimtab.plan(config, quick=True, observer=notes)
    (told,) = notes.texts
    assert told.startswith(f"training will refuse this output_dir: {output_dir}: ")
    assert f"{output_dir}-2" in told


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


ASKED = "NoiseScaleQuestion"
LONG = {"global_batch_size": "auto", "max_steps": -1, "num_train_epochs": 400}


def batch_of(plan: Plan) -> tuple[Any, str]:
    decision = plan.decision("global_batch_size")
    return decision.value, decision.because


def test_a_probed_noise_scale_serves_the_next_plans_too(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path, tiny_llama_folder, **LONG)
    materials = constructed(config, monkeypatch)
    assert batch_of(trimtab.plan(config))[0] == 16
    assert ASKED not in materials.asked
    plan = trimtab.plan(config, noise_scale=True)
    assert batch_of(plan)[0] == 32
    assert Facts().adding(plan.facts).by_id["noise.key"].cost_s > 0
    for again in (trimtab.plan(config), trimtab.plan(config, quick=True)):
        assert batch_of(again) == batch_of(plan)
    recalled = trimtab.plan(config, noise_scale=True)
    assert batch_of(recalled) == batch_of(plan)
    assert "recalled" in Facts().adding(recalled.facts).by_id["noise.key"].method
    assert materials.asked.count(ASKED) == 1
    trimtab.plan(config, noise_scale=True, refresh=True)
    assert materials.asked.count(ASKED) == 2


def test_a_probe_of_other_gradients_is_made_again_where_it_is_asked_for(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path, tiny_llama_folder, **LONG)
    materials = constructed(config, monkeypatch)
    trimtab.plan(config, noise_scale=True)
    other = {**config, "lora_r": 2}
    assert batch_of(trimtab.plan(other))[0] == 16
    assert materials.asked.count(ASKED) == 1
    assert batch_of(trimtab.plan(other, noise_scale=True))[0] == 32
    assert materials.asked.count(ASKED) == 2


def test_what_a_run_measured_takes_the_place_of_a_probe(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path, tiny_llama_folder, **LONG)
    materials = constructed(config, monkeypatch)
    trimtab.plan(config, noise_scale=True)
    scale = NoiseScale(examples=24.0, low_examples=23.0, high_examples=30.0, num_updates=50)
    remember_run_facts(TrainingConfig.model_validate(config), noise_facts(scale, OVER_A_RUN))
    size, because = batch_of(trimtab.plan(config))
    assert size == 24
    assert "from 50 updates of earlier training" in because
    notes = Notes()
    assert batch_of(trimtab.plan(config, noise_scale=True, observer=notes)) == (size, because)
    assert "an earlier run measured the gradient noise scale: none is probed" in notes.texts
    assert materials.asked.count(ASKED) == 1


def test_a_quick_plan_probes_no_noise_scale(tmp_path: Path, tiny_llama_folder: Path) -> None:
    config = tiny_config(tmp_path, tiny_llama_folder)
    with pytest.raises(ConfigError, match="a quick plan measures nothing"):
        trimtab.plan(config, quick=True, noise_scale=True)
