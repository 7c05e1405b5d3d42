"""An Ollama Modelfile: the GGUF file, the chat template as Ollama writes templates, stop tokens.

After Ollama's `docs/modelfile.md` and `docs/template.md`. Templates there are Go's; one that puts
fixed texts around each turn is found from a few renderings of the model's own, and checked on
others.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Final

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from trimtab.interop.gguf_writing import adds_bos

_SYSTEM: Final = "\u2402system\u2403"
_USER: Final = "\u2402user\u2403"
_ASSISTANT: Final = "\u2402assistant\u2403"
_SAMPLING: Final = ("temperature", "top_p", "top_k", "min_p")


@dataclass(frozen=True, slots=True)
class TurnTexts:
    """What a template writes before and after the text of each role's turns.

    default_system: the system's text where a conversation has none, None where none is added.
    """

    opening: str
    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    default_system: str | None = None

    def rendered(self, turns: list[dict[str, str]]) -> str:
        """The turns, and the beginning of an answer."""
        parts = [self.opening]
        if self.default_system is not None and turns[0]["role"] != "system":
            turns = [{"role": "system", "content": self.default_system}, *turns]
        for turn in turns:
            before, after = {
                "system": self.system,
                "user": self.user,
                "assistant": self.assistant,
            }[turn["role"]]
            parts += [before, turn["content"], after]
        return "".join([*parts, self.assistant[0]])

    def without_beginning(self, text: str) -> TurnTexts:
        """The same, without this text where every conversation begins with it."""
        before, after = self.system
        if self.default_system is not None:
            before = before.removeprefix(text)
        return replace(self, opening=self.opening.removeprefix(text), system=(before, after))


def modelfile(
    gguf_name: str, tokenizer: PreTrainedTokenizerFast, model: PreTrainedModel
) -> tuple[str, tuple[str, ...]]:
    """The Modelfile's text, and sentences on what it does not carry."""
    lines, notes = [f"FROM ./{gguf_name}", ""], []
    texts = turn_texts(tokenizer)
    if texts is not None:
        if adds_bos(tokenizer):
            # Ollama adds the token to every prompt, also to one that begins with it.
            texts = texts.without_beginning(str(tokenizer.bos_token))
        lines += [f'TEMPLATE """{_go_template(texts)}"""', ""]
        if texts.default_system is not None:
            lines += [f'SYSTEM """{texts.default_system}"""', ""]
    elif tokenizer.chat_template is not None:
        notes.append(
            "The chat template does more than put texts around turns, so the Modelfile has none; "
            "Ollama looks at the file's own."
        )
    else:
        lines += ['TEMPLATE """{{ .Prompt }}"""', ""]
    for token in _stops(tokenizer, model):
        lines.append(f'PARAMETER stop "{token}"')
    config: Any = model.generation_config
    if config.do_sample:
        for name in _SAMPLING:
            value = getattr(config, name)
            if value is not None:
                lines.append(f"PARAMETER {name} {value}")
    else:
        lines.append("PARAMETER temperature 0")
    positions = model.config.max_position_embeddings
    lines.append(f"PARAMETER num_ctx {positions}")
    return "\n".join(lines) + "\n", tuple(notes)


def turn_texts(tokenizer: PreTrainedTokenizerFast) -> TurnTexts | None:
    """The texts around turns; None where the template does something else too."""
    if tokenizer.chat_template is None:
        return None
    try:
        texts = _found(tokenizer)
    except Exception:  # templates raise what they like for turns that they do not take
        return None
    conversations = [
        [{"role": "user", "content": "a b"}],
        [{"role": "system", "content": "c"}, {"role": "user", "content": "d"}],
        [
            {"role": "system", "content": "c"},
            {"role": "user", "content": "e"},
            {"role": "assistant", "content": "f"},
            {"role": "user", "content": "g"},
        ],
    ]
    same = all(_rendered(tokenizer, turns) == texts.rendered(turns) for turns in conversations)
    return texts if same else None


def _found(tokenizer: PreTrainedTokenizerFast) -> TurnTexts:
    """By what renderings of marked turns have in common."""
    system = {"role": "system", "content": _SYSTEM}
    user = {"role": "user", "content": _USER}
    assistant = {"role": "assistant", "content": _ASSISTANT}
    alone = _rendered(tokenizer, [user], asks=False)
    begin, user_end = alone.split(_USER)
    answer_begin = _rendered(tokenizer, [user]).removeprefix(alone)
    answer_end = _rendered(tokenizer, [user, assistant], asks=False).split(_ASSISTANT)[1]
    again = _rendered(tokenizer, [user, assistant, user], asks=False).split(_ASSISTANT)[1]
    user_begin = again.split(_USER)[0].removeprefix(answer_end)
    before, rest = _rendered(tokenizer, [system, user], asks=False).split(_SYSTEM)
    system_end = rest.split(_USER)[0].removesuffix(user_begin)
    opening, default_system = begin.removesuffix(user_begin), None
    if opening and not before.startswith(opening):
        default_system = opening.removeprefix(before).removesuffix(system_end)
        opening = ""
    return TurnTexts(
        opening=opening,
        system=(before.removeprefix(opening), system_end),
        user=(user_begin, user_end),
        assistant=(answer_begin, answer_end),
        default_system=default_system,
    )


def _rendered(
    tokenizer: PreTrainedTokenizerFast, turns: list[dict[str, str]], *, asks: bool = True
) -> str:
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=asks))


def _go_template(texts: TurnTexts) -> str:
    """Ollama adds a Modelfile's SYSTEM to the messages where they have no system turn."""
    ends = {"system": texts.system, "user": texts.user, "assistant": texts.assistant}
    branches = " else ".join(
        f'{{{{ if eq .Role "{role}" }}}}{_literal(before)}{{{{ .Content }}}}{_literal(after)}'
        for role, (before, after) in ends.items()
    )
    branches = branches.replace(" else {{ if", "{{ else if")
    return (
        f"{_literal(texts.opening)}{{{{ range .Messages }}}}{branches}{{{{ end }}}}{{{{ end }}}}"
        f"{_literal(texts.assistant[0])}"
    )


def _literal(text: str) -> str:
    """A text as Go's templates and a Modelfile's triple quotes leave it."""
    if "{{" in text or '"""' in text:
        return "{{ " + json.dumps(text) + " }}"
    return text


def _stops(tokenizer: PreTrainedTokenizerFast, model: PreTrainedModel) -> list[str]:
    """Where generation ends: the tokens of the generation config, else eos."""
    ends = model.generation_config.eos_token_id
    ids = ends if isinstance(ends, list) else [tokenizer.eos_token_id if ends is None else ends]
    return [
        str(tokenizer.convert_ids_to_tokens(token_id)) for token_id in ids if token_id is not None
    ]
