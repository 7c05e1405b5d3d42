"""Any bytes as a file of rows give rows, or bad rows and errors that say where.

`pytest --hypothesis-profile long` tries many more of them.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.bad_rows import BAD_FILES, GOOD
from support.devices import time_briefly
from support.tiny import save_tiny_model

from trimtab.cli.app import run
from trimtab.data.bad_rows import checked
from trimtab.data.rows import BadRow, SourceRow
from trimtab.data.sources import read_dataset
from trimtab.errors import TrimtabError
from trimtab.hyperparameters.config import TrainingConfig

NAMES = ("rows.jsonl", "rows.json", "rows.csv", "rows.tsv", "rows.txt", "rows.jsonl.gz")
BINARY_NAMES = ("rows.parquet", "rows.arrow")
SEEDS = [file.content for file in BAD_FILES if len(file.content) < 4000]
PIECES = st.sampled_from(
    [
        *(b"{", b"}", b"[", b"]", b'"', b",", b":", b"\n", b"\r\n", b"\\", b"\\u00", b"\x00"),
        *(b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"null", b"NaN", b"1e999", b"-", b"\t", b"\x1a"),
        *(GOOD, b'"prompt"', b'"messages"', b'{"role": "user", "content": "x"}', b'""'),
    ]
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "from", "value", "weight", "tool_calls", "type", "text", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
COLUMNS = st.sampled_from(
    ["prompt", "completion", "messages", "conversations", "text", "instruction", "output", "input"]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A file of the corpus, changed in a few places."""
    content = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(content)))
        content = (
            content[:at]
            + draw(PIECES | st.binary(max_size=3))
            + content[at + draw(st.integers(0, 4)) :]
        )
    return content


@st.composite
def typed_wrongly(draw: st.DrawFn) -> bytes:
    """Rows of JSON whose columns hold anything."""
    rows = draw(st.lists(st.dictionaries(COLUMNS, JSON_VALUES, max_size=4), min_size=1, max_size=4))
    return b"\n".join(json.dumps(row).encode() for row in rows)


CONTENTS = (
    st.binary(max_size=60)
    | st.lists(PIECES, max_size=20).map(b"".join)
    | mutated()
    | typed_wrongly()
)


def told_well(text: str) -> bool:
    return "Traceback" not in text and "bug of trimtab" not in text


@given(name=st.sampled_from(NAMES + BINARY_NAMES), content=CONTENTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_rows_or_named_bad_rows(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    config = TrainingConfig(model="unused", dataset=str(path))
    try:
        read = read_dataset(str(path), "train")
        rows = list(checked(read.rows, config))
    except TrimtabError as error:
        assert error.exit_code in {2, 3}
        assert str(path) in str(error)
        assert len(str(error)) < 1000 + 4 * len(str(path))
        return
    for row in [*read.bad_rows, *rows]:
        assert isinstance(row, SourceRow | BadRow)
        assert row.line >= 1
        if isinstance(row, BadRow):
            assert row.reason and "\n" not in row.reason
            assert len(row.reason) < 300


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"), chat_template=None)


@given(name=st.sampled_from(NAMES), content=CONTENTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_bytes_as_rows_give_a_plan_or_exit_3(
    name: str,
    content: bytes,
    base_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    time_briefly(monkeypatch)
    path = tmp_path / name
    path.write_bytes(content)
    code = run(["plan", "--quick", "--json", "--model", str(base_model), "--dataset", str(path)])
    captured = capsys.readouterr()
    assert code in {0, 2, 3}, (content, captured.err)
    assert told_well(captured.err)
