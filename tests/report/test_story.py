"""What the page says of a run is what the run came to."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.run_folders import PLAN, write_run

from trimtab.report import story
from trimtab.report.collect import RunRecord, collect
from trimtab.runs.lock import run_lock


def recorded(root: Path, **changes: Any) -> RunRecord:
    return collect(write_run(root / "mine", **changes).root)


def test_title_and_method_say_what_was_trained_on_what(tmp_path: Path) -> None:
    assert story.title(recorded(tmp_path)) == "SmolLM2-135M-Instruct on gsm8k.jsonl"
    assert story.method_sentence(PLAN) == "LoRA of rank 16, 60 updates of 16 rows, bf16 on cpu"
    full = tuple(
        replace(one, value="full") if one.name == "method" else one for one in PLAN.decisions
    )
    assert story.method_sentence(replace(PLAN, decisions=full)).startswith("All weights, 60")


def test_a_finished_run_says_whose_weights_were_kept(tmp_path: Path) -> None:
    assert story.status(recorded(tmp_path)) == story.Status(
        "Finished",
        "All 60 updates done. adapter/ holds the weights of update 45, the best by held-out loss.",
        "good",
    )


def test_a_finished_run_that_learned_nothing_says_so(tmp_path: Path) -> None:
    sentence = story.status(recorded(tmp_path, eval_loss=2.0)).sentence
    assert "no better on held-out rows than the model before training" in sentence


def test_without_held_out_rows_the_last_weights_are_kept(tmp_path: Path) -> None:
    record = recorded(tmp_path, best_step=None, eval_loss=None, base_eval_loss=None)
    assert "holds the last weights" in story.status(record).sentence
    assert story.headline(record)[0] == story.Figure(
        "Training loss", "1.25", "nats per trainable token"
    )


@pytest.mark.parametrize(
    ("status", "word", "tone", "says"),
    [
        ("stopped", "Stopped", "bad", "after 12 of 60 updates. Diverged: the mean loss is 9."),
        ("interrupted", "Interrupted", "going", "Go on with: `trimtab resume "),
        ("failed", "Failed", "bad", "broke off after 12 of 60 updates."),
        ("running", "Cut off", "bad", "it was killed"),
    ],
)
def test_a_run_that_did_not_finish(
    tmp_path: Path, status: str, word: str, tone: str, says: str
) -> None:
    record = recorded(
        tmp_path,
        status=status,
        num_steps=12,
        stopped_by="diverged: the mean loss is 9",
        result=None,
    )
    told = story.status(record)
    assert (told.word, told.tone) == (word, tone)
    assert says in told.sentence
    assert ("No weights were handed over." in told.sentence) == (status in {"stopped", "failed"})


def test_a_run_that_is_held_is_running(tmp_path: Path) -> None:
    run = write_run(tmp_path / "mine", status="running", num_steps=12)
    with run_lock(run):
        assert story.status(collect(run.root)) == story.Status(
            "Running", "12 of 60 updates done so far.", "going"
        )
        run.summary_json.unlink()
        assert story.status(collect(run.root)).word == "Starting"
    assert story.status(collect(run.root)).word == "Not begun"


def test_the_headline_puts_the_held_out_loss_first(tmp_path: Path) -> None:
    assert story.headline(recorded(tmp_path)) == (
        story.Figure(
            "Held-out loss",
            "2.0000 → 1.0000",
            "nats per trainable token, −50.0%; perplexity 7.389 → 2.718",
        ),
        story.Figure("Time", "4.3 min", "60 updates"),
        story.Figure("Peak memory", "1.50 GiB"),
        story.Figure("Speed", "512 tokens/s", "60,000 tokens in all"),
    )


def test_a_running_run_is_told_from_its_ledgers(tmp_path: Path) -> None:
    # The summary on the disk is the one of the start: no update, no loss.
    run = write_run(
        tmp_path / "mine",
        status="running",
        num_steps=20,
        base_eval_loss=None,
        eval_loss=None,
        seconds=0.0,
    )
    figures = story.headline(collect(run.root))
    assert [one.label for one in figures] == [
        "Held-out loss",
        "Latest training loss",
        "Peak memory",
    ]
    assert figures[0].value == "2.0000 → 1.5000"
    assert figures[2].value == "1.00 GiB"
    assert "after 20 of 60 updates" in story.status(collect(run.root)).sentence


@pytest.mark.parametrize("loss", [math.nan, math.inf, 800.0])
def test_a_loss_out_of_all_measure_has_a_headline(tmp_path: Path, loss: float) -> None:
    (figure, *_) = story.headline(recorded(tmp_path, eval_loss=loss))
    assert figure.value.startswith("2.0000 → ")
    assert ("−" not in figure.note and "+" not in figure.note) or loss == 800.0
