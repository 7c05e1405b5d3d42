from __future__ import annotations

import pytest
from planning.facts import planned

from trimtab.errors import ConfigError

# Of a rank r beside q, k, v, o, gate, up and down of each layer.
PER_RANK = 30 * (1152 + 768 + 768 + 1152 + 3 * 2112)


def test_auto_rank_and_alpha_say_how_large_the_adapters_are() -> None:
    plan = planned()
    rank, alpha = plan.decision("lora_r"), plan.decision("lora_alpha")
    assert (rank.value, rank.origin) == (16, "rule")
    assert (alpha.value, alpha.origin) == (32.0, "rule")
    assert f"{16 * PER_RANK:,} weights" in rank.because
    assert "3.6%" in rank.because
    assert "210 modules" in plan.decision("target_modules").because


def test_asked_rank_and_targets_change_the_count() -> None:
    plan = planned(lora_r=4, target_modules=["q_proj", "self_attn.v_proj"])
    assert f"{4 * 30 * (1152 + 768):,} weights" in plan.decision("lora_r").because
    assert plan.settings().target_modules == ("q_proj", "self_attn.v_proj")
    assert plan.decision("target_modules").because.endswith("60 modules: q_proj, v_proj")
    assert plan.warnings == ()


@pytest.mark.parametrize(
    ("targets", "num_modules"),
    [
        (["layers.0.self_attn.q_proj"], 1),
        (["layers.0.self_attn.q_proj", "1.self_attn.q_proj"], 2),
        (["layers.0.self_attn.q_proj", "q_proj"], 30),
    ],
)
def test_a_target_with_a_path_counts_the_modules_that_it_means(
    targets: list[str], num_modules: int
) -> None:
    plan = planned(lora_r=4, target_modules=targets)
    assert f"{4 * num_modules * 1152:,} weights" in plan.decision("lora_r").because
    counted = "1 module:" if num_modules == 1 else f"{num_modules} modules:"
    assert counted in plan.decision("target_modules").because


@pytest.mark.parametrize(
    ("targets", "unknown"),
    [
        (["q_porj"], "q_porj"),
        (["q_proj", "v_porj"], "v_porj"),
        (["proj", "q_proj", "self_attn.v_porj"], "proj, self_attn.v_porj"),
        (["lm_head"], "lm_head"),
        (["mlp.q_proj"], "mlp.q_proj"),
        (["layers.30.self_attn.q_proj"], "layers.30.self_attn.q_proj"),
    ],
)
def test_each_target_must_be_there(targets: list[str], unknown: str) -> None:
    with pytest.raises(ConfigError) as caught:
        planned(target_modules=targets)
    assert caught.value.what.endswith(f"no linear module named {unknown}.")
    assert caught.value.hint is not None
    assert "q_proj, k_proj, v_proj" in caught.value.hint


def test_adapters_of_the_models_size_are_told() -> None:
    assert planned(lora_r=64).warnings == ()
    assert any("lora_r 256 makes" in warning for warning in planned(lora_r=256).warnings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lora_r", 8),
        ("lora_alpha", 8.0),
        ("lora_dropout", 0.1),
        ("target_modules", ["q_proj"]),
    ],
)
def test_full_fine_tuning_has_no_adapters(name: str, value: object) -> None:
    plan = planned(method="full")
    assert "not used: method is full" in plan.decision(name).because
    assert plan.warnings == ()
    plan = planned(method="full", **{name: value})
    assert plan.decision(name).value == value
    assert f"{name} has no effect: method is full." in plan.warnings
