"""A dataset as token rows, with everything that was learnt on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

from trimtab.data.bad_rows import BadRows, BadRowTable, detection_of, in_source_order
from trimtab.data.conversations import to_conversation
from trimtab.data.formats import Detection
from trimtab.data.rows import BadRow, Conversation, RowError, SourceRow, TokenRow
from trimtab.data.sources import OnProgress, ReadResult, read_dataset
from trimtab.data.split import num_duplicate_rows
from trimtab.data.templates import TemplateChoice, choose_template
from trimtab.data.tokens import Tokenizer, Tokens, adds_bos, tokenize_all
from trimtab.hyperparameters.config import DatasetFormat, TrainingConfig

ROWS_AT_ONCE = 2000


@dataclass(frozen=True, slots=True)
class TokenisingWay:
    """How rows of one dataset become tokens: the same for each row whenever it is done."""

    config: TrainingConfig
    detection: Detection
    template: TemplateChoice
    tokenizer: Tokenizer

    def conversation_of(self, row: SourceRow) -> Conversation:
        """Raises RowError for a row that cannot be trained on."""
        return to_conversation(
            row,
            self.detection,
            completion_only_loss=self.config.completion_only_loss,
            assistant_only_loss=self.config.assistant_only_loss,
            has_template=self.template.source_text is not None,
        )

    def tokens_of(self, rows: Sequence[SourceRow]) -> list[tuple[Conversation, Tokens] | BadRow]:
        """Each row's conversation and tokens, or why it cannot be trained on.

        Raises DataError for a broken template.
        """
        made: list[tuple[Conversation, Tokens] | BadRow] = []
        understood: list[tuple[int, Conversation]] = []
        for place, row in enumerate(rows):
            made.append(BadRow(row.file, row.line, "no token to train on"))
            try:
                understood.append((place, self.conversation_of(row)))
            except RowError as error:
                made[place] = BadRow(row.file, row.line, error.reason)
        conversations = [conversation for _, conversation in understood]
        answers = tokenize_all(conversations, self.tokenizer, self.template)
        for (place, conversation), tokens in zip(understood, answers, strict=True):
            if isinstance(tokens, RowError):
                row = rows[place]
                made[place] = BadRow(row.file, row.line, tokens.reason)
            elif tokens.trainable.any():
                made[place] = (conversation, tokens)
        return made


@dataclass(frozen=True, slots=True)
class Corpus:
    """The rows that can be trained on, in the order of the source.

    `rows`, `conversations` and `sources` run side by side, and a row's `row_id` is its index in
    them. `sources` are `file:line`. `num_duplicate_rows` counts rows whose tokens an earlier row
    has too. Of a long dataset (`streaming`) these are made as they are asked for.
    """

    rows: Sequence[TokenRow]
    conversations: Sequence[Conversation]
    sources: Sequence[str]
    bad_rows: tuple[BadRow, ...]
    format: DatasetFormat
    format_because: str
    columns: dict[str, str]
    template: TemplateChoice
    way: TokenisingWay
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
    way = TokenisingWay(config, detection, replace(template, day=day), tokenizer)
    kept = _Kept([], [], [], list(read.bad_rows))
    for start in range(0, len(read.rows), ROWS_AT_ONCE):
        part = read.rows[start : start + ROWS_AT_ONCE]
        for row, made in zip(part, way.tokens_of(part), strict=True):
            kept.add(row, made)
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
        template=way.template,
        way=way,
        files=read.files,
        num_duplicate_rows=num_duplicate_rows(kept.rows),
    )


@dataclass(frozen=True, slots=True)
class _Kept:
    rows: list[TokenRow]
    conversations: list[Conversation]
    sources: list[str]
    bad_rows: list[BadRow]

    def add(self, row: SourceRow, made: tuple[Conversation, Tokens] | BadRow) -> None:
        if isinstance(made, BadRow):
            self.bad_rows.append(made)
            return
        conversation, tokens = made
        self.rows.append(TokenRow(len(self.rows), tokens.input_ids, tokens.trainable))
        self.conversations.append(conversation)
        self.sources.append(row.where)


def _own_template(tokenizer: Tokenizer) -> str | None:
    template: str | dict[str, str] | None = tokenizer.chat_template
    return template.get("default") if isinstance(template, dict) else template
