"""One server of dying runs for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.dying_runs import DyingRuns, dying_runs


@pytest.fixture(scope="session")
def runs() -> Iterator[DyingRuns]:
    with dying_runs() as served:
        yield served
