"""Ollama's Modelfile: the chat template in fixed texts, and what Ollama adds by itself."""

from __future__ import annotations

import pytest
from support.tiny import CHATML, tiny_model, tiny_tokenizer
from tokenizers.processors import TemplateProcessing

from trimtab.interop.ollama import modelfile, turn_texts

WITH_DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
) + CHATML


@pytest.mark.parametrize(
    ("template", "default_system"), [(CHATML, None), (WITH_DEFAULT_SYSTEM, "Be kind.")]
)
def test_a_template_of_fixed_texts_is_found(template: str, default_system: str | None) -> None:
    texts = turn_texts(tiny_tokenizer(chat_template=template))
    assert texts is not None
    assert texts.user == ("<|im_start|>user\n", "<|im_end|>\n")
    assert texts.assistant == ("<|im_start|>assistant\n", "<|im_end|>\n")
    assert texts.default_system == default_system


@pytest.mark.parametrize(
    "template",
    [
        "{% for message in messages %}{{ message['content'] | upper }}{% endfor %}",
        "{{ raise_exception('no') }}",
        "{% for message in messages %}{{ loop.index }}{{ message['content'] }}{% endfor %}",
    ],
)
def test_a_template_that_does_more_is_not_pressed_into_texts(template: str) -> None:
    assert turn_texts(tiny_tokenizer(chat_template=template)) is None


@pytest.mark.parametrize("adds_bos", [True, False])
@pytest.mark.parametrize(
    "template", [f"{{{{ bos_token }}}}{CHATML}", f"{{{{ bos_token }}}}{WITH_DEFAULT_SYSTEM}"]
)
def test_a_prompt_of_ollamas_begins_with_one_bos_token(template: str, adds_bos: bool) -> None:
    tokenizer = tiny_tokenizer(chat_template=template)
    if adds_bos:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
        )
    text, notes = modelfile("tiny.gguf", tokenizer, tiny_model("llama"))
    assert notes == ()
    assert text.count("<s>") == (0 if adds_bos else 1)
