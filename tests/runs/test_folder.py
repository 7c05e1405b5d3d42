"""A run folder is made once, found again, and never outside where it was asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from support.faults import close_folder

from trimtab.errors import ConfigError
from trimtab.runs.atomic import write_json
from trimtab.runs.folder import (
    RunFolder,
    check_room_on_disk,
    create_run,
    free_output_dir,
    generated_name,
    open_run,
    refuse_taken,
)

NOW = datetime(2026, 1, 31, 23, 59, 58)


def test_the_room_leaves_torch_unloaded() -> None:
    code = (
        "import sys, pkgutil, importlib, trimtab.runs\n"
        "for module in pkgutil.iter_modules(trimtab.runs.__path__):\n"
        "    importlib.import_module(f'trimtab.runs.{module.name}')\n"
        "print(sorted({'torch', 'transformers', 'peft', 'datasets'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_every_path_is_inside_the_root_and_stands_where_the_design_says(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    paths = {
        run.config_yaml: "config.yaml",
        run.plan_json: "plan.json",
        run.metrics_jsonl: "metrics.jsonl",
        run.events_jsonl: "events.jsonl",
        run.data_json: "data.json",
        run.samples_json: "samples.json",
        run.summary_json: "summary.json",
        run.report_html: "report.html",
        run.checkpoints: "checkpoints",
        run.adapter: "adapter",
        run.model: "model",
        run.lock: ".lock",
    }
    assert {path.relative_to(tmp_path).as_posix() for path in paths} == set(paths.values())
    assert len(paths) == 12


def test_makes_missing_parents_and_takes_an_empty_folder(tmp_path: Path) -> None:
    assert create_run(tmp_path / "a" / "b").root == tmp_path / "a" / "b"
    (tmp_path / "empty").mkdir()
    assert create_run(tmp_path / "empty").checkpoints.is_dir()


def test_refuses_an_existing_run_with_a_free_name_and_the_way_to_go_on(tmp_path: Path) -> None:
    run = create_run(tmp_path / "mine")
    write_json(run.plan_json, {})
    (tmp_path / "mine-2").mkdir()
    with pytest.raises(ConfigError) as caught:
        create_run(tmp_path / "mine")
    assert caught.value.exit_code == 2
    assert f"{tmp_path / 'mine-3'};" in str(caught.value)
    assert f"trimtab resume {tmp_path / 'mine'}" in str(caught.value)


def test_refuses_files_that_are_no_run_without_offering_to_resume(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    for name, what in (("docs", "holds other files"), ("file", "is a file")):
        with pytest.raises(ConfigError, match=what) as caught:
            create_run(tmp_path / name)
        assert "resume" not in str(caught.value)
        assert str(tmp_path / f"{name}-2") in str(caught.value)
    assert (tmp_path / "docs" / "thesis.tex").read_text() == "x"


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "a\x1b[31mb", "a\udc80b"])
def test_refuses_names_that_cannot_be_shown(tmp_path: Path, name: str) -> None:
    for use in (create_run, open_run):
        with pytest.raises(ConfigError, match="control characters"):
            use(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_the_system_refuses_is_a_paragraph(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="A name in it is longer"):
        create_run(tmp_path / ("n" * 300))
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="cannot be made: Not a directory"):
        create_run(tmp_path / "file" / "run")


@pytest.mark.parametrize("ask", [refuse_taken, create_run])
def test_a_path_behind_a_folder_that_may_not_be_entered_is_a_paragraph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Path], object]
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    close_folder(monkeypatch, closed)
    with pytest.raises(ConfigError, match=r"closed/run: .*Permission denied.*another output_dir"):
        ask(closed / "run")


def test_opens_a_run_and_nothing_else(tmp_path: Path) -> None:
    run = create_run(tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"no plan\.json"):
        open_run(tmp_path / "mine")
    write_json(run.plan_json, {})
    assert open_run(tmp_path / "mine") == run
    with pytest.raises(ConfigError, match="absent"):
        open_run(tmp_path / "absent")


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("HuggingFaceTB/SmolLM2-1.7B-Instruct", "SmolLM2-1.7B-Instruct"),
        ("/models/Qwen2.5-0.5B/", "Qwen2.5-0.5B"),
        ("./weights/smol.Q4_1.gguf", "smol.Q4_1"),
        ("C:\\models\\phi", "phi"),
        ("../..", "model"),
        ("a\0b/../../é $(rm -rf) 'x'", "rm--rf-x"),
        (".hidden", "hidden"),
        ("x" * 300, "x" * 48),
    ],
)
def test_a_generated_name_is_one_safe_component(model: str, name: str) -> None:
    assert generated_name(model, "lora", NOW) == f"{name}-lora-20260131-235958"


def test_a_generated_folder_is_free_and_under_its_root(tmp_path: Path) -> None:
    first = free_output_dir(tmp_path, "../../etc/passwd", "lora", NOW)
    assert first == tmp_path / "passwd-lora-20260131-235958"
    create_run(first)
    # A link that leads nowhere is taken too: making it would write where it points.
    first.with_name(f"{first.name}-2").symlink_to(tmp_path / "elsewhere")
    second = free_output_dir(tmp_path, "../../etc/passwd", "lora", NOW)
    assert second == tmp_path / "passwd-lora-20260131-235958-3"


def test_a_full_disk_is_told_with_both_figures(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    check_room_on_disk(tmp_path / "not" / "yet", free // 2)
    with pytest.raises(ConfigError) as caught:
        check_room_on_disk(tmp_path / "not" / "yet", 2**60)
    assert "1073741824.0 GiB" in str(caught.value)
    assert f"{free / 2**30:.1f}"[:2] in str(caught.value)
