"""Templates render as transformers renders them, and cannot harm the machine."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from support.chat_templates import CHAT_TEMPLATES, GENERATION_BLOCKS
from support.tiny import CHATML, tiny_tokenizer

from trimtab.data import templates
from trimtab.data.rows import Message, RowError
from trimtab.data.templates import (
    RenderRequest,
    TemplateChoice,
    choose_template,
    render,
    render_all,
)
from trimtab.data.tokens import special_tokens
from trimtab.errors import ConfigError, DataError

MESSAGES = (
    Message("user", "Hi {{ there }} é\u2028😀"),
    Message("assistant", "<think>\nhm\n</think>\n\n Yes. \n"),
    Message("user", "More?"),
    Message("assistant", "No."),
)
FEATURES = (
    "{%- for m in messages -%}"
    "  {%- if loop.index0 == 1 -%}{%- continue -%}{%- endif -%}"
    "{{ m | tojson }} {{ {'a': '<b>'} | tojson(indent=2) }}"
    "{%- if loop.index0 == 2 -%}{%- break -%}{%- endif -%}"
    "{%- endfor %}\n"
    "    {% set ns = namespace(n=1) %}\n"
    "{% set ns.n = ns.n + 1 %}\n"
    "{{ ns.n }} {{ tools is none }} {{ documents is none }} {{ bos_token }} {{ pad_token }}\n"
    "{{ dict(a=1) }} {{ strftime_now('%Y') | length }}\n"
)


def choice(source: str) -> TemplateChoice:
    return TemplateChoice("test template", source, "for the test")


def rendered(source: str, messages: tuple[Message, ...] = MESSAGES, **variables: str) -> str:
    return render(choice(source), messages, add_generation_prompt=False, special_tokens=variables)


def by_transformers(tokenizer: Any, **options: Any) -> Any:
    messages = [{"role": turn.role, "content": turn.content} for turn in MESSAGES]
    return tokenizer.apply_chat_template(messages, tokenize=False, **options)


def test_tools_are_rendered_as_transformers_does() -> None:
    source = "{% for tool in tools or [] %}{{ tool | tojson(indent=2) }}{% endfor %}" + CHATML
    tools = [{"type": "function", "function": {"name": "zählen", "parameters": {}}}]
    expected = by_transformers(tiny_tokenizer(chat_template=source), tools=tools)
    text = render(
        choice(source),
        MESSAGES,
        add_generation_prompt=False,
        special_tokens={},
        tools=json.dumps(tools),
    )
    assert text == expected
    assert "zählen" in text


@pytest.mark.parametrize("name", [*CHAT_TEMPLATES, "features"])
@pytest.mark.parametrize("add_generation_prompt", [False, True])
def test_renders_as_transformers_does(name: str, add_generation_prompt: bool) -> None:
    source = {**CHAT_TEMPLATES, "features": FEATURES}[name]
    tokenizer = tiny_tokenizer(chat_template=source)
    expected = by_transformers(tokenizer, add_generation_prompt=add_generation_prompt)
    ours = render(
        choice(source),
        MESSAGES,
        add_generation_prompt=add_generation_prompt,
        special_tokens=special_tokens(tokenizer),
    )
    assert ours == expected


def test_generation_blocks_are_located() -> None:
    (whole,) = render_all(choice(GENERATION_BLOCKS), [RenderRequest(MESSAGES, False)], {})
    assert not isinstance(whole, RowError)
    assert [whole.text[start:end] for start, end in whole.generated] == [
        MESSAGES[1].content + "<|im_end|>",
        "No.<|im_end|>",
    ]


def test_marks_in_the_content_are_refused_with_generation_blocks() -> None:
    with pytest.raises(RowError, match="U\\+FDD0"):
        rendered(GENERATION_BLOCKS, (Message("assistant", "a\ufdd0b"),))


def test_a_refusal_of_one_conversation_leaves_the_others() -> None:
    requests = [
        RenderRequest((Message("user", "a"),), False),
        RenderRequest((Message("system", "s"), Message("user", "a")), False),
        RenderRequest((Message("user", "b"),), False),
    ]
    first, second, third = render_all(choice(CHAT_TEMPLATES["gemma"]), requests, {})
    assert isinstance(second, RowError)
    assert "test template" in second.reason
    assert "System role not supported" in second.reason
    assert not isinstance(first, RowError)
    assert not isinstance(third, RowError)
    assert third.text.endswith("<start_of_turn>user\nb<end_of_turn>\n")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ messages[9].content }}", "no element 9"),
        ("{{ messages + 1 }}", "can only concatenate"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages.__class__.x }}", "unsafe"),
        ("{{ messages.append(1) }}", "not safely callable|unsafe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe|undefined"),
        ("{{ namespace(__class__=1) }}", "namespace cannot hold"),
        ("{% include 'other' %}", "no loader"),
        ("{{ range(10000000) }}", "Range too big"),
    ],
)
def test_what_the_sandbox_refuses_is_the_row_s_fault(source: str, reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        rendered(source)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ 'x' * 20000000 }}", "over 16,000,000 characters"),
        ("{{ 'x' * 9999999999 }}", "too much memory"),
        (
            "{% set x = 'x' * 1000 %}{% for i in range(60) %}{% set x = x ~ x %}{% endfor %}"
            "{% set ns = namespace(x='x' * 1000) %}{% for i in range(60) %}"
            "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
            "too much memory|takes over",
        ),
        ("{{ '%2000000000d' | format(1) }}", "too much memory|takes over"),
        ("{{ 'x'.ljust(9000000000) }}", "too much memory"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "recurses without end"),
    ],
)
def test_bombs_of_memory(source: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        rendered(source)
    assert not isinstance(caught.value, RowError)
    assert "test template" in str(caught.value)


def test_bombs_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "MAX_RENDER_S", 0.3)
    loops = "".join(f"{{% for i{n} in range(99999) %}}" for n in range(3)) + "{% endfor %}" * 3
    started = time.monotonic()
    with pytest.raises(DataError, match=r"takes over 0\.3 s"):
        rendered(loops)
    assert time.monotonic() - started < 20


def test_a_worker_that_does_not_answer_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "MAX_RENDER_S", 0.0)
    monkeypatch.setattr(templates, "WORKER_START_S", 0.001)
    with pytest.raises(DataError, match="does not come to an end"):
        rendered("{{ messages }}")


def test_a_template_that_is_not_jinja() -> None:
    with pytest.raises(DataError, match=r"\(test template\) is not Jinja: .* \(line 2\)"):
        rendered("fine\n{% for %}")


def test_nothing_to_render() -> None:
    assert render_all(choice("{{ nothing"), [], {}) == []
    with pytest.raises(ValueError, match="renders nothing"):
        render_all(TemplateChoice("none", None, ""), [], {})


def test_many_requests_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "MAX_REQUEST_CHARS", 40)
    requests = [RenderRequest((Message("user", f"number {n}"),), False) for n in range(30)]
    answers = render_all(choice("{{ messages[0].content }}"), requests, {})
    texts = [answer.text for answer in answers if not isinstance(answer, RowError)]
    assert texts == [f"number {n}" for n in range(30)]


def test_auto_is_the_model_s_own() -> None:
    chosen = choose_template("{{ 1 }}", "auto", conversational=False, adds_bos=True)
    assert (chosen.name, chosen.source_text) == ("the model's own", "{{ 1 }}")
    assert chosen.because


def test_auto_without_a_template() -> None:
    none = choose_template(None, "auto", conversational=False, adds_bos=True)
    assert none.source_text is None
    plain = choose_template(None, "auto", conversational=True, adds_bos=False)
    assert plain.source_text is not None
    text = render(
        plain,
        [Message("system", "Be kind."), Message("user", "Hi"), Message("assistant", "Hello")],
        add_generation_prompt=True,
        special_tokens={"bos_token": "<s>", "eos_token": "</s>"},
    )
    assert text == "System: Be kind.\nUser: Hi\nAssistant: Hello</s>\nAssistant:"
    with_bos = choose_template(None, "auto", conversational=True, adds_bos=True)
    assert with_bos.source_text == "{{ bos_token }}" + plain.source_text


def test_none_is_refused_for_conversations() -> None:
    chosen = choose_template("{{ 1 }}", "none", conversational=False, adds_bos=False)
    assert chosen.source_text is None
    with pytest.raises(ConfigError, match="chat_template is `none`"):
        choose_template("{{ 1 }}", "none", conversational=True, adds_bos=False)


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "chat.jinja"
    path.write_text("{{ messages }}")
    chosen = choose_template("{{ 1 }}", str(path), conversational=False, adds_bos=False)
    assert (chosen.name, chosen.source_text) == (str(path), "{{ messages }}")
    with pytest.raises(ConfigError, match="no such file"):
        choose_template(None, str(tmp_path / "none.jinja"), conversational=True, adds_bos=False)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        choose_template(None, str(path), conversational=True, adds_bos=False)
