"""A run folder is read whole, in part, and damaged, and never crashes its reader."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
from support.run_folders import (
    CONFIG_YAML,
    DATA,
    EVENTS,
    PLAN,
    SAMPLES,
    SUMMARY,
    evaluations,
    updates,
    write_run,
)

from trimtab.errors import ConfigError
from trimtab.report.collect import collect
from trimtab.report.page import render_page
from trimtab.runs.lock import run_lock


def test_a_whole_run_comes_back_equal(tmp_path: Path) -> None:
    record = collect(write_run(tmp_path / "run").root)
    assert record.config_yaml == CONFIG_YAML
    assert record.plan == PLAN
    assert record.data == DATA
    assert list(record.updates) == updates()
    assert list(record.evaluations) == evaluations()
    assert record.events == EVENTS
    assert record.samples == SAMPLES
    assert record.summary == SUMMARY
    assert record.problems == ()
    assert not record.is_being_written


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"plan\.json"):
        collect(tmp_path)


PARTS = [
    "config_yaml",
    "data_json",
    "metrics_jsonl",
    "events_jsonl",
    "samples_json",
    "summary_json",
]


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_none_and_the_page_still_stands(tmp_path: Path, part: str) -> None:
    run = write_run(tmp_path / "run")
    path: Path = getattr(run, part)
    path.unlink()
    record = collect(run.root)
    assert record.problems == ()
    missing = {
        "config_yaml": record.config_yaml is None,
        "data_json": record.data is None,
        "metrics_jsonl": record.updates == () and record.evaluations == (),
        "events_jsonl": record.events == (),
        "samples_json": record.samples is None,
        "summary_json": record.summary is None,
    }
    assert [name for name, is_missing in missing.items() if is_missing] == [part]
    assert render_page(record).endswith("</html>\n")


def test_a_run_with_nothing_but_its_plan(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for part in PARTS:
        path: Path = getattr(run, part)
        path.unlink()
    page = render_page(collect(run.root))
    assert "Not begun" in page
    assert "learning_rate" in page


DAMAGED = ["plan_json", *PARTS[1:]]


@pytest.mark.parametrize("part", DAMAGED)
def test_a_damaged_part_is_named_and_left_out(tmp_path: Path, part: str) -> None:
    run = write_run(tmp_path / "run")
    path: Path = getattr(run, part)
    for content in (b"{", b"[1]", b"{}", b"\xff\xfe", b'{"a": 1}\n'):
        path.write_bytes(content)
        (problem,) = collect(run.root).problems
        assert problem.startswith(path.name)
    path.write_bytes(b"")
    # A ledger without a line is whole: nothing has happened yet.
    assert len(collect(run.root).problems) == (0 if part.endswith("_jsonl") else 1)


@pytest.mark.parametrize("part", DAMAGED)
def test_the_page_of_a_damaged_run_says_what_is_damaged(tmp_path: Path, part: str) -> None:
    run = write_run(tmp_path / "run")
    path: Path = getattr(run, part)
    path.write_bytes(b"{")
    page = render_page(collect(run.root))
    assert "Damaged" in page and path.name in page


def test_a_torn_last_line_costs_only_itself(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    content = run.metrics_jsonl.read_bytes()
    run.metrics_jsonl.write_bytes(content[:-5])
    record = collect(run.root)
    assert len(record.updates) + len(record.evaluations) == content.count(b"\n") - 1
    assert record.problems == ("metrics.jsonl ends in the middle of a line; that line is left out",)


def test_non_finite_figures_come_back_as_numbers(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", eval_loss=math.nan)
    record = collect(run.root)
    assert record.summary is not None and record.summary.eval_loss is not None
    assert math.isnan(record.summary.eval_loss)
    assert record.events[1].details["loss"] == math.inf


def test_a_held_run_is_told_from_a_killed_one(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", status="running")
    with run_lock(run):
        assert collect(run.root).is_being_written
    assert not collect(run.root).is_being_written


def test_the_room_leaves_torch_unloaded() -> None:
    code = (
        "import sys, pkgutil, importlib, trimtab.report\n"
        "for module in pkgutil.iter_modules(trimtab.report.__path__):\n"
        "    importlib.import_module(f'trimtab.report.{module.name}')\n"
        "unwanted = {'torch', 'transformers', 'peft', 'datasets', 'matplotlib.pyplot'}\n"
        "print(sorted(unwanted & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
