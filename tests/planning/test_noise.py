from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from trimtab.planning.noise import (
    OVER_A_RUN,
    GradientNorms,
    MicroBatchNorms,
    noise_facts,
    noise_scale,
)

DIMENSION = 400


def synthetic(
    scale: float,
    num_updates: int,
    *,
    sizes: tuple[int, int] = (4, 16),
    decay: float = 1.0,
    seed: int = 1,
) -> list[GradientNorms]:
    """Updates of examples whose gradients are a true one of norm 1 and noise of trace `scale`.

    `decay` is how much the whole gradient, signal and noise alike, shrinks an update.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    truth = np.full(DIMENSION, DIMENSION**-0.5)
    small, large = sizes
    updates = []
    for index in range(num_updates):
        noise = generator.normal(0, (scale / DIMENSION) ** 0.5, size=(large, DIMENSION))
        gradients = (truth + noise) * decay**index
        first, whole = gradients[:small].mean(axis=0), gradients.mean(axis=0)
        updates.append(
            GradientNorms(small, large, float(np.linalg.norm(first)), float(np.linalg.norm(whole)))
        )
    return updates


@pytest.mark.parametrize("scale", [4.0, 16.0, 64.0])
def test_the_known_noise_scale_is_found_inside_its_interval(scale: float) -> None:
    found = noise_scale(synthetic(scale, 200))
    assert found is not None
    assert found.examples == pytest.approx(scale, rel=0.15)
    assert found.low_examples < scale < found.high_examples
    assert found.num_updates == 200


def test_the_sizes_of_the_two_batches_do_not_matter() -> None:
    for sizes in ((1, 8), (2, 32), (8, 16)):
        found = noise_scale(synthetic(16.0, 400, sizes=sizes))
        assert found is not None
        assert found.examples == pytest.approx(16, rel=0.2)


def test_updates_of_several_sizes_are_taken_together() -> None:
    updates = synthetic(16.0, 200, sizes=(4, 16)) + synthetic(16.0, 50, sizes=(4, 12), seed=2)
    found = noise_scale(updates)
    assert found is not None
    assert found.examples == pytest.approx(16, rel=0.15)


def test_it_is_the_ratio_of_the_means() -> None:
    # Single updates may even have a negative |G|²: the mean of the ratios is far off.
    updates = synthetic(40.0, 300, decay=0.995)
    ratios = []
    for one in updates:
        b, large, g_b, g_large = 4, 16, one.first_norm**2, one.norm**2
        signal = (large * g_large - b * g_b) / (large - b)
        ratios.append((g_b - g_large) / (1 / b - 1 / large) / signal)
    found = noise_scale(updates)
    assert found is not None
    assert found.examples == pytest.approx(40, rel=0.3)
    assert abs(np.mean(ratios) - 40) > abs(found.examples - 40)


def test_the_interval_covers_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(100):
        found = noise_scale(synthetic(16.0, 40, seed=seed))
        assert found is not None
        covered += found.low_examples <= 16 <= found.high_examples
    assert 80 <= covered <= 97


def test_more_updates_narrow_the_interval() -> None:
    few, many = noise_scale(synthetic(16.0, 40)), noise_scale(synthetic(16.0, 640))
    assert few is not None
    assert many is not None
    widths = [found.high_examples - found.low_examples for found in (few, many)]
    assert widths[1] < widths[0] / 2


def test_too_few_updates_identify_nothing() -> None:
    assert noise_scale(synthetic(4.0, 19)) is None
    assert noise_scale(synthetic(4.0, 20)) is not None
    assert noise_scale([]) is None


def test_noise_that_hides_the_gradient_identifies_nothing() -> None:
    assert noise_scale(synthetic(20_000.0, 30)) is None


def test_gradients_without_noise_have_scale_0() -> None:
    found = noise_scale([GradientNorms(4, 16, 0.5, 0.5)] * 30)
    assert found is not None
    assert (found.examples, found.low_examples, found.high_examples) == (0, 0, 0)


def test_the_same_updates_give_the_same_interval() -> None:
    updates = synthetic(16.0, 60)
    assert noise_scale(updates) == noise_scale(updates)


def ragged(scale: float, num_updates: int, *, seed: int) -> list[MicroBatchNorms]:
    """Updates of 8 examples in micro-batches of 2, some ten times as noisy as others, some of ten
    times the tokens; `scale` holds for a batch of 8 of them as training weights it."""
    generator = np.random.Generator(np.random.PCG64(seed))
    truth = np.full(DIMENSION, DIMENSION**-0.5)
    updates = []
    for _ in range(num_updates):
        tokens = generator.choice([1.0, 10.0], size=8)
        tokens /= tokens.sum()
        trace = scale * generator.choice([0.2, 1.8], size=8) / (8 * (tokens**2).sum())
        noise = generator.normal(size=(8, DIMENSION)) * np.sqrt(trace / DIMENSION)[:, None]
        weighted = (tokens[:, None] * (truth + noise)).reshape(4, 2, DIMENSION).sum(axis=1)
        shares = tokens.reshape(4, 2).sum(axis=1)
        norms = np.linalg.norm(weighted, axis=1) / shares
        updates.append(
            MicroBatchNorms(8, list(shares), list(norms), float(np.linalg.norm(weighted.sum(0))))
        )
    return updates


@pytest.mark.parametrize("scale", [4.0, 16.0, 64.0])
def test_all_micro_batches_of_a_few_ragged_updates_tell_the_scale(scale: float) -> None:
    found = [noise_scale(ragged(scale, 20, seed=seed)) for seed in range(40)]
    scales = [each.examples for each in found if each is not None]
    assert len(scales) == 40
    assert np.mean(scales) == pytest.approx(scale, rel=0.1)
    covered = [each.low_examples <= scale <= each.high_examples for each in found if each]
    assert sum(covered) >= 30


def test_the_product_of_two_micro_batches_is_the_signal() -> None:
    one, other, shares = np.array([3.0, 1.0]), np.array([1.0, 2.0]), (0.25, 0.75)
    whole = shares[0] * one + shares[1] * other
    norms = [float(np.linalg.norm(each)) for each in (one, other)]
    update = MicroBatchNorms(8, shares, norms, float(np.linalg.norm(whole)))
    assert update.squared_signal == pytest.approx(one @ other)
    assert update.noise_trace == pytest.approx(8 * (whole @ whole - one @ other))


def test_facts_carry_unit_and_interval() -> None:
    found = noise_scale(synthetic(16.0, 60))
    assert found is not None
    facts = {fact.id: fact for fact in noise_facts(found, OVER_A_RUN)}
    assert facts["noise.scale_examples"].value == found.examples
    assert facts["noise.low_examples"].value == found.low_examples
    assert facts["noise.high_examples"].value == found.high_examples
    assert facts["noise.num_updates"].value == 60
    assert facts["noise.scale_examples"].unit == "examples"
    assert "1812.06162" in facts["noise.scale_examples"].method


def test_importing_it_loads_no_numpy() -> None:
    code = "import sys, trimtab.planning.noise; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
