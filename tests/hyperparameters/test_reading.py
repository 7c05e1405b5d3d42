from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import ConfigError
from trimtab.hyperparameters.reading import (
    MAX_CONFIG_BYTES,
    read_file,
    read_text,
    read_value,
)

GOLDEN: list[tuple[str, Any]] = [
    ("1e-4", 1e-4),
    ("1.5e3", 1500.0),
    ("2E5", 200000.0),
    (".5", 0.5),
    ("3.", 3.0),
    ("-1", -1),
    ("+7", 7),
    ("010", 10),
    ("0o10", 8),
    ("0x1F", 31),
    ("1_000", "1_000"),
    ("12:30:45", "12:30:45"),
    ("2024-01-01", "2024-01-01"),
    ("no", "no"),
    ("yes", "yes"),
    ("on", "on"),
    ("off", "off"),
    ("y", "y"),
    ("true", True),
    ("True", True),
    ("FALSE", False),
    ("tRUE", "tRUE"),
    ("null", None),
    ("NULL", None),
    ("nil", "nil"),
    ("~", None),
    ("", None),
    ("none", "none"),
    (".inf", math.inf),
    ("-.INF", -math.inf),
    ("+.inf", math.inf),
    ("1e400", math.inf),
    ("-0", 0),
    ("1e3", 1000.0),
    ("1e+03", 1000.0),
    ("1.", 1.0),
    (".", "."),
    ("e3", "e3"),
    ("1e", "1e"),
    ("0b11", "0b11"),
    ("0o8", "0o8"),
    ("0x", "0x"),
    ("-0x1F", "-0x1F"),
    ("08", 8),
    ("1,000", "1,000"),
    ("1 000", "1 000"),
    ("2:30", "2:30"),
    ("5%", "5%"),
    ("6GiB", "6GiB"),
    ("٣", "٣"),
    ("²", "²"),
    ("'no'", "no"),
    ("''", ""),
    ('"\\u0041\\x42"', "AB"),
    ("'it''s'", "it's"),
    ("inf", "inf"),
    ("nan", "nan"),
    ("'1e-4'", "1e-4"),
    ('"true"', "true"),
    ("!!str 5", "5"),
    ("!!float 5.0", 5.0),
    ("=", "="),
    ("a # comment", "a"),
    ("[q_proj, 1, no]", ["q_proj", 1, "no"]),
    ("{a: 1e-5, b: [x]}", {"a": 1e-5, "b": ["x"]}),
    ("|\n  two\n  lines", "two\nlines\n"),
    (">-\n  two\n  lines", "two lines"),
    ("two\n  lines", "two lines"),
    ("./runs/*", "./runs/*"),
    ("C:\\runs", "C:\\runs"),
    ("a#b", "a#b"),
    ("[]", []),
    ("{}", {}),
    ("[1, [2, []]]", [1, [2, []]]),
]


@pytest.mark.parametrize(("written", "value"), GOLDEN)
def test_golden_values(written: str, value: Any) -> None:
    (setting,) = read_text(f"key: {written}\n", source="c.yaml")
    assert setting.value == value
    assert type(setting.value) is type(value)


def test_nan_is_a_float() -> None:
    assert math.isnan(read_value(".nan"))


def test_each_key_knows_its_line(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text('# about\nmodel: m\n\ntarget_modules:\n  - q_proj\n"seed": 3\n')
    found = [(one.name, one.value, one.where) for one in read_file(file)]
    assert found == [
        ("model", "m", f"{file}:2"),
        ("target_modules", ["q_proj"], f"{file}:4"),
        ("seed", 3, f"{file}:6"),
    ]


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(b"\xef\xbb\xbfmodel: m\r\nseed: 3\r\n")
    assert [(one.name, one.value) for one in read_file(file)] == [("model", "m"), ("seed", 3)]


def test_json_is_read() -> None:
    settings = read_text('{"model": "m", "learning_rate": 1e-4}', source="c.json")
    assert [(one.name, one.value) for one in settings] == [("model", "m"), ("learning_rate", 1e-4)]


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
def test_nothing_written_is_no_setting(text: str) -> None:
    assert read_text(text, source="c.yaml") == []


BAD_YAML: list[tuple[str, int, str]] = [
    ("seed: 1\nseed: 2\n", 2, "line 1"),
    ("seed: 1\na: {b: 1, b: 2}\n", 2, "b is set twice"),
    ("seed: 1\nmodel: !!python/object/apply:os.system [ls]\n", 2, "!!python/object/apply"),
    ("model: !mine x\n", 1, "!mine"),
    ("seed: !!int x\n", 1, "!!int"),
    ("seed: !!timestamp 2001-01-01\n", 1, "!!timestamp"),
    ("a: &x 1\n", 1, "&x"),
    ("seed: 1\ndataset: *.jsonl\n", 2, "quote it"),
    ("seed: 1\nmodel: [a\nb: 2\n", 3, "no valid YAML"),
    ("seed: 1\n  model: m\n", 2, "no valid YAML"),
    ("seed: 1\n\tmodel: m\n", 2, "no valid YAML"),
    ("a: 'open\n", 1, "opened is never closed"),
    ('model: "m\nseed: 1\nlr: 2\n', 1, "opened is never closed"),
    ("- model\n- dataset\n", 1, "not a mapping"),
    ("just words\n", 1, "not a mapping"),
    ("null\n", 1, "not a mapping"),
    ("seed: 1\n---\nseed: 2\n", 2, "second YAML document"),
    ("%YAML 1.1\n---\nseed: 1\n", 2, "YAML 1.1"),
    ("%YAML 1.99\n---\nseed: 1\n", 1, "no valid YAML"),
    ("seed: 1\n? [a]\n: 2\n", 2, "key must be a name"),
    ("seed: 1\nmodel: a\x00b\n", 2, "U+0000"),
    ("seed: 1\nmodel: a\x1bb\n", 2, "U+001B"),
    ("a: " + "[" * 50 + "]" * 50, 1, "nested"),
]


@pytest.mark.parametrize(("text", "line", "words"), BAD_YAML)
def test_bad_yaml_is_named_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_text(text, source="c.yaml")
    assert caught.value.where == f"c.yaml:{line}"
    assert words in str(caught.value)


def test_a_missing_file_a_folder_and_a_binary_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml cannot be read: no such file"):
        read_file(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_file(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_file(tmp_path / "nul\0.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"model: m\nseed: \xff\xfe\n")
    with pytest.raises(ConfigError, match=r"binary\.yaml:2: the file is not UTF-8"):
        read_file(binary)


def test_a_file_of_rows_is_no_configuration(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b"{}\n" * (MAX_CONFIG_BYTES // 3 + 1))
    with pytest.raises(ConfigError, match=r"larger than 256\.0 KiB"):
        read_file(rows)


YAML_PIECES = st.sampled_from(
    [
        *"abc:-?[]{},#&*!|>'\"%@`\n\t 0.~_\\",
        ": ",
        "\n  ",
        "- ",
        "!!int ",
        "%YAML 1.2\n",
        "%YAML 1.99\n",
        "---\n",
        "...\n",
        "<<: ",
        '"\\x',
        '"\\U0011ffff"',
        "\u2028",
        "\x85",
        "\ud800",
        "\ufeff",
        "é",
    ]
)


@given(st.lists(YAML_PIECES, max_size=40).map("".join) | st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read_text(text, source="c.yaml")
    except ConfigError as error:
        assert error.where is not None
        assert error.where.startswith("c.yaml:")
        assert "\n" not in str(error).strip()


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(content)
    try:
        read_file(file)
    except ConfigError as error:
        assert error.exit_code == 2
