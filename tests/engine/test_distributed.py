"""What ranks tell each other of their ends."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch.distributed as dist

from trimtab.engine import distributed
from trimtab.engine.distributed import Ranks, Reason
from trimtab.errors import DoesNotFit, Interrupted


@pytest.fixture
def ranks() -> list[Ranks]:
    store = dist.HashStore()
    return [Ranks(rank, 3, store=store) for rank in range(3)]


@pytest.mark.parametrize(
    "error",
    [
        Interrupted("one of 3 processes is gone"),
        RuntimeError("Connection closed by peer [127.0.0.1]"),
        dist.DistNetworkError("gone"),
    ],
    ids=["interrupted", "gloo", "a backend's own"],
)
def test_a_rank_that_ends_because_of_another_has_no_reason(
    ranks: list[Ranks], error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "WAIT_FOR_REASON", timedelta(milliseconds=1))
    ranks[1].tell_why(error)
    assert ranks[0].why_lost() is None
    ranks[2].tell_why(ValueError("a bug"))
    assert ranks[0].why_lost() == Reason(2, "ValueError: a bug", is_memory=False)


def test_a_backends_error_of_its_own_is_told(ranks: list[Ranks]) -> None:
    ranks[1].tell_why(dist.DistBackendError("unhandled system error"))
    told = ranks[0].why_lost()
    assert told is not None and "unhandled system error" in told.text


def test_the_first_reason_is_the_one_that_is_told(ranks: list[Ranks]) -> None:
    ranks[2].tell_why(DoesNotFit("too much"))
    ranks[1].tell_why(ValueError("what follows"))
    assert ranks[0].why_lost() == Reason(2, "DoesNotFit: too much", is_memory=True)
