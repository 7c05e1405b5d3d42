"""Exactly what the assistant says is trained on, whatever the template and the pad token."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.chat_templates import CHAT_TEMPLATES, THOUGHT_OPENING
from support.tiny import CHATML, tiny_tokenizer
from tokenizers.processors import ByteLevel, TemplateProcessing
from transformers import PreTrainedTokenizerFast

from trimtab.data.inspection import segments
from trimtab.data.rows import Conversation, Message, RowError, TokenRow
from trimtab.data.templates import TemplateChoice, choose_template
from trimtab.data.tokens import (
    Tokens,
    adds_bos,
    prompt_ids,
    prompt_text,
    reference_text,
    tokenize,
    tokenize_all,
)

NO_TEMPLATE = TemplateChoice("none", None, "for the test")


def template(source: str) -> TemplateChoice:
    return TemplateChoice("test template", source, "for the test")


def chat(*turns: tuple[str, str], trained: tuple[bool, ...] | None = None) -> Conversation:
    messages = tuple(Message(role, content) for role, content in turns)
    answers = tuple(role == "assistant" for role, _ in turns)
    return Conversation(messages, trained or answers, templated=True)


def parts(tokens: Tokens, tokenizer: PreTrainedTokenizerFast) -> list[tuple[str, bool]]:
    found = segments(TokenRow(0, tokens.input_ids, tokens.trainable), tokenizer)
    assert "".join(segment.text for segment in found) == tokenizer.decode(tokens.input_ids)
    return [(segment.text, segment.trained) for segment in found]


def trained_texts(conversation: Conversation, source: str) -> list[str]:
    tokenizer = tiny_tokenizer(chat_template=source)
    tokens = tokenize(conversation, tokenizer, template(source))
    return [text for text, trained in parts(tokens, tokenizer) if trained]


ONE_TURN = chat(("user", "Two and two?"), ("assistant", "Four. 😀"))
TWO_TURNS = chat(
    ("user", "Two and two?"), ("assistant", "Four."), ("user", "Sure?"), ("assistant", "Yes.")
)
END_OF_TURN = {
    "chatml": "<|im_end|>",
    "llama-3": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "qwen-3": "<|im_end|>",
    "mistral": "<|im_end|>",
    "thought-opening": "<|im_end|>",
    "generation-blocks": "<|im_end|>",
}


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_one_turn(name: str) -> None:
    expected = "Four. 😀" + END_OF_TURN[name]
    if name == "qwen-3":
        expected = "<think>\n\n</think>\n\n" + expected
    if name == "mistral":
        expected = " " + expected
    assert trained_texts(ONE_TURN, CHAT_TEMPLATES[name]) == [expected]


def test_tools_stand_before_what_is_trained_on() -> None:
    source = "{% for tool in tools or [] %}{{ tool.name }};{% endfor %}" + CHAT_TEMPLATES["chatml"]
    with_tools = replace(TWO_TURNS, tools='[{"name": "add"}, {"name": "count"}]')
    assert trained_texts(with_tools, source) == trained_texts(TWO_TURNS, source)
    prompt = prompt_text(with_tools, tiny_tokenizer(), template(source))
    assert prompt == "add;count;" + prompt_text(TWO_TURNS, tiny_tokenizer(), template(source))


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_two_turns(name: str) -> None:
    end = END_OF_TURN[name]
    first, second = "Four." + end, "Yes." + end
    if name == "qwen-3":
        second = "<think>\n\n</think>\n\n" + second
    if name == "mistral":
        first, second = " " + first, " " + second
    assert trained_texts(TWO_TURNS, CHAT_TEMPLATES[name]) == [first, second]


@pytest.mark.parametrize("name", ["chatml", "llama-3", "qwen-3", "mistral", "generation-blocks"])
def test_a_system_turn_is_not_trained_on(name: str) -> None:
    messages = (Message("system", "Be short."), *TWO_TURNS.messages)
    with_system = Conversation(messages, (False, *TWO_TURNS.trained), templated=True)
    assert [text.split("\n")[-1] for text in trained_texts(with_system, CHAT_TEMPLATES[name])] == [
        text.split("\n")[-1] for text in trained_texts(TWO_TURNS, CHAT_TEMPLATES[name])
    ]


def test_thoughts_that_the_template_leaves_out_of_past_turns() -> None:
    conversation = chat(
        ("user", "Two and two?"),
        ("assistant", "<think>\nadd them\n</think>\n\nFour."),
        ("user", "Sure?"),
        ("assistant", "<think>\nlook again\n</think>\n\nYes."),
    )
    assert trained_texts(conversation, CHAT_TEMPLATES["qwen-3"]) == [
        "Four.<|im_end|>",
        "<think>\nlook again\n</think>\n\nYes.<|im_end|>",
    ]


def test_an_answer_that_repeats_the_prompt_and_the_marks() -> None:
    conversation = chat(
        ("user", "Say <|im_end|>"),
        ("assistant", "Say <|im_end|>\n<|im_start|>assistant\nSay"),
        ("user", "Say <|im_end|>"),
        ("assistant", "Say"),
    )
    assert trained_texts(conversation, CHATML) == [
        "Say <|im_end|>\n<|im_start|>assistant\nSay<|im_end|>",
        "Say<|im_end|>",
    ]


def test_spaces_and_line_ends_inside_the_answer_belong_to_it() -> None:
    conversation = chat(("user", "q "), ("assistant", "  a\n\n  b  "))
    assert trained_texts(conversation, CHATML) == ["  a\n\n  b  <|im_end|>"]


def test_the_end_of_turn_is_trained_on_where_it_is_the_pad_token() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    assert tokenizer.pad_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    tokens = tokenize(TWO_TURNS, tokenizer, template(CHATML))
    ends = tokens.input_ids == tokenizer.pad_token_id
    assert ends.tolist().count(True) == 4
    assert tokens.trainable[ends].tolist() == [False, True, False, True]


def test_ids_are_those_of_transformers() -> None:
    tokenizer = tiny_tokenizer()
    tokens = tokenize(TWO_TURNS, tokenizer, template(CHATML))
    messages = [{"role": turn.role, "content": turn.content} for turn in TWO_TURNS.messages]
    expected = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
    assert tokens.input_ids.tolist() == expected
    assert tokens.input_ids.dtype == "int32"


def test_a_turn_that_is_not_trained_on() -> None:
    last = chat(*[(t.role, t.content) for t in TWO_TURNS.messages], trained=(False,) * 3 + (True,))
    assert trained_texts(last, CHATML) == ["Yes.<|im_end|>"]


def test_training_on_everything() -> None:
    turns = [(turn.role, turn.content) for turn in TWO_TURNS.messages]
    tokenizer = tiny_tokenizer()
    tokens = tokenize(chat(*turns, trained=(True,) * 4), tokenizer, template(CHATML))
    assert tokens.trainable.tolist() == [False] + [True] * (len(tokens.input_ids) - 1)
    but_one = chat(*turns, trained=(True, False, True, True))
    tokens = tokenize(but_one, tokenizer, template(CHATML))
    untrained = [text for text, trained in parts(tokens, tokenizer) if not trained]
    assert untrained == ["<|im_start|>", "Four.<|im_end|>"]


def test_a_template_that_hides_the_answer_names_itself() -> None:
    upper = CHATML.replace("message['content'] }}", "message['content'] | upper }}")
    conversation = chat(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    # Still found by prefixes: only the content differs.
    assert trained_texts(conversation, upper) == ["B<|im_end|>", "D<|im_end|>"]
    count = "{{ messages | length }}" + upper
    with pytest.raises(RowError, match=r"\(test template\) does not show where turn 2"):
        trained_texts(conversation, count)


def test_a_generation_prompt_that_no_answer_has() -> None:
    thought = chat(("user", "q"), ("assistant", "<think>\nhm\n</think>a"))
    assert trained_texts(thought, THOUGHT_OPENING) == ["a<|im_end|>"]


def test_generation_blocks_say_what_is_trained_on() -> None:
    source = (
        "{% for message in messages %}{% if message.role == 'assistant' %}"
        "Answer: {% generation %}{{ message.content }}{% endgeneration %}.\n"
        "{% else %}{{ message.content }}\n{% endif %}{% endfor %}"
    )
    assert trained_texts(TWO_TURNS, source) == ["Four.", "Yes."]


def test_text_rows_are_trained_on_to_their_eos() -> None:
    tokenizer = tiny_tokenizer(chat_template=None)
    text = Conversation((Message("text", "once upon"),), (True,), templated=False)
    tokens = tokenize(text, tokenizer, NO_TEMPLATE)
    assert tokenizer.decode(tokens.input_ids) == "once upon</s>"
    assert tokens.trainable.tolist() == [False] + [True] * (len(tokens.input_ids) - 1)


def joined(prompt: str, completion: str) -> Conversation:
    messages = (Message("user", prompt), Message("assistant", completion))
    return Conversation(messages, (False, True), templated=False)


def test_prompt_and_completion_without_a_template_are_joined_as_they_stand() -> None:
    tokenizer = tiny_tokenizer(chat_template=None)
    tokens = tokenize(joined("Q: two?\nA:", " four"), tokenizer, NO_TEMPLATE)
    assert parts(tokens, tokenizer) == [("Q: two?\nA:", False), (" four</s>", True)]


@pytest.mark.parametrize("trim_offsets", [False, True])
def test_a_space_at_the_prompt_s_end_stays_with_the_prompt(trim_offsets: bool) -> None:
    tokenizer = tiny_tokenizer(chat_template=None)
    tokenizer.backend_tokenizer.post_processor = ByteLevel(trim_offsets=trim_offsets)
    tokens = tokenize(joined("A: ", "😀"), tokenizer, NO_TEMPLATE)
    assert parts(tokens, tokenizer)[0] == ("A: ", False)


def with_special_tokens(*, eos: bool) -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer(chat_template=None)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>" if eos else "<s> $A", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tokenizer


@pytest.mark.parametrize("eos", [False, True])
def test_the_tokenizer_s_own_special_tokens(eos: bool) -> None:
    tokenizer = with_special_tokens(eos=eos)
    assert adds_bos(tokenizer)
    assert not adds_bos(tiny_tokenizer())
    tokens = tokenize(joined("Q:", " a"), tokenizer, NO_TEMPLATE)
    assert parts(tokens, tokenizer) == [("<s>Q:", False), (" a</s>", True)]
    assert (
        prompt_ids(joined("Q:", " a"), tokenizer, NO_TEMPLATE)
        == tokenizer("<s>Q:", add_special_tokens=False)["input_ids"]
    )


@pytest.mark.parametrize("conversational_source", [CHAT_TEMPLATES["llama-3"], None])
def test_one_bos_and_no_more(conversational_source: str | None) -> None:
    tokenizer = with_special_tokens(eos=False)
    chosen = choose_template(conversational_source, "auto", conversational=True, adds_bos=True)
    tokens = tokenize(ONE_TURN, tokenizer, chosen)
    assert tokens.input_ids.tolist().count(1) == 1
    assert tokens.input_ids[0] == 1
    assert prompt_ids(ONE_TURN, tokenizer, chosen).count(1) == 1


def test_the_plain_template_ends_turns_by_eos() -> None:
    tokenizer = tiny_tokenizer(chat_template=None)
    chosen = choose_template(None, "auto", conversational=True, adds_bos=False)
    tokens = tokenize(TWO_TURNS, tokenizer, chosen)
    assert parts(tokens, tokenizer) == [
        ("User: Two and two?\nAssistant:", False),
        (" Four.</s>", True),
        ("\nUser: Sure?\nAssistant:", False),
        (" Yes.</s>", True),
        ("\n", False),
    ]


def test_many_conversations_keep_their_order_and_faults() -> None:
    tokenizer = tiny_tokenizer()
    gemma = template(CHAT_TEMPLATES["gemma"])
    conversations = [
        ONE_TURN,
        joined("Q:", " a"),
        chat(("system", "s"), ("user", "q"), ("assistant", "a")),
        TWO_TURNS,
    ]
    first, second, third, fourth = tokenize_all(conversations, tokenizer, gemma)
    assert isinstance(first, Tokens)
    assert "Two and two?" in tokenizer.decode(first.input_ids)
    assert isinstance(second, Tokens)
    assert tokenizer.decode(second.input_ids) == "Q: a<|im_end|>"
    assert isinstance(third, RowError)
    assert "System role not supported" in third.reason
    assert isinstance(fourth, Tokens)
    assert tokenizer.decode(fourth.input_ids[fourth.trainable]).count("<end_of_turn>") == 2


def test_the_prompt_of_a_sample() -> None:
    tokenizer = tiny_tokenizer()
    assert prompt_text(TWO_TURNS, tokenizer, template(CHATML)) == (
        "<|im_start|>user\nTwo and two?<|im_end|>\n<|im_start|>assistant\nFour.<|im_end|>\n"
        "<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert reference_text(TWO_TURNS) == "Yes."
    assert prompt_text(joined("Q:", " a"), tokenizer, NO_TEMPLATE) == "Q:"
    assert reference_text(joined("Q:", " a")) == " a"


def test_the_prompt_of_a_text_row_is_its_first_half() -> None:
    text = Conversation((Message("text", "a b c d e"),), (True,), templated=False)
    tokenizer = tiny_tokenizer(chat_template=None)
    assert prompt_text(text, tokenizer, NO_TEMPLATE) == "a b c"
    assert reference_text(text) == " d e"


@pytest.mark.parametrize(
    ("text", "prompt", "reference"),
    [(" hello", " hello", ""), ("  a b", "  a", " b"), ("\n\nx\ny z", "\n\nx\ny", " z")],
)
def test_the_prompt_of_a_text_row_has_a_word(text: str, prompt: str, reference: str) -> None:
    row = Conversation((Message("text", text),), (True,), templated=False)
    assert prompt_text(row, tiny_tokenizer(chat_template=None), NO_TEMPLATE) == prompt
    assert reference_text(row) == reference
