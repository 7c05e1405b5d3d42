"""A proxy warms up as long as its run, in updates."""

from __future__ import annotations

import pytest

from trimtab.planning.proxy import proxy_warmup_steps


@pytest.mark.parametrize(
    ("run_warmup_steps", "num_steps", "num_decay_steps", "expected"),
    [
        (10, 60, 0, 10),
        (10, 16, 0, 8),
        (10, 11, 0, 5),
        (0, 16, 0, 0),
        (10, 16, 12, 4),
        (10, 60, 6, 10),
    ],
)
def test_a_proxy_has_the_runs_warmup_up_to_half(
    run_warmup_steps: int, num_steps: int, num_decay_steps: int, expected: int
) -> None:
    found = proxy_warmup_steps(run_warmup_steps, num_steps, num_decay_steps=num_decay_steps)
    assert found == expected
