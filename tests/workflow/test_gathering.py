from __future__ import annotations

from datetime import timedelta

import pytest
from torch.distributed import HashStore

from trimtab.workflow import gathering
from trimtab.workflow.gathering import ORDER


@pytest.fixture(autouse=True)
def launcher(monkeypatch: pytest.MonkeyPatch) -> HashStore:
    """torchrun's store, which is one for all attempts; this process is any of its ranks."""
    store = HashStore()
    store.set_timeout(timedelta(seconds=1))
    monkeypatch.setattr(gathering, "rendezvous", lambda url: iter([(store, 0, 2)]))
    monkeypatch.setattr(gathering, "_CALLS", iter(range(10)))
    for name, value in {"GROUP_WORLD_SIZE": "1", "TORCHELASTIC_RESTART_COUNT": "0"}.items():
        monkeypatch.setenv(name, value)
    return store


def started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "_CALLS", iter(range(10)))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")


def test_ranks_of_one_call_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    gathering._store().set(ORDER, "plan")
    monkeypatch.setattr(gathering, "_CALLS", iter(range(10)))
    assert gathering._store().get(ORDER) == b"plan"


def test_a_second_call_does_not_read_what_the_first_was_told() -> None:
    gathering._store().set(ORDER, "plan")
    assert not gathering._store().check([ORDER])


def test_processes_that_are_started_again_do_not_read_what_was_told_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gathering._store().set(ORDER, "plan")
    started_again(monkeypatch)
    assert not gathering._store().check([ORDER])


def test_restarts_of_several_machines_are_not_counted_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    gathering._store().set(ORDER, "plan")
    started_again(monkeypatch)
    assert gathering._store().get(ORDER) == b"plan"
