"""The first thing that the command `trimtab` runs: what libraries read before they are loaded.

Three habits of libraries make a process that trains on a CPU grow for as long as rows of new
lengths come, or slow, and they can only be changed before it begins:

- glibc before 2.38 does not give a freed block to a request for an aligned block of the same
  size, which is what every tensor on a CPU is: the aligned request asks for some bytes more, and
  the bytes that it leaves over stay in caches for small blocks, where they keep neighbours from
  joining. A weight update then holds a quarter more memory than it needs, and not the same from
  run to run. Without those caches the pieces join again.
- torch's matrix products in 16 bits keep the kernels of the last 1,024 shapes, in oneDNN's cache
  and in one above it, some 20 MB for each new number of tokens in a model of ten layers. The
  shapes of one length are a few dozen, and are all that an update needs again.
- glibc gives large tensors back to the system when they are freed and asks for them again in pages
  of 4 KiB, each cleared when it is first touched: near a million of them an update of full
  fine-tuning, which huge pages (glibc 2.35 and newer) make ten thousand.

So the command sets all of it, and begins once more where glibc must see it.
"""

from __future__ import annotations

import os
import sys

TUNABLES = "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0:glibc.malloc.hugetlb=1"
VARIABLE = "GLIBC_TUNABLES"
KERNEL_CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "16"}
"""How many kernels oneDNN keeps, and how many prepared products torch's layer above it."""
EXIT_ABORTED = 130
ABORTED = "Aborted."
UPDATING_COMMANDS = frozenset({"train", "resume", "demo", "plan", "tune", "study"})


def main() -> None:
    """Run the command, in a process whose memory suits tensors where it is going to train."""
    if UPDATING_COMMANDS & set(sys.argv[1:2]):
        for name, capacity in KERNEL_CACHES.items():
            os.environ.setdefault(name, capacity)
    if needs_tunables(sys.argv[1:]):
        others = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = f"{others}:{TUNABLES}" if others else TUNABLES
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    try:
        from trimtab.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write(f"{ABORTED}\n")
        sys.exit(EXIT_ABORTED)


def needs_tunables(arguments: list[str]) -> bool:
    """Whether the command makes weight updates, on glibc, with the allocator as it comes."""
    if not UPDATING_COMMANDS & set(arguments[:1]):
        return False
    return _is_glibc() and "glibc.malloc" not in os.environ.get(VARIABLE, "")


def _is_glibc() -> bool:
    if sys.platform != "linux":
        return False
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (OSError, ValueError):
        return False
