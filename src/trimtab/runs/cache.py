"""Where things are kept that can be made again: unpacked models, the demo's rows, facts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

CACHE_VARIABLE: Final = "TRIMTAB_CACHE"


def cache_folder() -> Path:
    """`$TRIMTAB_CACHE`, else `trimtab` in the user's cache folder; it may not be there yet."""
    if CACHE_VARIABLE in os.environ:
        return Path(os.environ[CACHE_VARIABLE]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "trimtab"
