"""A chat template that a model brings, in any file that may hold one, cannot harm the machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.devices import time_briefly
from support.runs import write_rows

from trimtab.cli.app import run
from trimtab.data import templates

CONTAINED = "unsafe|undefined|no token to train on"
HOSTILE: list[tuple[str, str]] = [
    ("{{ 'x' * 200000000 }}", "over 16,000,000 characters|takes over|too much memory"),
    ("{{ ['x' * 1000000] * 1000000 }}", "too much memory|takes over|cannot be rendered"),
    ("{{ 'x' * 10 ** 12 }}", "too much memory"),
    ("{{ 9 ** (9 ** 9) }}", "takes over 0.5 s to render one conversation"),
    (
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "takes over 0.5 s",
    ),
    ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recurses without end"),
    ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "recurses|cannot be"),
    ("{{ ''.__class__.__mro__[1].__subclasses__() }}", CONTAINED),
    (
        "{{ cycler.__init__.__globals__.os.system('touch canary') }}",
        CONTAINED,
    ),
    ("{{ self.__init__.__globals__ }}", CONTAINED),
    ("{{ messages|attr('__class__') }}", CONTAINED),
    ("{{ raise_exception.__globals__['sys'].exit() }}", CONTAINED),
    ("{{ strftime_now.__globals__ }}", CONTAINED),
    ("{{ namespace.__init__.__globals__ }}", CONTAINED),
    ("{% set x = namespace() %}{% set x.__class__ = 1 %}", "namespace cannot hold"),
    ("{{ '{0.__class__}'.format(messages) }}", "unsafe|no token to train on"),
    ("{{ '%s'|format(messages.__class__) }}", CONTAINED),
    ("{% include '/etc/passwd' %}", "no loader"),
    ("{% import 'os' as os %}", "no loader"),
    ("{% extends 'x' %}", "no loader"),
    ("{% do messages.clear() %}", "is not Jinja"),
    ("{{ messages.clear() }}", "unsafe|not safely callable"),
    ("{% for %}", "is not Jinja"),
    ("{{ lipsum(n=100000000) }}", "takes over|too much memory|over 16,000,000|undefined"),
    ("{{ strftime_now('%Y' * 30000000) }}", "too much|over|takes|refuses"),
]


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    time_briefly(monkeypatch)


@pytest.fixture
def model(tmp_path: Path, tiny_llama_folder: Path) -> Path:
    return Path(shutil.copytree(tiny_llama_folder, tmp_path / "model"))


def as_jinja_file(model: Path, template: str) -> None:
    (model / "chat_template.jinja").write_text(template)


def in_tokenizer_config(model: Path, template: str) -> None:
    (model / "chat_template.jinja").unlink()
    config = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))


def as_named_default(model: Path, template: str) -> None:
    in_tokenizer_config(model, "")
    config = json.loads((model / "tokenizer_config.json").read_text())
    named = [{"name": "default", "template": template}, {"name": "rag", "template": "{{ 1 }}"}]
    (model / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": named}))


def as_additional_file(model: Path, template: str) -> None:
    (model / "chat_template.jinja").unlink()
    (model / "additional_chat_templates").mkdir()
    (model / "additional_chat_templates" / "default.jinja").write_text(template)


def refused(
    verb: list[str], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> str:
    rows = write_rows(tmp_path / "rows.jsonl", 2)
    assert run([*verb, "--model", str(model), "--dataset", str(rows)]) == 3
    message = capsys.readouterr().err
    assert "bug of trimtab" not in message
    assert len(message) < 2000
    return message


@pytest.mark.parametrize(("template", "reason"), HOSTILE, ids=[one[0][:40] for one in HOSTILE])
def test_a_hostile_template_is_refused(
    template: str,
    reason: str,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if "takes over" in reason:
        monkeypatch.setattr(templates, "MAX_RENDER_S", 0.5)
    as_jinja_file(model, template)
    message = refused(["plan", "--quick"], model, tmp_path, capsys)
    assert any(part in message for part in reason.split("|")), message
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("store", [as_jinja_file, in_tokenizer_config, as_named_default])
@pytest.mark.parametrize("verb", [["inspect"], ["plan", "--quick"]], ids=" ".join)
def test_wherever_it_is_stored(
    store: Callable[[Path, str], None],
    verb: list[str],
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store(model, "{% include '/etc/passwd' %}")
    assert "no loader" in refused(verb, model, tmp_path, capsys)


def test_an_additional_template_is_rendered_in_the_same_room(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_additional_file(model, "{% include '/etc/passwd' %}")
    assert "no loader" in refused(["inspect"], model, tmp_path, capsys)
