"""Which token fills padded positions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from trimtab.errors import ConfigError
from trimtab.models.turn_markers import markers_after_answer

RESERVED: Final = re.compile(
    r"pad|reserved|unused|extra|finetune|dummy|<\|endoftext\|>", re.IGNORECASE
)
"""Names that vocabularies give to tokens which no text is made of."""
END_OF_TURN: Final = re.compile(r"<\|(im_end|eot_id|eot|end)\|>|<end_of_turn>|</s>")
"""Ends of turns that some vocabularies do not declare as special."""


class VocabularyReader(Protocol):
    """What is asked of a tokenizer here; transformers' fast ones and the light one have it."""

    @property
    def bos_token(self) -> str | None: ...
    @property
    def eos_token(self) -> str | None: ...
    @property
    def unk_token(self) -> str | None: ...
    @property
    def pad_token(self) -> str | None: ...
    @property
    def eos_token_id(self) -> int | None: ...
    @property
    def chat_template(self) -> str | dict[str, str] | None: ...
    @property
    def special_tokens_map(self) -> Mapping[str, Any]: ...
    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]: ...
    def get_vocab(self) -> Mapping[str, int]: ...


@dataclass(frozen=True, slots=True)
class PadToken:
    """A token of the vocabulary, and why it was taken."""

    token: str
    token_id: int
    because: str


def choose_pad_token(tokenizer: VocabularyReader, choice: str, vocab_size: int) -> PadToken:
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


def end_of_turn_token_ids(
    tokenizer: VocabularyReader, chat_template: str | None
) -> tuple[int, ...]:
    """eos, and the special tokens that `chat_template` writes behind the assistant's text.

    The template's source is searched, it is never rendered; one that cannot be parsed leaves eos.
    """
    ids = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    if chat_template is not None:
        by_token = {
            added.content: token_id
            for token_id, added in tokenizer.added_tokens_decoder.items()
            if added.special or END_OF_TURN.fullmatch(added.content)
        }
        variables = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
        ends = markers_after_answer(chat_template, by_token, variables)
        ids += sorted(by_token[token] for token in ends if token != tokenizer.bos_token)
    return tuple(dict.fromkeys(ids))


def _automatic(tokenizer: VocabularyReader, vocab_size: int) -> PadToken:
    declared = tokenizer.pad_token
    if declared is not None and _is_free(tokenizer, declared):
        return _token(tokenizer, declared, "the model declares it, and it ends no turn")
    refused = (
        "the model declares none" if declared is None else f"the declared {declared} marks a turn"
    )
    for token_id, added in sorted(tokenizer.added_tokens_decoder.items()):
        token = added.content
        is_reserved = added.special and RESERVED.search(token) and token_id < vocab_size
        if is_reserved and token != tokenizer.unk_token and _is_free(tokenizer, token):
            return _token(tokenizer, token, f"{refused}; this one is reserved and unused")
    if tokenizer.unk_token is not None and _is_free(tokenizer, tokenizer.unk_token):
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


def _is_free(tokenizer: VocabularyReader, token: str) -> bool:
    """Nothing in a conversation: not bos, not eos, not a mark that the template writes.

    The template is searched, not rendered: this comes before anything has limited it.
    """
    templates = tokenizer.chat_template or ""
    texts = templates.values() if isinstance(templates, dict) else [templates]
    return token not in {tokenizer.bos_token, tokenizer.eos_token} and not any(
        token in text for text in texts
    )


def _token(tokenizer: VocabularyReader, token: str, because: str) -> PadToken:
    token_id = tokenizer.get_vocab().get(token)
    if token_id is None:
        raise ConfigError(
            f"pad_token: {token!r} is not in the model's vocabulary, and tokens are never added.",
            hint="Take pad_token: auto, unk, eos, or a token that is there.",
        )
    return PadToken(token, token_id, because)
