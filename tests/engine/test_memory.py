from __future__ import annotations

import ctypes

import psutil
import pytest
import torch

from trimtab.engine.memory import give_back_freed_memory

BLOCK_BYTES = 64 << 10
NUM_BLOCKS = 2_000


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
def test_what_was_freed_goes_back_to_the_system() -> None:
    blocks = [torch.ones(BLOCK_BYTES // 4) for _ in range(NUM_BLOCKS)]
    # Blocks that stay keep the allocator from giving the others back by itself.
    blocks = blocks[::20]
    held = psutil.Process().memory_info().rss
    give_back_freed_memory(torch.device("cpu"))
    given_back = held - psutil.Process().memory_info().rss
    assert given_back > BLOCK_BYTES * NUM_BLOCKS / 2
    assert all(bool(block.all()) for block in blocks)
