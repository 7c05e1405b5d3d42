"""How fast a disk takes a checkpoint."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from trimtab.planning.fact import Fact

TRIAL_BYTES = 8 << 20
NUM_READS = 2
"""For the manifest, and before an older checkpoint goes."""


def probe_disk(folder: Path) -> Iterator[Fact]:
    """disk.save_bytes_per_s of the disk that `folder` is on or would be made on.

    A file is written, put on the disk and read back for its sha256, as a save does; it is gone
    afterwards. Nothing is told of a disk that cannot be written.
    """
    # Path.is_dir raises for what is in a folder that may not be entered.
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.isdir(path))  # noqa: PTH112
    content = secrets.token_bytes(TRIAL_BYTES)
    started = time.perf_counter()
    try:
        with tempfile.TemporaryFile(dir=existing, buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())
            for _ in range(NUM_READS):
                file.seek(0)
                hashlib.sha256(file.read()).digest()
    except OSError:
        return
    seconds = time.perf_counter() - started
    yield Fact(
        "disk.save_bytes_per_s",
        TRIAL_BYTES / seconds,
        "bytes/s",
        method=f"{TRIAL_BYTES >> 20} MiB written, synced and read back {NUM_READS} times",
        cost_s=seconds,
    )
