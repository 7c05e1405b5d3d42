from __future__ import annotations

import pytest
import torch

from trimtab.engine.distributed import ALONE
from trimtab.engine.random_states import random_states, set_random_states, set_state_of_rank


def test_what_is_drawn_next_is_drawn_again() -> None:
    states = random_states()
    drawn = torch.rand(3)
    set_random_states(states)
    assert torch.equal(torch.rand(3), drawn)


def test_states_of_devices_that_are_gone_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    put_back: list[str] = []

    def set_rng_state(state: torch.Tensor, name: str) -> None:
        if name == "cuda:1":
            raise IndexError("tuple index out of range")
        put_back.append(name)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_rng_state", set_rng_state)
    state = torch.get_rng_state()
    saved = {"cpu": state, "cuda:0": state, "cuda:1": state, "1/cpu": state, "1/cuda": state}
    set_state_of_rank(saved, ALONE, seed=0, num_updates=1)
    set_random_states({"cpu": state, "cuda": state})
    assert put_back == ["cuda:0", "cuda"]
