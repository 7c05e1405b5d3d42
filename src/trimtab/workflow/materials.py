"""The model, tokenizer and rows of one configuration, loaded once and kept for training."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import date
from functools import cached_property, partial

import torch
from transformers import PreTrainedTokenizerFast

from trimtab.data.bad_rows import all_loaded, refuse_bad_rows
from trimtab.data.corpus import Corpus, load_corpus
from trimtab.data.sources import read_dataset
from trimtab.engine.observer import Observer
from trimtab.hyperparameters.config import TrainingConfig
from trimtab.models.description import describe
from trimtab.models.loading import load_tokenizer
from trimtab.models.packing import packing_refusal_of
from trimtab.models.pad_token import choose_pad_token
from trimtab.models.source import ModelSource, local_files, locate, moves_weights
from trimtab.planning.fact import Fact
from trimtab.planning.questions import (
    DataQuestion,
    DeviceQuestion,
    ModelQuestion,
    NoiseScaleQuestion,
    PrecisionQuestion,
    Question,
    RateRangeQuestion,
    RunQuestion,
    TrainingRowsQuestion,
    TrialsQuestion,
)
from trimtab.planning.settings import Settings
from trimtab.probes.device import choose_device, device_name, probe_device
from trimtab.probes.model import probe_model
from trimtab.probes.rows import probe_corpus, probe_training_rows
from trimtab.workflow import measuring
from trimtab.workflow.file_digests import FileDigests
from trimtab.workflow.training_rows import (
    TrainingRows,
    rows_batching,
    rows_question,
    separate_eval_dataset,
    training_rows,
)


class _StagedProgress:
    """Turns the data room's (stage, done, total) into an observer's activities."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._stage = ""
        self._done = 0

    def told(self, stage: str, done: int, total: int | None) -> None:
        if stage != self._stage:
            self._observer.activity(stage, total)
            self._stage, self._done = stage, 0
        self._observer.advanced(done - self._done)
        self._done = done


class Materials:
    """Loads each piece at its first use; answers the planner's questions from them.

    `day` is what a chat template that writes the date is told; None is the time of rendering.
    """

    def __init__(
        self, config: TrainingConfig, observer: Observer, *, day: date | None = None
    ) -> None:
        self.config = config
        self._day = day
        self._observer = observer
        self._rows: tuple[TrainingRowsQuestion, TrainingRows] | None = None

    @cached_property
    def source(self) -> ModelSource:
        if moves_weights(self.config.model):
            self._refuse_bad_rows()
        self._observer.activity("finding the model")
        source = locate(
            self.config.model,
            trust_remote_code=self.config.trust_remote_code,
            on_progress=self._observer.activity,
        )
        self._observer.activity_done()
        return source

    @cached_property
    def model_digests(self) -> FileDigests:
        """Of the model's files as they are before its weights are loaded; begun at first use."""
        return FileDigests(local_files(str(self.source.folder)) or ())

    @cached_property
    def device(self) -> torch.device:
        return choose_device(self.config.device)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        return load_tokenizer(self.source)

    @property
    def corpus(self) -> Corpus:
        return self._corpora[0]

    @property
    def eval_corpus(self) -> Corpus:
        return self._corpora[1]

    @cached_property
    def _corpora(self) -> list[Corpus]:
        """The training dataset's, and behind it that of a dataset of its own to evaluate on."""
        return all_loaded(
            [
                partial(self._load, dataset, for_evaluation=index > 0)
                for index, dataset in enumerate(self._datasets)
            ]
        )

    @property
    def _datasets(self) -> list[str]:
        separate = separate_eval_dataset(self.config.eval_dataset)
        return [self.config.dataset] if separate is None else [self.config.dataset, separate]

    def _refuse_bad_rows(self) -> None:
        """Before weights are fetched or unpacked for rows that could not be trained on."""
        progress = _StagedProgress(self._observer)
        reads = [
            (
                dataset,
                read_dataset(
                    dataset,
                    self.config.dataset_split,
                    for_evaluation=index > 0,
                    on_progress=progress.told,
                ),
            )
            for index, dataset in enumerate(self._datasets)
        ]
        refuse_bad_rows(reads, self.config)
        self._observer.activity_done()

    def _load(self, dataset: str, *, for_evaluation: bool = False) -> Corpus:
        progress = _StagedProgress(self._observer)
        corpus = load_corpus(
            self.config,
            dataset,
            self.tokenizer,
            for_evaluation=for_evaluation,
            day=self._day,
            on_progress=progress.told,
        )
        self._observer.activity_done()
        return corpus

    def _load_rows(self) -> None:
        _ = self._corpora

    @property
    def has_separate_eval_rows(self) -> bool:
        return separate_eval_dataset(self.config.eval_dataset) is not None

    def rows(self, question: TrainingRowsQuestion) -> TrainingRows:
        """The rows under the question's lengths and split; the latest answer is kept."""
        if self._rows is not None and self._rows[0] == question:
            return self._rows[1]
        eval_rows = self.eval_corpus.rows if question.eval_dataset else ()
        rows = training_rows(question, self.corpus.rows, eval_rows)
        self._rows = (question, rows)
        return rows

    def answer(self, question: Question) -> Iterator[Fact]:
        """Measure what the planner asks for."""
        match question:
            case DeviceQuestion():
                self._observer.activity("timing the device")
                yield from probe_device(self.device)
                self._observer.activity_done()
            case ModelQuestion():
                yield from self._answer_model()
            case DataQuestion():
                yield from self._answer_data()
            case TrainingRowsQuestion():
                rows = self.rows(question)
                batching = rows_batching(question)
                yield from probe_training_rows(
                    question,
                    rows.train,
                    rows.eval,
                    counts=rows.truncation,
                    eval_counts=rows.eval_truncation,
                    num_copies_removed=rows.num_duplicates_removed,
                    batching=batching,
                )
            case (
                RunQuestion()
                | TrialsQuestion()
                | PrecisionQuestion()
                | RateRangeQuestion()
                | NoiseScaleQuestion()
            ):
                yield from measuring.answer(question, self._measured(question.settings))

    def _measured(self, settings: Settings) -> measuring.Measured:
        return measuring.Measured(
            source=self.source,
            rows=self.rows(rows_question(settings)).train,
            device_name=device_name(self.device),
            observer=self._observer,
        )

    def _answer_model(self) -> Iterator[Fact]:
        description = describe(self.source)
        pad_token = choose_pad_token(self.tokenizer, self.config.pad_token, description.vocab_size)
        # What is wrong with the rows is told before the check loads any weights.
        self._load_rows()
        started = time.perf_counter()
        refusal = self._packing_refusal()
        yield from probe_model(
            description,
            pad_token,
            has_chat_template=self.tokenizer.chat_template is not None,
            packing_refusal=refusal,
            packing_check_s=time.perf_counter() - started,
        )

    def _packing_refusal(self) -> str | None:
        """Why rows cannot be joined; None, unchecked, where the user has them padded anyway."""
        if self.config.padding != "none" and not self.config.packing:
            return None
        self._observer.activity("checking that joined rows stay apart")
        refusal = packing_refusal_of(self.source)
        self._observer.activity_done()
        return refusal

    def _answer_data(self) -> Iterator[Fact]:
        started = time.perf_counter()
        corpus = self.corpus
        num_separate = len(self.eval_corpus.rows) if self.has_separate_eval_rows else None
        yield from probe_corpus(corpus, num_separate, time.perf_counter() - started)
