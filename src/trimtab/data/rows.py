"""The values that the data room passes on: rows, token rows, batches.

Shapes: B rows, L padded length, T tokens of a packed micro-batch, D documents in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trimtab.errors import DataError

if TYPE_CHECKING:
    import torch

MAX_NAME_CHARS = 60
MAX_NAMES = 12
IGNORED = -100
"""The target at a position that is not trained on; torch's and transformers' value."""


def named(text: object) -> str:
    """A name or value of the data as a message can hold it: quoted, short, nothing hidden in it."""
    quoted = repr(text)
    if len(quoted) <= MAX_NAME_CHARS:
        return quoted
    return f"{quoted[:MAX_NAME_CHARS]}…"


def listed(names: Sequence[str]) -> str:
    """Names in backticks, the first dozen of them."""
    shown = [f"`{named(name)[1:].removesuffix(named(name)[0])}`" for name in names[:MAX_NAMES]]
    if len(names) > MAX_NAMES:
        shown.append(f"and {len(names) - MAX_NAMES:,} more")
    return ", ".join(shown)


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row as read: its columns, its file, and where in it.

    `line` is the 1-based line that the row starts at; the row's number in formats without lines
    (parquet, arrow, hub datasets).
    """

    file: str
    line: int
    columns: Mapping[str, Any]

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be trained on, and why."""

    file: str
    line: int
    reason: str

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"


class RowError(DataError):
    """One row cannot be trained on; the others may be."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `role` is `system`, `user`, `assistant` or `tool`."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """A row in the one shape that everything after reading works on.

    `trained` has one entry a message: is it trained on. A `text` row is one message with
    role `text`. `templated` says whether the chat template is applied, or the contents are joined
    as they stand (text rows; prompt and completion of a model without a template). `tools` is the
    JSON list of the tools that the template is told of.
    """

    messages: tuple[Message, ...]
    trained: tuple[bool, ...]
    templated: bool
    tools: str | None = None


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One example as tokens.

    row_id: its index in the corpus, stable over seeds, hold-out and truncation.
    input_ids: int32 [T]. trainable: bool [T], True where the token is a target; entry 0 is never
    one, since nothing stands before it.
    """

    row_id: int
    input_ids: npt.NDArray[np.int32]
    trainable: npt.NDArray[np.bool_]

    @property
    def num_tokens(self) -> int:
        return int(self.input_ids.shape[0])

    @property
    def num_trainable_tokens(self) -> int:
        return int(np.count_nonzero(self.trainable))


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What one forward pass gets.

    input_ids, position_ids: int64 [B, L]; padding-free and packed batches have B = 1, L = T and
    position_ids that start again at 0 in every document.
    targets: int64 [B, L], already shifted: the token that position t must predict, or IGNORED.
    attention_mask: int64 [B, L] (1 at real positions), None where no position is padded.
    document_lengths: lengths [D] of the documents that lie end to end, None for padded batches.
    num_tokens counts real (non-pad) tokens; row_ids are the examples, in order.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    targets: torch.Tensor
    attention_mask: torch.Tensor | None
    document_lengths: tuple[int, ...] | None
    num_tokens: int
    num_trainable_tokens: int
    row_ids: tuple[int, ...]

    def to(self, device: torch.device) -> MicroBatch:
        mask = self.attention_mask
        return MicroBatch(
            input_ids=self.input_ids.to(device, non_blocking=True),
            position_ids=self.position_ids.to(device, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
            attention_mask=None if mask is None else mask.to(device, non_blocking=True),
            document_lengths=self.document_lengths,
            num_tokens=self.num_tokens,
            num_trainable_tokens=self.num_trainable_tokens,
            row_ids=self.row_ids,
        )
