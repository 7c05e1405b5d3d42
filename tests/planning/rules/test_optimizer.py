"""Guide rows 11 and 12: weight decay and optimizers."""

from __future__ import annotations

from typing import get_args

import pytest
from planning.facts import LLAMA_135M, planned

from trimtab.hyperparameters.config import Optimizer

NUM_LINEAR = 30 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536)


@pytest.mark.parametrize("optim", get_args(Optimizer))
def test_each_optimizer_reaches_the_settings(optim: str) -> None:
    plan = planned(optim=optim)
    assert plan.settings().optim == optim
    assert plan.decision("optim").origin == "user"


def test_the_default_is_adamw() -> None:
    assert planned().decision("optim").value == "adamw"
    assert planned().decision("optim").origin == "default"


@pytest.mark.parametrize("extra", ["adamw_8bit", "lion", "adamw_schedule_free"])
def test_extras_are_named(extra: str) -> None:
    assert "from the extra" in planned(optim=extra).decision("optim").because


def test_weight_decay_counts_what_it_reaches() -> None:
    off = planned().decision("weight_decay")
    assert (off.value, off.origin) == (0.0, "default")
    full = planned(method="full", weight_decay=0.1).decision("weight_decay")
    assert (full.value, full.origin) == (0.1, "user")
    assert f"{NUM_LINEAR:,} of 134,515,008 trained weights (79%)" in full.because
    assert "decoupled" in full.because
    lora = planned(weight_decay=0.1).decision("weight_decay")
    assert "4,884,480 of 4,884,480" in lora.because


def test_constants_of_the_house_say_that_no_other_was_tried() -> None:
    for name in ("weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"):
        limits = planned().decision(name).limits
        assert limits is not None and "no other value is tried" in limits
    assert planned(adam_beta2=0.95).decision("adam_beta2").limits is None


def test_a_head_of_its_own_decays() -> None:
    untied = LLAMA_135M | {
        "model.num_parameters": 134_515_008 + 49_152 * 576,
        "model.head_is_tied": False,
    }
    because = (
        planned(model=untied, method="full", weight_decay=0.1).decision("weight_decay").because
    )
    assert f"{NUM_LINEAR + 49_152 * 576:,} of" in because


@pytest.mark.parametrize(("optim", "kind"), [("adam", "L2 term"), ("adamw", "decoupled")])
def test_adam_takes_the_l2_term(optim: str, kind: str) -> None:
    assert kind in planned(optim=optim, weight_decay=0.1).decision("weight_decay").because


def test_muon_leaves_constants_to_adamw_where_there_is_more_than_matrices() -> None:
    for name in ("adam_beta1", "adam_beta2", "adam_epsilon"):
        lora = planned(optim="muon", method="lora", **{name: 0.5})
        assert f"{name} has no effect under optim: muon with method: lora." in lora.warnings
        unset = planned(optim="muon", method="lora").decision(name).because
        assert unset == "not used: optim is muon with method: lora"
        full = planned(optim="muon", method="full", **{name: 0.5})
        assert not any(name in warning for warning in full.warnings)


@pytest.mark.parametrize(
    ("optim", "name", "is_used"),
    [
        ("adamw", "adam_beta2", True),
        ("lion", "adam_beta1", True),
        ("lion", "adam_beta2", False),
        ("sgd", "adam_beta1", False),
        ("adafactor", "adam_epsilon", False),
    ],
)
def test_constants_that_the_optimizer_does_not_have(optim: str, name: str, is_used: bool) -> None:
    plan = planned(optim=optim, **{name: 0.5})
    assert (f"{name} has no effect under optim: {optim}." in plan.warnings) is not is_used
    assert plan.decision(name).value == 0.5
    unset = planned(optim=optim).decision(name).because
    assert unset.startswith("not used") is not is_used


def test_clipping() -> None:
    assert planned().settings().max_grad_norm == 1.0
    assert planned(max_grad_norm=0.0).decision("max_grad_norm").because.endswith("clipping is off")
