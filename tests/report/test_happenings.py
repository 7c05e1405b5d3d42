from __future__ import annotations

import math
from dataclasses import replace

from support.run_folders import SUMMARY

from trimtab.report.happenings import event_text, spikes_text
from trimtab.runs.records import EventRecord


def test_a_change_of_recipe_is_told_with_its_reason() -> None:
    details = {
        "hyperparameter": "per_device_train_batch_size",
        "from": 8,
        "to": 4,
        "because": "the update ran out of memory",
        "limits": "rows stay",
        "row_ids": [1, 2],
        "rows": ["a.jsonl:2", "a.jsonl:3"],
    }
    assert event_text(EventRecord("recipe changed", 3, details)) == (
        "per_device_train_batch_size 8 → 4: the update ran out of memory; rows a.jsonl:2, a.jsonl:3"
    )


def test_a_spike_names_its_first_rows() -> None:
    details = {
        "answer": "rewind",
        "because": "its loss is 9.1",
        "num_updates_passed_over": 2,
        "rows": [f"a.jsonl:{line}" for line in range(1, 17)],
    }
    assert event_text(EventRecord("loss spike", 3, details)) == (
        "rewind: its loss is 9.1; the rows of 2 updates are passed over; "
        "rows a.jsonl:1, a.jsonl:2, a.jsonl:3 and 13 more"
    )


def test_other_events_list_their_figures() -> None:
    skipped = EventRecord("update skipped", 41, {"loss": math.inf, "row_ids": [1, 2]})
    assert event_text(skipped) == "loss inf"
    assert event_text(EventRecord("resumed", 4)) == ""
    strange = EventRecord("recipe changed", 1, {"hyperparameter": [1], "rows": "no list"})
    assert event_text(strange) == "hyperparameter 1"


def test_what_spikes_cost() -> None:
    assert spikes_text(SUMMARY) == ""
    assert (
        spikes_text(replace(SUMMARY, num_skipped_updates=1)) == "the rows of 1 update passed over"
    )
    assert spikes_text(replace(SUMMARY, num_skipped_updates=9, num_rewinds=2)) == (
        "the rows of 9 updates passed over, after going back 2 times"
    )
