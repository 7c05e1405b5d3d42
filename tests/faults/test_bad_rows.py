"""Rows that cannot be trained on: told by file, line and reason, before any weight is read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.bad_rows import BAD_FILES, GOOD, BadFile
from support.devices import time_briefly
from support.runs import write_rows
from support.tiny import save_tiny_model

from trimtab.cli.app import run
from trimtab.models import loading, source

LONGEST_MESSAGE = 1500
VERBS = (["inspect"], ["plan"], ["plan", "--quick"], ["train"])


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model without a chat template."""
    return save_tiny_model(tmp_path_factory.mktemp("base"), chat_template=None)


@pytest.fixture(autouse=True)
def _weights_are_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", refused)
    monkeypatch.setattr(source, "unpack_gguf", refused)
    monkeypatch.setattr(source, "_snapshot", refused)
    time_briefly(monkeypatch)


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 3) -> str:
    assert run(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert "bug of trimtab" not in captured.err
    assert not any(ord(character) < 32 for character in captured.err.replace("\n", ""))
    return captured.err


def names(file: BadFile) -> str:
    return f"{file.name}: {file.words}"


@pytest.mark.parametrize("file", BAD_FILES, ids=names)
@pytest.mark.parametrize("verb", (["inspect"], ["plan", "--quick"]), ids=["inspect", "quick"])
def test_each_bad_file_is_refused_by_file_and_line(
    file: BadFile,
    verb: list[str],
    base_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / file.name
    path.write_bytes(file.content)
    options = ["--model", str(base_model), "--dataset", str(path)]
    if file.template is not None:
        (tmp_path / "chat.jinja").write_text(file.template)
        options += ["--chat-template", str(tmp_path / "chat.jinja")]
    message = told(capsys, *verb, *options)
    assert message.startswith(f"Error: {path}:") or f"\nError: {path}:" in message
    assert file.words in message
    assert len(message) < LONGEST_MESSAGE + 2 * message.count(str(path)) * len(str(path))
    if file.line is not None:
        assert f"{path}:{file.line}" in message


def test_there_are_at_least_a_hundred_bad_files() -> None:
    assert len(BAD_FILES) >= 100


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_bad_row_of_both_datasets_is_in_one_table(
    verb: list[str], base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = write_rows(tmp_path / "train.jsonl", 1500)
    lines = train.read_text().splitlines()
    lines[700], lines[1499] = '{"prompt": "q"}', "[1]"
    train.write_text("\n".join(lines) + "\n")
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_bytes(b"\n".join([GOOD] * 900 + [b"{", GOOD]))
    message = told(
        capsys,
        *verb,
        *("--model", str(base_model), "--dataset", str(train), "--eval-dataset", str(held_out)),
        *("--output-dir", str(tmp_path / "run")),
    )
    _, _, table = message.partition("Error: ")
    assert table.splitlines()[:5] == [
        f"{train}: 2 of 1,500 rows cannot be trained on:",
        f"  {train}:701  no column 'completion'",
        f"  {train}:1500  the row is a list, not an object",
        f"{held_out}: 1 of 902 rows cannot be trained on:",
        f"  {held_out}:901  not JSON: Expecting property name enclosed in double quotes, column 2",
    ]
    assert "on_bad_row: skip" in table
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("verb", (["inspect"], ["plan"], ["train"]), ids=" ".join)
@pytest.mark.parametrize("model", ["model.gguf", "owner/name"])
def test_no_weight_is_unpacked_or_fetched_for_bad_rows(
    verb: list[str],
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.gguf").write_bytes(b"GGUF")
    Path("rows.jsonl").write_bytes(b"\n".join([GOOD] * 3 + [b'{"prompt": "q"}']))
    message = told(capsys, *verb, "--model", model, "--dataset", "rows.jsonl")
    assert "rows.jsonl:4  no column 'completion'" in message


def absent(path: Path) -> int:
    return 2


def folder_without_rows(path: Path) -> int:
    path.mkdir()
    (path / "notes.md").write_text("none")
    return 3


def unreadable(path: Path) -> int:
    path.write_bytes(GOOD)
    path.chmod(0)
    return 3


def link_to_nothing(path: Path) -> int:
    path.symlink_to(path.with_name("gone"))
    return 2


def link_to_itself(path: Path) -> int:
    path.symlink_to(path)
    return 2


def device(path: Path) -> int:
    path.symlink_to("/dev/zero")
    return 3


@pytest.mark.parametrize(
    "make", [absent, folder_without_rows, unreadable, link_to_nothing, link_to_itself, device]
)
@pytest.mark.parametrize("verb", (["inspect"], ["plan", "--quick"]), ids=["inspect", "quick"])
def test_what_is_no_file_of_rows_is_named(
    make: Callable[[Path], int],
    verb: list[str],
    base_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "rows.jsonl"
    code = make(path)
    if make is unreadable and os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    message = told(capsys, *verb, "--model", str(base_model), "--dataset", str(path), code=code)
    assert str(path) in message


@pytest.mark.parametrize(
    "option", ["model", "dataset", "eval_dataset", "chat_template", "output_dir"]
)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nul\0.jsonl", "It holds control characters"),
        ("\x1b[31mred", "It holds control characters"),
        ("half\ud800", "It holds control characters"),
        ("x" * 256 + ".jsonl", "A name in it is longer"),
        ("../" * 1500 + "x.jsonl", "It is longer than a path may be"),
    ],
    ids=["nul", "escape", "surrogate", "long name", "long path"],
)
def test_a_name_that_no_file_can_have_is_refused(
    option: str, name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"model": "m", "dataset": "d.jsonl", option: name}
    options = [part for key, text in config.items() for part in (f"--{key}", text)]
    message = told(capsys, "plan", "--quick", *options, code=2)
    assert f"--{option.replace('_', '-')}: {option} is '" in message
    assert words in message
    assert len(message) < 300


def test_an_over_long_row_is_cut_and_counted(
    base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 20)
    long = {"prompt": "the question", "completion": "the answer " * 300}
    rows.write_text(rows.read_text() + json.dumps(long) + "\n")
    options = ["--model", str(base_model), "--dataset", str(rows), "--max-length", "64"]
    options += ["--padding", "longest"]
    assert run(["inspect", *options, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert (data["num_rows"], data["num_bad_rows"], data["num_truncated"]) == (21, 0, 1)
    assert data["num_tokens_cut"] > 500
