"""From a file to token rows in one call, and the table of what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.chat_templates import CHAT_TEMPLATES
from support.tiny import tiny_tokenizer
from transformers import PreTrainedTokenizerFast

from trimtab.data.corpus import Corpus, load_corpus
from trimtab.errors import ConfigError, DataError
from trimtab.hyperparameters.config import TrainingConfig

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
WAYS_TO_SAY_IT: dict[str, dict[str, Any]] = {
    "prompt_completion": {"prompt": "q", "completion": "a"},
    "prompt_completion turns": {"prompt": TURNS[:1], "completion": TURNS[1:]},
    "messages": {"messages": TURNS},
    "alpaca": {"instruction": "q", "input": "", "output": "a"},
    "sharegpt": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


def load(path: Path, tokenizer: PreTrainedTokenizerFast, **settings: Any) -> Corpus:
    config = TrainingConfig(model="unused", dataset=str(path), **settings)
    return load_corpus(config, str(path), tokenizer)


def jsonl(path: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("way", WAYS_TO_SAY_IT)
def test_every_format_comes_to_the_same_tokens(
    way: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    path = jsonl(tmp_path / "rows.jsonl", WAYS_TO_SAY_IT[way])
    corpus = load(path, tokenizer)
    (row,) = corpus.rows
    assert tokenizer.decode(row.input_ids) == (
        "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
    )
    assert tokenizer.decode(row.input_ids[row.trainable]) == "a<|im_end|>"
    assert corpus.format == way.removesuffix(" turns")
    assert corpus.format_because
    assert corpus.templated
    assert corpus.sources == (f"{path}:1",)
    assert corpus.num_tokens == row.num_tokens
    assert corpus.num_trainable_tokens == 2


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet"])
def test_every_reader_comes_to_the_same_tokens(
    name: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    import pyarrow
    import pyarrow.parquet

    row = {"question": "q", "answer": "a"}
    path = tmp_path / name
    match path.suffix:
        case ".jsonl":
            jsonl(path, row)
        case ".json":
            path.write_text(json.dumps({"data": [row]}))
        case ".csv":
            path.write_text("question,answer\nq,a\n")
        case ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    mapping = {"prompt": "question", "completion": "answer"}
    (made,) = load(path, tokenizer, dataset_columns=mapping).rows
    expected = load(jsonl(tmp_path / "expected.jsonl", WAYS_TO_SAY_IT["messages"]), tokenizer)
    assert made.input_ids.tolist() == expected.rows[0].input_ids.tolist()


def test_a_text_file(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("one line\n\nand another\n")
    corpus = load(path, tokenizer)
    assert corpus.format == "text"
    assert not corpus.templated
    assert corpus.template.source_text is not None
    texts = [tokenizer.decode(row.input_ids) for row in corpus.rows]
    assert texts == ["one line<|im_end|>", "and another<|im_end|>"]


@pytest.mark.parametrize(
    ("settings", "trained"),
    [
        ({}, "a<|im_end|>"),
        (
            {"completion_only_loss": False},
            "user\nq q<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n",
        ),
        ({"assistant_only_loss": False}, "a<|im_end|>"),
        ({"chat_template": "none"}, "a<|im_end|>"),
        ({"chat_template": "none", "completion_only_loss": False}, " qa<|im_end|>"),
    ],
)
def test_what_is_trained_on_follows_the_settings(
    settings: dict[str, Any], trained: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    path = jsonl(tmp_path / "rows.jsonl", {"prompt": "q q", "completion": "a"})
    (row,) = load(path, tokenizer, **settings).rows
    assert tokenizer.decode(row.input_ids[row.trainable]) == trained


def test_assistant_only_loss_off(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    path = jsonl(tmp_path / "rows.jsonl", WAYS_TO_SAY_IT["messages"])
    (row,) = load(path, tokenizer, assistant_only_loss=False).rows
    assert row.num_trainable_tokens == row.num_tokens - 1


def test_a_template_file_and_a_text_field(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    (tmp_path / "chat.jinja").write_text("{{ messages[0].content }}>{{ messages[1].content }}!")
    path = jsonl(tmp_path / "rows.jsonl", {"messages": TURNS, "body": "text"})
    corpus = load(path, tokenizer, chat_template=str(tmp_path / "chat.jinja"))
    assert tokenizer.decode(corpus.rows[0].input_ids) == "q>a!"
    text = load(path, tokenizer, dataset_format="text", dataset_text_field="body")
    assert tokenizer.decode(text.rows[0].input_ids) == "text<|im_end|>"


BAD_LINES = [
    ("{", "not JSON"),
    ({"messages": []}, "holds no turns"),
    ({"messages": TURNS[:1]}, "no assistant turn"),
    ({"messages": [{"role": "wizard", "content": "q"}]}, "unknown role 'wizard'"),
    ({"messages": [TURNS[0], {"role": "assistant", "content": " "}]}, "is empty"),
    ({"messages": [{"role": "system", "content": "s"}, *TURNS]}, "System role not supported"),
    ({"messages": [TURNS[0], *TURNS]}, "Roles must alternate"),
    ([], "the row is a list"),
]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    good = {"messages": TURNS}
    return jsonl(tmp_path / "mixed.jsonl", good, *(line for line, _ in BAD_LINES), good, good)


def test_bad_rows_stop_with_a_table(mixed: Path) -> None:
    tokenizer = tiny_tokenizer(chat_template=CHAT_TEMPLATES["gemma"])
    with pytest.raises(DataError) as caught:
        load(mixed, tokenizer)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{mixed}: 8 of 11 rows cannot be trained on:"
    for number, (line, (_, reason)) in enumerate(zip(lines[1:9], BAD_LINES, strict=True), 2):
        assert line.startswith(f"  {mixed}:{number}  ")
        assert reason in line
    assert "on_bad_row: skip" in lines[9]


def test_bad_rows_are_skipped_and_counted(mixed: Path) -> None:
    tokenizer = tiny_tokenizer(chat_template=CHAT_TEMPLATES["gemma"])
    corpus = load(mixed, tokenizer, on_bad_row="skip")
    assert corpus.sources == (f"{mixed}:1", f"{mixed}:10", f"{mixed}:11")
    assert [row.row_id for row in corpus.rows] == [0, 1, 2]
    assert len(corpus.conversations) == 3
    assert corpus.num_bad_rows == 8
    assert [row.line for row in corpus.bad_rows] == list(range(2, 10))
    assert corpus.num_duplicate_rows == 2


def test_a_long_table_is_cut(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    path = jsonl(tmp_path / "rows.jsonl", {"text": "fine"}, *["{"] * 30, {"text": ""})
    with pytest.raises(DataError) as caught:
        load(path, tokenizer)
    lines = str(caught.value).splitlines()
    assert len(lines) == 1 + 20 + 1 + 2 + 1
    assert lines[21:24] == [
        "  … and 11 more. By reason:",
        "  30 × not JSON: Expecting property name enclosed in double quotes, column 2",
        "  1 × column 'text' is empty",
    ]
    assert "inspect --on-bad-row skip --json` lists them all" in lines[24]


@pytest.mark.parametrize("rows", [["{"], [{"text": ""}], ["{", {"text": ""}]])
def test_no_good_row_is_an_error_even_where_bad_ones_are_skipped(
    rows: list[Any], tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    path = jsonl(tmp_path / "rows.jsonl", *rows)
    with pytest.raises(DataError, match=f"{len(rows)} of {len(rows)} rows cannot") as caught:
        load(path, tokenizer, on_bad_row="skip")
    assert "No row is left" in str(caught.value)


def test_a_row_without_a_token_to_train_on_is_bad(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(chat_template=None)
    tokenizer.eos_token = None
    path = jsonl(tmp_path / "rows.jsonl", {"text": "x"}, {"text": "xy zw"})
    corpus = load(path, tokenizer, on_bad_row="skip")
    assert [(row.line, row.reason) for row in corpus.bad_rows] == [(1, "no token to train on")]
    assert corpus.num_rows == 1


def test_a_broken_template_stops_at_once(mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "bomb.jinja").write_text("{{ 'x' * 20000000 }}")
    with pytest.raises(DataError, match="over 16,000,000 characters"):
        load(
            mixed,
            tiny_tokenizer(),
            on_bad_row="skip",
            chat_template=str(tmp_path / "bomb.jinja"),
        )


def test_conversations_need_a_template(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    path = jsonl(tmp_path / "rows.jsonl", {"messages": TURNS})
    with pytest.raises(ConfigError, match="chat_template is `none`"):
        load(path, tokenizer, chat_template="none")


def test_a_few_rows_of_turns_without_a_template_are_bad(tmp_path: Path) -> None:
    strings = {"prompt": "q", "completion": "a"}
    turns = {"prompt": TURNS[:1], "completion": TURNS[1:]}
    path = jsonl(tmp_path / "rows.jsonl", strings, turns, strings)
    tokenizer = tiny_tokenizer(chat_template=None)
    with pytest.raises(DataError, match=r"rows\.jsonl:2  its turns need a chat template"):
        load(path, tokenizer)
    corpus = load(path, tokenizer, on_bad_row="skip")
    assert (corpus.num_rows, [row.line for row in corpus.bad_rows]) == (2, [2])
    assert load(path, tokenizer, chat_template="plain").num_rows == 3


def test_a_base_model_gets_the_plain_template(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(chat_template=None)
    path = jsonl(tmp_path / "rows.jsonl", {"messages": TURNS})
    corpus = load(path, tokenizer)
    assert tokenizer.decode(corpus.rows[0].input_ids) == "User: q\nAssistant: a</s>\n"
    assert corpus.template.name == "plain User/Assistant"


def test_progress_names_both_stages(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    path = jsonl(tmp_path / "rows.jsonl", *[{"text": "some words"}] * 2500)
    told: list[tuple[str, int, int | None]] = []
    config = TrainingConfig(model="unused", dataset=str(path))
    load_corpus(config, str(path), tokenizer, on_progress=lambda *event: told.append(event))
    assert told == [
        ("reading rows", 1000, None),
        ("reading rows", 2000, None),
        ("tokenising rows", 2000, 2500),
        ("tokenising rows", 2500, 2500),
    ]


def test_a_corpus_for_evaluation_takes_the_test_split(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    jsonl(tmp_path / "train.jsonl", {"prompt": "q", "completion": "trained"})
    jsonl(tmp_path / "test.jsonl", {"prompt": "q", "completion": "tested"})
    config = TrainingConfig(model="unused", dataset=str(tmp_path))
    trained = load_corpus(config, str(tmp_path), tokenizer)
    evaluated = load_corpus(config, str(tmp_path), tokenizer, for_evaluation=True)
    assert trained.sources == (f"{tmp_path / 'train.jsonl'}:1",)
    assert evaluated.sources == (f"{tmp_path / 'test.jsonl'}:1",)
