"""Records survive as written; what a crash tore is reported and never joined to the next."""

from __future__ import annotations

import json
import math
import resource
from pathlib import Path

import pytest

from trimtab.runs.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "metrics.jsonl")


def test_an_absent_file_is_an_empty_ledger(ledger: Ledger) -> None:
    assert ledger.read().records == ()
    ledger.cut(0)
    assert ledger.synced_bytes() == 0
    assert not ledger.path.exists()


def test_records_come_back_equal_one_a_line(ledger: Ledger) -> None:
    records = [
        {"step": 1, "loss": 2.5, "details": {"row_ids": [1, 2]}},
        {"event": "line ends inside a text: \n \u2028 \x85 \r", "step": 2},
        {"event": "half a pair \ud83d", "step": 3},
    ]
    for record in records:
        ledger.append(record, durable=True)
    assert list(ledger.read().records) == records
    assert ledger.path.read_bytes().count(b"\n") == 3


def test_non_finite_numbers_stay_visible_and_the_file_is_strict_json(ledger: Ledger) -> None:
    ledger.append({"loss": math.nan, "deep": {"list": [math.inf, -math.inf, 1.0]}})
    (record,) = ledger.read().records
    assert math.isnan(record["loss"])
    assert record["deep"] == {"list": [math.inf, -math.inf, 1.0]}

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    line = json.loads(ledger.path.read_text(), parse_constant=refuse)
    assert line == {"loss": "NaN", "deep": {"list": ["Infinity", "-Infinity", 1.0]}}


def test_every_torn_length_of_the_last_line_is_reported(ledger: Ledger) -> None:
    ledger.append({"step": 1})
    whole = ledger.path.read_bytes()
    ledger.append({"step": 2, "text": "é"})
    both = ledger.path.read_bytes()
    for length in range(len(whole) + 1, len(both)):
        ledger.path.write_bytes(both[:length])
        content = ledger.read()
        assert content.records == ({"step": 1},)
        assert content.torn_line
    ledger.path.write_bytes(both)
    assert ledger.read().torn_line is None


def test_a_torn_line_is_not_joined_to_the_next_record(ledger: Ledger) -> None:
    ledger.append({"step": 1})
    with ledger.path.open("ab") as stream:
        stream.write(b'{"step": 2, "lo')
    ledger.append({"step": 3})
    assert ledger.read().records == ({"step": 1}, {"step": 3})


def test_damage_before_the_last_line_is_named_by_file_and_line(ledger: Ledger) -> None:
    for step in range(3):
        ledger.append({"step": step})
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    for damaged in (b"[1]\n", b"\xff\n", b"\n", b'{"step"\n'):
        ledger.path.write_bytes(lines[0] + damaged + lines[2])
        with pytest.raises(ValueError, match=r"metrics\.jsonl:2: not a JSON record"):
            ledger.read()


def test_keeps_only_what_a_resumed_run_builds_on(ledger: Ledger) -> None:
    for step in range(1, 6):
        ledger.append({"step": step, "loss": math.nan if step == 2 else 1.0})
    with ledger.path.open("ab") as stream:
        stream.write(b'{"step": 6')
    before = ledger.path.read_bytes().splitlines(keepends=True)
    size = len(b"".join(before[:3]))
    ledger.cut(size, lambda record: record["step"] == 5)
    assert ledger.path.read_bytes() == b"".join([*before[:3], before[4]])
    ledger.cut(size)
    assert ledger.path.read_bytes() == b"".join(before[:3])
    assert ledger.synced_bytes() == size
    ledger.append({"step": 4})
    assert [record["step"] for record in ledger.read().records] == [1, 2, 3, 4]


def test_a_line_that_was_removed_by_hand_takes_no_other_with_it(ledger: Ledger) -> None:
    for step in range(1, 7):
        ledger.append({"step": step, "text": "x" * (3 * step)})
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    size = len(b"".join(lines[:4]))
    for removed in range(6):
        ledger.path.write_bytes(b"".join(lines[:removed] + lines[removed + 1 :]))
        ledger.cut(size, lambda record: record["step"] <= 4, lambda record: record["step"] <= 4)
        assert ledger.path.read_bytes() == b"".join(
            line for number, line in enumerate(lines[:4]) if number != removed
        )


def test_a_full_disk_leaves_the_ledger_as_it_was(ledger: Ledger) -> None:
    ledger.append({"step": 1})
    before = ledger.path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5, hard))
    try:
        with pytest.raises(OSError, match=r"No space left|File too large"):
            ledger.append({"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ledger.path.read_bytes() == before
