from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from support.runs import tiny_config, write_rows

from trimtab.cli import progress
from trimtab.cli.app import run
from trimtab.cli.tune_command import parse_share, split_names
from trimtab.errors import ConfigError
from trimtab.hyperparameters.writing import yaml_value

ASKED = ["--budget", "600%", "--trials", "4"]


@pytest.fixture
def config(tmp_path: Path, tiny_llama_folder: Path) -> Path:
    write_rows(tmp_path / "rows.jsonl", num_rows=96)
    values = tiny_config(
        tmp_path,
        tiny_llama_folder,
        max_steps=12,
        eval_dataset=0.4,
        method="full",
        output_dir=str(tmp_path / "tune"),
    )
    path = tmp_path / "config.yaml"
    path.write_text("".join(f"{name}: {yaml_value(value)}\n" for name, value in values.items()))
    return path


def test_words_are_config_names_and_options() -> None:
    assert split_names(["c.yaml", "lr", "--max-steps", "3", "lora_r"]) == (
        ["lr", "lora_r"],
        ["c.yaml", "--max-steps", "3"],
    )
    assert split_names(["lr", "--model", "m"]) == (["lr"], ["--model", "m"])
    assert split_names(["c.yaml"]) == ([], ["c.yaml"])
    assert split_names(["c.yaml", "learning_rat"])[0] == ["learning_rat"]


def test_a_budget_is_a_share() -> None:
    assert (parse_share("30%"), parse_share("0.3"), parse_share("200 %")) == (0.3, 0.3, 2.0)
    for text in ("0", "-1", "thirty", "nan%"):
        with pytest.raises(ConfigError, match="30%"):
            parse_share(text)
    with pytest.raises(ConfigError, match=r"30 whole runs\. Write 30% for a share"):
        parse_share("30")
    assert parse_share("3000%") == 30.0 and parse_share("2") == 2.0


def test_json_alone_on_stdout_and_a_page(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["tune", str(config), "--learning-rate", "1e-4", *ASKED]
    assert run([*words, "--json"]) == 0
    shown = capsys.readouterr()
    record = json.loads(shown.out)
    assert record["is_changed"] and record["values"]["learning_rate"] > 1e-4
    assert "best so far learning_rate" in shown.err
    assert (config.parent / "tune" / "report.html").is_file()
    assert run(words) == 0
    told = capsys.readouterr().out
    assert "is taken" in told and "Cost: " in told and "the plan's own" in told


def test_ctrl_c_prints_the_line_that_goes_on(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["tune", str(config), "--learning-rate", "1e-4", *ASKED]
    monkeypatch.setattr("sys.argv", ["trimtab", *words])
    noted = progress.ConsoleObserver.noted

    def interrupted(self: Any, text: str) -> None:
        noted(self, text)
        if "best so far" in text:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(progress.ConsoleObserver, "noted", interrupted)
    assert run(words) == 75
    told = capsys.readouterr().err
    assert "1 finished run is kept" in told
    assert f"Go on with: trimtab tune {config} --learning-rate 1e-4" in told
    monkeypatch.setattr(progress.ConsoleObserver, "noted", noted)
    assert run(words) == 0


def test_wrong_words_are_told(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        ([str(config), "learning_rat"], "learning_rate"),
        ([str(config), "--sampler", "best"], "local, tpe, gp, random, grid"),
        ([str(config), "--on", "slurm", *ASKED], "local, ray"),
        ([str(config), "--budget", "much"], "30%"),
    ):
        assert run(["tune", *words]) == 2
        assert told in capsys.readouterr().err
