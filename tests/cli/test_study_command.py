"""`trimtab study` as a command: its words, its JSON, its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.runs import write_rows
from support.studies import four_verdicts, guide_result

from trimtab.cli.app import run
from trimtab.cli.study_command import study_json
from trimtab.cli.study_screen import show_guide, show_study

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture
def workplace(tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_rows(tmp_path / "rows.jsonl", num_rows=32)
    lines = (
        f"model: {tiny_llama_folder}",
        "dataset: rows.jsonl",
        "precision: fp32",
        "global_batch_size: 8",
        "max_steps: 2",
        "eval_dataset: 0.25",
        "learning_rate: 1e-3",
    )
    (tmp_path / "config.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_json_and_nothing_else_on_stdout(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["study", "config.yaml", "learning_rate=1e-3,5e-2", "--seeds", "2", "--json"]
    assert run(arguments) == 0
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    reference, arm = told["arms"]
    golden: dict[str, Any] = {"value": 1e-3, "verdict": None, "effect_nats": None, "interval": None}
    assert {key: reference[key] for key in golden} == golden
    assert (arm["value"], arm["verdict"]) == (5e-2, "better")
    assert arm["interval"][0] < arm["effect_nats"] < arm["interval"][1] < 0
    for each in told["arms"]:
        assert each["seconds"] > 0 and each["peak_memory_bytes"] > 2**26
        assert len(each["losses"]) == 2
    assert told["seeds"] == [42, 43]
    assert "4 runs: 2 values of learning_rate, 2 seeds each" in shown.err
    assert "held-out loss" in shown.err
    assert (workplace / told["folder"] / "report.html").is_file()


def test_the_keys_of_an_arm_are_the_documented_ones_first() -> None:
    told = study_json(four_verdicts())
    documented = ["value", "verdict", "effect_nats", "interval", "seconds", "peak_memory_bytes"]
    for arm in told["arms"]:
        assert list(arm)[:6] == documented
    verdicts = [arm["verdict"] for arm in told["arms"]]
    assert verdicts == [None, "better", "worse", "equivalent", "undecided", "worse"]
    json.dumps(told, allow_nan=False)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["config.yaml"], "there is nothing to compare"),
        (["config.yaml", "learning_rate=1e-3"], "has one value"),
        (["config.yaml", "learning_rate=1,2", "seed=1,2"], "a study moves one hyperparameter"),
        (["config.yaml", "learning_rate=1,2", "--guide"], "--guide compares what the guide"),
        (["config.yaml", "--guide", "--retune"], "--retune goes with NAME"),
        (["config.yaml", "learning_rate=1,2", "--equivalence-margin", "0"], "equivalence margin"),
        (["config.yaml", "learning_rate=1,2", "--seeds", "0"], "seeds is 0"),
        (["other.yaml", "learning_rate=1,2"], "other.yaml"),
    ],
)
def test_mistakes_end_with_a_sentence(
    workplace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert run(["study", *arguments]) == 2
    shown = capsys.readouterr()
    assert told in shown.err
    assert shown.out == ""
    assert not (workplace / "runs").exists()


def test_the_screen_has_verdicts_figures_and_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    show_study(Console(width=160), four_verdicts(), Path("runs/study-mine/report.html"))
    shown = capsys.readouterr().out
    for expected in (
        "Does learning_rate matter here?",
        "0.0003         better",
        "-0.1000 nats (-5.00%)",
        "0.0006 is undecided: the interval holds 0 and reaches past the margin; about",
        "1 is worse: came to no loss in 3 of 3 seeds",
        "hold together at 95%",
        "runs/study-mine/report.html",
    ):
        assert expected in shown, expected


def test_a_narrow_screen_cuts_nothing_off(capsys: pytest.CaptureFixture[str]) -> None:
    show_study(Console(width=80), four_verdicts(), Path("page.html"))
    shown = capsys.readouterr().out
    assert "…" not in shown
    for verdict in ("better", "worse", "equivalent", "undecided"):
        assert f" {verdict} " in shown


def test_the_guides_screen_has_each_claim(capsys: pytest.CaptureFixture[str]) -> None:
    show_guide(Console(width=200), guide_result(), Path("page.html"))
    shown = capsys.readouterr().out
    for claim in guide_result().claims:
        assert claim.figures in shown
    assert shown.count("not held") == 3
