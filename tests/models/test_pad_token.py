from __future__ import annotations

from collections.abc import Sequence

import pytest
from support.chat_templates import CHAT_TEMPLATES
from support.tiny import CHATML, tiny_tokenizer
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from trimtab.errors import ConfigError
from trimtab.models.pad_token import choose_pad_token, end_of_turn_token_ids

LLAMA_LIKE = (
    "{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{{ message.content | trim }}<|eot_id|>{% endfor %}"
)
GEMMA_LIKE = (
    "{% for message in messages %}<start_of_turn>{{ message.role }}\n"
    "{{ message.content }}<end_of_turn>\n{% endfor %}"
)
MISTRAL_LIKE = (
    "{% for message in messages %}{% if message.role == 'user' %}[INST] {{ message.content }} "
    "[/INST]{% else %} {{ message.content }}{{ eos_token }}{% endif %}{% endfor %}"
)


def family(
    special: Sequence[str],
    *,
    eos: str | None,
    pad: str | None = None,
    unk: str | None = None,
    bos: str | None = None,
    template: str | None = None,
) -> PreTrainedTokenizerFast:
    """A tokenizer with these special tokens, numbered in order."""
    vocabulary = {token: index for index, token in enumerate([*special, "a", "b"])}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token=special[0])),
        eos_token=eos,
        pad_token=pad,
        unk_token=unk,
        bos_token=bos,
    )
    fast.add_special_tokens({"additional_special_tokens": list(special)})
    fast.chat_template = template
    assert len(fast) == len(vocabulary)
    return fast


SMOLLM = family(
    ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"],
    bos="<|im_start|>",
    eos="<|im_end|>",
    pad="<|im_end|>",
    unk="<|endoftext|>",
    template=CHATML,
)
QWEN = family(
    ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    eos="<|im_end|>",
    pad="<|endoftext|>",
    template=CHATML,
)
QWEN_WITHOUT_PAD = family(
    ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], eos="<|im_end|>", template=CHATML
)
LLAMA = family(
    [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
        "<|finetune_right_pad_id|>",
        "<|reserved_special_token_0|>",
    ],
    bos="<|begin_of_text|>",
    eos="<|eot_id|>",
    pad="<|eot_id|>",
    template=LLAMA_LIKE,
)
GEMMA = family(
    ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"],
    bos="<bos>",
    eos="<eos>",
    pad="<pad>",
    unk="<unk>",
    template=GEMMA_LIKE,
)
GEMMA_THAT_PADS_WITH_ITS_END_OF_TURN = family(
    ["<eos>", "<unk>", "<start_of_turn>", "<end_of_turn>"],
    eos="<eos>",
    pad="<end_of_turn>",
    unk="<unk>",
    template=GEMMA_LIKE,
)
MISTRAL = family(
    ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"],
    bos="<s>",
    eos="</s>",
    unk="<unk>",
    template=MISTRAL_LIKE,
)
GPT2 = family(["<|endoftext|>"], bos="<|endoftext|>", eos="<|endoftext|>", unk="<|endoftext|>")


@pytest.mark.parametrize(
    ("tokenizer", "token", "because"),
    [
        (SMOLLM, "<|endoftext|>", "unk takes its place"),
        (QWEN, "<|endoftext|>", "the model declares it"),
        (QWEN_WITHOUT_PAD, "<|endoftext|>", "declares none; this one is reserved"),
        (LLAMA, "<|finetune_right_pad_id|>", "<|eot_id|> marks a turn; this one is reserved"),
        (GEMMA, "<pad>", "the model declares it"),
        (GEMMA_THAT_PADS_WITH_ITS_END_OF_TURN, "<unk>", "<end_of_turn> marks a turn; unk"),
        (MISTRAL, "<unk>", "declares none; unk"),
        (GPT2, "<|endoftext|>", "nothing else is free"),
        (tiny_tokenizer(), "<|reserved_0|>", "reserved"),
    ],
    ids=["smollm", "qwen", "qwen-no-pad", "llama", "gemma", "gemma-eot", "mistral", "gpt2", "tiny"],
)
def test_auto(tokenizer: PreTrainedTokenizerFast, token: str, because: str) -> None:
    size = len(tokenizer)
    chosen = choose_pad_token(tokenizer, "auto", size)
    assert chosen.token == token
    assert chosen.token_id == tokenizer.convert_tokens_to_ids(token)
    assert because in chosen.because
    assert len(tokenizer) == size


def test_a_reserved_token_beyond_the_embeddings_is_passed_over() -> None:
    assert choose_pad_token(tiny_tokenizer(), "auto", 5).token == "<unk>"


@pytest.mark.parametrize(
    ("choice", "token"),
    [("unk", "<unk>"), ("eos", "<|im_end|>"), ("</s>", "</s>"), ("<|im_end|>", "<|im_end|>")],
)
def test_a_choice_is_kept(choice: str, token: str) -> None:
    assert choose_pad_token(tiny_tokenizer(), choice, 320).token == token


@pytest.mark.parametrize(
    ("choice", "vocab_size", "message"),
    [
        ("<|pad|>", 320, "not in the model's vocabulary, and tokens are never added"),
        ("<|reserved_0|>", 5, "embeddings for 5"),
    ],
)
def test_a_token_that_is_not_there_is_refused(choice: str, vocab_size: int, message: str) -> None:
    tokenizer = tiny_tokenizer()
    num_tokens = len(tokenizer)
    with pytest.raises(ConfigError, match=message):
        choose_pad_token(tokenizer, choice, vocab_size)
    assert tokenizer.pad_token is None
    assert len(tokenizer) == num_tokens


def test_unk_of_a_tokenizer_without_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="no unk token"):
        choose_pad_token(QWEN, "unk", 10)


def test_nothing_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="no pad, reserved, unk or eos"):
        choose_pad_token(family(["<x>"], eos=None), "auto", 10)


def test_a_template_that_never_ends_does_not_stop_the_choice() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    )
    assert choose_pad_token(tokenizer, "auto", 320).token == "<|reserved_0|>"


@pytest.mark.parametrize(
    ("tokenizer", "tokens"),
    [
        (SMOLLM, ["<|im_end|>"]),
        (GEMMA, ["<eos>", "<end_of_turn>"]),
        (LLAMA, ["<|eot_id|>"]),
        (MISTRAL, ["</s>"]),
        (GPT2, ["<|endoftext|>"]),
    ],
    ids=["smollm", "gemma", "llama", "mistral", "gpt2"],
)
def test_end_of_turn(tokenizer: PreTrainedTokenizerFast, tokens: list[str]) -> None:
    found = end_of_turn_token_ids(tokenizer, tokenizer.chat_template)
    assert found == tuple(tokenizer.convert_tokens_to_ids(tokens))


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("chatml", "<|im_end|>"),
        ("llama-3", "<|eot_id|>"),
        ("gemma", "<end_of_turn>"),
        ("qwen-3", "<|im_end|>"),
        ("mistral", None),
        ("thought-opening", "<|im_end|>"),
        ("generation-blocks", "<|im_end|>"),
    ],
)
def test_end_of_turn_of_each_shape_of_template(name: str, end: str | None) -> None:
    marks = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    marks += ["<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]", "<think>", "</think>"]
    tokenizer = family(["<unk>", "<s>", "</s>", *marks], bos="<s>", eos="</s>", unk="<unk>")
    tokens = ["</s>"] if end is None else ["</s>", end]
    found = end_of_turn_token_ids(tokenizer, CHAT_TEMPLATES[name])
    assert found == tuple(tokenizer.convert_tokens_to_ids(tokens))


@pytest.mark.parametrize(
    "body",
    [
        "{{ message.role }}{% if message.role == 'user' %}{{ message.content }}<|user|>"
        "{% elif message.role == 'assistant' %}{{ message.content }}<|end|>{% endif %}",
        "{% if message.role != 'assistant' %}{{ message.content }}<|user|>"
        "{% else %}{{ message.content }}<|end|>{% endif %}",
        "{% if message.role in ['user', 'system'] %}{{ message.content }}<|user|>"
        "{% else %}{{ message.content }}<|end|>{% endif %}",
        "{% for part in message.content %}{{ part.text }}{% endfor %}<|end|>",
        "{% set text = message['content'] | trim %}{{ '<|user|>' ~ text ~ '<|end|>' }}",
        "{{ message.content + ('<|user|>' if message.role == 'user' else '<|end|>') }}",
    ],
)
def test_end_of_turn_is_the_assistants(body: str) -> None:
    tokenizer = family(["</s>", "<|user|>", "<|end|>"], eos="</s>")
    template = "{% for message in messages %}" + body + "{% endfor %}"
    template += "{% if add_generation_prompt %}<|user|>{% endif %}"
    assert end_of_turn_token_ids(tokenizer, template) == (0, 2)


def test_end_of_turn_is_that_of_the_template_that_is_given() -> None:
    tokenizer = tiny_tokenizer(chat_template=None)
    eos = tokenizer.eos_token_id
    assert end_of_turn_token_ids(tokenizer, None) == (eos,)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end_of_turn_token_ids(tokenizer, CHATML) == (eos, end)


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no') }}",
        "{% for message in",
        "{{ " + "(" * 20_000 + " }}",
        "{% for a in range(99999999) %}{% for b in range(99999999) %}{% endfor %}{% endfor %}",
    ],
    ids=["raises", "broken", "deep", "endless"],
)
def test_an_odd_template_leaves_eos(template: str) -> None:
    tokenizer = tiny_tokenizer()
    assert end_of_turn_token_ids(tokenizer, template) == (tokenizer.eos_token_id,)
