"""What training uses is imported, and nothing is left out for those who come after."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc, sys
from trimtab.models.lean_imports import lean_imports
with lean_imports():
    import trimtab.engine.building
loaded = [name for name in ("torch", "peft", "transformers.modeling_utils", "scipy")
          if name in sys.modules]
import scipy.stats
print(*loaded, gc.isenabled(), scipy.stats.__name__)
"""


def test_scipy_is_not_loaded_and_can_be_imported_afterwards() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        "torch",
        "peft",
        "transformers.modeling_utils",
        "True",
        "scipy.stats",
    ]
