from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trimtab.probes import resident
from trimtab.probes.resident import begin_peak, can_begin_peak

CPU = torch.device("cpu")


def test_it_is_known_beforehand_whether_a_peak_can_be_begun_anew() -> None:
    assert can_begin_peak(CPU) == begin_peak(CPU)


def test_no_peak_begins_anew_where_the_system_has_no_file_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(resident, "_CLEAR_REFS", tmp_path / "clear_refs")
    assert not can_begin_peak(CPU)
    assert can_begin_peak(torch.device("cuda"))
