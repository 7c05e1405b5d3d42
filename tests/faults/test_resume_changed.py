"""A run that is resumed under something else says what, and goes on only where it is allowed."""

from __future__ import annotations

import json
import os
import shutil
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import read_jsonl, tiny_config
from support.tiny import CHATML, save_tiny_model

import trimtab
from trimtab.cli.app import run as command
from trimtab.engine.loop import Job
from trimtab.engine.observer import Silent
from trimtab.runs.folder import RunFolder
from trimtab.runs.records import UpdateRecord
from trimtab.workflow import planning, provenance, recovering
from trimtab.workflow.gathering import Caller
from trimtab.workflow.records import read_plan

DATED = "{{ strftime_now('%d %B %Y') }}\n" + CHATML


class StopAfterThree(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def updated(self, record: UpdateRecord, num_steps: int) -> None:
        if record.step == 3:
            raise ZeroDivisionError

    def noted(self, text: str) -> None:
        self.notes.append(text)


def crashed(folder: Path, model: Path, **changes: Any) -> Path:
    """A run of six updates that ended after the third, with a checkpoint of the second."""
    values = {"save_steps": 2, "report_samples": 0, "eval_dataset": "none", **changes}
    config = tiny_config(folder, model, **values)
    with pytest.raises(ZeroDivisionError):
        trimtab.train(config, observer=StopAfterThree())
    return Path(config["output_dir"])


def accepted(run: Path) -> list[tuple[str, bool]]:
    return [
        (event["details"]["what"], event["details"]["is_harmless"])
        for event in read_jsonl(run / "events.jsonl")
        if event["event"] == "change accepted"
    ]


def change_library(run: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    installed = metadata.version
    monkeypatch.setattr(
        provenance, "version", lambda asked: "9.9" if asked == name else installed(asked)
    )


def test_another_library_is_named_and_refused_unless_allowed(
    tmp_path: Path,
    tiny_llama_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = crashed(tmp_path, tiny_llama_folder)
    change_library(run, monkeypatch, "torch")
    before = (run / "events.jsonl").read_bytes()
    told = f"torch was {metadata.version('torch')}, is 9.9"
    with pytest.raises(trimtab.ConfigError) as caught:
        trimtab.resume(run)
    assert told in str(caught.value) and "--allow-changed" in str(caught.value)
    assert (run / "events.jsonl").read_bytes() == before
    assert command(["resume", str(run)]) == 2
    assert command(["resume", str(run), "--allow-changed"]) == 0
    assert told in capsys.readouterr().err
    assert accepted(run) == [("torch", False)]


def test_what_does_no_harm_is_told_and_gone_past(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = crashed(tmp_path, tiny_llama_folder)
    change_library(run, monkeypatch, "tokenizers")
    with (run / "config.yaml").open("a") as stream:
        stream.write("# a word\n")
    observer = StopAfterThree()
    with pytest.raises(ZeroDivisionError):
        trimtab.resume(run, observer=observer)
    assert accepted(run) == [
        ("tokenizers", True),
        ("config.yaml is not as the run wrote it", True),
    ]
    assert any("tokenizers was" in note and "stays the same" in note for note in observer.notes)
    # What was accepted is not told again.
    assert trimtab.resume(run).status == "done"
    assert len(accepted(run)) == 2


def test_another_setting_in_the_plan_is_named(tmp_path: Path, tiny_llama_folder: Path) -> None:
    run = crashed(tmp_path, tiny_llama_folder, learning_rate=1e-3)
    plan = json.loads((run / "plan.json").read_text())
    (rate,) = (each for each in plan["decisions"] if each["name"] == "learning_rate")
    rate["value"] = 2e-3
    (run / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(trimtab.ConfigError, match=r"learning_rate was 0\.001, is 0\.002"):
        trimtab.resume(run)
    assert trimtab.resume(run, allow_changed=True).status == "done"
    assert accepted(run)[0] == ("learning_rate", False)
    rates = [line["learning_rate"] for line in read_jsonl(run / "metrics.jsonl")]
    assert max(rates[:2]) <= 1e-3 < max(rates[2:])


def set_in_plan(run: Path, name: str, value: Any) -> None:
    plan = json.loads((run / "plan.json").read_text())
    (decision,) = (each for each in plan["decisions"] if each["name"] == name)
    decision["value"] = value
    (run / "plan.json").write_text(json.dumps(plan))


@pytest.mark.parametrize("number", [0, 2, 5])
def test_other_samples_show_what_the_base_answered_to_each_of_them(
    tmp_path: Path, tiny_llama_folder: Path, number: int
) -> None:
    run = crashed(tmp_path, tiny_llama_folder, report_samples=3)
    samples = json.loads((run / "samples.json").read_text())
    for sample in samples:
        sample["base"] = f"the base's to {sample['prompt']}"
    (run / "samples.json").write_text(json.dumps(samples))
    set_in_plan(run, "report_samples", number)
    assert trimtab.resume(run).status == "done"
    if number == 0:
        return
    after = json.loads((run / "samples.json").read_text())
    known = {sample["prompt"] for sample in samples}
    assert len(after) == number
    assert known & {sample["prompt"] for sample in after}
    for sample in after:
        told = f"the base's to {sample['prompt']}" if sample["prompt"] in known else None
        assert sample["base"] == told
        assert sample["tuned"] is not None


def test_samples_that_were_not_asked_for_at_first_are_shown_without_the_base(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    run = crashed(tmp_path, tiny_llama_folder, report_samples=0)
    set_in_plan(run, "report_samples", 1)
    assert trimtab.resume(run).status == "done"
    (sample,) = json.loads((run / "samples.json").read_text())
    assert sample["base"] is None and sample["tuned"] is not None


def in_force(run: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """The job with which the run goes on, which it does to its end."""
    found: list[Job] = []

    def run_updates(job: Job, *arguments: Any) -> None:
        found.append(job)
        original(job, *arguments)

    original = recovering.run_updates
    with monkeypatch.context() as watched:
        watched.setattr(recovering, "run_updates", run_updates)
        assert trimtab.resume(run, allow_changed=True).status == "done"
    return found[0]


@pytest.mark.parametrize("optim", ["adamw", "muon"])
def test_a_setting_of_the_optimizer_that_is_accepted_is_in_force(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch, optim: str
) -> None:
    run = crashed(tmp_path, tiny_llama_folder, method="full", optim=optim, weight_decay=0.1)
    set_in_plan(run, "weight_decay", 0.25)
    set_in_plan(run, "adam_beta2", 0.99)
    set_in_plan(run, "adam_epsilon", 1e-6)
    job = in_force(run, monkeypatch)
    assert ("weight_decay", False) in accepted(run)
    groups = [group for one in job.optimizer.optimizers for group in one.param_groups]
    assert {group["weight_decay"] for group in groups} == {0.25, 0.0}
    of_adam = [group for group in groups if "betas" in group]
    assert {(group["betas"][1], group["eps"]) for group in of_adam} == {(0.99, 1e-6)}


@pytest.mark.parametrize(
    "values",
    [
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"activation_checkpointing": "full", "per_device_eval_batch_size": 3},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
        {"per_device_train_batch_size": 4, "global_batch_size": 4},
    ],
    ids=" ".join,
)
def test_a_change_of_recipe_that_is_accepted_is_in_force_and_stays_so(
    tmp_path: Path,
    tiny_llama_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: dict[str, Any],
) -> None:
    changes = {"per_device_train_batch_size": 8, "method": "full"}
    run = crashed(tmp_path, tiny_llama_folder, **changes)
    for name, value in values.items():
        set_in_plan(run, name, value)
    with pytest.raises(trimtab.ConfigError, match=next(iter(values))):
        trimtab.resume(run)
    with pytest.raises(ZeroDivisionError):
        # Before its first update is saved; what was accepted is not told again.
        trimtab.resume(run, allow_changed=True, observer=StopAfterThree())
    job = in_force(run, monkeypatch)
    assert {name: getattr(job.settings, name) for name in values} == values
    assert len(accepted(run)) == len(values) + 1  # and that plan.json is another


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("optim", "sgd", "optim cannot change to sgd"),
        ("per_device_train_batch_size", 2, "per_device_train_batch_size cannot be in force"),
        ("global_batch_size", 16, "global_batch_size cannot be in force"),
    ],
)
def test_a_setting_that_cannot_be_in_force_is_refused_by_name(
    tmp_path: Path, tiny_llama_folder: Path, name: str, value: Any, told: str
) -> None:
    run = crashed(tmp_path, tiny_llama_folder, per_device_train_batch_size=8)
    before = (run / "events.jsonl").read_bytes()
    set_in_plan(run, name, value)
    with pytest.raises(trimtab.ConfigError, match=told):
        trimtab.resume(run, allow_changed=True)
    assert (run / "events.jsonl").read_bytes() == before


def test_a_setting_that_the_checkpoint_does_not_fit_is_an_error(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    run = crashed(tmp_path, tiny_llama_folder, lora_r=4)
    plan = json.loads((run / "plan.json").read_text())
    (rank,) = (each for each in plan["decisions"] if each["name"] == "lora_r")
    rank["value"] = 8
    (run / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(trimtab.ConfigError, match="does not fit what the run has become"):
        trimtab.resume(run, allow_changed=True)
    rank["value"] = 4
    (run / "plan.json").write_text(json.dumps(plan))
    assert trimtab.resume(run).status == "done"


def test_other_weights_of_the_base_are_named_by_file(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_llama_folder, model)
    run = crashed(tmp_path, model)
    content = bytearray((model / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (model / "model.safetensors").write_bytes(content)
    with pytest.raises(trimtab.ConfigError, match=r"file model\.safetensors has another content"):
        trimtab.resume(run)
    assert trimtab.resume(run, allow_changed=True).status == "done"


def test_other_rows_are_refused_and_a_shorter_epoch_ends_where_they_are_allowed(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    run = crashed(tmp_path, tiny_llama_folder)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:12]))
    with pytest.raises(trimtab.DataError, match=r"not those that were planned.*--allow-changed"):
        trimtab.resume(run)
    assert trimtab.resume(run, allow_changed=True).num_steps == 6


@pytest.mark.parametrize("damage", ["delete", "flip"])
def test_what_a_run_was_begun_with_must_be_known(
    tmp_path: Path, tiny_llama_folder: Path, damage: str
) -> None:
    run = crashed(tmp_path, tiny_llama_folder)
    path = run / "provenance.json"
    content = path.read_text()
    path.unlink()
    if damage == "flip":
        path.write_text(content.replace('"num_threads": 1', '"num_threads": 3'))
    with pytest.raises(trimtab.ConfigError, match=r"provenance\.json is (missing|damaged)"):
        trimtab.resume(run)
    assert trimtab.resume(run, allow_changed=True).status == "done"


def with_another_thread(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of threads that are asked for from here on."""
    asked: list[int] = []
    other = torch.get_num_threads() + 1
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: asked[-1] if asked else other)
    return asked


def test_threads_stay_as_they_are_where_the_number_of_ranks_is_another(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = crashed(tmp_path, tiny_llama_folder)
    asked = with_another_thread(monkeypatch)
    monkeypatch.setattr(Caller, "num_ranks", 2)
    assert trimtab.resume(run).status == "done"
    assert asked == []


def test_the_number_of_threads_is_put_back(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = crashed(tmp_path, tiny_llama_folder)
    real = torch.get_num_threads()
    asked = with_another_thread(monkeypatch)
    observer = StopAfterThree()
    with pytest.raises(ZeroDivisionError):
        trimtab.resume(run, observer=observer)
    assert asked == [real]
    assert f"Going on with {real} threads, as it began." in observer.notes


DAMAGED = {
    b'"day": "2': b'"day": "9999-99-99 2',
    b'"max_steps"': b'"max_stepr"',
    b'"value": "stop"': b'"value": "stnp"',
    b'"paths": {': b'"paths": {"modem": "",',
}


@pytest.mark.parametrize("whole", DAMAGED, ids=lambda whole: whole.decode())
def test_a_damaged_plan_is_told(tmp_path: Path, tiny_llama_folder: Path, whole: bytes) -> None:
    folder = RunFolder(crashed(tmp_path, tiny_llama_folder))
    content = folder.plan_json.read_bytes()
    assert whole in content
    folder.plan_json.write_bytes(content.replace(whole, DAMAGED[whole], 1))
    with pytest.raises(trimtab.ConfigError, match="damaged"):
        trimtab.resume(folder.root)


def test_a_plan_with_a_flipped_byte_is_read_or_told(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    folder = RunFolder(crashed(tmp_path, tiny_llama_folder))
    content = folder.plan_json.read_bytes()
    num_told = 0
    for place in range(0, len(content), 41):
        damaged = bytearray(content)
        damaged[place] ^= 1
        folder.plan_json.write_bytes(damaged)
        try:
            planning.from_plan(read_plan(folder), Silent())
        except trimtab.ConfigError:
            num_told += 1
    assert num_told > 100


def test_a_run_goes_on_with_a_flipped_byte_in_its_plan_or_tells_it(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    run = crashed(tmp_path, tiny_llama_folder, save_steps=1)
    kept = tmp_path / "kept"
    shutil.copytree(run, kept)
    content = (run / "plan.json").read_bytes()
    for place in range(0, len(content), len(content) // 6):
        shutil.rmtree(run)
        shutil.copytree(kept, run)
        damaged = bytearray(content)
        damaged[place] ^= 1
        (run / "plan.json").write_bytes(damaged)
        try:
            trimtab.resume(run)
        except trimtab.TrimtabError as error:
            assert "plan" in str(error)
        else:
            assert ("plan.json is not as the run wrote it", True) in accepted(run)


def test_held_out_rows_of_another_format_resume(tmp_path: Path, tiny_llama_folder: Path) -> None:
    held_out = tmp_path / "held_out.jsonl"
    messages = [{"role": "user", "content": "what"}, {"role": "assistant", "content": "that"}]
    held_out.write_text((json.dumps({"messages": messages}) + "\n") * 4)
    rows = tmp_path / "alpaca.jsonl"
    rows.write_text((json.dumps({"instruction": "say", "output": "so"}) + "\n") * 16)
    other = {"dataset": str(rows), "eval_dataset": str(held_out), "chat_template": "auto"}
    run = crashed(tmp_path, tiny_llama_folder, **other)
    assert trimtab.resume(run).status == "done"
    assert accepted(run) == []


def test_a_template_that_writes_the_date_resumes_on_another_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Yesterday(date):
        @classmethod
        def today(cls) -> date:
            return date(2001, 2, 3)

    model = save_tiny_model(tmp_path / "model", chat_template=DATED)
    monkeypatch.setattr(planning, "date", Yesterday)
    run = crashed(tmp_path, model)
    monkeypatch.undo()
    monkeypatch.setenv("TRIMTAB_CACHE", os.fspath(tmp_path / "cache"))
    data = json.loads((run / "data.json").read_text())
    assert "03 February 2001" in "".join(part["text"] for part in data["examples"][0])
    assert trimtab.resume(run).status == "done"
    assert accepted(run) == []
