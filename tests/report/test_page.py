"""The page holds the run, escapes everything of it, loads nothing and runs nothing."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.browser import CHROMIUM, chromium_dom, counting_server
from support.run_folders import DATA, PLAN, SAMPLES, evaluations, updates, write_run

from trimtab.planning.decision import Alternative
from trimtab.planning.fact import Fact
from trimtab.report.collect import collect
from trimtab.report.page import render_page, write_report
from trimtab.runs.records import EventRecord, Sample, Segment

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Outline(HTMLParser):
    """Elements with their attributes, visible text, and whether all tags are closed in order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in {"td", "th"}:
            self.texts.append(" ")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.texts))


def outline(page: str) -> Outline:
    parsed = Outline()
    parsed.feed(page)
    parsed.close()
    assert parsed.open == []
    return parsed


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render_page(collect(write_run(tmp_path_factory.mktemp("runs") / "mine").root))


def test_writes_the_page_into_the_run_folder(tmp_path: Path) -> None:
    run = write_run(tmp_path / "mine")
    assert write_report(str(run.root)) == run.report_html
    assert run.report_html.read_text(encoding="utf-8") == render_page(collect(run.root))


def test_the_same_folder_gives_the_same_page_elsewhere(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a" / "mine")
    shutil.copytree(run.root, tmp_path / "b" / "mine")
    assert render_page(collect(run.root)) == render_page(collect(tmp_path / "b" / "mine"))


def test_everything_that_a_reader_looks_for_is_there(page: str) -> None:
    text = outline(page).text
    for expected in (
        "SmolLM2-135M-Instruct on gsm8k.jsonl",
        "LoRA of rank 16, 60 updates of 16 rows, bf16 on cpu",
        "Finished All 60 updates done.",
        "2.0000 → 1.0000",
        "4.3 min",
        "1.50 GiB",
        "learning_rate 0.0004 command line, --learning-rate",
        "max_steps 500 file, config.yaml:5; epochs win where one layer sets both",
        "max_length 512 measured the longest row has 498 tokens",
        "Not fp16: its range needs loss scaling",
        "Limits: the gradient noise scale was not measured",
        "the row in gsm8k.jsonl:7 is a duplicate",
        "where the learning rate starts to diverge on this run",
        "2 facts that the plan rests on",
        "data.length_quantiles 0 … 200 (201 values) tokens all rows",
        "98.7 GFLOP/s ± 1 GFLOP/s best of 5 0.5 s",
        "peak memory 1.00 GiB 1.50 GiB −33% Predicted 33% too low.",
        "190,000",
        "4 rows cut",
        "What is 2+3?It is 5.",
        "Two and three are numbers.",
        "not asked",
        "checkpoint saved",
        "folder step-000030",
        "torch 2.13.0",
    ):
        assert expected in text, expected


def test_bars_stand_beside_each_prediction(page: str) -> None:
    bars = [
        attributes["aria-label"]
        for tag, attributes in outline(page).elements
        if tag == "svg" and attributes.get("class") == "chart-pair"
    ]
    assert bars == [
        "predicted 1.00 GiB, actual 1.50 GiB",
        "predicted 1.75 GiB, actual 1.50 GiB",
        "predicted 2 s, actual 4 s",
        "predicted 2.2 min, actual 4.3 min",
        "predicted 1,000, actual 1,000",
    ]


def test_what_is_learned_is_marked_and_the_rest_is_not(page: str) -> None:
    assert "<mark>It is 5.</mark>" in page
    assert "<span>&lt;|im_start|&gt;user\nWhat is 2+3?</span>" in page


def test_the_stopped_run_says_so_before_anything_else(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "mine",
        status="stopped",
        num_steps=12,
        stopped_by="diverged: 9 nats",
        result=None,
    )
    parsed = outline(render_page(collect(run.root)))
    before_curves = parsed.text.split("How it went")[0]
    assert (
        "Stopped The run stopped itself after 12 of 60 updates. Diverged: 9 nats." in before_curves
    )
    assert ("p", {"class": "status status-bad", "role": "alert"}) in parsed.elements
    assert "Stopped" in parsed.text[: parsed.text.index("trimtab")]


def test_a_change_of_recipe_is_told_at_the_top(tmp_path: Path) -> None:
    run = write_run(tmp_path / "mine", decisions_changed=("precision",))
    assert (
        "Changed precision changed during the run" in outline(render_page(collect(run.root))).text
    )


def test_long_lists_of_events_are_cut_from_the_front_and_said_so(tmp_path: Path) -> None:
    events = [EventRecord(f"event number {number}", number) for number in range(1, 251)]
    text = outline(render_page(collect(write_run(tmp_path / "mine", events=events).root))).text
    assert "event number 51 " in text and "event number 250 " in text
    assert "event number 50 " not in text
    assert "The last 200 of 250 events; events.jsonl has them all." in text


def test_policy_allows_the_one_style_and_nothing_else(page: str) -> None:
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    directives = {
        name: sources for name, _, sources in (part.partition(" ") for part in policy.split("; "))
    }
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert directives == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_nothing_runs_and_nothing_is_loaded(page: str) -> None:
    for tag, attributes in outline(page).elements:
        assert tag not in {"script", "iframe", "object", "embed", "form", "img", "base"}
        assert "style" not in attributes
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"href", "src", "xlink:href"}:
                assert value is not None and (value.startswith("#") or value == "data:,")


def test_links_inside_the_page_lead_somewhere(page: str) -> None:
    elements = outline(page).elements
    ids = [value for _, attributes in elements if (value := attributes.get("id"))]
    assert len(ids) == len(set(ids))
    targets = {
        value[1:]
        for _, attributes in elements
        if (value := attributes.get("href")) and value.startswith("#")
    }
    assert targets and targets <= set(ids)


def hostile_run(root: Path, text: str) -> Path:
    """A run with `text` in every place that a user, a model or a dataset can fill."""
    writable = text.encode("utf-8", "replace").decode("utf-8")
    plan = replace(
        PLAN,
        decisions=tuple(
            replace(
                one,
                value=text if isinstance(one.value, str) and one.name != "method" else one.value,
                because=text,
                limits=text,
                alternatives=(Alternative(text, text), Alternative({text: [text]}, "x")),
            )
            for one in PLAN.decisions
        ),
        facts=(Fact(text, text, text, method=text), Fact("list", [text] * 20)),
        warnings=(text,),
        not_measured=(text,),
    )
    data = replace(
        DATA,
        format=text,
        format_because=text,
        template=text,
        template_because=text,
        examples=((Segment(text, True), Segment(text, False)),),
    )
    run = write_run(
        root,
        plan=plan,
        data=data,
        samples=[Sample(text, text, text, text), *SAMPLES],
        events=[EventRecord(text, 1, {text: text, "list": [text, {"deep": text}]}, text)],
        config_yaml=f"model: {writable}  # {writable}\n"
        f"# overruled: a: {writable}  # {writable}\n{writable}\n",
        status="failed",
        stopped_by=text,
        decisions_changed=(text,),
        result=text,
        versions={text: text},
    )
    return run.root


HOSTILE = (
    "</script></style></title></pre></svg><script>alert(1)</script>"
    '<img src=x onerror=alert(2)>" onmouseover="alert(3)\' `{{ 7*7 }}` {% raw %} &lt; --> ]]>'
    "\u202egnp.exe\u2066\x00\x1b[31m\ud800\ufeff"
)
NAME = "<img src=x onerror=alert(4)>'\"& \u202e"


def test_hostile_text_stays_text_wherever_it_stands(tmp_path: Path) -> None:
    page = render_page(collect(hostile_run(tmp_path / NAME.replace("/", ""), HOSTILE)))
    page.encode("utf-8")
    parsed = outline(page)
    tags = [tag for tag, _ in parsed.elements]
    assert "script" not in tags and "img" not in tags
    assert tags.count("style") == 1 and tags.count("title") == 1
    assert not any(
        name.startswith("on") for _, attributes in parsed.elements for name in attributes
    )
    assert "{{ 7*7 }}" in parsed.text
    assert not re.search("[\u202e\u2066\x00\x1b\ud800]", page)
    assert parsed.text.count("⟨U+202E⟩gnp.exe") >= 30


def test_losses_out_of_all_measure_still_make_a_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "mine", status="stopped", eval_loss=math.nan, train_loss=math.inf)
    broken = [replace(one, loss=math.nan, grad_norm=math.inf) for one in updates()]
    record = replace(
        collect(run.root),
        updates=tuple(broken),
        evaluations=tuple(replace(one, eval_loss=math.inf) for one in evaluations()),
    )
    text = outline(render_page(record)).text
    assert "2.0000 → nan" in text


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on PATH")
def test_a_browser_runs_nothing_and_asks_for_nothing(tmp_path: Path) -> None:
    with counting_server() as (address, requests):
        hostile = (
            f"</script></style><script>document.title='taken';fetch('{address}/fetch')</script>"
            f"<img src={address}/image onerror=\"document.title='taken'\">"
            f"<link rel=stylesheet href={address}/style><iframe src={address}/frame></iframe>"
            f"<svg onload=\"document.title='taken'\"></svg>"
        )
        page = write_report(hostile_run(tmp_path / "mine", hostile))
        dom = chromium_dom(page, tmp_path / "profile")
        assert requests == []
    (title,) = re.findall(r"<title>(.*?)</title>", dom, re.DOTALL)
    assert "Failed" in title
    assert dom.count("&lt;/script&gt;") > 30
    assert "<script" not in dom and "<iframe" not in dom

    # The same text where nothing escapes it does run and call: the test above can fail.
    with counting_server() as (address, requests):
        bare = tmp_path / "bare.html"
        bare.write_text(
            f"<title>x</title><img src={address}/image><script>document.title='taken'</script>"
        )
        assert "<title>taken</title>" in chromium_dom(bare, tmp_path / "profile")
        assert requests == ["/image"]


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on PATH")
def test_the_policy_holds_where_escaping_would_fail(tmp_path: Path) -> None:
    with counting_server() as (address, requests):
        page = write_report(write_run(tmp_path / "mine").root)
        text = page.read_text(encoding="utf-8")
        injected = (
            f"<script>document.title='taken'</script><img src={address}/image "
            f'onerror="document.title=\'taken\'"><p style="color:red">'
        )
        page.write_text(text.replace("<main>", f"<main>{injected}"), encoding="utf-8")
        dom = chromium_dom(page, tmp_path / "profile")
        assert requests == []
    assert "<title>taken</title>" not in dom
    assert "Finished" in dom
