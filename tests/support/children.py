"""Processes that tests start, which import the tests' own support and compute on one thread."""

from __future__ import annotations

import os
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def child_environment() -> dict[str, str]:
    """Where one has to run beside other processes, threads would only wait for each other."""
    paths = [str(TESTS), *sys.path]
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }
