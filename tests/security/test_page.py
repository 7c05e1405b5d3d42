"""The page of a real run whose model, rows and name are hostile, in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import pytest
from support.browser import CHROMIUM, chromium_dom, counting_server
from support.devices import time_briefly
from support.runs import tiny_config

import trimtab
from trimtab.cli.app import run

POLICY = re.compile(
    r"default-src 'none'; style-src 'sha256-[A-Za-z0-9+/]{43}='; img-src data:; "
    r"base-uri 'none'; form-action 'none'"
)
NAME = "<img src=x onerror=alert(1)>\u202egnp.'\"&`{{7*7}}"


def hostile(address: str) -> str:
    return (
        f"</script></style></title><script>document.title='taken';fetch('{address}/fetch')</script>"
        f"<img src={address}/image onerror=\"document.title='taken';alert(1)\">"
        f"<svg onload=\"document.title='taken'\"><iframe src={address}/frame></iframe>"
        f"<a href=\"javascript:document.title='taken'\">x</a><base href={address}/>"
        f"<meta http-equiv=refresh content='0;url={address}/refresh'>"
        f"<link rel=stylesheet href={address}/style><style>@import '{address}/import';</style>"
        f"<form action={address}/form><input autofocus onfocus=\"document.title='taken'\"></form>"
        "<body onload=\"document.title='taken'\"> \u202e {{ 7*7 }} ]]> -->"
    )


@dataclass(frozen=True)
class Shown:
    """The page as it was written, the document after a browser loaded it, and what was asked of
    the address that stands in every text."""

    page: str
    dom: str | None
    requests: list[str]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, tiny_llama_folder: Path) -> Shown:
    folder = tmp_path_factory.mktemp("hostile")
    model = Path(shutil.copytree(tiny_llama_folder, folder / f"model {NAME}"))
    with pytest.MonkeyPatch.context() as monkeypatch, counting_server() as (address, requests):
        time_briefly(monkeypatch)
        monkeypatch.chdir(folder)
        rows = folder / f"rows {NAME}.jsonl"
        short = f"</script><img src={address}/row onerror=alert(2)>\u202e"
        row = {"prompt": short, "completion": short, hostile(address): "x"}
        rows.write_text("".join(f"{json.dumps(row)}\n" for _ in range(12)))
        template = model / "chat_template.jinja"
        template.write_text(template.read_text() + "{# " + hostile(address) + " #}")
        config = tiny_config(folder, model, dataset=str(rows), output_dir=f"run {NAME}")
        config |= {"max_steps": 1, "eval_dataset": "none", "chat_template": str(template)}
        (folder / "config.yaml").write_text(json.dumps(config))
        assert run(["train", "config.yaml"]) == 0
        page = folder / f"run {NAME}" / "report.html"
        dom = None if CHROMIUM is None else chromium_dom(page, folder / "profile")
    return Shown(page.read_text(encoding="utf-8"), dom, requests)


def tags_of(page: str) -> set[str]:
    return set(re.findall(r"<([a-z]+)", page))


FORBIDDEN = {"script", "img", "iframe", "form", "base", "input", "object", "embed"}


def test_hostile_names_and_rows_of_a_real_run_stay_text(shown: Shown) -> None:
    (policy,) = re.findall(
        r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', shown.page
    )
    assert POLICY.fullmatch(unescape(policy))
    before, _, _ = shown.page.partition("http-equiv=")
    assert tags_of(before) == {"html", "head", "meta"}
    assert tags_of(shown.page) & FORBIDDEN == set()
    assert set(re.findall(r'href="(.)', shown.page)) == {"#", "d"}
    assert shown.page.count("&lt;/script&gt;") >= 4
    assert shown.page.count("&lt;img src=x onerror=alert(1)&gt;") >= 3
    assert "\u202e" not in shown.page
    assert "{{7*7}}" in shown.page


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on PATH")
def test_nothing_of_them_runs_in_a_browser(shown: Shown) -> None:
    assert shown.dom is not None
    assert shown.requests == []
    (title,) = re.findall(r"<title>(.*?)</title>", shown.dom, re.DOTALL)
    assert "Finished" in title and "taken" not in title
    assert tags_of(shown.dom) & FORBIDDEN == set()


def test_an_error_text_is_escaped_too(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time_briefly(monkeypatch)
    config = tiny_config(tmp_path, tiny_llama_folder, max_steps=2)
    folder = Path(trimtab.train(config).run)
    summary = json.loads((folder / "summary.json").read_text())
    text = hostile("http://127.0.0.1:9")
    (folder / "summary.json").write_text(
        json.dumps({**summary, "status": "failed", "stopped_by": text})
    )
    assert run(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "<img" not in page
    assert "&lt;script&gt;" in page
