"""Files of rows that cannot be trained on: what is wrong, where, and in which words it is told."""

from __future__ import annotations

import gzip
import io
import json
from dataclasses import dataclass
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

GOOD = b'{"prompt": "a", "completion": "b"}'
USER = {"role": "user", "content": "q"}
ASSISTANT = {"role": "assistant", "content": "a"}


@dataclass(frozen=True)
class BadFile:
    """`line` is the first bad line, None where the fault has none."""

    name: str
    content: bytes
    line: int | None
    words: str
    template: str | None = None


def _third(line: bytes) -> bytes:
    return b"\n".join([GOOD, b"", line, GOOD, b""])


def _turns(*turns: Any) -> bytes:
    return json.dumps({"messages": turns}).encode()


def _chats(line: bytes) -> bytes:
    return b"\n".join([_turns(USER, ASSISTANT), line, _turns(USER, ASSISTANT), b""])


def _table(completions: list[Any]) -> pyarrow.Table:
    return pyarrow.table({"prompt": ["a"] * len(completions), "completion": completions})


def _parquet(table: pyarrow.Table) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    return buffer.getvalue()


def _arrow(table: pyarrow.Table) -> bytes:
    buffer = io.BytesIO()
    with pyarrow.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def _flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


LINES: list[tuple[bytes, str]] = [
    (b"{", "not JSON"),
    (b'{"prompt": "a" "completion": "b"}', "not JSON: Expecting ',' delimiter"),
    (b"{'prompt': 'a', 'completion': 'b'}", "not JSON"),
    (b'{"prompt": "a", "completion": "b"', "not JSON"),
    (b'{"prompt": "a", "completion": "b"},', "not JSON: Extra data"),
    (GOOD + GOOD, "not JSON: Extra data"),
    (b"prompt,completion", "not JSON"),
    (b'{"prompt": "a\tb", "completion": "b"}', "Invalid control character"),
    (rb'{"prompt": "\x61", "completion": "b"}', "Invalid \\escape"),
    (b'["a", "b"]', "the row is a list, not an object"),
    (b"[]", "the row is a list"),
    (b'"a"', "the row is a string"),
    (b"7", "the row is a number"),
    (b"true", "the row is a boolean"),
    (b"null", "the row is null"),
    (b"{}", "no column 'prompt'"),
    (b"\xef\xbb\xbf" + GOOD, "a byte-order mark stands inside the file"),
    (b'{"prompt": "\xff", "completion": "b"}', "not UTF-8: byte 0xff at byte 13 of the line"),
    (b'{"prompt": "caf\xe9", "completion": "b"}', "not UTF-8: byte 0xe9"),
    (b"\x00\x00\x00\x00", "not JSON"),
    (b'{"prompt": "a\x00", "completion": "b"}', "Invalid control character"),
    (b"x" * 3_000_000, "not JSON"),
    (b'{"prompt": "' + b"x" * 3_000_000, "not JSON: Unterminated string"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"prompt": ' + b"[" * 300 + b"]" * 300 + b', "completion": "b"}', "nested too deeply"),
    (b'{"prompt": "a", "completion": "b", "score": NaN}', "NaN is not a JSON value"),
    (b'{"prompt": "a", "completion": "b", "score": -Infinity}', "-Infinity is not a JSON"),
    (b'{"prompt": "a", "completion": "b", "score": 1e999}', "beyond the range"),
    (b'{"prompt": "a", "completion": "b", "n": ' + b"9" * 5000 + b"}", "5000 digits is too long"),
    (rb'{"prompt": "a", "completion": "\ud83d"}', "half of a surrogate pair"),
    (b'{"prompt": "a", "completion": "b", "completion": "c"}', "`completion` stands twice"),
    (b'{"prompt": "a"}', "no column 'completion'"),
    (b'{"Prompt": "a", "completion": "b"}', "no column 'prompt'"),
    (b'{"prompt": "a", "completion": ""}', "column 'completion' is empty"),
    (b'{"prompt": "a", "completion": " \\n\\t "}', "column 'completion' is empty"),
    (b'{"prompt": "a", "completion": null}', "column 'completion' holds nothing"),
    (b'{"prompt": "a", "completion": 42}', "column 'completion' holds a number"),
    (b'{"prompt": 42, "completion": "b"}', "column 'prompt' holds a number, not a string"),
    (b'{"prompt": "a", "completion": true}', "holds a boolean"),
    (b'{"prompt": "a", "completion": {"text": "b"}}', "holds an object"),
    (b'{"prompt": "a", "completion": ["b"]}', "not both strings or both lists"),
    (b'{"prompt": [], "completion": []}', "column 'prompt' holds no turns"),
]
CHATS: list[tuple[bytes, str]] = [
    (_turns(), "column 'messages' holds no turns"),
    (_turns({"role": "wizard", "content": "x"}, ASSISTANT), "turn 1 has the unknown role 'wizard'"),
    (_turns({"role": "", "content": "x"}, ASSISTANT), "unknown role ''"),
    (_turns({"role": "\x1b[2J\u202e" + "x" * 9999, "content": "x"}), "unknown role '\\x1b[2J"),
    (_turns(USER), "no assistant turn"),
    (_turns(USER, {"role": "assistant", "content": ""}), "turn 2, the assistant's, is empty"),
    (_turns(USER, {"role": "assistant", "content": " \n"}), "turn 2, the assistant's, is empty"),
    (_turns(USER, {"role": "assistant", "content": None}), "the content of turn 2 is nothing"),
    (_turns({"role": "user", "content": 3}, ASSISTANT), "the content of turn 1 is a number"),
    (_turns({"role": "user"}, ASSISTANT), "turn 1 has no 'content'"),
    (_turns({"content": "x"}, ASSISTANT), "turn 1 has no 'role'"),
    (_turns({"role": 1, "content": "x"}, ASSISTANT), "the role of turn 1 is a number"),
    (_turns("hello", ASSISTANT), "turn 1 is a string, not an object"),
    (
        _turns(USER, {"role": "assistant", "content": "", "tool_calls": [{"id": 1}]}),
        "turn 2 has 'tool_calls', which is not read",
    ),
    (
        _turns(USER, {"role": "assistant", "content": "a", "reasoning_content": "hm"}),
        "turn 2 has 'reasoning_content'",
    ),
    (
        _turns({"role": "user", "content": [{"type": "image", "url": "x"}]}, ASSISTANT),
        "turn 1 holds something other than text",
    ),
    (_turns(USER, {**ASSISTANT, "weight": 0.5}), "the weight of turn 2 is 0.5, not 0 or 1"),
    (_turns(USER, {**ASSISTANT, "weight": 0}), "every assistant turn has weight 0"),
    (b'{"messages": "hello"}', "column 'messages' holds a string"),
    (b'{"messages": {"role": "user", "content": "x"}}', "column 'messages' holds an object"),
    (b'{"messages": null}', "column 'messages' holds nothing"),
    (b'{"conversations": []}', "no column 'messages'"),
]
SYSTEM = {"role": "system", "content": "s"}
ONE_SYSTEM_TURN = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
    "{{ raise_exception('System message must be at the beginning') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)
WHOLE_FILES = [
    BadFile("rows.jsonl", b"", None, "there are no rows in it"),
    BadFile("rows.jsonl", b"\n \n\t\n", None, "there are no rows in it"),
    BadFile("rows.jsonl", GOOD.decode().encode("utf-16"), 1, "UTF-16, not UTF-8"),
    BadFile("rows.jsonl", b"\xfe\xff" + GOOD.decode().encode("utf-16-be"), 1, "UTF-16"),
    BadFile("rows.jsonl", GOOD.decode().encode("utf-16-le"), 1, "not JSON"),
    BadFile("rows.jsonl", _parquet(_table(["b"])), 1, "not JSON"),
    BadFile("rows.jsonl", b'{"foo": "a", "bar": "b"}\n', None, "Columns seen: `foo`, `bar`"),
    BadFile("rows.jsonl", b'{"\\u001b]0;x\\u0007": "a"}\n', None, "`\\x1b]0;x\\x07`"),
    BadFile(
        "rows.jsonl",
        _chats(_turns(SYSTEM, SYSTEM, USER, ASSISTANT)),
        2,
        "System message must be at the beginning",
        template=ONE_SYSTEM_TURN,
    ),
    BadFile("rows.jsonl.gz", b"not gzip", None, "cannot be read: Not a gzipped file"),
    BadFile("rows.jsonl.gz", gzip.compress(GOOD * 999)[:-9], None, "cannot be read"),
    BadFile("rows.jsonl.gz", _flipped(gzip.compress(GOOD * 999), 30), None, "cannot be read"),
    BadFile("rows.json", b'[{"prompt": "a",\n"completion": }]', 2, "not JSON: Expecting value"),
    BadFile("rows.json", b"[" + GOOD + b",\n" + GOOD, 2, "not JSON: expected ',' or ']'"),
    BadFile("rows.json", b"[" + GOOD + b",\n]", 2, "not JSON"),
    BadFile("rows.json", b"[" + GOOD + b"]\n[]", 2, "text follows the list"),
    BadFile("rows.json", b"[" + GOOD + b",\n3]", 2, "the row is a number"),
    BadFile("rows.json", b"[" + GOOD + b',\n{"a": NaN}]', 2, "NaN is not a JSON value"),
    BadFile("rows.json", b'"hello"', None, "the file holds a string"),
    BadFile("rows.json", b'{"a": 1, "b": 2}', None, "no single list of rows"),
    BadFile("rows.json", b"[" * 50_000, 1, "nested too deeply"),
    BadFile("rows.json", b"", None, "there are no rows in it"),
    BadFile("rows.json", b"[]", None, "there are no rows in it"),
    BadFile("rows.csv", b"", None, "there are no rows in it"),
    BadFile("rows.csv", b"prompt,completion\n", None, "there are no rows in it"),
    BadFile("rows.csv", b"prompt,completion\na,b\na\n", 3, "1 fields, the header has 2"),
    BadFile("rows.csv", b"prompt,completion\na,b\na,b,c\n", 3, "3 fields, the header has 2"),
    BadFile("rows.csv", b'prompt,completion\na,b\n"a,b\nc,d\n', 3, "takes in the line behind it"),
    BadFile("rows.csv", b'prompt,completion\na,b\n"a"x,b\n', 3, "not CSV"),
    BadFile("rows.csv", b"prompt,completion\na,b\n\xff,b\n", 3, "not UTF-8"),
    BadFile("rows.csv", b"prompt,prompt\na,b\n", 1, "the header repeats `prompt`"),
    BadFile("rows.csv", b"pro\x00mpt,completion\na,b\n", 1, "header"),
    BadFile("rows.csv", b"prompt,completion\na,b\na,\n", 3, "column 'completion' is empty"),
    BadFile("rows.tsv", b"prompt\tcompletion\na\tb\na,b\n", 3, "1 fields, the header has 2"),
    BadFile("rows.txt", b"fine\n\xff\xfe\n", 2, "not UTF-8"),
    BadFile("rows.txt", "fine\n".encode("utf-16"), 1, "UTF-16"),
    BadFile("rows.parquet", b"PAR1 and nothing", None, "not a parquet file"),
    BadFile("rows.parquet", GOOD, None, "not a parquet file"),
    BadFile("rows.parquet", b"", None, "not a parquet file"),
    BadFile("rows.parquet", _parquet(_table(["b"] * 9))[:-20], None, "not a parquet file"),
    BadFile("rows.parquet", _flipped(_parquet(_table(["b"] * 9)), 30), None, "not a parquet file"),
    BadFile("rows.parquet", _parquet(_table(["b", "", "c"])), 2, "column 'completion' is empty"),
    BadFile("rows.parquet", _parquet(_table([1, 2])), 1, "column 'completion' holds a number"),
    BadFile("rows.parquet", _parquet(_table([])), None, "there are no rows in it"),
    BadFile("rows.arrow", b"junk", None, "not an arrow file"),
    BadFile("rows.arrow", _arrow(_table(["b"]))[:100], None, "not an arrow file"),
    BadFile("rows.arrow", _arrow(_table(["b", None])), 2, "column 'completion' holds nothing"),
    BadFile("rows.xlsx", b"PK\x03\x04", None, "a file of this kind is not read"),
    BadFile("rows.pkl", b"\x80\x04N.", None, "a file of this kind is not read"),
    BadFile("rows", GOOD, None, "a file of this kind is not read"),
]
BAD_FILES = [
    *(BadFile("rows.jsonl", _third(line), 3, words) for line, words in LINES),
    *(BadFile("rows.jsonl", _chats(line), 2, words) for line, words in CHATS),
    *WHOLE_FILES,
]
