"""Answers from files alone, without torch and transformers: what a quick plan rests on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, partial

from trimtab.data.bad_rows import all_loaded
from trimtab.data.corpus import tokenized
from trimtab.data.estimates import EstimatedCorpus, estimate
from trimtab.data.sampling import sample_dataset
from trimtab.engine.observer import Observer
from trimtab.hyperparameters.config import TrainingConfig
from trimtab.models.light_description import describe_from_config, describe_from_headers
from trimtab.models.light_tokenizer import LightTokenizer, load_light_tokenizer
from trimtab.models.pad_token import choose_pad_token
from trimtab.models.safety import has_weights
from trimtab.models.source import ModelSource, locate_light
from trimtab.planning.fact import Fact
from trimtab.planning.questions import (
    DataQuestion,
    DeviceQuestion,
    ModelQuestion,
    TrainingRowsQuestion,
)
from trimtab.probes.device_identity import identify_device, identity_facts
from trimtab.probes.estimates import model_facts
from trimtab.probes.model import probe_model
from trimtab.workflow.estimating import data_facts, estimated_rows, training_rows_facts
from trimtab.workflow.training_rows import separate_eval_dataset

FileQuestion = DeviceQuestion | ModelQuestion | DataQuestion | TrainingRowsQuestion
"""What is asked of every plan, and can be answered without a weight update."""


class LightMaterials:
    """The configuration's files, each read at its first use."""

    def __init__(
        self, config: TrainingConfig, observer: Observer, *, needs_weights: bool = True
    ) -> None:
        self._config = config
        self._needs_weights = needs_weights
        self._observer = observer

    @cached_property
    def source(self) -> ModelSource:
        return locate_light(
            self._config.model,
            trust_remote_code=self._config.trust_remote_code,
            needs_weights=self._needs_weights,
        )

    @cached_property
    def tokenizer(self) -> LightTokenizer:
        return load_light_tokenizer(self.source)

    @property
    def corpus(self) -> EstimatedCorpus:
        return self._corpora[0]

    @property
    def eval_corpus(self) -> EstimatedCorpus:
        return self._corpora[1]

    @cached_property
    def _corpora(self) -> list[EstimatedCorpus]:
        """The training dataset's, and behind it that of a dataset of its own to evaluate on."""
        loads = [partial(self._estimated, self._config.dataset)]
        separate = separate_eval_dataset(self._config.eval_dataset)
        if separate is not None:
            loads.append(partial(self._estimated, separate, for_evaluation=True))
        return all_loaded(loads)

    def _estimated(self, dataset: str, *, for_evaluation: bool = False) -> EstimatedCorpus:
        self._observer.activity("sampling rows")
        sample = sample_dataset(self._config, dataset, for_evaluation=for_evaluation)
        corpus = tokenized(
            sample.read, self._config, dataset, self.tokenizer, num_rows=sample.num_rows
        )
        self._observer.activity_done()
        return estimate(sample, corpus)

    def answer(self, question: FileQuestion) -> Iterator[Fact]:
        """Facts by reading and arithmetic.

        Raises ConfigError and DataError as measuring does, as far as the sampled rows show it; for
        rows that are too long only where all are tokenised.
        """
        match question:
            case DeviceQuestion():
                yield from identity_facts(identify_device(question.device))
            case ModelQuestion():
                yield from self._answer_model()
            case DataQuestion():
                yield from self._answer_data()
            case TrainingRowsQuestion():
                yield from self._answer_rows(question)

    def _answer_model(self) -> Iterator[Fact]:
        if has_weights(self.source.folder):
            description = describe_from_headers(self.source)
        else:
            description = describe_from_config(self.source)
        pad_token = choose_pad_token(self.tokenizer, self._config.pad_token, description.vocab_size)
        measured = probe_model(
            description,
            pad_token,
            has_chat_template=self.tokenizer.chat_template is not None,
            packing_refusal=None,
            packing_check_s=0.0,
        )
        yield from model_facts(measured)

    def _answer_data(self) -> Iterator[Fact]:
        started = time.perf_counter()
        estimated = self.corpus
        separate = separate_eval_dataset(self._config.eval_dataset)
        num_separate = None if separate is None else self.eval_corpus.num_rows
        yield from data_facts(estimated, num_separate, time.perf_counter() - started)

    def _answer_rows(self, question: TrainingRowsQuestion) -> Iterator[Fact]:
        estimated = self.corpus
        held_out_of = self.eval_corpus if question.eval_dataset else estimated
        counted = question
        if question.truncation_mode == "error" and estimated.num_tokenised < estimated.num_rows:
            counted = replace(question, truncation_mode="keep_start")
        rows = estimated_rows(counted, estimated, held_out_of)
        yield from training_rows_facts(question, rows, estimated, held_out_of)
