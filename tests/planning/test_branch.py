from __future__ import annotations

from typing import Any

import pytest
from planning.facts import planned

from trimtab.planning.branch import branch_of, has_trunk, num_shared_updates
from trimtab.planning.curve import learning_rates


@pytest.mark.parametrize(
    ("changes", "shared"),
    [
        ({"lr_scheduler_type": "linear", "warmup_steps": 0}, 1),
        ({"lr_scheduler_type": "cosine", "warmup_steps": 5}, 6),
        ({"lr_scheduler_type": "constant"}, 20),
        ({"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 5}, 20),
        ({"lr_scheduler_type": "warmup_stable_decay", "warmup_steps": 5}, 19),
    ],
)
def test_rates_part_where_the_shorter_run_begins_to_fall(
    changes: dict[str, Any], shared: int
) -> None:
    settings = planned(max_steps=60, **changes).settings()
    branch = branch_of(settings, 20)
    assert branch.num_train_steps == 20 == len(learning_rates(branch))
    assert num_shared_updates(settings, branch) == shared
    assert has_trunk(settings) == (shared > 10)


def test_a_decay_keeps_its_share_and_a_warmup_its_length() -> None:
    arguments = {"num_decay_steps": 30}
    settings = planned(
        max_steps=60,
        warmup_steps=5,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs=arguments,
    ).settings()
    branch = branch_of(settings, 21)
    assert (branch.warmup_steps, branch.lr_scheduler_kwargs) == (5, {"num_decay_steps": 11})
    assert settings.lr_scheduler_kwargs == arguments
