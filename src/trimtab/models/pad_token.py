"""Which token fills padded positions."""

from __future__ import annotations

import re
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from trimtab.errors import ConfigError

RESERVED = re.compile(r"pad|reserved|unused|extra|finetune|dummy", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PadToken:
    """A token of the vocabulary, and why it was taken."""

    token: str
    token_id: int
    because: str


def choose_pad_token(tokenizer: PreTrainedTokenizerFast, choice: str, vocab_size: int) -> PadToken:
    """The pad token for `auto`, `unk`, `eos` or a named token; none is ever added.

    `auto` is the declared pad token where it does not end a turn, else an unused special token
    that the vocabulary reserves, else unk, else eos. Raises ConfigError for a token that the
    vocabulary does not have, or that lies beyond the model's `vocab_size` embeddings.
    """
    if choice == "auto":
        chosen = _automatic(tokenizer, vocab_size)
    elif choice in {"unk", "eos"}:
        token = tokenizer.unk_token if choice == "unk" else tokenizer.eos_token
        if token is None:
            raise ConfigError(
                f"pad_token: {choice} was asked for, and the tokenizer has no {choice} token.",
                hint="Take pad_token: auto, or name a token of the vocabulary.",
            )
        chosen = _token(tokenizer, token, f"the {choice} token was asked for")
    else:
        chosen = _token(tokenizer, choice, "named by the user")
    if chosen.token_id >= vocab_size:
        raise ConfigError(
            f"pad_token: {chosen.token!r} is token {chosen.token_id}, and the model has "
            f"embeddings for {vocab_size}.",
            hint="Take pad_token: auto.",
        )
    return chosen


def end_of_turn_token_ids(tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """Tokens that end a turn: eos, and special tokens right after a turn's text in the template."""
    ids = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    if tokenizer.chat_template is not None:
        ids += _after_content(tokenizer)
    return tuple(dict.fromkeys(ids))


def _after_content(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The first special token behind the assistant's text in a rendered conversation."""
    marker = "trimtab-turn"
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": marker}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception:
        return []
    behind = text.rpartition(marker)[2].lstrip()
    ids = tokenizer(behind, add_special_tokens=False)["input_ids"] if behind else []
    return ids[:1] if ids and ids[0] in tokenizer.all_special_ids else _added(tokenizer, ids[:1])


def _added(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> list[int]:
    return [token_id for token_id in ids if token_id in tokenizer.added_tokens_decoder]


def _automatic(tokenizer: PreTrainedTokenizerFast, vocab_size: int) -> PadToken:
    ends = end_of_turn_token_ids(tokenizer)
    declared = tokenizer.pad_token
    if declared is not None and tokenizer.pad_token_id not in ends:
        return _token(tokenizer, declared, "the model declares it, and it ends no turn")
    refused = (
        "the model declares none" if declared is None else f"the declared {declared} ends a turn"
    )
    template = tokenizer.chat_template or ""
    named = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token}
    for token_id, added in sorted(tokenizer.added_tokens_decoder.items()):
        token = added.content
        is_free = token not in named and token not in template and token_id not in ends
        if added.special and is_free and token_id < vocab_size and RESERVED.search(token):
            return _token(tokenizer, token, f"{refused}; this one is reserved and unused")
    if tokenizer.unk_token is not None and tokenizer.unk_token_id not in ends:
        return _token(tokenizer, tokenizer.unk_token, f"{refused}; unk takes its place")
    if tokenizer.eos_token is None:
        raise ConfigError(
            "pad_token: the tokenizer has no pad, reserved, unk or eos token.",
            hint="Name a token of its vocabulary.",
        )
    return _token(
        tokenizer,
        tokenizer.eos_token,
        f"{refused}, and nothing else is free; masks come from positions, so the real eos stays "
        "trained",
    )


def _token(tokenizer: PreTrainedTokenizerFast, token: str, because: str) -> PadToken:
    token_id = tokenizer.get_vocab().get(token)
    if token_id is None:
        raise ConfigError(
            f"pad_token: {token!r} is not in the model's vocabulary, and tokens are never added.",
            hint="Take pad_token: auto, unk, eos, or a token that is there.",
        )
    return PadToken(token, token_id, because)
