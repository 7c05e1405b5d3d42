"""Token rows on their way to another process, as safetensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from safetensors.numpy import load, save

from trimtab.data.rows import TokenRow


def rows_to_bytes(rows: Sequence[TokenRow]) -> bytes:
    """All rows in one safetensors file: their tokens end to end, their lengths and ids."""
    tensors = {
        "input_ids": np.concatenate([row.input_ids for row in rows]),
        "trainable": np.concatenate([row.trainable for row in rows]),
        "lengths": np.array([row.num_tokens for row in rows], dtype=np.int64),
        "row_ids": np.array([row.row_id for row in rows], dtype=np.int64),
    }
    return save(tensors)


def rows_from_bytes(content: bytes) -> list[TokenRow]:
    """What `rows_to_bytes` wrote."""
    tensors = load(content)
    stops = np.cumsum(tensors["lengths"])
    return [
        TokenRow(int(row_id), tensors["input_ids"][start:stop], tensors["trainable"][start:stop])
        for row_id, start, stop in zip(
            tensors["row_ids"], stops - tensors["lengths"], stops, strict=True
        )
    ]
