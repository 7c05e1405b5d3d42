"""Datasets whose rows are tokenised as they are asked for, and updates as values to compare."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.tiny import tiny_tokenizer
from trimtab.data import streaming
from trimtab.data.corpus import Corpus, tokenized
from trimtab.data.sampling import sample_dataset
from trimtab.data.streaming import RowIndex, streamed_corpus
from trimtab.data.updates import Update
from trimtab.engine.observer import Silent
from trimtab.hyperparameters.config import TrainingConfig
from trimtab.workflow.materials import Materials


def streamed(config: TrainingConfig) -> tuple[RowIndex, Corpus]:
    sample = sample_dataset(config, config.dataset)
    sampled = tokenized(sample.read, config, config.dataset, tiny_tokenizer())
    index = RowIndex(sample)
    return index, streamed_corpus(index, sampled, 0)


def materials_of_long_file(
    folder: Path, model: Path, rows: Sequence[Mapping[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> Materials:
    """Of rows that are as many as a file has whose rows are tokenised as the run goes."""
    monkeypatch.setattr(streaming, "MIN_STREAMED_ROWS", len(rows))
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Materials(TrainingConfig(model=str(model), dataset=str(path)), Silent())


def told(update: Update) -> list[Any]:
    batches_told = [
        (batch.input_ids.tolist(), batch.targets.tolist(), batch.document_lengths, batch.row_ids)
        for batch in update.micro_batches
    ]
    counts = (update.row_ids, update.num_trainable_tokens, update.epoch, update.position)
    return [batches_told, counts, update.passed_over]
