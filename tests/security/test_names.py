"""Names that a model or a user brings stay names: nothing is made or changed outside the run."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.run_folders import write_run
from support.runs import write_rows

from trimtab.cli.app import run
from trimtab.runs.folder import WINDOWS_DEVICES, free_output_dir, generated_name

NOW = datetime(2026, 1, 31, 23, 59, 59)


@given(st.text() | st.from_regex(r"([./\\]|\.\.|~|con|nul|C:|\x00|[a-z])*", fullmatch=True))
@example("../../etc/passwd")
@example("..")
@example("/")
@example("C:\\models\\..")
@example("nul\0")
@example("con.x")
@example("LPT1")
@example("~root")
@example("a" * 10_000)
@example("\u202egnp.exe")
@example("<img src=x onerror=alert(1)>")
def test_a_generated_name_is_one_component_on_every_system(model: str) -> None:
    name = generated_name(model, "lora", NOW)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name)
    assert name.partition(".")[0].upper() not in WINDOWS_DEVICES
    assert len(name) < 100
    root = Path("runs")
    assert free_output_dir(root, model, "lora", NOW).parent == root


@pytest.mark.parametrize("name", ["con.x", "NUL.gguf", "aux.1/", "models/com1.v2"])
def test_devices_of_windows_are_renamed(name: str) -> None:
    assert generated_name(name, "full", NOW).startswith("model-")


@pytest.mark.parametrize("verb", [["report"], ["resume"], ["generate"]], ids=" ".join)
@pytest.mark.parametrize(
    "name", ["..", "/", "nul\0", "x" * 300, "\ud800", "../" * 1500, "absent", "-", ""]
)
def test_a_run_that_is_none_is_refused(
    verb: list[str],
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    prompt = ["hello"] if verb == ["generate"] else []
    assert run([*verb, "--", name, *prompt]) == 2
    assert "bug of trimtab" not in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b"]


def test_the_page_replaces_a_link_and_does_not_write_through_it(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run").root
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (folder / "report.html").unlink(missing_ok=True)
    (folder / "report.html").symlink_to(precious)
    assert run(["report", str(folder)]) == 0
    assert precious.read_text() == "mine"
    assert not (folder / "report.html").is_symlink()


@pytest.mark.parametrize("inside", ["checkpoints", "metrics.jsonl", "plan.json"])
def test_a_run_is_not_begun_in_a_folder_that_holds_a_link(
    inside: str, tmp_path: Path, tiny_llama_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / inside).symlink_to(elsewhere)
    rows = write_rows(tmp_path / "rows.jsonl", 4)
    options = ["--model", str(tiny_llama_folder), "--dataset", str(rows)]
    assert run(["train", *options, "--output-dir", str(tmp_path / "run")]) == 2
    assert "holds other files" in capsys.readouterr().err
    assert list(elsewhere.iterdir()) == []
