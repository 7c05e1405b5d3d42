"""Each bad row is named by its file and line, and the good ones are all read."""

from __future__ import annotations

import codecs
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.data import lines
from trimtab.data.lines import Row, read_csv, read_json, read_jsonl, read_txt
from trimtab.data.rows import BadRow, SourceRow
from trimtab.errors import DataError

GOOD = b'{"text": "fine"}'

BAD_JSONL_LINES = [
    (b"{", "not JSON: Expecting property name"),
    (b'{"text": "a"', "not JSON: Expecting ',' delimiter"),
    (b'{"text": "a"},', "not JSON: Extra data"),
    (b'{"text": "a"} {"text": "b"}', "not JSON: Extra data"),
    (b"{'text': 'a'}", "not JSON: Expecting property name"),
    (b'{"text": a}', "not JSON: Expecting value"),
    (b'{"text": "a",}', "not JSON"),
    (b'{"text": "a\tb"}', "not JSON: Invalid control character"),
    (rb'{"text": "\x"}', "not JSON: Invalid \\escape"),
    (rb'{"text": "\u12"}', "not JSON: Invalid \\uXXXX escape"),
    (b'{"text": "unterminated', "not JSON: Unterminated string"),
    (b"plain words", "not JSON: Expecting value"),
    (b'["a", "b"]', "the row is a list, not an object"),
    (b'"text"', "the row is a string, not an object"),
    (b"3", "the row is a number, not an object"),
    (b"2.5", "the row is a number, not an object"),
    (b"true", "the row is a boolean, not an object"),
    (b"null", "the row is null, not an object"),
    (b'{"score": NaN}', "NaN is not a JSON value"),
    (b'{"score": Infinity}', "Infinity is not a JSON value"),
    (b'{"score": -Infinity}', "-Infinity is not a JSON value"),
    (b'{"score": 1e999}', "1e999 is beyond the range of a number"),
    (b'{"score": ' + b"9" * 5000 + b"}", "a number of 5000 digits is too long"),
    (b'{"text": "\xff"}', "not UTF-8: byte 0xff at byte 11 of the line"),
    (b'{"text": "caf\xe9"}', "not UTF-8: byte 0xe9 at byte 14 of the line"),
    (b'{"text": "\xed\xa0\x80"}', "not UTF-8"),
    (rb'{"text": "\ud83d"}', "half of a surrogate pair"),
    (rb'{"\udc00": "a"}', "half of a surrogate pair"),
    (b"\xef\xbb\xbf" + GOOD, "a byte-order mark stands inside the file"),
    (b"[" * 100_000, "nested too deeply"),
    (b"\x00", "not JSON"),
    (b'{"text": "a", "text": "b"}', "the key `text` stands twice in one object"),
    (b'{"turns": [{"a": 1, "a": 2}]}', "the key `a` stands twice"),
    (b'{"a": ' + b"[" * 150 + b"]" * 150 + b"}", "nested too deeply"),
    (rb'{"b": "\u0041", "a": ' + b"[" * 900 + b"]" * 900 + b"}", "nested too deeply"),
]


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def good(rows: list[Row]) -> list[SourceRow]:
    return [row for row in rows if isinstance(row, SourceRow)]


def bad(rows: list[Row]) -> list[BadRow]:
    return [row for row in rows if isinstance(row, BadRow)]


@pytest.mark.parametrize(("line", "reason"), BAD_JSONL_LINES)
def test_each_bad_jsonl_line_is_named(tmp_path: Path, line: bytes, reason: str) -> None:
    path = written(tmp_path / "rows.jsonl", GOOD + b"\n\n" + line + b"\n" + GOOD + b"\n")
    rows = list(read_jsonl(path))
    assert [row.line for row in good(rows)] == [1, 4]
    (found,) = bad(rows)
    assert found.where == f"{path}:3"
    assert reason in found.reason


def test_a_json_list_that_is_named_jsonl_is_told_as_such(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", b'[{"a": 1},\n {"a": 2}]\n')
    first, second = bad(list(read_jsonl(path)))
    assert "it begins a list: a file that is one list is named .json" in first.reason
    assert "list" not in second.reason


def test_jsonl_tolerates_marks_empty_lines_and_line_ends(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"text": "a"}\r\n   \r\n\n{"text": "\xe2\x80\xa8 \\ud83d\\ude00"}'
    rows = list(read_jsonl(written(tmp_path / "rows.jsonl", content)))
    assert [(row.line, dict(row.columns)) for row in good(rows)] == [
        (1, {"text": "a"}),
        (4, {"text": "\u2028 \U0001f600"}),
    ]
    assert len(rows) == 2


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_utf16_is_named(tmp_path: Path, mark: bytes) -> None:
    path = written(tmp_path / "rows.jsonl", mark + '{"text": "a"}\n'.encode("utf-16-le"))
    with pytest.raises(DataError, match=r"rows\.jsonl:1: the file is UTF-16.*Save it as UTF-8"):
        list(read_jsonl(path))


def test_rows_of_a_json_list_that_no_text_can_hold_are_bad_alone(tmp_path: Path) -> None:
    content = b'[\n{"a": 1},\n{"a": NaN},\n{"a": 1, "a": 2},\n{"a": "\\ud800"},\n{"a": 3}\n]'
    rows = list(read_json(written(tmp_path / "rows.json", content), "train"))
    assert [(row.line, row.columns["a"]) for row in good(rows)] == [(2, 1), (6, 3)]
    assert [(row.line, row.reason) for row in bad(rows)] == [
        (3, "NaN is not a JSON value"),
        (4, "the key `a` stands twice in one object"),
        (5, "a \\u escape is half of a surrogate pair"),
    ]


@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([GOOD, b'{"a": [1]}', b"{"]))))
@settings(max_examples=200, deadline=None)
def test_any_bytes_give_rows_or_named_bad_rows(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    path = written(tmp_path_factory.getbasetemp() / "fuzz.jsonl", b"\n".join(lines))
    num_lines = b"\n".join(lines).count(b"\n") + 1
    for row in read_jsonl(path):
        assert 1 <= row.line <= num_lines
        if isinstance(row, BadRow):
            assert row.reason
            assert "\n" not in row.reason
        else:
            json.dumps(row.columns, ensure_ascii=False, allow_nan=False).encode()


@given(st.one_of(st.binary(max_size=60), st.text(alphabet='[]{},:"1a \n\\', max_size=40)))
@settings(max_examples=300, deadline=None)
def test_any_bytes_as_json_give_rows_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes | str
) -> None:
    raw = content if isinstance(content, bytes) else content.encode()
    path = written(tmp_path_factory.getbasetemp() / "fuzz.json", raw)
    try:
        rows = list(read_json(path, "train"))
    except DataError as error:
        assert str(path) in str(error)
    else:
        assert all(isinstance(row, SourceRow | BadRow) for row in rows)


def test_a_json_list_has_its_rows_with_their_lines(tmp_path: Path) -> None:
    content = b'\n[\n  {"text":\n "a"},\n\n  7,\n  {"text": "b"}\n]\n'
    rows = list(read_json(written(tmp_path / "rows.json", content), "train"))
    assert [(row.line, row.columns["text"]) for row in good(rows)] == [(3, "a"), (7, "b")]
    assert [(row.line, row.reason) for row in bad(rows)] == [
        (6, "the row is a number, not an object")
    ]


def test_an_empty_json_list_has_no_rows(tmp_path: Path) -> None:
    assert list(read_json(written(tmp_path / "rows.json", b" [ ] "), "train")) == []


@pytest.mark.parametrize(
    "content",
    [
        b'{"data": [{"text": "a"}], "version": 1}',
        b'{"rows": [{"text": "a"}]}',
        b'{"test": [{"text": "t"}], "train": [{"text": "a"}]}',
    ],
)
def test_an_object_that_holds_the_list(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path / "rows.json", content)
    assert [row.columns for row in good(list(read_json(path, "train")))] == [{"text": "a"}]


def test_several_values_in_a_json_file_are_jsonl(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.json", b'{"text": "a"}\n{"text": "b"}\n{\n')
    rows = list(read_json(path, "train"))
    assert [row.line for row in good(rows)] == [1, 2]
    assert [row.line for row in bad(rows)] == [3]


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b'[\n{"text": "a"}\n{"text": "b"}]', ":3", "expected ',' or ']'"),
        (b'[\n{"text": "a"},\n{"text": }]', ":3", "Expecting value"),
        (b'[\n{"text": "a"},\n]', ":3", "Expecting value"),
        (b'[\n{"text": "a"}', ":2", "expected ',' or ']'"),
        (b'[{"a": 1}]\nmore', ":2", "text follows the list"),
        (b'[{"a": 1},\n{"a":\n }]', ":3", "Expecting value"),
        (b'[\n{"a": "\xff"}]', ":2", "not UTF-8: byte 0xff at byte 8"),
        (b'"words"', "", "the file holds a string"),
        (b'{"text": "a"}\n', "", "no single list of rows; its keys are `text`"),
        (b'{"a": [1], "b": [2]}', "", "no single list of rows; its keys are `a`, `b`"),
        (b"{nonsense", ":1", "not JSON"),
        (b'{"data": [\n{"text": "a"},\n{"text"}]}', ":3", "not JSON"),
        (b"[" + b"[" * 100_000, ":1", "nested too deeply"),
        (b'{"data": ' + b"[" * 200 + b"]" * 200 + b"}", ":1", "nested too deeply"),
        ("[1]".encode("utf-16"), ":1", "UTF-16, not UTF-8. Save it as UTF-8"),
    ],
)
def test_a_json_file_that_cannot_be_read(
    tmp_path: Path, content: bytes, line: str, reason: str
) -> None:
    path = written(tmp_path / "rows.json", content)
    with pytest.raises(DataError) as caught:
        list(read_json(path, "train"))
    assert caught.value.where == f"{path}{line}"
    assert reason in str(caught.value)


def test_a_json_list_may_be_one_long_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 20)
    path = written(tmp_path / "rows.json", b'[{"text": "one"}, {"text": "two"}]')
    assert [row.columns["text"] for row in good(list(read_json(path, "train")))] == ["one", "two"]


def test_csv_rows_have_the_line_they_start_at(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbfprompt,completion\na,b\n\n"two\nlines",c\nd,"e ""q"""\n'
    rows = list(read_csv(written(tmp_path / "rows.csv", content), ","))
    assert [(row.line, dict(row.columns)) for row in good(rows)] == [
        (2, {"prompt": "a", "completion": "b"}),
        (4, {"prompt": "two\nlines", "completion": "c"}),
        (6, {"prompt": "d", "completion": 'e "q"'}),
    ]
    assert bad(rows) == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"one", "1 fields, the header has 2"),
        (b"one,two,three", "3 fields, the header has 2"),
        (b"one,caf\xe9", "not UTF-8"),
        (b'one,"tw"o', "not CSV"),
    ],
)
def test_each_bad_csv_row_is_named(tmp_path: Path, line: bytes, reason: str) -> None:
    path = written(tmp_path / "rows.csv", b"prompt,completion\na,b\n" + line + b"\nc,d\n")
    rows = list(read_csv(path, ","))
    assert [row.line for row in good(rows)] == [2, 4]
    (found,) = bad(rows)
    assert found.where == f"{path}:3"
    assert reason in found.reason


def test_an_unclosed_csv_quote_on_the_last_line_is_a_bad_row(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.csv", b'prompt,completion\na,b\nc,"d\n')
    rows = list(read_csv(path, ","))
    assert [row.line for row in good(rows)] == [2]
    assert [(row.line, row.reason) for row in bad(rows)] == [(3, "not CSV: unexpected end of data")]


@pytest.mark.parametrize("last", [b"g,h", b'g,"h"'])
def test_a_csv_quote_that_takes_in_other_lines_is_an_error(tmp_path: Path, last: bytes) -> None:
    content = b'prompt,completion\n"a\n",b\nc,"d\ne,f\n' + last + b"\n"
    with pytest.raises(DataError, match="takes in the 2 lines behind it") as caught:
        list(read_csv(written(tmp_path / "rows.csv", content), ","))
    assert caught.value.where == f"{tmp_path / 'rows.csv'}:4"


def test_csv_fields_may_be_long(tmp_path: Path) -> None:
    content = b"text\n" + b"x" * 300_000 + b"\n"
    (row,) = read_csv(written(tmp_path / "rows.csv", content), ",")
    assert isinstance(row, SourceRow)
    assert len(row.columns["text"]) == 300_000


@pytest.mark.parametrize(
    ("header", "reason"),
    [(b"a,b,a", "repeats `a`"), (b'"a"b', "not CSV"), (b"caf\xe9,b", "unreadable characters")],
)
def test_a_bad_csv_header_is_an_error(tmp_path: Path, header: bytes, reason: str) -> None:
    path = written(tmp_path / "rows.csv", header + b"\n1,2\n")
    with pytest.raises(DataError, match=reason):
        list(read_csv(path, ","))


def test_txt_has_a_row_a_line(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.txt", b"one \r\n\n  \ntwo\n\xff\n")
    rows = list(read_txt(path))
    assert [(row.line, row.columns["text"]) for row in good(rows)] == [(1, "one "), (4, "two")]
    assert [row.line for row in bad(rows)] == [5]


@pytest.mark.parametrize(
    ("name", "read", "content"),
    [
        ("rows.jsonl.gz", read_jsonl, b'{"text": "a"}\n'),
        ("rows.json.gz", lambda path: read_json(path, "train"), b'[{"text": "a"}]'),
        ("rows.csv.gz", lambda path: read_csv(path, ","), b"text\na\n"),
        ("rows.txt.gz", read_txt, b"a\n"),
        ("ROWS.TXT.GZ", read_txt, b"a\n"),
    ],
)
def test_gzip(tmp_path: Path, name: str, read: Callable[[Path], list[Row]], content: bytes) -> None:
    path = written(tmp_path / name, gzip.compress(content))
    assert [row.columns for row in good(list(read(path)))] == [{"text": "a"}]
    broken = written(tmp_path / f"cut-{name}", gzip.compress(content)[:-10])
    with pytest.raises(DataError, match="cannot be read"):
        list(read(broken))


def test_damaged_gzip_names_the_file(tmp_path: Path) -> None:
    damaged = bytearray(gzip.compress(b"a\n" * 10_000))
    damaged[12:20] = b"\xff" * 8
    path = written(tmp_path / "rows.txt.gz", bytes(damaged))
    with pytest.raises(DataError, match="cannot be read") as caught:
        list(read_txt(path))
    assert caught.value.where == str(path)


def test_an_object_of_several_splits_gives_the_first_one_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.json", b'{"train": [{"a": 1}], "test": [{"a": 2}]}')
    rows = good(list(read_json(path, "validation", "test", "train")))
    assert [row.columns for row in rows] == [{"a": 2}]
