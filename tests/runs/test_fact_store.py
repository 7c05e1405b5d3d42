"""Answers come back whole under their own fingerprint, and never otherwise."""

from __future__ import annotations

import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from trimtab.runs.fact_store import FactStore, user_fact_store

SUBJECT = "5" * 32
FINGERPRINT = {"model": "a" * 32, "libraries": "b" * 32}
FACTS = [{"id": "model.num_layers", "value": 2, "cost_s": 0.5}]


@pytest.fixture
def store(tmp_path: Path) -> FactStore:
    return FactStore(tmp_path / "facts")


def the_file(store: FactStore) -> Path:
    (file,) = store.folder.iterdir()
    return file


def test_an_answer_comes_back(store: FactStore) -> None:
    store.remember(SUBJECT, FINGERPRINT, FACTS)
    answer = store.answer(SUBJECT, FINGERPRINT)
    assert answer is not None
    assert [dict(fact) for fact in answer.facts] == FACTS
    assert answer.measured_at.tzinfo is not None


def test_another_fingerprint_or_subject_is_no_answer(store: FactStore) -> None:
    store.remember(SUBJECT, FINGERPRINT, FACTS)
    assert store.answer(SUBJECT, FINGERPRINT | {"model": "c" * 32}) is None
    assert store.answer(SUBJECT, {"model": "a" * 32}) is None
    assert store.answer("6" * 32, FINGERPRINT) is None


def test_a_fingerprint_is_compared_whole(store: FactStore) -> None:
    """File names hold the start of each digest only."""
    store.remember(SUBJECT, FINGERPRINT, FACTS)
    assert store.answer(SUBJECT, FINGERPRINT | {"model": "a" * 31 + "b"}) is None


def test_the_latest_is_told_under_any_fingerprint(store: FactStore) -> None:
    assert store.latest(SUBJECT) is None
    store.remember(SUBJECT, FINGERPRINT, FACTS)
    record = json.loads(the_file(store).read_text())
    record["measured_at"] = "2020-01-01T00:00:00+00:00"
    the_file(store).write_text(json.dumps(record))
    store.remember(SUBJECT, FINGERPRINT | {"model": "c" * 32}, FACTS)
    latest = store.latest(SUBJECT)
    assert latest is not None
    assert latest.fingerprint["model"] == "c" * 32


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"format": 1}',
        b'{"format": 1, "facts": 3, "fingerprint": {}, "measured_at": "2026-01-01"}',
        b'{"format": 1, "facts": [3], "fingerprint": {}, "measured_at": "2026-01-01T00:00+00:00"}',
    ],
)
def test_a_damaged_file_is_no_answer(store: FactStore, damage: bytes) -> None:
    store.remember(SUBJECT, FINGERPRINT, FACTS)
    the_file(store).write_bytes(damage)
    assert store.answer(SUBJECT, FINGERPRINT) is None
    assert store.latest(SUBJECT) is None
    store.remember(SUBJECT, FINGERPRINT, FACTS)
    assert store.answer(SUBJECT, FINGERPRINT) is not None


@pytest.mark.parametrize("change", [{"format": 2}, {"measured_at": "2026-01-01T00:00:00"}])
def test_a_record_of_another_kind_is_no_answer(store: FactStore, change: dict[str, Any]) -> None:
    store.remember(SUBJECT, FINGERPRINT, FACTS)
    record = json.loads(the_file(store).read_text())
    the_file(store).write_text(json.dumps(record | change))
    assert store.answer(SUBJECT, FINGERPRINT) is None


def test_several_writers_leave_one_whole_file(store: FactStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in range(40):
            pool.submit(store.remember, SUBJECT, FINGERPRINT, FACTS * (number + 1))
    assert store.answer(SUBJECT, FINGERPRINT) is not None
    assert the_file(store).suffix == ".json"


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "facts").write_text("a file")
    store = FactStore(tmp_path / "facts")
    store.remember(SUBJECT, FINGERPRINT, FACTS)
    assert store.answer(SUBJECT, FINGERPRINT) is None


def test_a_number_that_json_lacks_keeps_nothing(store: FactStore) -> None:
    store.remember(SUBJECT, FINGERPRINT, [{"id": "noise.scale_examples", "value": math.inf}])
    assert store.answer(SUBJECT, FINGERPRINT) is None


def test_the_newest_few_of_a_subject_are_kept(store: FactStore) -> None:
    store.remember("6" * 32, FINGERPRINT, FACTS)
    fingerprints = [FINGERPRINT | {"model": f"{number:032x}"[::-1]} for number in range(12)]
    for number, fingerprint in enumerate(fingerprints):
        store.remember(SUBJECT, fingerprint, FACTS)
        newest = max(store.folder.glob(f"{SUBJECT}-*"), key=lambda file: file.stat().st_mtime_ns)
        os.utime(newest, (number, number))
    kept = [store.answer(SUBJECT, fingerprint) is not None for fingerprint in fingerprints]
    assert kept == [False] * 4 + [True] * 8
    assert store.answer("6" * 32, FINGERPRINT) is not None


def test_the_users_store_is_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path))
    assert user_fact_store().folder == tmp_path / "facts"
