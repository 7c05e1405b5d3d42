"""Reading text files row by row, so that each bad row is named by its file and line."""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import math
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from trimtab.data.rows import BadRow, SourceRow, listed
from trimtab.errors import DataError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
MAX_NESTING = 100
MAX_LINE_BYTES = 256 << 20
TOO_DEEP = "nested too deeply"
Row = SourceRow | BadRow


def read_jsonl(path: Path) -> Iterator[Row]:
    """One JSON object a line; empty lines are skipped, a byte-order mark at the start too."""
    for line, raw in raw_lines(path):
        if raw.strip():
            yield jsonl_row(path, line, raw)


def jsonl_row(path: Path, line: int, raw: bytes) -> Row:
    """The row of one line that is not empty."""
    try:
        value = parse_json(raw.rstrip(b"\r\n"))
    except ValueError as error:
        is_list = line == 1 and raw.lstrip().startswith(b"[")
        told = f"{error}; it begins a list: a file that is one list is named .json"
        return BadRow(str(path), line, told if is_list else str(error))
    return _object_row(path, line, value)


def read_json(path: Path, *splits: str) -> Iterator[Row]:
    """A list of rows, or an object that holds one: under the name of one of
    `splits` (the first that it has), under `data`, or alone.

    Rows of a list have the line they start at, rows inside an object their number. A file of
    several JSON values, one a line, is read as jsonl. Raises DataError for any other
    shape, and where the file as a whole is not JSON.
    """
    raw = _raw_bytes(path)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{_not_utf8(error)}.", where=f"{path}:{line}") from None
    start = len(text) - len(text.lstrip(" \t\r\n"))
    if not text.startswith("[", start):
        yield from _json_without_list(path, text, splits)
        return
    yield from _list_elements(path, text, start + 1)


def read_txt(path: Path) -> Iterator[Row]:
    """Each line that is not empty is a row with one column, `text`."""
    for line, raw in raw_lines(path):
        try:
            text = raw.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            yield BadRow(str(path), line, _not_utf8(error))
            continue
        if text.strip():
            yield SourceRow(str(path), line, {"text": text})


def read_csv(path: Path, delimiter: str) -> Iterator[Row]:
    """Rows under a header line; a quoted field may span lines, the row then has its first one.

    Raises DataError for a header that is missing, repeats a name or cannot be read, and for a row
    that cannot be read over several lines: a quote too many, which makes one row of many.
    """
    # Undecodable bytes pass through the CSV reader as lone surrogates, so that the row they are in
    # is the one that is named.
    lines = (raw.decode(errors="surrogateescape") for _, raw in raw_lines(path))
    with _unlimited_csv_fields():
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            header = next((cells for cells in reader if cells), None)
        except csv.Error as error:
            raise DataError(f"the header is not CSV: {error}.", where=f"{path}:1") from None
        if header is None:
            return
        _check_header(path, header)
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                num_behind = reader.line_num - line
                if num_behind:
                    raise _takes_in_others(path, line, error, num_behind) from None
                yield BadRow(str(path), line, f"not CSV: {error}")
                continue
            if cells:
                yield _csv_row(path, line, header, cells)


def _takes_in_others(path: Path, line: int, error: csv.Error, num_behind: int) -> DataError:
    lines = "line" if num_behind == 1 else f"{num_behind:,} lines"
    return DataError(
        f"not CSV: {error}; a quote that opens in this row takes in the {lines} behind it.",
        where=f"{path}:{line}",
        hint="Close it, or quote the field and write the quotes inside it twice.",
    )


def parse_json(raw: bytes) -> Any:
    """A JSON value from UTF-8, strictly. Raises ValueError with the reason, for a user."""
    try:
        return parse_json_text(raw.decode())
    except UnicodeDecodeError as error:
        raise ValueError(_not_utf8(error)) from None


def parse_json_text(text: str) -> Any:
    """A JSON value: no NaN, no Infinity, no number beyond float, no half of a surrogate pair, no
    key twice in one object.

    Raises ValueError with the reason, for a user.
    """
    if text.startswith("\ufeff"):
        raise ValueError("a byte-order mark stands inside the file")
    try:
        return _checked(_DECODER.decode(text), text)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg}, column {error.colno}") from None


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


def _finite_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is beyond the range of a number")
    return number


def _integer(digits: str) -> int:
    if len(digits) > 4000:
        raise ValueError(f"a number of {len(digits)} digits is too long")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {listed([twice])} stands twice in one object")
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_constant=_constant,
    parse_float=_finite_float,
    parse_int=_integer,
)


_ENDS = json.JSONDecoder(parse_int=str)
"""Finds where a value ends that `_DECODER` refuses for what it says."""


def _checked(value: Any, text: str) -> Any:
    """`value`, which was decoded from `text`, where text can be made of it again."""
    # Only what has many brackets can be deep.
    if text.count("[") + text.count("{") > MAX_NESTING and _depth(value) > MAX_NESTING:
        raise ValueError(TOO_DEEP)
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a \\u escape is half of a surrogate pair") from None
    return value


def _depth(value: Any) -> int:
    """How many lists and objects lie in each other, without recursion."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, list | dict)]:
        depth += 1
        level = [
            inner for one in level for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return depth


def _object_row(path: Path, line: int, value: Any) -> Row:
    if not isinstance(value, dict):
        return BadRow(str(path), line, f"the row is {_json_kind(value)}, not an object")
    return SourceRow(str(path), line, value)


def _json_kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return kinds[type(value)]


def _list_elements(path: Path, text: str, start: int) -> Iterator[Row]:
    """The elements of the JSON list whose `[` stands before `start`, each with its line."""
    at, line, counted = _skip_space(text, start), 1, 0
    if text.startswith("]", at):
        at += 1
    else:
        while True:
            line, counted = line + text.count("\n", counted, at), at
            row, end = _element(path, text, at, line)
            yield row
            end = _skip_space(text, end)
            at = _skip_space(text, end + 1)
            if text.startswith("]", end):
                at = end + 1
                break
            if not text.startswith(",", end):
                line += text.count("\n", counted, end)
                raise DataError(
                    "not JSON: expected ',' or ']' after a row.", where=f"{path}:{line}"
                )
    at = _skip_space(text, at)
    if at < len(text):
        line += text.count("\n", counted, at)
        raise DataError("not JSON: text follows the list.", where=f"{path}:{line}")


def _element(path: Path, text: str, at: int, line: int) -> tuple[Row, int]:
    """The row that starts at `at`, and where it ends; DataError where that cannot be told."""
    try:
        try:
            value, end = _DECODER.raw_decode(text, at)
            return _object_row(path, line, _checked(value, text[at:end])), end
        except json.JSONDecodeError:
            raise
        except ValueError as error:
            return BadRow(str(path), line, str(error)), _ENDS.raw_decode(text, at)[1]
    except (json.JSONDecodeError, RecursionError) as error:
        raise _not_json(path, error, line) from None


def _not_json(path: Path, error: Exception, line: int = 1) -> DataError:
    if isinstance(error, json.JSONDecodeError):
        reason = f"not JSON: {error.msg}, column {error.colno}"
        return DataError(f"{reason}.", where=f"{path}:{error.lineno}")
    reason = TOO_DEEP if isinstance(error, RecursionError) else str(error)
    return DataError(f"{reason}.", where=f"{path}:{line}")


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _json_without_list(path: Path, text: str, splits: tuple[str, ...]) -> Iterator[Row]:
    if not text.strip():
        return
    try:
        value = _checked(_DECODER.decode(text), text)
    except (ValueError, RecursionError) as error:
        first, _, rest = text.strip().partition("\n")
        if rest and _is_object(first):
            yield from read_jsonl(path)
            return
        raise _not_json(path, error) from None
    if not isinstance(value, dict):
        raise DataError(
            f"the file holds {_json_kind(value)}.", where=str(path), hint="Write a list of rows."
        )
    lists = [key for key, item in value.items() if isinstance(item, list)]
    chosen = [key for key in (*splits, "data") if key in lists] or lists
    if not chosen or (len(lists) > 1 and chosen == lists):
        raise DataError(
            f"the object has no single list of rows; its keys are {listed(list(value)) or 'none'}.",
            where=str(path),
            hint="Write a list of rows, or an object that holds it under `data`.",
        )
    for number, item in enumerate(value[chosen[0]], 1):
        yield _object_row(path, number, item)


def _is_object(text: str) -> bool:
    try:
        return isinstance(parse_json_text(text), dict)
    except ValueError:
        return False


def is_zipped(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines from 1 with their ends, without a byte-order mark.

    Raises DataError for bad gzip, for a file that says it is UTF-16, and for a line that no row
    has the length of.
    """
    with _opened(path) as file:
        for line, raw in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), 1):
            if len(raw) > MAX_LINE_BYTES:
                raise DataError(
                    f"the line is longer than {MAX_LINE_BYTES >> 20} MiB.",
                    where=f"{path}:{line}",
                    hint="Write one row a line.",
                )
            yield line, _without_mark(path, raw) if line == 1 else raw


def _raw_bytes(path: Path) -> bytes:
    """The whole file; raises as `raw_lines` does, however long its lines are."""
    with _opened(path) as file:
        return _without_mark(path, file.read())


@contextmanager
def _opened(path: Path) -> Iterator[gzip.GzipFile | BufferedReader]:
    opener = gzip.open if is_zipped(path) else open
    try:
        with opener(path, "rb") as file:
            yield file
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"the file cannot be read: {error}.", where=str(path)) from None


def _without_mark(path: Path, start: bytes) -> bytes:
    if start.startswith(UTF_16_MARKS):
        raise DataError(
            "the file is UTF-16, not UTF-8.", where=f"{path}:1", hint="Save it as UTF-8."
        )
    return start.removeprefix(BYTE_ORDER_MARK)


def _not_utf8(error: UnicodeDecodeError) -> str:
    column = error.start - (error.object.rfind(b"\n", 0, error.start) + 1) + 1
    return f"not UTF-8: byte 0x{error.object[error.start]:02x} at byte {column} of the line"


@contextmanager
def _unlimited_csv_fields() -> Iterator[None]:
    previous = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(previous)


def _check_header(path: Path, header: list[str]) -> None:
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(f"the header repeats {listed(repeated)}.", where=f"{path}:1")
    if not all(name.isprintable() for name in header):
        raise DataError("the header has unreadable characters.", where=f"{path}:1")


def _csv_row(path: Path, line: int, header: list[str], cells: list[str]) -> Row:
    if len(cells) != len(header):
        reason = f"{len(cells)} fields, the header has {len(header)}"
        return BadRow(str(path), line, reason)
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return BadRow(str(path), line, "not UTF-8")
    return SourceRow(str(path), line, dict(zip(header, cells, strict=True)))
