"""The model, tokenizer and rows of one configuration, loaded once and kept for training."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import date
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedTokenizerFast

from trimtab.data.bad_rows import all_loaded, refuse_bad_rows
from trimtab.data.corpus import Corpus, load_corpus, tokenized
from trimtab.data.estimates import EstimatedCorpus
from trimtab.data.rows import TokenRow
from trimtab.data.sampling import SourceSample, sample_dataset
from trimtab.data.sources import read_dataset
from trimtab.data.streaming import is_streamed
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
from trimtab.probes.client import PROCESS_MODULE
from trimtab.probes.device import choose_device, device_name, probe_device
from trimtab.probes.fork_server import ForkServer
from trimtab.probes.model import probe_model
from trimtab.probes.rows import probe_corpus
from trimtab.workflow import measuring
from trimtab.workflow.estimating import data_facts
from trimtab.workflow.file_digests import FileDigests
from trimtab.workflow.streamed_rows import StreamedDataset, streamed_dataset
from trimtab.workflow.training_rows import (
    TrainingRows,
    counted_rows_facts,
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


def fetch_model(config: TrainingConfig, observer: Observer) -> None:
    """Fetches a hub model that is not here, so that its files can be told from other models'.

    Raises ConfigError as `locate` does.
    """
    if local_files(config.model) is None:
        _located(config, observer)


def _located(config: TrainingConfig, observer: Observer) -> ModelSource:
    observer.activity("finding the model")
    source = locate(
        config.model,
        trust_remote_code=config.trust_remote_code,
        on_progress=observer.activity,
    )
    observer.activity_done()
    return source


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
        self._streamed: StreamedDataset | None = None
        self._server = ForkServer(PROCESS_MODULE)

    @cached_property
    def source(self) -> ModelSource:
        if moves_weights(self.config.model):
            self._refuse_bad_rows()
        return _located(self.config, self._observer)

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
                self._load_training
                if index == 0
                else partial(self._load, dataset, for_evaluation=True)
                for index, dataset in enumerate(self._datasets)
            ]
        )

    @cached_property
    def _sample(self) -> SourceSample | None:
        """Of a training dataset that is too long to be tokenised beforehand, checked whole."""
        if not is_streamed(self.config):
            return None
        progress = _StagedProgress(self._observer)
        sample = sample_dataset(self.config, self.config.dataset, on_progress=progress.told)
        self._observer.activity_done()
        return sample

    def _load_training(self) -> Corpus:
        sample = self._sample
        if sample is None:
            return self._load(self.config.dataset)
        sampled = tokenized(
            sample.read,
            self.config,
            self.config.dataset,
            self.tokenizer,
            day=self._day,
            num_rows=sample.num_rows,
        )
        self._streamed = streamed_dataset(sample, sampled, self.tokenizer)
        return self._streamed.corpus

    @property
    def counted_corpus(self) -> EstimatedCorpus:
        """The corpus with the length of each row: estimated where it is tokenised as it comes."""
        corpus = self.corpus
        return EstimatedCorpus.known(corpus) if self._streamed is None else self._streamed.estimated

    @property
    def _datasets(self) -> list[str]:
        separate = separate_eval_dataset(self.config.eval_dataset)
        return [self.config.dataset] if separate is None else [self.config.dataset, separate]

    def _refuse_bad_rows(self) -> None:
        """Before weights are fetched or unpacked for rows that could not be trained on."""
        progress = _StagedProgress(self._observer)
        reads = []
        for index, dataset in enumerate(self._datasets):
            if index == 0 and self._sample is not None:
                reads.append((dataset, self._sample.read, self._sample.num_rows))
                continue
            read = read_dataset(
                dataset,
                self.config.dataset_split,
                for_evaluation=index > 0,
                on_progress=progress.told,
            )
            reads.append((dataset, read, len(read.rows) + len(read.bad_rows)))
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
        corpus = self.corpus
        eval_corpus = self.eval_corpus if question.eval_dataset else None
        if self._streamed is not None:
            rows = self._streamed.rows(question, eval_corpus, self._eval_contents(question))
        else:
            rows = training_rows(question, corpus.rows, eval_corpus.rows if eval_corpus else ())
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
                if self._streamed is not None:
                    yield from self._streamed.facts(question, rows)
                else:
                    yield from counted_rows_facts(question, rows)
            case (
                RunQuestion()
                | TrialsQuestion()
                | PrecisionQuestion()
                | RateRangeQuestion()
                | NoiseScaleQuestion()
            ):
                yield from measuring.answer(question, self._measured(question))

    def _eval_contents(self, question: TrainingRowsQuestion) -> npt.NDArray[np.int64]:
        """What tells copies of the rows of a dataset of its own to evaluate on, int64 [N]."""
        if not question.eval_dataset or not Path(question.eval_dataset).expanduser().exists():
            return np.zeros(0, dtype=np.int64)
        return sample_dataset(self.config, question.eval_dataset, for_evaluation=True).contents

    def _measured(self, question: measuring.MeasuredQuestion) -> measuring.Measured:
        of_rows = rows_question(question.settings)
        rows: Sequence[TokenRow] = self.rows(of_rows).train
        if self._streamed is not None and isinstance(question, RunQuestion):
            rows = self._streamed.counted_rows(of_rows).train
        elif self._streamed is not None:
            rows = self._streamed.sampled_rows(of_rows)
        return measuring.Measured(
            source=self.source,
            rows=rows,
            device_name=device_name(self.device),
            observer=self._observer,
            server=self._server,
        )

    def end_measuring(self) -> None:
        """Let go of what was kept for measuring; another question begins it anew."""
        self._server.close()

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
        cost_s = time.perf_counter() - started
        if self._streamed is not None:
            yield from data_facts(self._streamed.estimated, num_separate, cost_s)
        else:
            yield from probe_corpus(corpus, num_separate, cost_s)
