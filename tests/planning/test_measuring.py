"""What a plan asks to have measured, and how right it then is, on a simulated device."""

from __future__ import annotations

from typing import Any

import pytest
from planning.facts import GB, config
from planning.simulated import MB, Simulated, facts_of, measured, trials_asked

from trimtab.errors import DoesNotFit
from trimtab.planning.effort import Effort
from trimtab.planning.micro_batches import MicroBatchSize
from trimtab.planning.plan import Plan
from trimtab.planning.questions import (
    NoiseScaleQuestion,
    PrecisionQuestion,
    RateRangeQuestion,
    RunQuestion,
    TrialsQuestion,
)
from trimtab.planning.rules.memory import Checkpointing

MEASURED, TRAIN = Effort("measured"), Effort("train")
WITH_NOISE = Effort("measured", noise_scale=True)
NOISE = {"scale_examples": 40.0, "low_examples": 33.0, "high_examples": 60.0, "num_updates": 20}


def kinds(device: Simulated) -> list[type]:
    return [type(question) for question in device.asked[1:]]


def planned(device: Simulated, effort: Effort = MEASURED, **values: Any) -> Plan:
    return measured(config(**({"eval_dataset": "none"} | values)), device, effort=effort)


def test_a_plan_asks_for_memory_format_range_and_the_runs_own_order() -> None:
    device = Simulated()
    planned(device, global_batch_size=4)
    assert kinds(device) == [TrialsQuestion, PrecisionQuestion, RateRangeQuestion, RunQuestion]


def test_a_quick_plan_asks_for_nothing_more() -> None:
    device = Simulated()
    plan = planned(device, Effort("quick"))
    assert kinds(device) == []
    assert any("peak memory" in phrase for phrase in plan.not_measured)


@pytest.mark.parametrize("micro", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("checkpointing", ["off", "full"])
def test_measured_memory_is_right_where_arithmetic_is_not(micro: int, checkpointing: str) -> None:
    device = Simulated()
    values = {
        "global_batch_size": 16,
        "per_device_train_batch_size": micro,
        "activation_checkpointing": checkpointing,
        "memory_limit": "40GB",
    }
    plan = planned(device, **values)
    size = device.size(micro)
    true_peak = device.peak_bytes(size, checkpointing, micro < 16)
    assert plan.predictions.worst_case_memory_bytes == pytest.approx(
        max(true_peak, 1000 * MB), rel=0.02
    )
    assert plan.predictions.peak_memory_bytes == plan.predictions.worst_case_memory_bytes


def test_arithmetic_alone_does_not_know_the_device() -> None:
    device = Simulated()
    quick = planned(device, Effort("quick"), per_device_train_batch_size=16, memory_limit="40GB")
    true_peak = device.peak_bytes(device.size(16), "off", False)
    assert quick.predictions.worst_case_memory_bytes != pytest.approx(true_peak, rel=0.1)


def test_trials_are_of_what_can_be_chosen() -> None:
    device, ladder = Simulated(), Simulated(bytes_per_token=6 * MB)
    planned(device, activation_checkpointing="off", per_device_train_batch_size=4)
    assert {trial.activation_checkpointing for trial in trials_asked(device)} == {"off"}
    planned(ladder, memory_limit="4GB")
    assert {trial.activation_checkpointing for trial in trials_asked(ladder)} >= {"off", "full"}


def test_a_given_accumulation_keeps_the_global_batch() -> None:
    device = Simulated(starting_s=0.0)
    plan = planned(device, gradient_accumulation_steps=1)
    assert plan.decision("global_batch_size").value == 16
    assert plan.decision("per_device_train_batch_size").value == 16
    assert all(trial.num_micro_batches == 1 for trial in trials_asked(device))


class Steep(Simulated):
    """Larger micro-batches are slower a token, as where caches overflow."""

    def update_s(
        self, size: MicroBatchSize, num_micro_batches: float, checkpointing: Checkpointing
    ) -> float:
        return num_micro_batches * 2e-5 * size.num_tokens**1.5


def test_no_size_is_thought_faster_than_the_smallest_that_was_tried() -> None:
    device = Steep()
    plan = planned(device, global_batch_size=16, activation_checkpointing="off")
    assert plan.decision("per_device_train_batch_size").value == 1
    tried = min(trial.num_rows for trial in trials_asked(device))
    limit = 1.1 * tried * device.length / device.update_s(device.size(tried), 1, "off")
    told = [other.because for other in plan.decision("per_device_train_batch_size").alternatives]
    speeds = [float(each.split(" tokens/s")[0].replace(",", "")) for each in told]
    assert speeds
    assert max(speeds) <= limit


def test_a_small_limit_is_measured_before_it_is_refused() -> None:
    device = Simulated()
    with pytest.raises(DoesNotFit) as caught:
        planned(device, memory_limit="500MB")
    assert TrialsQuestion in kinds(device)
    assert "by measured updates" in caught.value.what


def test_measured_seconds_are_right() -> None:
    device = Simulated(tokens_per_s=450, starting_s=0.2)
    plan = planned(device, global_batch_size=16, per_device_train_batch_size=4)
    expected = device.update_s(device.size(4), 4, "off")
    assert plan.predictions.step_time_s == pytest.approx(expected, rel=0.03)


def test_the_smallest_size_near_the_fastest_is_taken() -> None:
    # Starting costs as much as 70 tokens: 8 rows reach 98% of the speed of 16, and 4 reach 94%.
    slow_start = planned(Simulated(starting_s=0.1, optimizer_s=0.0), global_batch_size=16)
    fast_start = planned(Simulated(starting_s=0.001, optimizer_s=0.0), global_batch_size=16)
    chosen = [
        plan.decision("per_device_train_batch_size").value for plan in (fast_start, slow_start)
    ]
    assert chosen == [1, 8]
    decision = slow_start.decision("per_device_train_batch_size")
    assert decision.origin == "measured"
    assert "trials.points" in decision.facts
    assert all("tokens/s" in other.because for other in decision.alternatives)


def test_the_limit_is_kept_by_recomputing_when_trials_say_so() -> None:
    device = Simulated(bytes_per_token=6 * MB)
    plan = planned(device, global_batch_size=16, memory_limit="2400MB")
    worst = plan.predictions.worst_case_memory_bytes
    assert worst is not None
    assert worst * 1.05 <= 2400 * MB
    micro = plan.decision("per_device_train_batch_size").value
    option = plan.decision("activation_checkpointing").value
    assert device.peak_bytes(device.size(micro), option, micro < 16) <= 2400 * MB


def test_what_trials_show_not_to_fit_is_refused_with_what_would() -> None:
    with pytest.raises(DoesNotFit) as caught:
        planned(
            Simulated(),
            per_device_train_batch_size=16,
            activation_checkpointing="off",
            memory_limit="5GB",
        )
    assert "by measured updates" in caught.value.what
    assert caught.value.hint is not None
    assert "per_device_train_batch_size 8 with activation_checkpointing off" in caught.value.hint


def test_train_measures_nothing_for_a_run_of_seconds() -> None:
    device = Simulated()
    plan = planned(device, TRAIN, max_steps=3)
    assert kinds(device) == [RunQuestion]
    assert any("peak memory" in phrase for phrase in plan.not_measured)
    assert any("number format" in phrase for phrase in plan.not_measured)


@pytest.mark.parametrize(
    ("tokens_per_s", "formats", "num_ranges"),
    [(2000, ("bf16", "fp16", "fp32"), 1), (250, ("bf16", "fp32"), 1), (80, None, 0)],
)
def test_fp16_on_a_cpu_goes_before_the_range_of_rates(
    tokens_per_s: float, formats: tuple[str, ...] | None, num_ranges: int
) -> None:
    device = Simulated(tokens_per_s=tokens_per_s)
    runs_fp16 = {"device.native.fp16": True, "device.matmul_flops_per_s.fp16": 150e9}
    values = config(eval_dataset="none", global_batch_size=4)
    measured(values, device, effort=MEASURED, known=runs_fp16)
    compared = [each.precisions for each in device.asked if isinstance(each, PrecisionQuestion)]
    assert compared == ([] if formats is None else [formats])
    assert kinds(device).count(RateRangeQuestion) == num_ranges


@pytest.mark.parametrize("num_steps", [10, 20, 40, 80, 400])
def test_train_spends_at_most_a_share_of_the_run(num_steps: int) -> None:
    device = Simulated()
    plan = planned(device, TRAIN, max_steps=num_steps)
    assert plan.predictions.total_time_s is not None
    probes = [kind for kind in kinds(device) if kind is not RunQuestion]
    assert len(probes) * device.probe_s <= max(0.3 * plan.predictions.total_time_s, 0)


def test_a_long_run_is_measured_in_full() -> None:
    device = Simulated()
    planned(device, TRAIN, max_steps=400)
    assert kinds(device) == [TrialsQuestion, PrecisionQuestion, RateRangeQuestion, RunQuestion]


def test_an_explicit_plan_measures_memory_however_slow_the_device() -> None:
    device = Simulated(tokens_per_s=1)
    values: dict[str, Any] = {"device.matmul_flops_per_s.bf16": 1e8}
    values["device.matmul_flops_per_s.fp32"] = 1e7
    measured(config(eval_dataset="none"), device, effort=MEASURED, known=values)
    assert [trial.num_rows for trial in trials_asked(device)] == [1]


def test_a_trial_that_kills_its_process_ends_the_trials_and_gives_a_plan() -> None:
    device = Simulated(deadly_bytes=1.2 * GB)
    plan = planned(device, global_batch_size=16)
    assert kinds(device).count(TrialsQuestion) == 1
    dead = max(trial.num_rows for trial in trials_asked(device))
    assert plan.decision("per_device_train_batch_size").value < dead
    assert plan.decision("global_batch_size").value == 16


def test_where_the_smallest_trial_died_the_plan_is_refused() -> None:
    with pytest.raises(DoesNotFit) as caught:
        planned(Simulated(deadly_bytes=0.5 * GB), activation_checkpointing="full")
    assert "ran out of memory" in caught.value.what


def test_a_format_that_turns_the_gradient_is_not_taken() -> None:
    true = planned(Simulated(cosine=0.99)).decision("precision")
    turned = planned(Simulated(cosine=0.5)).decision("precision")
    slower = planned(Simulated(bf16_s=3.0)).decision("precision")
    assert (true.value, turned.value, slower.value) == ("bf16", "fp32", "fp32")
    assert "cosine 0.9900" in true.because
    assert "precision.gradient_cosine.bf16" in true.facts


def test_trials_in_a_format_that_was_turned_down_are_made_again_in_the_other() -> None:
    device = Simulated(cosine=0.5)
    plan = planned(device)
    precisions = [
        question.settings.precision
        for question in device.asked
        if isinstance(question, TrialsQuestion)
    ]
    assert precisions == ["bf16", "fp32"]
    assert plan.decision("precision").value == "fp32"


def test_what_was_thrown_away_is_paid_for() -> None:
    device = Simulated(cosine=0.5)
    plan = planned(device)
    num_probes = sum(kind is not RunQuestion for kind in kinds(device))
    assert kinds(device).count(TrialsQuestion) == 2
    assert sum(fact.cost_s for fact in plan.facts) == num_probes * device.probe_s
    assert facts_of(plan).number("discarded.trials") == device.probe_s


def test_what_was_thrown_away_counts_against_the_limit() -> None:
    device = Simulated(cosine=0.5, probe_s=18.0)
    planned(device)
    assert kinds(device) == [TrialsQuestion, PrecisionQuestion, TrialsQuestion, RunQuestion]


@pytest.mark.parametrize("effort", [MEASURED, TRAIN, Effort("quick")])
def test_the_noise_scale_is_not_probed_unasked(effort: Effort) -> None:
    device = Simulated(noise=NOISE)
    planned(device, effort)
    assert NoiseScaleQuestion not in kinds(device)


def test_a_probed_noise_scale_moves_the_batch_before_anything_else_is_measured() -> None:
    device = Simulated(noise=NOISE, tokens_per_s=3000)
    plan = planned(device, WITH_NOISE, num_train_epochs=30)
    assert kinds(device) == [
        NoiseScaleQuestion,
        TrialsQuestion,
        PrecisionQuestion,
        RateRangeQuestion,
        RunQuestion,
    ]
    batch = plan.decision("global_batch_size")
    assert (batch.value, batch.origin) == (32, "measured")
    assert "from 20 updates probed at the base weights" in batch.because
    assert batch.limits is not None
    assert "before anything was learnt" in batch.limits
    (rates,) = [each for each in device.asked if isinstance(each, RateRangeQuestion)]
    assert rates.settings.global_batch_size == 32
    assert not any("noise scale" in phrase for phrase in plan.not_measured)


def test_a_noise_scale_that_a_run_left_is_not_probed_again() -> None:
    device = Simulated()
    known = {f"noise.{name}": value for name, value in NOISE.items()}
    resolved = config(eval_dataset="none", num_train_epochs=30)
    plan = measured(resolved, device, effort=WITH_NOISE, known=known)
    assert NoiseScaleQuestion not in kinds(device)
    assert "from 20 updates of earlier training" in plan.decision("global_batch_size").because


@pytest.mark.parametrize("kind", ["unidentified", "failure"])
def test_a_probe_without_a_result_is_told_and_not_made_again(kind: str) -> None:
    device = Simulated(noise={kind: "the interval includes 0"})
    plan = planned(device, WITH_NOISE)
    assert kinds(device).count(NoiseScaleQuestion) == 1
    told = "the gradient's noise scale (probed without a result: the interval includes 0)"
    assert told in plan.not_measured
    assert plan.decision("global_batch_size").origin == "rule"


def test_a_probe_under_other_settings_is_not_used() -> None:
    known = {fact.id: fact.value for fact in planned(Simulated(noise=NOISE), WITH_NOISE).facts}
    device = Simulated()
    plan = measured(config(eval_dataset="none", lora_r=8), device, effort=MEASURED, known=known)
    assert NoiseScaleQuestion not in kinds(device)
    assert "noise.scale_examples" not in facts_of(plan)


@pytest.mark.parametrize(
    ("flops_per_s", "num_rows", "num_updates"),
    [(1e9, 1024, 20), (6e11, 1024, 23), (1e13, 1024, 40), (1e13, 200, 25), (1e13, 50, 20)],
)
def test_as_many_updates_are_probed_as_a_minute_and_the_rows_have(
    flops_per_s: float, num_rows: int, num_updates: int
) -> None:
    device = Simulated()
    known = {
        "device.matmul_flops_per_s.bf16": flops_per_s,
        "device.matmul_flops_per_s.fp32": flops_per_s / 3,
        "data.num_rows": num_rows,
    }
    measured(config(eval_dataset="none"), device, effort=WITH_NOISE, known=known)
    (question,) = [each for each in device.asked if isinstance(each, NoiseScaleQuestion)]
    assert question.num_updates == num_updates
    assert (question.num_examples, question.num_micro_batch_examples) == (8, 2)
    assert question.expected_s is not None


def test_facts_of_other_settings_are_not_used() -> None:
    first = Simulated()
    plan = planned(first, lora_r=8, global_batch_size=4)
    known = {fact.id: fact.value for fact in plan.facts}
    second = Simulated()
    measured(config(eval_dataset="none", lora_r=16), second, effort=MEASURED, known=known)
    assert TrialsQuestion in [type(question) for question in second.asked]
    again = Simulated()
    measured(
        config(eval_dataset="none", lora_r=8, global_batch_size=4),
        again,
        effort=MEASURED,
        known=known,
    )
    assert again.asked == []
