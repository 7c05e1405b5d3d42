"""The guide's claims: which verdicts hold one, and all of them on a tiny model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.runs import read_jsonl, tiny_config, write_rows
from support.studies import guide_result

import trimtab
from trimtab.hyperparameters.catalogue import catalogue
from trimtab.study import guide
from trimtab.study.claims import CLAIMS, Claim, Expectation
from trimtab.study.guide import outcome_of
from trimtab.study.guide_result import GuideResult
from trimtab.study.statistics import Comparison, Verdict
from trimtab.workflow.trial_runs import TrialRun


def found(verdict: Verdict) -> Comparison:
    return Comparison(verdict, "", 3)


def saving(low: float, high: float) -> Comparison:
    """A change of memory, by the ends of its interval as shares."""
    middle = (low + high) / 2
    return Comparison(
        "better", "", 3, effect_nats=middle * 8, reference_nats=8.0, interval=(low * 8, high * 8)
    )


def claim(expects: Expectation) -> Claim:
    return Claim(1, "", "padding", "none", ("longest",), "held-out loss", expects)


@pytest.mark.parametrize(
    ("expects", "verdicts", "outcome"),
    [
        ("lower", ["better"], "held"),
        ("lower", ["equivalent"], "not held"),
        ("lower", ["worse"], "not held"),
        ("lower", ["undecided"], "undecided"),
        ("not higher", ["better"], "held"),
        ("not higher", ["equivalent"], "held"),
        ("not higher", ["worse"], "not held"),
        ("same", ["equivalent"], "held"),
        ("same", ["better"], "not held"),
        ("same", ["undecided"], "undecided"),
        ("none lower", ["worse", "equivalent"], "held"),
        ("none lower", ["worse", "better"], "not held"),
        ("none lower", ["worse", "undecided"], "undecided"),
        ("none lower", ["better", "undecided"], "not held"),
    ],
)
def test_outcomes(expects: Expectation, verdicts: list[Verdict], outcome: str) -> None:
    assert outcome_of(claim(expects), [found(verdict) for verdict in verdicts]) == outcome


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (-0.45, -0.35, "held"),
        (-0.20, -0.10, "not held"),
        (-0.80, -0.60, "not held"),
        (-0.35, -0.25, "undecided"),
        (0.01, 0.02, "not held"),
    ],
)
def test_about_40_percent(low: float, high: float, outcome: str) -> None:
    assert outcome_of(claim("about 40% lower"), [saving(low, high)]) == outcome


def test_without_an_interval_a_saving_is_undecided() -> None:
    assert outcome_of(claim("about 40% lower"), [found("undecided")]) == "undecided"


def test_claims_name_the_catalogue_and_the_guides_rows() -> None:
    for each in CLAIMS:
        entry = catalogue()[each.name]
        assert entry.declaration.guide_row in {each.row, None} or each.row == 4
    assert {1, 3, 4, 5, 9, 10, 11, 13} == {each.row for each in CLAIMS}


def test_the_guide_on_a_tiny_model(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "rows.jsonl", num_rows=32)
    monkeypatch.chdir(tmp_path)
    config: dict[str, Any] = tiny_config(
        tmp_path,
        tiny_llama_folder,
        output_dir="auto",
        learning_rate=1e-3,
        global_batch_size=4,
        per_device_train_batch_size=4,
        max_steps=2,
        eval_dataset=0.25,
    )
    result = trimtab.study_guide(config, seeds=2, in_process=True)
    outcomes = {each.says: each.outcome for each in result.claims}
    assert len(outcomes) == len(CLAIMS)
    assert outcomes["padding every row to one length leaves the loss as it is"] == "held"
    says = "small batches whose gradients add up do what one large batch does"
    assert outcomes[says] == "held"
    measured = {each for each in result.claims if "against" in each.figures}
    (untried,) = set(result.claims) - measured
    assert (untried.quantity, untried.outcome) == ("peak memory", "undecided")
    moved = {each.name for each in measured if "at one learning rate" in each.figures}
    assert moved == {"global_batch_size", "lr_scheduler_type"}
    runs = read_jsonl(tmp_path / result.folder / "trials.jsonl")
    # Arms that come to what is planned anyway are one run a seed, whichever claims they serve.
    assert len(runs) == 2 * 9
    # What is planned is in fp32, so that the second claim on time lacks its other run alone.
    timed = [(run["run"]["seed"], *run["run"]["overrides"].items()) for run in runs[:3]]
    micro = "per_device_train_batch_size"
    assert timed == [(42, (micro, 1)), (42, (micro, 4)), (42, ("precision", "bf16"))]
    kept = json.loads((tmp_path / result.folder / "result.json").read_text(encoding="utf-8"))
    assert GuideResult.from_json(kept) == result


def test_a_claim_whose_values_do_not_differ_here_is_not_tried(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    warmup = tuple(each for each in CLAIMS if each.name == "warmup_steps")
    monkeypatch.setattr(guide, "CLAIMS", warmup)
    config = tiny_config(
        tmp_path, tiny_llama_folder, output_dir="auto", lr_scheduler_type="constant", max_steps=2
    )
    (result,) = trimtab.study_guide(config, seeds=1, in_process=True).claims
    assert result.outcome == "undecided"
    assert result.figures == "warmup_steps 0 and 0.1 come to the same runs here"


def test_time_of_runs_that_did_not_end_is_not_compared() -> None:
    run = TrialRun({}, 42, 2, (), (), (), None, 0, 0, 0.0, 0.0, 0, diverged="memory ran out")
    timed = next(each for each in CLAIMS if each.name == "precision" and each.quantity == "seconds")
    judged = guide._judged(timed, ("fp32", "bf16"), [[run, run], [run, run]], 0.005)
    assert (judged.outcome, judged.comparisons) == ("undecided", ())
    assert judged.figures == "a run did not come to its end (memory ran out)"


def test_losses_are_not_compared_where_memory_ran_out() -> None:
    ended = TrialRun({}, 42, 2, (0,), (1.0,), (1,), 1.0, 8, 8, 1.0, 1.0, 1)
    failed = replace(ended, eval_loss=None, diverged="memory ran out", ran_out_of_memory=True)
    padded = next(each for each in CLAIMS if each.name == "padding")
    values = ("none", "max_length")
    judged = guide._judged(padded, values, [[ended] * 2, [failed] * 2], 0.005)
    assert (judged.outcome, judged.comparisons) == ("undecided", ())
    diverged = replace(failed, diverged="the loss is nan", ran_out_of_memory=False)
    assert guide._judged(padded, values, [[ended] * 2, [diverged] * 2], 0.005).outcome == "not held"


def test_json_keeps_a_guide() -> None:
    record = json.loads(json.dumps(guide_result().to_json()))
    assert GuideResult.from_json(record) == guide_result()
