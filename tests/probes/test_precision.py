from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.benches import standing, tiny_batch, tiny_bench

from trimtab.engine.step import StepResult
from trimtab.hyperparameters.config import Precision
from trimtab.probes import precision
from trimtab.probes.bench import Bench, finite_update
from trimtab.probes.precision import LostUpdates, PrecisionOutcome, precision_outcomes
from trimtab.probes.precision import unit_in_last_place as spacing_of


def outcomes_of(
    precisions: tuple[Precision, ...], benches: dict[Precision, Bench]
) -> tuple[dict[str, PrecisionOutcome], LostUpdates]:
    found = list(precision_outcomes(benches.__getitem__, tiny_batch(), precisions))
    (lost,) = (each for each in found if isinstance(each, LostUpdates))
    return {each.precision: each for each in found if isinstance(each, PrecisionOutcome)}, lost


def test_formats_are_compared_with_fp32_and_leave_everything_as_it_was() -> None:
    formats: tuple[Precision, ...] = ("bf16", "fp16")
    benches = {each: tiny_bench(precision=each) for each in ("fp32", *formats)}
    before = {each: standing(bench) for each, bench in benches.items()}
    found, lost = outcomes_of(formats, benches)
    assert {each: standing(bench) for each, bench in benches.items()} == before
    assert found["fp32"].gradient_cosine == pytest.approx(1.0, abs=1e-12)
    assert found["fp32"].gradient_norm_ratio == pytest.approx(1.0, abs=1e-12)
    for each in formats:
        assert 0.99 < (found[each].gradient_cosine or 0) < 1.0
        assert found[each].gradient_norm_ratio == pytest.approx(1.0, abs=0.05)
        assert found[each].update_s > 0
        assert not found[each].overflows
    cosines = [found[each].gradient_cosine or 0 for each in ("bf16", "fp16")]
    assert cosines[0] < cosines[1]
    assert set(lost.share) == {"fp32", "bf16", "fp16"}


def test_small_updates_are_lost_in_formats_of_few_bits() -> None:
    shares = {}
    for rate in (1e-6, 1e-4):
        bench = tiny_bench(learning_rate=rate, max_grad_norm=0.0)
        shares[rate] = outcomes_of(("bf16", "fp16"), {"fp32": bench, "bf16": bench, "fp16": bench})[
            1
        ].share
    small, large = shares[1e-6], shares[1e-4]
    assert small["fp32"] < small["fp16"] < small["bf16"]
    assert large["bf16"] < small["bf16"]
    # Weights are of size 0.02: half a step of bf16 is there about 4e-5, so 1e-6 is lost in most.
    assert small["bf16"] > 0.8


def test_a_format_that_is_much_slower_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds_of = {"fp32": 2.0, "bf16": 1.0, "fp16": 1.3}
    made: list[str] = []

    def timed(bench: Bench, *rest: Any, **options: Any) -> tuple[StepResult, float]:
        made.append(bench.settings.precision)
        return finite_update(bench, *rest, **options)[0], seconds_of[bench.settings.precision]

    monkeypatch.setattr(precision, "finite_update", timed)
    formats: tuple[Precision, ...] = ("bf16", "fp16")
    found, _ = outcomes_of(
        formats, {each: tiny_bench(precision=each) for each in ("fp32", *formats)}
    )
    assert {each: found[each].update_s for each in found} == seconds_of
    assert made == ["fp32", "fp32", "bf16", "bf16", "fp16"]


def test_a_format_that_the_device_refuses_is_left_out() -> None:
    bench = tiny_bench()

    def make(precision: Precision) -> Bench:
        if precision == "fp16":
            raise RuntimeError('"addmm" not implemented for Half')
        return bench

    found = list(precision_outcomes(make, tiny_batch(), ("fp16", "bf16")))
    assert [each.precision for each in found if isinstance(each, PrecisionOutcome)] == [
        "fp32",
        "bf16",
    ]


def test_overflow_is_told() -> None:
    bench = tiny_bench()
    broken = tiny_bench(precision="bf16")
    with torch.no_grad():
        broken.optimizer.parameters[0].fill_(torch.inf)
    broken.optimizer.publish()
    found, _ = outcomes_of(("bf16",), {"fp32": bench, "bf16": broken})
    assert found["bf16"].overflows
    assert found["bf16"].gradient_cosine is None


def test_the_unit_in_the_last_place_is_numpys() -> None:
    generator = np.random.default_rng(0)
    weights = generator.normal(size=1000).astype(np.float32) * 10.0 ** generator.integers(-6, 3)
    weights = np.concatenate([weights, [1.0, 2.0, -0.5, 0.0]]).astype(np.float32)
    spacing = spacing_of(torch.from_numpy(weights), torch.float32)
    np.testing.assert_array_equal(spacing.numpy(), np.abs(np.spacing(weights)))
    halves = np.array([1.0, 0.3, 6e-5, 1e-6, 0.0], dtype=np.float16)
    spacing = spacing_of(torch.from_numpy(halves).float(), torch.float16)
    np.testing.assert_array_equal(spacing.numpy(), np.spacing(halves).astype(np.float32))
    assert spacing_of(torch.tensor([1.0, 0.02]), torch.bfloat16).tolist() == [2**-7, 2**-13]
