"""A dataset as token rows, with everything that was learnt on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date

from trimtab.data.bad_rows import BadRows, BadRowTable, detection_of, in_source_order
from trimtab.data.formats import Detection, to_conversation
from trimtab.data.rows import BadRow, Conversation, RowError, SourceRow, TokenRow
from trimtab.data.sources import OnProgress, ReadResult, read_dataset
from trimtab.data.split import num_duplicate_rows
from trimtab.data.templates import TemplateChoice, choose_template
from trimtab.data.tokens import Tokenizer, adds_bos, tokenize_all
from trimtab.hyperparameters.config import DatasetFormat, TrainingConfig

ROWS_AT_ONCE = 2000


@dataclass(frozen=True, slots=True)
class Corpus:
    """The rows that can be trained on, in the order of the source.

    `rows`, `conversations` and `sources` run side by side, and a row's `row_id` is its index in
    them. `sources` are `file:line`. `num_duplicate_rows` counts rows whose tokens an earlier row
    has too.
    """

    rows: tuple[TokenRow, ...]
    conversations: tuple[Conversation, ...]
    sources: tuple[str, ...]
    bad_rows: tuple[BadRow, ...]
    format: DatasetFormat
    format_because: str
    columns: dict[str, str]
    template: TemplateChoice
    files: tuple[str, ...]
    num_duplicate_rows: int

    @property
    def num_rows(self) -> int:
        return len(self.rows)

    @property
    def num_bad_rows(self) -> int:
        return len(self.bad_rows)

    @property
    def num_tokens(self) -> int:
        return sum(row.num_tokens for row in self.rows)

    @property
    def num_trainable_tokens(self) -> int:
        return sum(row.num_trainable_tokens for row in self.rows)

    @property
    def templated(self) -> bool:
        return any(conversation.templated for conversation in self.conversations)


def load_corpus(
    config: TrainingConfig,
    dataset: str,
    tokenizer: Tokenizer,
    *,
    for_evaluation: bool = False,
    day: date | None = None,
    on_progress: OnProgress | None = None,
) -> Corpus:
    """Read, understand, template and tokenise a dataset.

    With `for_evaluation`, its validation or test split where it has one (see `read_dataset`).
    `day` is what a template that writes the date is told.

    Raises BadRows, a table of file, line and reason, for bad rows (unless `on_bad_row` is `skip`)
    and for a dataset without a good one; DataError and ConfigError as the steps do.
    """
    read = read_dataset(
        dataset, config.dataset_split, for_evaluation=for_evaluation, on_progress=on_progress
    )
    return tokenized(read, config, dataset, tokenizer, day=day, on_progress=on_progress)


def tokenized(
    read: ReadResult,
    config: TrainingConfig,
    dataset: str,
    tokenizer: Tokenizer,
    *,
    day: date | None = None,
    on_progress: OnProgress | None = None,
    num_rows: int | None = None,
) -> Corpus:
    """The corpus of rows that were read; raises as `load_corpus` does.

    `num_rows` counts the dataset's rows where those that were read are a part of them.
    """
    if num_rows is None:
        num_rows = len(read.rows) + len(read.bad_rows)
    if not read.rows:
        raise BadRows([BadRowTable(dataset, read.bad_rows, num_rows)])
    detection = detection_of(read.rows, config)
    template = choose_template(
        _own_template(tokenizer),
        config.chat_template,
        conversational=detection.conversational,
        adds_bos=adds_bos(tokenizer),
    )
    template = replace(template, day=day)
    kept = _Kept([], [], [], list(read.bad_rows))
    for start in range(0, len(read.rows), ROWS_AT_ONCE):
        part = read.rows[start : start + ROWS_AT_ONCE]
        has_template = template.source_text is not None
        understood = list(_understood(part, config, detection, has_template, kept.bad_rows))
        _keep(kept, understood, template, tokenizer)
        if on_progress is not None:
            on_progress("tokenising rows", start + len(part), len(read.rows))
    bad_rows = in_source_order(kept.bad_rows, read)
    if bad_rows and (config.on_bad_row == "stop" or not kept.rows):
        raise BadRows([BadRowTable(dataset, bad_rows, num_rows)])
    return Corpus(
        rows=tuple(kept.rows),
        conversations=tuple(kept.conversations),
        sources=tuple(kept.sources),
        bad_rows=bad_rows,
        format=detection.format,
        format_because=detection.because,
        columns=dict(detection.columns),
        template=template,
        files=read.files,
        num_duplicate_rows=num_duplicate_rows(kept.rows),
    )


@dataclass(frozen=True, slots=True)
class _Kept:
    rows: list[TokenRow]
    conversations: list[Conversation]
    sources: list[str]
    bad_rows: list[BadRow]


def _understood(
    part: Sequence[SourceRow],
    config: TrainingConfig,
    detection: Detection,
    has_template: bool,
    bad_rows: list[BadRow],
) -> Iterator[tuple[SourceRow, Conversation]]:
    """Each row with its conversation; those without one are added to `bad_rows`."""
    for row in part:
        try:
            conversation = to_conversation(
                row,
                detection,
                completion_only_loss=config.completion_only_loss,
                assistant_only_loss=config.assistant_only_loss,
                has_template=has_template,
            )
        except RowError as error:
            bad_rows.append(BadRow(row.file, row.line, error.reason))
            continue
        yield row, conversation


def _keep(
    kept: _Kept,
    understood: Sequence[tuple[SourceRow, Conversation]],
    template: TemplateChoice,
    tokenizer: Tokenizer,
) -> None:
    answers = tokenize_all([conversation for _, conversation in understood], tokenizer, template)
    for (row, conversation), tokens in zip(understood, answers, strict=True):
        if isinstance(tokens, RowError):
            kept.bad_rows.append(BadRow(row.file, row.line, tokens.reason))
        elif not tokens.trainable.any():
            kept.bad_rows.append(BadRow(row.file, row.line, "no token to train on"))
        else:
            kept.rows.append(TokenRow(len(kept.rows), tokens.input_ids, tokens.trainable))
            kept.conversations.append(conversation)
            kept.sources.append(row.where)


def _own_template(tokenizer: Tokenizer) -> str | None:
    template: str | dict[str, str] | None = tokenizer.chat_template
    return template.get("default") if isinstance(template, dict) else template
