"""Datasets whose rows are tokenised as they are asked for, and updates as values to compare."""

from __future__ import annotations

from typing import Any

from support.tiny import tiny_tokenizer
from trimtab.data.corpus import Corpus, tokenized
from trimtab.data.sampling import sample_dataset
from trimtab.data.streaming import RowIndex, streamed_corpus
from trimtab.data.updates import Update
from trimtab.hyperparameters.config import TrainingConfig


def streamed(config: TrainingConfig) -> tuple[RowIndex, Corpus]:
    sample = sample_dataset(config, config.dataset)
    sampled = tokenized(sample.read, config, config.dataset, tiny_tokenizer())
    index = RowIndex(sample)
    return index, streamed_corpus(index, sampled, 0)


def told(update: Update) -> list[Any]:
    batches_told = [
        (batch.input_ids.tolist(), batch.targets.tolist(), batch.document_lengths, batch.row_ids)
        for batch in update.micro_batches
    ]
    counts = (update.row_ids, update.num_trainable_tokens, update.epoch, update.position)
    return [batches_told, counts, update.passed_over]
