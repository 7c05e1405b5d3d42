from __future__ import annotations

from typing import Any

import pytest
from planning.facts import DATA, LLAMA_8B, LLAMA_135M, as_facts, config, rows_for

from trimtab.errors import ConfigError, DoesNotFit
from trimtab.planning.device_sheets import DEVICE_SHEETS, datasheet_facts
from trimtab.planning.effort import QUICK
from trimtab.planning.forecast import Forecast, forecast
from trimtab.planning.planner import make_plan
from trimtab.planning.questions import TrainingRowsQuestion


def forecast_of(
    device: str, num_devices: int, model: dict[str, Any] = LLAMA_8B, **values: Any
) -> Forecast:
    resolved = config(**values)
    known = {**model, **DATA}
    facts = as_facts(known).adding(datasheet_facts(DEVICE_SHEETS[device]))
    answer = make_plan(resolved, facts, output_dir="r", num_ranks=num_devices, effort=QUICK)
    assert isinstance(answer, tuple)
    (question,) = answer
    assert isinstance(question, TrainingRowsQuestion)
    facts = facts.adding(as_facts(rows_for(question, known, {})))
    return forecast(
        resolved, facts, output_dir="r", num_devices=num_devices, price_per_device_hour=2.0
    )


def test_what_does_not_fit_on_one_is_sharded() -> None:
    made = forecast_of("h100", 8, method="full", global_batch_size=64)
    assert [one.split.num_shards for one in made.splits] == [1, 8]
    assert [one.plan is None for one in made.splits] == [True, False]
    assert made.chosen.split.num_shards == 8
    predicted = made.plan.predictions
    assert predicted.worst_case_memory_bytes is not None
    assert predicted.worst_case_memory_bytes < DEVICE_SHEETS["h100"].memory_bytes * 0.9
    assert predicted.step_time_s == pytest.approx(made.terms.update_s)


def test_of_equally_fast_splits_the_one_of_most_copies_is_taken() -> None:
    """Here both are equally fast, since so small a model hides what it gathers."""
    made = forecast_of("a100-80", 4, LLAMA_135M, method="lora", global_batch_size=64)
    assert [one.runs for one in made.splits] == [True, True]
    assert made.chosen.split.num_shards == 1


@pytest.mark.parametrize("num_devices", [1, 2, 8, 32])
def test_the_global_batch_stays(num_devices: int) -> None:
    made = forecast_of("h200", num_devices, method="lora", global_batch_size=128)
    for one in made.splits:
        assert one.plan is not None
        settings = one.plan.settings()
        micro = settings.per_device_train_batch_size
        assert micro * settings.gradient_accumulation_steps * num_devices == 128
        assert settings.global_batch_size == 128


def test_more_devices_take_less_time_and_no_fewer_device_hours() -> None:
    """A deliberate choice of a batch that keeps 32 devices busy."""
    few, many = (
        forecast_of("h100", count, method="lora", global_batch_size=256) for count in (4, 32)
    )
    assert many.plan.predictions.num_steps == few.plan.predictions.num_steps
    assert many.terms.update_s < few.terms.update_s / 3
    assert many.device_hours >= few.device_hours
    assert many.cost == pytest.approx(2 * many.device_hours)


def test_splits_that_train_does_not_make_are_told_and_not_taken() -> None:
    made = forecast_of("h100", 32, method="full", global_batch_size=64)
    between = [one for one in made.splits if one.split.num_shards not in {1, 32}]
    assert [one.split.num_shards for one in between] == [8, 16]
    assert not any(one.runs for one in between)
    assert made.chosen.runs


def test_nothing_says_that_the_device_was_measured() -> None:
    made = forecast_of("h100", 8, method="lora", global_batch_size=64)
    plan = made.plan
    of_the_device = {
        "device",
        "memory_limit",
        "precision",
        "per_device_train_batch_size",
        "activation_checkpointing",
    }
    assert {plan.decision(name).origin for name in of_the_device} == {"rule"}
    methods = [fact.method for fact in plan.facts if fact.id.startswith(("device.", "datasheet."))]
    assert all(each.startswith(("datasheet: ", "recorded: ")) for each in methods)
    assert "timed" not in plan.decision("per_device_train_batch_size").because
    assert any("datasheet" in each for each in plan.not_measured)


def test_a_device_without_bf16_takes_fp16() -> None:
    made = forecast_of("v100", 4, LLAMA_135M, method="lora", global_batch_size=16)
    assert made.plan.settings().precision == "fp16"


def test_where_nothing_fits_the_number_that_would_do_is_told() -> None:
    with pytest.raises(DoesNotFit, match=r"on 2 × NVIDIA A10.*16 of them hold it"):
        forecast_of("a10", 2, method="full")


@pytest.mark.parametrize("optim", ["muon", "adafactor", "adamw_8bit", "lion"])
def test_shards_are_not_forecast_for_optimizers_that_cannot_work_on_them(optim: str) -> None:
    made = forecast_of("h100", 8, LLAMA_135M, method="full", optim=optim, global_batch_size=64)
    assert [one.split.num_shards for one in made.splits] == [1]
    refused = {"method": "full", "optim": optim, "global_batch_size": 64}
    with pytest.raises(ConfigError, match=f"{optim} cannot work on shards") as when_it_is_needed:
        forecast_of("h100", 8, **refused)
    assert not isinstance(when_it_is_needed.value, DoesNotFit)
    with pytest.raises(ConfigError, match=f"{optim} cannot work on shards"):
        forecast_of("h100", 8, LLAMA_135M, **refused, parallelism="shard")


@pytest.mark.parametrize(
    ("parallelism", "counts"), [("auto", [1, 8, 16]), ("shard", [8, 16]), ("replicate", [1])]
)
def test_a_parallelism_that_is_set_is_kept(parallelism: str, counts: list[int]) -> None:
    made = forecast_of(
        "h100", 16, LLAMA_135M, method="full", parallelism=parallelism, global_batch_size=64
    )
    assert [one.split.num_shards for one in made.splits] == counts
    for one in made.splits:
        assert one.plan is not None
        division = "replicate" if one.split.num_shards == 1 else "shard"
        assert one.plan.settings().parallelism == division


def test_more_devices_do_not_make_room_for_replicas() -> None:
    with pytest.raises(DoesNotFit, match=r"^on 8 × NVIDIA A10\b(?!.*(sharded|hold it))"):
        forecast_of("a10", 8, method="full", parallelism="replicate", global_batch_size=64)


def test_a_global_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match="not divisible by 8 devices"):
        forecast_of("h100", 8, method="full", global_batch_size=12)


def test_json_has_the_split_its_terms_and_the_plan() -> None:
    record = forecast_of("h100", 8, method="full", global_batch_size=64).to_json()
    assert record["is_predicted"] is True
    assert record["split"]["num_shards"] == 8
    assert record["splits"][0]["fits"] is False
    assert record["split"]["terms"]["arithmetic_s"] > 0
    assert record["plan"]["decisions"]
