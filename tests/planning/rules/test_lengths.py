from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planning.facts import LLAMA_135M, QUICK, config, data, planned, quantiles

from trimtab.errors import ConfigError
from trimtab.hyperparameters.layers import resolve
from trimtab.planning.fact import Facts
from trimtab.planning.plan import Plan
from trimtab.planning.planner import make_plan
from trimtab.probes.rows import NUM_QUANTILES

REFUSAL = "changing one document moved the logits of the next by 0.3"
LEAKY = LLAMA_135M | {"model.packing_refusal": REFUSAL}


def lengths(longest: int, nearly_all: float) -> dict[str, object]:
    return data(length_max=longest, length_quantiles=quantiles(1024, longest, nearly_all))


@pytest.mark.parametrize(
    ("longest", "nearly_all", "expected"),
    [
        (312, 290, 320),
        (320, 290, 320),
        (321, 290, 384),
        (250, 200, 256),  # 1.25 times: still near
        (251, 200, 256),  # beyond: the percentile, 200, rounded up
        (5369, 200, 256),
        (5369, 256.4, 320),  # a length between two rows counts as the longer
        (9000, 8500, 8192),  # the model's positions
    ],
)
def test_auto_max_length(longest: int, nearly_all: float, expected: int) -> None:
    decision = planned(rows=lengths(longest, nearly_all)).decision("max_length")
    assert decision.value == expected
    assert decision.origin == "measured"
    assert f"{longest:,}" in decision.because


def test_lengths_that_are_estimated_are_not_called_measured() -> None:
    plan, told = planned(), "estimated from 520 of 9,000 rows"
    facts = Facts().adding(
        replace(fact, method=told) if fact.id.startswith("data.") else fact for fact in plan.facts
    )
    estimated = make_plan(config(), facts, output_dir="runs/r", effort=QUICK)
    assert isinstance(estimated, Plan)
    decision = estimated.decision("max_length")
    assert (decision.value, decision.origin) == (plan.decision("max_length").value, "rule")
    assert decision.because.endswith(f"; {told}")


def test_how_sure_counts_from_a_sample_are_is_told() -> None:
    plan = planned()
    assert not any("sample" in warning for warning in plan.warnings)
    total = Facts().adding(plan.facts).by_id["data.num_tokens"]
    assert isinstance(total.value, int)
    facts = Facts().adding([*plan.facts, replace(total, spread=0.004 * total.value)])
    estimated = make_plan(config(), facts, output_dir="runs/r", effort=QUICK)
    assert isinstance(estimated, Plan)
    assert any(f"{total.value:,} in all, ± 0.40% (95%)" in told for told in estimated.warnings)


def few_rows(*row_lengths: int) -> dict[str, object]:
    """Facts of just these rows, as the probe computes them."""
    quantiles = np.quantile(row_lengths, np.linspace(0, 1, NUM_QUANTILES), method="higher")
    return data(
        num_rows=len(row_lengths),
        length_max=max(row_lengths),
        length_quantiles=quantiles.tolist(),
    )


@pytest.mark.parametrize("num_longest", [2, 8])
def test_few_rows_that_share_the_longest_length_are_no_outliers(num_longest: int) -> None:
    rows = few_rows(*[40] * (24 - num_longest), *[1003] * num_longest)
    decision = planned(rows=rows, eval_dataset="none").decision("max_length")
    assert decision.value == 1024
    assert "the longest row is 1,003 tokens" in decision.because
    assert decision.alternatives == ()


@pytest.mark.parametrize("num_rows", [2, 3, 24, 101, 199, 200, 201, 202])
def test_the_second_longest_of_few_rows_sets_the_length(num_rows: int) -> None:
    rows = few_rows(*[40] * (num_rows - 2), 100, 1003)
    decision = planned(rows=rows, eval_dataset="none").decision("max_length")
    assert decision.value == 128
    named = "99.5th percentile is 100" if num_rows > 200 else "second longest row is 100 tokens"
    assert named in decision.because
    assert planned(rows=few_rows(1003), eval_dataset="none").decision("max_length").value == 1024


@pytest.mark.parametrize(
    ("rows", "told"),
    [(few_rows(*[40] * 22, 240, 260), "the longest row"), (lengths(260, 240), "at most 0.5%")],
)
def test_the_shorter_length_says_what_it_would_cut(rows: dict[str, object], told: str) -> None:
    decision = planned(rows=rows).decision("max_length")
    (alternative,) = decision.alternatives
    assert alternative.value == 256
    assert alternative.because.startswith(f"would cut {told}")


def test_an_outlier_is_named_and_what_it_would_cost() -> None:
    decision = planned(rows=lengths(5369, 200)).decision("max_length")
    assert "outlier" in decision.because
    assert [alternative.value for alternative in decision.alternatives] == [5376]
    assert "26.8×" in decision.alternatives[0].because


def test_rows_that_are_cut_are_counted_in_reason_and_warning() -> None:
    cut = {"num_truncated": 12, "num_tokens_cut": 3411, "num_trainable_tokens_cut": 2900}
    plan = planned(max_length=200, training_rows=cut)
    assert "12 of 973" in plan.decision("max_length").because
    (warning,) = (one for one in plan.warnings if "max_length" in one)
    for figure in ("12 of 973", "3,411", "2,900", "are cut"):
        assert figure in warning
    assert not any("max_length" in one for one in planned().warnings)


def test_what_splitting_costs_is_told() -> None:
    cut = {"num_truncated": 12, "num_tokens_cut": 0, "num_trainable_tokens_cut": 6}
    (warning,) = planned(max_length=200, truncation_mode="split", training_rows=cut).warnings
    assert "12 of 973 rows are longer than max_length and are split: 0 tokens lost" in warning
    assert "6 no longer trained on" in warning
    assert "of them" not in warning


def test_too_long_rows_of_a_sample_that_stop_the_run_are_not_told_as_cut() -> None:
    cut = {"num_truncated": 12, "num_rows_losing_targets": 9, "num_left_without_target": 4}
    plan = planned(max_length=200, truncation_mode="error", training_rows={**cut, "num_dropped": 4})
    assert plan.warnings == (
        "An estimated 12 of 973 rows are longer than max_length; a single one stops the run.",
    )
    assert "the run stops" in plan.decision("truncation_mode").because


def test_rows_that_are_dropped_are_counted() -> None:
    plan = planned(max_length=200, truncation_mode="drop", training_rows={"num_dropped": 40})
    (warning,) = plan.warnings
    assert "40 of 973" in warning
    assert "dropped" in warning
    assert "40 rows" in plan.decision("truncation_mode").because


def test_rows_that_lose_their_targets_are_told_and_counted_once() -> None:
    cut = {
        "num_truncated": 12,
        "num_tokens_cut": 3411,
        "num_trainable_tokens_cut": 2900,
        "num_rows_losing_targets": 9,
        "num_dropped": 4,
        "num_left_without_target": 4,
    }
    plan = planned(max_length=200, training_rows=cut)
    assert "12 of 973" in plan.decision("max_length").because
    assert "12 rows" in plan.decision("truncation_mode").because
    _, losing, without = plan.warnings
    assert losing.startswith("Rows cut within what is trained on: 9 of 973;")
    assert without.startswith("Rows that keep no token to train on within max_length: 4;")
    split = planned(max_length=200, truncation_mode="split", training_rows=cut).warnings
    assert split[1].startswith("Rows split within what is trained on: 9 of 973;")
    assert split[2].startswith("Pieces of split rows that keep no token")


def test_copies_of_held_out_rows_are_no_rows_to_train_on() -> None:
    plan = planned(max_length=200, training_rows={"num_copies_removed": 7, "num_truncated": 12})
    assert "12 of 966 rows" in plan.decision("max_length").because
    assert any("12 of 966 rows" in warning for warning in plan.warnings)


def test_max_length_over_the_models_positions_is_refused() -> None:
    assert planned(max_length=8192).decision("max_length").value == 8192
    with pytest.raises(ConfigError, match=r"8,193 is over the 8,192 positions"):
        planned(max_length=8193)


def test_padding_free_is_the_default_and_falls_back_with_the_reason() -> None:
    assert planned().decision("padding").value == "none"
    fallen = planned(model=LEAKY).decision("padding")
    assert (fallen.value, fallen.origin) == ("longest", "measured")
    assert REFUSAL in fallen.because
    assert "model.packing_refusal" in fallen.facts


def test_asking_for_padding_none_that_cannot_be_had_is_told() -> None:
    plan = planned(model=LEAKY, padding="none")
    assert plan.decision("padding").value == "longest"
    assert any(REFUSAL in warning for warning in plan.warnings)
    assert not any(REFUSAL in warning for warning in planned(model=LEAKY).warnings)
    assert planned(model=LEAKY, padding="max_length").decision("padding").value == "max_length"


def test_packing_that_cannot_be_had_is_refused_by_name() -> None:
    with pytest.raises(ConfigError) as caught:
        planned(model=LEAKY, packing=True)
    assert "packing" in caught.value.what
    assert REFUSAL in caught.value.what


@pytest.mark.parametrize("padding", ["longest", "max_length"])
def test_packing_and_padding_exclude_each_other(padding: str) -> None:
    with pytest.raises(ConfigError, match=f"packing: true and padding: {padding}"):
        planned(packing=True, padding=padding)
    assert planned(packing=True, padding="none").decision("packing").value is True


def test_packing_says_how_full_rows_are() -> None:
    plan = planned(packing=True)
    assert "973 examples fill 487 rows, 2.0 each" in plan.decision("packing").because


@pytest.mark.parametrize(("name", "value"), [("padding_side", "left"), ("pad_to_multiple_of", 8)])
def test_padding_settings_without_padding_are_told(name: str, value: object) -> None:
    def warned(plan: Plan) -> bool:
        return any(one.startswith(f"{name} has no effect") for one in plan.warnings)

    assert warned(planned(**{name: value}))
    padded = planned(padding="longest", **{name: value})
    assert not warned(padded)
    assert padded.decision(name).value == value
    assert "not used" not in padded.decision(name).because


def test_pad_token_is_what_the_probe_resolved() -> None:
    found = planned().decision("pad_token")
    assert (found.value, found.origin) == ("<|reserved|>", "measured")
    assert "reserves" in found.because
    asked = LLAMA_135M | {
        "model.pad_token": "</s>",
        "model.pad_token_id": 2,
        "model.pad_token_because": "pad_token is eos",
    }
    plan = planned(pad_token="eos", model=asked)
    assert (plan.decision("pad_token").value, plan.decision("pad_token").origin) == ("</s>", "user")
    assert plan.settings().pad_token_id == 2


def test_errors_name_the_line(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("model: m\ndataset: d.jsonl\nmax_length: 9000\n")
    with pytest.raises(ConfigError) as caught:
        planned(resolve(file=file))
    assert caught.value.where == f"{file}:3"
    assert config(max_length=9000).origins["max_length"].where is None
