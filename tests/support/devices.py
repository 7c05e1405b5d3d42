"""Devices that are timed in no time, for tests of what stands beside the timing."""

from __future__ import annotations

import pytest

from trimtab.probes import device


def time_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "SECONDS_PER_FORMAT", 0.0)
    monkeypatch.setattr(device, "SECONDS_OF_COPIES", 0.0)
    monkeypatch.setattr(device, "MATMUL_SIZE", 16)
    monkeypatch.setattr(device, "COPIED_BYTES", {"cpu": 1 << 12})
