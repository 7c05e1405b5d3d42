"""Guide row 1: what `auto` aims at for the rows of one update."""

from __future__ import annotations

from typing import Any

import pytest
from planning.facts import as_facts, config

from trimtab.planning.rules.global_batch import Target, global_batch_target


def target(
    num_rows: int,
    noise: tuple[float, float, float] | None = None,
    *,
    examples_per_row: int = 1,
    **values: Any,
) -> Target:
    """The target for so many rows; `noise` is scale, low and high end in examples."""
    facts: dict[str, Any] = {
        "rows.num_rows": num_rows,
        "rows.num_examples": num_rows * examples_per_row,
    }
    if noise is not None:
        names = ("scale_examples", "low_examples", "high_examples")
        facts |= {f"noise.{name}": value for name, value in zip(names, noise, strict=True)}
        facts["noise.num_updates"] = 60
    return global_batch_target(config(**values), as_facts(facts))


@pytest.mark.parametrize(
    ("num_rows", "size"),
    [(100_000, 16), (800, 16), (784, 8), (400, 8), (392, 4), (100, 4), (4, 4), (3, 3)],
)
def test_the_base_keeps_150_updates_of_three_epochs(num_rows: int, size: int) -> None:
    aim = target(num_rows)
    assert aim.size == size
    assert (aim.origin, aim.facts) == ("rule", ("rows.num_rows",))
    assert "not measured" in aim.limits


@pytest.mark.parametrize(
    ("noise", "size"),
    [
        ((20, 12, 30), 16),  # the interval holds the base
        ((30, 17, 50), 16),
        ((30, 22, 50), 24),  # the low end leads upwards
        ((60, 44.1, 90), 48),  # raised to friendly sizes alone
        ((60, 43.9, 90), 40),
        ((900, 500, 2000), 64),  # at most four times the base
        ((10, 8, 15), 16),  # nearer to the base
        ((6, 4, 11), 8),  # the high end leads downwards
        ((2, 0, 3), 8),  # at least half the base
    ],
)
def test_a_measured_noise_scale_moves_the_base(
    noise: tuple[float, float, float], size: int
) -> None:
    aim = target(100_000, noise)
    assert aim.size == size
    assert aim.origin == "measured"
    assert "noise.scale_examples" in aim.facts
    assert f"90% interval {noise[1]:.3g} to {noise[2]:.3g}, from 60 updates" in aim.because
    assert "2505.23971" in aim.limits


@pytest.mark.parametrize(
    ("num_rows", "size"), [(800, 16), (1200, 24), (1599, 32), (1999, 40), (2401, 48), (3200, 64)]
)
def test_it_never_takes_the_run_under_150_updates(num_rows: int, size: int) -> None:
    assert target(num_rows, (900, 500, 2000)).size == size


def test_a_base_lowered_for_its_updates_is_not_raised_again() -> None:
    assert target(400, (900, 500, 2000)).size == 8
    assert target(100, (900, 500, 2000)).size == 4


def test_auto_never_goes_under_4() -> None:
    assert target(100, (1, 0, 2)).size == 4
    assert target(400, (1, 0, 2)).size == 4


def test_a_raised_size_says_what_its_neighbours_would_give() -> None:
    aim = target(100_000, (40, 31, 50))
    assert aim.size == 32
    assert "32 gives 9,375 updates" in aim.because
    told = {one.value: one.because for one in aim.alternatives}
    assert told == {64: "would give 4,689 updates", 16: "would give 18,750 updates"}


@pytest.mark.parametrize(
    ("num_rows", "epochs", "size"), [(10, 200, 8), (15, 900, 8), (7, 300, 4), (4, 900, 4)]
)
def test_many_epochs_of_few_rows_aim_at_no_more_than_there_are(
    num_rows: int, epochs: int, size: int
) -> None:
    aim = target(num_rows, num_train_epochs=epochs)
    assert aim.size == size
    assert f"{2 * size} would be more than there are rows" in aim.because
    assert all(one.value <= num_rows for one in aim.alternatives)
    assert target(num_rows, (900, 500, 2000), num_train_epochs=epochs).size == size


def test_packed_rows_count_by_their_examples() -> None:
    assert target(100_000, (120, 96, 200), examples_per_row=4).size == 24


def test_max_steps_hold_the_size_and_say_why() -> None:
    aim = target(100_000, (900, 500, 2000), max_steps=100)
    assert (aim.size, aim.origin) == (16, "rule")
    assert "90% interval 500 to 2e+03" in aim.because
    assert "how many tokens are seen" in aim.because
    assert "noise" not in target(100_000, max_steps=100).because
